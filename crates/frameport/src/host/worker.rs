//! A running worker, as its host's application holds it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::{Ended, Look, Until};
use frameport_sys::isolation::Level;
use frameport_sys::process::{Exit, Signal};
use frameport_wire::control::{self, ToWorker};
use frameport_wire::spec::Spec;

use super::builder::WorkerBuilder;
use super::params::Params;
use super::supervised::Supervised;
use crate::channel::handle::{Receiver, Sender};
use crate::channel::state::End;
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::holders::SlotHolder;
use crate::link::Ends;

/// A process this one started, and the frames that travel to it and back.
///
/// May be used from any thread. Dropping it stops the worker: see [`stop`](Self::stop).
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Supervised>,
    level: Level,
    grace: Duration,
    input: Option<Sender>,
    output: Option<Receiver>,
}

impl Worker {
    /// Begins to describe a worker: the program, found on PATH unless it is a path.
    #[must_use]
    pub fn command(program: impl AsRef<OsStr>) -> WorkerBuilder {
        WorkerBuilder::new(program.as_ref())
    }

    pub(super) fn new(inner: Arc<Supervised>, level: Level, grace: Duration) -> Self {
        let ends = inner.ends.get_or_init(Ends::default);
        let (input, output) = (ends.sender(None), ends.receiver(None));
        Self { inner, level, grace, input, output }
    }

    /// The sending end of the channel `name`.
    ///
    /// # Errors
    /// [`Error::Config`] names the channels there are.
    pub fn sender(&self, name: &str) -> Result<Sender, Error> {
        let ends = self.inner.ends.get_or_init(Ends::default);
        ends.sender(Some(name)).ok_or_else(|| ends.missing(self.name(), "outgoing", name))
    }

    /// The receiving end of the channel `name`.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn receiver(&self, name: &str) -> Result<Receiver, Error> {
        let ends = self.inner.ends.get_or_init(Ends::default);
        ends.receiver(Some(name)).ok_or_else(|| ends.missing(self.name(), "incoming", name))
    }

    /// All sending ends, in the order of the channels.
    pub fn senders(&self) -> impl Iterator<Item = Sender> {
        self.inner.ends.get_or_init(Ends::default).send.iter().map(Sender::new)
    }

    /// All receiving ends, in the order of the channels.
    pub fn receivers(&self) -> impl Iterator<Item = Receiver> {
        self.inner.ends.get_or_init(Ends::default).recv.iter().map(Receiver::new)
    }

    /// The descriptor for event loops of all channels: see [`Receiver::event`].
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.inner.state.event()?.as_fd())
    }

    /// The first channel to the worker.
    fn input(&self) -> Result<&Sender, Error> {
        self.input.as_ref().ok_or_else(|| {
            Error::config(format!("worker '{}' has no input channel: add one with input()", self.name()))
        })
    }

    /// The first channel from the worker.
    fn output(&self) -> Result<&Receiver, Error> {
        self.output.as_ref().ok_or_else(|| {
            Error::config(format!("worker '{}' has no output channel: add one with output()", self.name()))
        })
    }

    /// A slot to fill: see [`Sender::loan`].
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] names who has the slots; [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.input()?.loan()
    }

    /// A slot to fill, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::Interrupted`].
    pub fn loan_until(&self, until: Until<'_>) -> Result<FrameMut, Error> {
        self.input()?.loan_until(until)
    }

    /// A slot to fill, if one is free now.
    ///
    /// # Errors
    /// As [`loan`](Self::loan).
    pub fn try_loan(&self) -> Result<FrameMut, Error> {
        self.input()?.try_loan()
    }

    /// A slot to fill, if one is free now; that none is counts as no failure.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.input()?.loan_if_free()
    }

    /// Sends a filled slot, over the channel it was loaned from, and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`], [`Error::MetaTooLong`], and [`Error::Format`] for a frame of another
    /// worker. The frame is gone either way, its slot free again.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.inner.ends.get_or_init(Ends::default).send_out(&self.inner.state, frame)
    }

    /// The worker's next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the worker has finished; [`Error::WorkerDied`], [`Error::Violation`].
    pub fn recv(&self) -> Result<Frame, Error> {
        self.output()?.recv()
    }

    /// The worker's next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.output()?.recv_timeout(limit)
    }

    /// The worker's next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, until: Until<'_>) -> Result<Frame, Error> {
        self.output()?.recv_until(until)
    }

    /// The worker's next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        self.output()?.try_recv()
    }

    /// Sends frames of another spec from now on, on the first channel, and has the worker answer them in kind where it answered
    /// in kind before: channels back from it that had the same spec get the new one too. See
    /// [`Sender::change_spec`](crate::Sender::change_spec), which changes one channel.
    ///
    /// # Errors
    /// As [`Sender::change_spec`](crate::Sender::change_spec).
    pub fn change_spec(&self, spec: impl Into<Spec>) -> Result<(), Error> {
        self.change_spec_until(spec, self.input()?.deadline().map_or_else(Until::forever, Until::after))
    }

    /// [`change_spec`](Self::change_spec), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`change_spec`](Self::change_spec), and [`Error::Interrupted`].
    pub fn change_spec_until(&self, spec: impl Into<Spec>, mut until: Until<'_>) -> Result<(), Error> {
        self.inner.state.check_fork()?;
        self.inner.state.check()?;
        self.inner.change_first(&spec.into(), &mut until)
    }

    /// Small values the worker sees with the next frame it takes.
    #[must_use]
    pub fn params(&self) -> Params<'_> {
        Params::new(&self.inner)
    }

    /// For a [`crate::Group`]: waits until `look` finds something, and looks when a frame or a slot comes and at
    /// [`wake`](Self::wake).
    pub(crate) fn watch<T>(
        &self,
        until: &mut Until<'_>,
        look: impl FnMut() -> Result<Look<T>, Error>,
    ) -> Result<Result<T, Ended>, Error> {
        self.output()?.end.watch(self.input()?.end.bit(), until, look)
    }

    /// Makes every wait of this side look again.
    pub(crate) fn wake(&self) {
        self.inner.state.wake();
    }

    /// A number that grows whenever a slot comes back.
    pub(crate) fn came_back(&self) -> Result<u64, Error> {
        self.input()?.end.came_back()
    }

    /// How many frames the worker has taken, and whether it waits for another.
    pub(crate) fn demand(&self) -> Result<(u64, bool), Error> {
        self.input()?.end.demand()
    }

    /// Whether the frame sent in `slot` at `generation` is still out: neither let go of nor sent back in place.
    pub(crate) fn is_out(&self, slot: u32, generation: u64) -> bool {
        self.input.as_ref().is_some_and(|input| input.end.is_out(slot, generation))
    }

    /// Whether `frame` was loaned here.
    pub(crate) fn lent(&self, frame: &FrameMut) -> bool {
        self.input.as_ref().is_some_and(|input| frame.home.lot_of(&input.end).is_some())
    }

    /// Says that no frame will follow: the worker's loop ends when it has taken those sent before, and [`recv`](Self::recv)
    /// goes on until the worker has sent its last.
    pub fn finish(&self) {
        self.inner.ends.get().into_iter().flat_map(|ends| &ends.send).for_each(|end| end.close());
    }

    /// Ends the worker now: its waits end, then it has the builder's `grace` to leave, SIGTERM and as long again, then
    /// SIGKILL for its whole process group. Returns when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn stop(&self) -> Result<Exit, Error> {
        self.inner.state.check_fork()?;
        self.finish();
        if let Ok(close) = control::encode(&ToWorker::Close) {
            self.inner.outbox.close(&self.inner.control, close);
        }
        let mut steps = [Signal::TERM, Signal::KILL].into_iter();
        let mut limit = self.grace;
        let exit = loop {
            let ended = self.inner.wait(&mut Until::after(limit), |progress| progress.exit.is_some());
            match (ended.ok().and_then(|progress| progress.exit), steps.next()) {
                (Some(exit), _) => break exit,
                (None, Some(signal)) => self.inner.signal(signal),
                // A process that survives SIGKILL waits in the kernel; there is nothing more to do about it.
                (None, None) => break Exit::Unknown,
            }
            limit = self.grace.max(Duration::from_millis(500));
        };
        self.inner.state.finish(End::Closed);
        self.inner.settle();
        super::forward::flush();
        Ok(exit)
    }

    /// Waits until the worker has left by itself, as it does after [`finish`](Self::finish); `None` when `limit` passes first.
    #[must_use]
    pub fn wait_exit(&self, limit: Duration) -> Option<Exit> {
        self.inner.wait(&mut Until::after(limit), |progress| progress.exit.is_some()).ok()?.exit
    }

    /// Kills the worker and all it started, now.
    pub fn kill(&self) {
        self.inner.kill();
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.state.name()
    }

    /// The process this host started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// What goes to the worker on the first channel.
    #[must_use]
    pub fn input_spec(&self) -> Option<Spec> {
        self.input.as_ref().map(Sender::spec)
    }

    /// What comes back on the first channel: as asked for, or as the worker stated.
    #[must_use]
    pub fn output_spec(&self) -> Option<Spec> {
        self.output.as_ref().map(Receiver::spec)
    }

    /// How far the worker is kept from other processes.
    #[must_use]
    pub fn isolation(&self) -> Level {
        self.level
    }

    /// The end of what the worker wrote to stdout and stderr, 64 KiB at most.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        self.inner.stderr_tail()
    }

    /// Who has which slot now, of all channels: those of the pools that this side fills, then the received frames not
    /// released here, with the views that keep them.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        self.inner.ends.get().map(Ends::holders).unwrap_or_default()
    }

    /// The link's counters, those of all its channels together; [`Sender::stats`] and [`Receiver::stats`] tell them apart.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ends = self.inner.ends.get();
        let mut all = Stats::default();
        for sent in ends.into_iter().flat_map(|ends| &ends.send).map(|end| Sender::new(end).stats()) {
            all.offered += sent.offered();
            all.sent += sent.sent;
            all.received += sent.received;
            all.retracted += sent.retracted;
            all.lost += sent.lost;
            all.in_flight += sent.in_flight();
            all.no_slot += sent.no_slot;
            all.refused += sent.refused;
        }
        for received in ends.into_iter().flat_map(|ends| &ends.recv).map(|end| Receiver::new(end).stats()) {
            all.results += received.received;
            all.skipped += received.skipped;
            all.held += received.held;
        }
        all
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The error is that of a forked child, which must leave the worker alone.
        let _ = self.stop();
    }
}

/// Counters of one link. At every moment `offered = received + retracted + no_slot + refused + lost + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that were to be sent to the worker.
    pub offered: u64,
    /// Of those, the ones sent.
    pub sent: u64,
    /// Of the sent ones, those it took.
    pub received: u64,
    /// Of the sent ones, those taken back before it took them, on live channels.
    pub retracted: u64,
    /// Of the sent ones, those it died before taking.
    pub lost: u64,
    /// Of the sent ones, those still on their way.
    pub in_flight: u64,
    /// Loans that found no slot in time.
    pub no_slot: u64,
    /// Filled slots that were not sent, for the link was closed, the metadata too long or the like.
    pub refused: u64,
    /// Frames received from the worker.
    pub results: u64,
    /// Frames that the worker took back before this side came to them, on live channels.
    pub skipped: u64,
    /// Frames of the worker's in this side's hands.
    pub held: u64,
}
