//! What an application holds of a channel: a [`Sender`] or a [`Receiver`].
//!
//! *Who calls it*: applications, by name or through [`crate::Worker`] and [`crate::Link`], whose own methods are those of
//! their first channel in each direction. *Invariants*: both are cheap to clone and may be used from any thread; they keep
//! memory alive, but not the link: with the worker stopped or the link closed, every call says so. *A hostile peer* is the
//! ends' matter.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_wire::control::Delivery;
use frameport_wire::spec::Spec;

use super::recv::RecvEnd;
use super::send::{SendCounts, SendEnd};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::holders::SlotHolder;

/// The sending end of a channel.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(crate) end: Arc<SendEnd>,
}

impl Sender {
    pub(crate) fn new(end: &Arc<SendEnd>) -> Self {
        Self { end: Arc::clone(end) }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.end.name()
    }

    /// What travels now: what a slot that is loaned next is to become.
    #[must_use]
    pub fn spec(&self) -> Spec {
        self.end.pool().spec.clone()
    }

    /// Sends frames of another spec from now on: a new pool, beside which the old one stays until its last frame is home. What
    /// was sent before arrives as what it is ([`Frame::spec`](crate::Frame::spec)), in order. A slot of the new pool is to be
    /// had when the other side has it, as soon as it is awake; a change before the one before the last is over waits for
    /// that, as [`loan`](Self::loan) waits for a slot.
    ///
    /// A worker asks its host, which grants it within the builder's
    /// [`output_limit`](crate::WorkerBuilder::output_limit), and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Memory`], [`Error::Config`] for an audience's frames or what the host does not grant;
    /// [`Error::PoolExhausted`] names who has slots of the pool before the last; [`Error::WorkerDied`],
    /// [`Error::LinkClosed`].
    pub fn change_spec(&self, spec: impl Into<Spec>) -> Result<(), Error> {
        self.change_spec_until(spec, self.end.deadline().map_or_else(Until::forever, Until::after))
    }

    /// [`change_spec`](Self::change_spec), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`change_spec`](Self::change_spec), and [`Error::Interrupted`].
    pub fn change_spec_until(&self, spec: impl Into<Spec>, mut until: Until<'_>) -> Result<(), Error> {
        self.end.state.change(self.end.channel(), &spec.into(), &mut until)
    }

    /// What happens when the receiver is slower.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.end.delivery()
    }

    /// A slot to fill. On a lossless channel it waits for one, a host up to the builder's `send_deadline`, a worker until
    /// its host closes; on a live one it takes that of the oldest frame nobody has received, or fails at once.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] names who has the slots; [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.loan_until(self.end.deadline().map_or_else(Until::forever, Until::after))
    }

    /// A slot to fill, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::Interrupted`].
    pub fn loan_until(&self, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.end.state.touch();
        self.end.loan(None, &mut until)
    }

    /// A slot to fill, if one is free now.
    ///
    /// # Errors
    /// As [`loan`](Self::loan).
    pub fn try_loan(&self) -> Result<FrameMut, Error> {
        self.loan_if_free()?.ok_or_else(|| self.end.exhausted(Duration::ZERO))
    }

    /// A slot to fill, if one is free now; that none is counts as no failure.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.try_loan_for(None)
    }

    /// [`loan_if_free`](Self::loan_if_free) for an answer to a frame of that pool ([`Frame::pool_id`](crate::Frame::pool_id)):
    /// where the spec has changed since that frame was sent, the slot is of the spec that went with it.
    ///
    /// # Errors
    /// As [`loan_if_free`](Self::loan_if_free).
    pub fn loan_for_if_free(&self, pool: u32) -> Result<Option<FrameMut>, Error> {
        self.try_loan_for(Some(pool))
    }

    /// [`loan_for_if_free`](Self::loan_for_if_free), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan_until`](Self::loan_until).
    pub fn loan_for_until(&self, pool: u32, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.end.state.touch();
        self.end.loan(Some(pool), &mut until)
    }

    fn try_loan_for(&self, answers: Option<u32>) -> Result<Option<FrameMut>, Error> {
        self.end.state.touch();
        let found = self.end.try_loan(answers);
        if matches!(found, Ok(None)) && self.end.state.arm(self.end.bit()) {
            // It may have come back before the event was armed.
            return self.end.try_loan(answers);
        }
        found
    }

    /// The link's descriptor for event loops, as [`Receiver::event`]: also readable when a slot may be free after a
    /// [`loan_if_free`](Self::loan_if_free) that found none.
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.end.state.event()?.as_fd())
    }

    /// Sends a filled slot and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`], [`Error::MetaTooLong`], and [`Error::Format`] for a slot of another
    /// channel. The frame is gone either way, its slot free again.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.end.send(frame)
    }

    /// A slot that carries the sequence number and times of `frame`, as [`loan_until`](Self::loan_until). Where the spec has
    /// changed since that frame was sent, it is of the one that went with it.
    ///
    /// # Errors
    /// As [`loan_until`](Self::loan_until).
    pub fn reply_until(&self, frame: &Frame, until: Until<'_>) -> Result<FrameMut, Error> {
        let mut reply = self.loan_for_until(frame.pool_id(), until)?;
        reply.stamp = frame.stamp();
        Ok(reply)
    }

    /// Sends the very slot of `frame` back, edited in place, without copying a byte. Its pixels must not change hands while
    /// a view of it is alive ([`Frame::is_viewed`]), nor on a live channel, where the answer may be taken back: the frame is
    /// then copied into this channel's own pool, and counted. Waits for a slot until `until` gives up, should it have to.
    ///
    /// # Errors
    /// [`Error::Format`] when what came in is not what goes out here; [`Error::LinkClosed`]; as
    /// [`loan_until`](Self::loan_until).
    pub fn send_back_until(&self, frame: Frame, until: Until<'_>) -> Result<(), Error> {
        let end = &self.end;
        end.state.check_fork()?;
        if !frame.is_of_link(&end.state) {
            return Err(Error::Format { what: "this frame came from another link".to_owned() });
        }
        let in_place = end.in_place(frame.pool_id());
        let Some(pool) = in_place.filter(|_| !frame.is_viewed()) else {
            return self.send_copy(&frame, until);
        };
        end.state.check()?;
        // While the frame still is one: on an error its slot is released.
        end.check_meta(&frame)?;
        match frame.into_parts() {
            Some((descriptor, meta)) => end.send_back(&pool, descriptor, &meta),
            None => Ok(()),
        }
    }

    fn send_copy(&self, frame: &Frame, until: Until<'_>) -> Result<(), Error> {
        let mut reply = self.reply_until(frame, until)?;
        if !frame.spec().same_memory(reply.spec()) {
            let (input, output) = (frame.spec(), reply.spec());
            let what =
                format!("a frame of {input} cannot go back in place on a channel of {output}: fill a reply instead");
            return Err(Error::Format { what });
        }
        let payload = frame.payload();
        reply.set_len(payload.len())?;
        // The same memory has room for it.
        let _ = reply.payload().copy_from_bytes(payload);
        reply.set_meta_bytes(frame.own_meta());
        self.end.count_copy();
        self.end.send(reply).map(|_| ())
    }

    /// Sends the very slot of `frame` back, waiting for one of this channel's own should it have to copy.
    ///
    /// # Errors
    /// As [`send_back_until`](Self::send_back_until).
    pub fn send_back(&self, frame: Frame) -> Result<(), Error> {
        self.send_back_until(frame, Until::forever())
    }

    /// Whether a frame's own slot can go back here.
    #[must_use]
    pub fn returns(&self, frame: &Frame) -> bool {
        frame.is_of_link(&self.end.state) && self.end.in_place(frame.pool_id()).is_some()
    }

    /// Whether both belong to the same link.
    #[must_use]
    pub fn same_link(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.end.state, &other.end.state)
    }

    /// How long [`loan`](Self::loan) waits on a lossless channel; `None` for ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.end.deadline()
    }

    /// Says that no frame will follow: the receiver goes on to the last one sent, and is told then.
    pub fn finish(&self) {
        self.end.close();
    }

    /// Who has which slot of the channel's pool now.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        self.end.holders()
    }

    /// This end's counters.
    #[must_use]
    pub fn stats(&self) -> SendStats {
        let SendCounts { slots, lost, no_slot, refused } = self.end.counts();
        SendStats {
            sent: slots.sent,
            received: slots.received,
            retracted: slots.retracted,
            lost,
            no_slot,
            refused,
            copied: self.end.copied(),
        }
    }
}

/// The receiving end of a channel.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub(crate) end: Arc<RecvEnd>,
}

impl Receiver {
    pub(crate) fn new(end: &Arc<RecvEnd>) -> Self {
        Self { end: Arc::clone(end) }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.end.name()
    }

    /// What travels now, but for replies in place, which are what they were sent as. A frame's own
    /// [`spec`](crate::Frame::spec) tells what it is.
    ///
    /// # Panics
    /// Never: an end has the pool of its newest spec.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a pool goes when there is a newer one")]
    pub fn spec(&self) -> Spec {
        self.end.pools().pop().expect("the pool of the newest spec").spec.clone()
    }

    /// Has the worker send frames of another spec from now on, those it answers older ones with aside: see
    /// [`Sender::change_spec`].
    ///
    /// # Errors
    /// As [`Sender::change_spec`]; [`Error::Config`] at a worker, whose host decides what it sends.
    pub fn change_spec_until(&self, spec: impl Into<Spec>, mut until: Until<'_>) -> Result<(), Error> {
        self.end.state.change(self.end.channel(), &spec.into(), &mut until)
    }

    /// What happens when this side is slower.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.end.delivery()
    }

    /// The next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the other side has finished: leave the loop; [`Error::WorkerDied`],
    /// [`Error::Violation`].
    pub fn recv(&self) -> Result<Frame, Error> {
        self.recv_until(Until::forever())
    }

    /// The next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.recv_until(Until::after(limit))
    }

    /// The next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, mut until: Until<'_>) -> Result<Frame, Error> {
        self.end.state.touch();
        self.end.recv(&mut until)
    }

    /// The next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        let state = &self.end.state;
        state.touch();
        let found = self.end.try_recv();
        // For those who wait in an event loop; nobody else pays for it.
        match found {
            Ok(None) => {
                state.arm(self.end.bit());
            }
            _ => state.disarm(),
        }
        found
    }

    /// Whether a receive would not wait: a frame is there, or none will come any more.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.end.state.touch();
        self.end.is_ready()
    }

    /// The link's descriptor for event loops: level-triggered, readable while a [`try_recv`](Self::try_recv) of one of its
    /// channels may find something or fail. A frame is announced only after a `try_recv` of its channel that found none, so
    /// call that of every channel you care for until then. Only poll it: it is not to be read.
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        self.end.state.touch();
        Ok(self.end.state.event()?.as_fd())
    }

    /// The received frames not released here, with the views that keep them.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        self.end.holders()
    }

    /// This end's counters.
    #[must_use]
    pub fn stats(&self) -> RecvStats {
        let (received, skipped) = self.end.counts();
        RecvStats { received, skipped, held: self.end.held() as u64 }
    }
}

/// Counters of a sending end. At every moment `offered() = received + retracted + no_slot + refused + lost + in_flight()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendStats {
    /// Frames sent.
    pub sent: u64,
    /// Of those, the ones the other side took.
    pub received: u64,
    /// Of those, the ones taken back before that, on a live channel.
    pub retracted: u64,
    /// Of those, the ones the other side died before taking.
    pub lost: u64,
    /// Loans that found no slot in time.
    pub no_slot: u64,
    /// Filled slots that were not sent, for the link was closed, the metadata too long or the like.
    pub refused: u64,
    /// Replies in place that had to be copied.
    pub copied: u64,
}

impl SendStats {
    /// Frames the application wanted to send.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.sent.saturating_add(self.no_slot).saturating_add(self.refused)
    }

    /// Frames on their way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.received).saturating_sub(self.retracted).saturating_sub(self.lost)
    }
}

/// Counters of a receiving end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvStats {
    /// Frames received.
    pub received: u64,
    /// Frames of a live channel that the sender took back before this side came to them.
    pub skipped: u64,
    /// Frames in this side's hands.
    pub held: u64,
}
