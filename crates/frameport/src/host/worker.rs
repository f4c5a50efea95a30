//! A running worker, as its host's application holds it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::{Ended, Look, Until};
use frameport_sys::isolation::Level;
use frameport_sys::process::Exit;
use frameport_wire::spec::Spec;

use super::bring_up::{self, Life, Line};
use super::builder::WorkerBuilder;
use super::params::{Parameters, Params};
use super::restart::Keeper;
use super::stall;
use super::supervised::Supervised;
use crate::channel::handle::{Receiver, Sender};
use crate::channel::recv::RecvEnd;
use crate::channel::send::SendEnd;
use crate::channel::state::End;
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::holders::{Holder, SlotHolder};
use crate::link::Ends;

/// A process this one started, and the frames that travel to it and back.
///
/// May be used from any thread. Dropping it stops the worker: see [`stop`](Self::stop).
#[derive(Debug)]
pub struct Worker {
    process: Process,
    params: Arc<Parameters>,
    level: Level,
    grace: Duration,
    input: Option<Sender>,
    output: Option<Receiver>,
}

/// The process, or one after another.
#[derive(Debug)]
enum Process {
    Once(Arc<Supervised>),
    Again(Arc<Keeper>),
}

impl Worker {
    /// Begins to describe a worker: the program, found on PATH unless it is a path.
    #[must_use]
    pub fn command(program: impl AsRef<OsStr>) -> WorkerBuilder {
        WorkerBuilder::new(program.as_ref())
    }

    pub(super) fn new(builder: WorkerBuilder, line: Line, life: Life) -> Result<Self, Error> {
        let (grace, level) = (builder.grace, life.level);
        let params = Arc::clone(&line.params);
        let process = match builder.restart {
            Some(policy) => Process::Again(Keeper::start(builder, policy, line, life)?),
            None => {
                let watched = builder.stall.map_or(Ok(()), |policy| stall::watch(&life.worker, policy));
                watched.inspect_err(|_| bring_up::end_start(&life.worker))?;
                Process::Once(life.worker)
            }
        };
        let mut worker = Self { process, params, level, grace, input: None, output: None };
        (worker.input, worker.output) = (worker.senders().next(), worker.receivers().next());
        Ok(worker)
    }

    /// The process there is now; where it is started again after a death, the newest that became ready.
    fn now(&self) -> Arc<Supervised> {
        match &self.process {
            Process::Once(worker) => Arc::clone(worker),
            Process::Again(keeper) => keeper.now(),
        }
    }

    fn check_fork(&self) -> Result<(), Error> {
        match &self.process {
            Process::Once(worker) => worker.state.check_fork(),
            Process::Again(keeper) => keeper.lives.check_fork(),
        }
    }

    /// The sending end of the channel `name`.
    ///
    /// # Errors
    /// [`Error::Config`] names the channels there are.
    pub fn sender(&self, name: &str) -> Result<Sender, Error> {
        let found = self.senders().find(|sender| sender.name() == name);
        found.ok_or_else(|| self.now().ends.get_or_init(Ends::default).missing(self.name(), "outgoing", name))
    }

    /// The receiving end of the channel `name`.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn receiver(&self, name: &str) -> Result<Receiver, Error> {
        let found = self.receivers().find(|receiver| receiver.name() == name);
        found.ok_or_else(|| self.now().ends.get_or_init(Ends::default).missing(self.name(), "incoming", name))
    }

    /// All sending ends, in the order of the channels.
    pub fn senders(&self) -> impl Iterator<Item = Sender> {
        let (once, again) = match &self.process {
            Process::Once(worker) => (worker.ends.get().map(|ends| ends.send.iter().map(Sender::new)), None),
            Process::Again(keeper) => (None, Some(Sender::all_of(&keeper.lives))),
        };
        once.into_iter().flatten().chain(again.into_iter().flatten())
    }

    /// All receiving ends, in the order of the channels.
    pub fn receivers(&self) -> impl Iterator<Item = Receiver> {
        let (once, again) = match &self.process {
            Process::Once(worker) => (worker.ends.get().map(|ends| ends.recv.iter().map(Receiver::new)), None),
            Process::Again(keeper) => (None, Some(Receiver::all_of(&keeper.lives))),
        };
        once.into_iter().flatten().chain(again.into_iter().flatten())
    }

    /// The descriptor for event loops of all channels: see [`Receiver::event`].
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        match &self.process {
            Process::Once(worker) => Ok(worker.state.event()?.as_fd()),
            Process::Again(keeper) => Ok(keeper.lives.event()?.as_fd()),
        }
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
        match &self.process {
            Process::Once(worker) => worker.ends.get_or_init(Ends::default).send_out(&worker.state, frame),
            Process::Again(keeper) => keeper.lives.send_out(frame),
        }
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
        self.check_fork()?;
        let spec = spec.into();
        let change = |worker: &Supervised, until: &mut Until<'_>| {
            worker.state.check()?;
            worker.change_first(&spec, until)
        };
        match &self.process {
            Process::Once(worker) => change(worker, &mut until),
            Process::Again(keeper) => keeper.lives.change(&mut until, |until| change(&keeper.now(), until)),
        }
    }

    /// Small values the worker sees with the next frame it takes.
    #[must_use]
    pub fn params(&self) -> Params<'_> {
        Params::new(&self.params)
    }

    /// For a [`crate::Group`], whose workers have one life: the end of the first channel to it.
    fn only_input(&self) -> Result<&Arc<SendEnd>, Error> {
        self.input()?.only_end().ok_or_else(|| Error::config("a group's worker has one life"))
    }

    /// The same of the first channel from it.
    fn only_output(&self) -> Result<&Arc<RecvEnd>, Error> {
        self.output()?.only_end().ok_or_else(|| Error::config("a group's worker has one life"))
    }

    /// For a [`crate::Group`]: waits until `look` finds something, and looks when a frame or a slot comes and at
    /// [`wake`](Self::wake).
    pub(crate) fn watch<T>(
        &self,
        until: &mut Until<'_>,
        look: impl FnMut() -> Result<Look<T>, Error>,
    ) -> Result<Result<T, Ended>, Error> {
        self.only_output()?.watch(self.only_input()?.bit(), until, look)
    }

    /// Makes every wait of this side look again.
    pub(crate) fn wake(&self) {
        self.now().state.wake();
    }

    /// A number that grows whenever a slot comes back.
    pub(crate) fn came_back(&self) -> Result<u64, Error> {
        self.only_input()?.came_back()
    }

    /// How many frames the worker has taken, and whether it waits for another.
    pub(crate) fn demand(&self) -> Result<(u64, bool), Error> {
        self.only_input()?.demand()
    }

    /// Whether the frame sent in `slot` at `generation` is still out: neither let go of nor sent back in place.
    pub(crate) fn is_out(&self, slot: u32, generation: u64) -> bool {
        self.only_input().is_ok_and(|end| end.is_out(slot, generation))
    }

    /// Whether `frame` was loaned here.
    pub(crate) fn lent(&self, frame: &FrameMut) -> bool {
        self.only_input().is_ok_and(|end| frame.home.lot_of(end).is_some())
    }

    /// Says that no frame will follow: the worker's loop ends when it has taken those sent before, and [`recv`](Self::recv)
    /// goes on until the worker has sent its last.
    pub fn finish(&self) {
        match &self.process {
            Process::Once(worker) => {
                worker.ends.get().into_iter().flat_map(|ends| &ends.send).for_each(|end| end.close())
            }
            Process::Again(keeper) => keeper.lives.finish(),
        }
    }

    /// Ends the worker now: its waits end, then it has the builder's `grace` to leave, SIGTERM and as long again, then
    /// SIGKILL for its whole process group. Returns when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn stop(&self) -> Result<Exit, Error> {
        self.check_fork()?;
        match &self.process {
            Process::Once(worker) => {
                let exit = worker.end(self.grace);
                worker.state.finish(End::Closed);
                worker.settle(1);
                super::forward::flush();
                Ok(exit)
            }
            Process::Again(keeper) => Ok(keeper.stop(self.grace)),
        }
    }

    /// Waits until the worker has left by itself, as it does after [`finish`](Self::finish), and is not started again; `None`
    /// when `limit` passes first.
    #[must_use]
    pub fn wait_exit(&self, limit: Duration) -> Option<Exit> {
        let mut until = Until::after(limit);
        if let Process::Again(keeper) = &self.process
            && !(self.check_fork().is_ok() && keeper.lives.await_done(&mut until))
        {
            return None;
        }
        self.now().wait(&mut until, |progress| progress.exit.is_some()).ok()?.exit
    }

    /// Kills the worker and all it started, now. One that is started again after a death is.
    pub fn kill(&self) {
        self.now().kill();
    }

    /// Whether another life follows when this one ends in a death, or is about to: false without
    /// [`restart`](WorkerBuilder::restart), after [`finish`](Self::finish) or [`stop`](Self::stop), and when it was given up.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        match &self.process {
            Process::Once(_) => false,
            Process::Again(keeper) => keeper.lives.check_fork().is_ok() && keeper.lives.is_wanted(),
        }
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.process {
            Process::Once(worker) => worker.state.name(),
            Process::Again(keeper) => keeper.lives.name(),
        }
    }

    /// The process this host started, the newest of one that is started again after a death.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.now().pid
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
        self.now().stderr_tail()
    }

    /// Who has which slot now, of all channels: those of the pools that this side fills, then the received frames not
    /// released here, with the views that keep them.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        let sent = self.senders().flat_map(|sender| sender.holders());
        // Those are received frames too, and told as such.
        let sent = sent.filter(|slot| !matches!(slot.holder, Holder::Returned(_)));
        sent.chain(self.receivers().flat_map(|receiver| receiver.holders())).collect()
    }

    /// How often its process was started again ([`WorkerBuilder::restart`]): cheap, for each frame.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        match &self.process {
            Process::Once(_) => 0,
            Process::Again(keeper) => keeper.lives.restarts(),
        }
    }

    /// The link's counters, those of all its channels together; [`Sender::stats`] and [`Receiver::stats`] tell them apart.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let restarts = self.restarts();
        let mut all = Stats { restarts, ..Stats::default() };
        for sent in self.senders().map(|sender| sender.stats()) {
            all.offered += sent.offered();
            all.sent += sent.sent;
            all.received += sent.received;
            all.retracted += sent.retracted;
            all.lost += sent.lost;
            all.in_flight += sent.in_flight();
            all.no_slot += sent.no_slot;
            all.refused += sent.refused;
        }
        for received in self.receivers().map(|receiver| receiver.stats()) {
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
    /// How often it was started again after a death.
    pub restarts: u64,
}
