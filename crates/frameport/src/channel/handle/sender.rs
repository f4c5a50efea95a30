//! The sending side: see [`super`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_wire::control::Delivery;
use frameport_wire::spec::Spec;

use super::{Way, lead};
use crate::channel::ledger::Counts;
use crate::channel::lives::Lives;
use crate::channel::port::SendPort;
use crate::channel::send::{SendCounts, SendEnd};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::holders::SlotHolder;

/// The sending end of a channel.
#[derive(Clone, Debug)]
pub struct Sender(Way<SendEnd, SendPort>);

impl Sender {
    pub(crate) fn new(end: &Arc<SendEnd>) -> Self {
        Self(Way::End(Arc::clone(end)))
    }

    /// Those of a worker over all its lives.
    pub(crate) fn all_of(lives: &Arc<Lives>) -> impl Iterator<Item = Self> {
        lives.senders.iter().map(|port| Self(Way::Lives(Arc::clone(lives), Arc::clone(port))))
    }

    /// The end of a channel whose worker has one life.
    pub(crate) fn only_end(&self) -> Option<&Arc<SendEnd>> {
        match &self.0 {
            Way::End(end) => Some(end),
            Way::Lives(..) => None,
        }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        lead!(self, end => end.name(), (_, port) => &port.name)
    }

    /// What travels now: what a slot that is loaned next is to become.
    #[must_use]
    pub fn spec(&self) -> Spec {
        lead!(self, end => end.pool().spec.clone(), (_, port) => port.end().pool().spec.clone())
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
        self.change_spec_until(spec, self.deadline().map_or_else(Until::forever, Until::after))
    }

    /// [`change_spec`](Self::change_spec), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`change_spec`](Self::change_spec), and [`Error::Interrupted`].
    pub fn change_spec_until(&self, spec: impl Into<Spec>, mut until: Until<'_>) -> Result<(), Error> {
        let spec = spec.into();
        lead!(self, end => end.state.change(end.channel(), &spec, &mut until), (lives, port) => {
            lives.change(&mut until, |until| {
                let end = port.end();
                end.state.change(end.channel(), &spec, until)
            })
        })
    }

    /// What happens when the receiver is slower.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        lead!(self, end => end.delivery(), (_, port) => port.delivery)
    }

    /// A slot to fill. On a lossless channel it waits for one, a host up to the builder's `send_deadline`, a worker until
    /// its host closes; on a live one it takes that of the oldest frame nobody has received, or fails at once.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] names who has the slots; [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.loan_until(self.deadline().map_or_else(Until::forever, Until::after))
    }

    /// A slot to fill, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::Interrupted`].
    pub fn loan_until(&self, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.loan_answering(None, &mut until)
    }

    /// A slot to fill, if one is free now.
    ///
    /// # Errors
    /// As [`loan`](Self::loan).
    pub fn try_loan(&self) -> Result<FrameMut, Error> {
        let none = || {
            lead!(self, end => end.exhausted(Duration::ZERO), (lives, port) => {
                lives.exhausted(port, Duration::ZERO)
            })
        };
        self.loan_if_free()?.ok_or_else(none)
    }

    /// A slot to fill, if one is free now; that none is counts as no failure.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.try_loan_answering(None)
    }

    /// [`loan_if_free`](Self::loan_if_free) for an answer to a frame of that pool ([`Frame::pool_id`](crate::Frame::pool_id)):
    /// where the spec has changed since that frame was sent, the slot is of the spec that went with it.
    ///
    /// # Errors
    /// As [`loan_if_free`](Self::loan_if_free).
    pub fn loan_for_if_free(&self, pool: u32) -> Result<Option<FrameMut>, Error> {
        self.try_loan_answering(Some(pool))
    }

    /// [`loan_for_if_free`](Self::loan_for_if_free), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan_until`](Self::loan_until).
    pub fn loan_for_until(&self, pool: u32, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.loan_answering(Some(pool), &mut until)
    }

    // Only a worker answers frames, and it has one life.

    fn loan_answering(&self, answers: Option<u32>, until: &mut Until<'_>) -> Result<FrameMut, Error> {
        lead!(self, end => {
            end.state.touch();
            end.loan(answers, until)
        }, (lives, port) => lives.loan(port, until))
    }

    fn try_loan_answering(&self, answers: Option<u32>) -> Result<Option<FrameMut>, Error> {
        lead!(self, end => {
            end.state.touch();
            let found = end.try_loan(answers);
            if matches!(found, Ok(None)) && end.state.arm(end.bit()) {
                // It may have come back before the event was armed.
                return end.try_loan(answers);
            }
            found
        }, (lives, port) => lives.try_loan(port))
    }

    /// The link's descriptor for event loops, as [`Receiver::event`](crate::Receiver::event): also readable when a slot may be free after a
    /// [`loan_if_free`](Self::loan_if_free) that found none.
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        lead!(self, end => Ok(end.state.event()?.as_fd()), (lives, _) => Ok(lives.event()?.as_fd()))
    }

    /// Sends a filled slot and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`], [`Error::MetaTooLong`], and [`Error::Format`] for a slot of another
    /// channel. The frame is gone either way, its slot free again.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        lead!(self, end => end.send(frame), (lives, port) => lives.send(port, frame))
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
        let is_own = lead!(self, end => {
            end.state.check_fork()?;
            frame.is_of_link(&end.state)
        }, (lives, _) => {
            lives.check_fork()?;
            frame.is_of_lives(lives)
        });
        if !is_own {
            return Err(Error::Format { what: "this frame came from another link".to_owned() });
        }
        // Only a worker sends in place, and it has one life.
        let in_place = self.only_end().filter(|end| frame.returns_on(end.channel()) && !frame.is_viewed());
        let Some(end) = in_place else {
            return self.send_copy(&frame, until);
        };
        end.state.check()?;
        // While the frame still is one: on an error its slot is released.
        end.check_meta(&frame)?;
        match frame.into_parts() {
            Some((source, descriptor, meta)) => end.send_back(&source.pool, descriptor, &meta),
            None => Ok(()),
        }
    }

    fn send_copy(&self, frame: &Frame, until: Until<'_>) -> Result<(), Error> {
        let mut reply = self.reply_until(frame, until)?;
        if !frame.spec().same_values(reply.spec()) {
            let (input, output) = (frame.spec(), reply.spec());
            let what =
                format!("a frame of {input} cannot go back in place on a channel of {output}: fill a reply instead");
            return Err(Error::Format { what });
        }
        if let Spec::Bytes(_) = reply.spec() {
            reply.set_len(frame.payload().len())?;
        }
        // The same values have room in it.
        let _ = reply.copy_from(frame);
        reply.set_meta_bytes(frame.own_meta());
        lead!(self, end => end.count_copy(), (_, port) => port.end().count_copy());
        self.send(reply).map(|_| ())
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
        let in_place = |end: &Arc<SendEnd>| frame.is_of_link(&end.state) && frame.returns_on(end.channel());
        self.only_end().is_some_and(in_place)
    }

    /// Whether both belong to the same link.
    #[must_use]
    pub fn same_link(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Way::End(end), Way::End(other)) => Arc::ptr_eq(&end.state, &other.state),
            (Way::Lives(lives, _), Way::Lives(other, _)) => Arc::ptr_eq(lives, other),
            _ => false,
        }
    }

    /// How long [`loan`](Self::loan) waits on a lossless channel; `None` for ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        lead!(self, end => end.deadline(), (_, port) => port.deadline)
    }

    /// Says that no frame will follow: the receiver goes on to the last one sent, and is told then.
    pub fn finish(&self) {
        lead!(self, end => end.close(), (lives, port) => lives.close(port));
    }

    /// Who has which slot of the channel's pool now.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        lead!(self, end => end.holders(), (lives, port) => {
            if lives.forked() { Vec::new() } else { port.end().holders() }
        })
    }

    /// This end's counters.
    #[must_use]
    pub fn stats(&self) -> SendStats {
        lead!(self, end => SendStats::of(Counts::default(), end.counts(), end.copied()), (lives, port) => {
            if lives.forked() { SendStats::default() } else { port.stats() }
        })
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
    pub(in crate::channel) fn of(past: Counts, now: SendCounts, copied: u64) -> Self {
        let Counts { sent, received, retracted, lost, .. } = past + now.slots;
        Self { sent, received, retracted, lost, no_slot: now.no_slot, refused: now.refused, copied }
    }

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
