//! A running worker, as its host's application holds it.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::isolation::Level;
use frameport_sys::process::{Exit, Signal};
use frameport_wire::control::ToWorker;
use frameport_wire::spec::Spec;

use super::bring_up;
use super::builder::WorkerBuilder;
use super::supervised::Supervised;
use crate::channel::recv::RecvEnd;
use crate::channel::send::SendEnd;
use crate::channel::state::End;
use crate::error::{Error, SlotHolder};
use crate::frame::{Frame, FrameMut};

/// A process this one started, and the frames that travel to it and back.
///
/// May be used from any thread. Dropping it stops the worker: see [`stop`](Self::stop).
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Supervised>,
    level: Level,
    send_deadline: Duration,
    grace: Duration,
}

impl Worker {
    /// Begins to describe a worker: the program, found on PATH unless it is a path.
    #[must_use]
    pub fn command(program: impl AsRef<OsStr>) -> WorkerBuilder {
        WorkerBuilder::new(program.as_ref())
    }

    pub(super) fn new(inner: Arc<Supervised>, level: Level, send_deadline: Duration, grace: Duration) -> Self {
        Self { inner, level, send_deadline, grace }
    }

    fn sender(&self) -> Result<&Arc<SendEnd>, Error> {
        let end = self.inner.ends.get().and_then(|ends| ends.send.as_ref());
        end.ok_or_else(|| Error::config(format!("worker '{}' has no input channel: add one with input()", self.name())))
    }

    fn receiver(&self) -> Result<&Arc<RecvEnd>, Error> {
        let end = self.inner.ends.get().and_then(|ends| ends.recv.as_ref());
        end.ok_or_else(|| {
            Error::config(format!("worker '{}' has no output channel: add one with output()", self.name()))
        })
    }

    /// A provable lie ends the worker.
    fn judge<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Violation { .. }) = &result {
            self.inner.kill();
        }
        result
    }

    /// A slot to fill, waiting for one up to the builder's `send_deadline`.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] names who has the slots; [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.loan_until(Until::after(self.send_deadline))
    }

    /// A slot to fill, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::Interrupted`].
    pub fn loan_until(&self, mut until: Until<'_>) -> Result<FrameMut, Error> {
        let loaned = self.judge(self.sender()?.loan(&mut until));
        loaned.map_err(|error| self.explain(error))
    }

    /// A slot to fill, if one is free now.
    ///
    /// # Errors
    /// As [`loan`](Self::loan).
    pub fn try_loan(&self) -> Result<FrameMut, Error> {
        let sender = self.sender()?;
        match self.judge(sender.try_loan())? {
            Some(frame) => Ok(frame),
            None => Err(self.explain(sender.exhausted(Duration::ZERO))),
        }
    }

    /// A slot to fill, if one is free now; that none is counts as no failure.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`].
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.judge(self.sender()?.try_loan())
    }

    /// Adds what this side could do about an exhausted pool.
    fn explain(&self, mut error: Error) -> Error {
        if let Error::PoolExhausted(exhausted) = &mut error
            && let Ok(receiver) = self.receiver()
        {
            let held = receiver.held();
            if held > 0 {
                exhausted.hint =
                    Some(format!("this side holds {held} received frames: drop them to let the worker go on"));
            } else {
                exhausted.hint = Some("if the worker waits to send, receive its results with recv()".to_owned());
            }
        }
        error
    }

    /// Sends a filled slot and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::WorkerDied`], [`Error::LinkClosed`], [`Error::MetaTooLong`], and [`Error::Format`] for a frame of another
    /// worker. The frame is gone either way, its slot free again.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.judge(self.sender()?.send(frame))
    }

    /// The worker's next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the worker has finished; [`Error::WorkerDied`], [`Error::Violation`].
    pub fn recv(&self) -> Result<Frame, Error> {
        self.recv_until(Until::forever())
    }

    /// The worker's next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.recv_until(Until::after(limit))
    }

    /// The worker's next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, mut until: Until<'_>) -> Result<Frame, Error> {
        self.judge(self.receiver()?.recv(&mut until))
    }

    /// The worker's next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        self.judge(self.receiver()?.try_recv())
    }

    /// Says that no frame will follow: the worker's loop ends when it has taken those sent before, and [`recv`](Self::recv)
    /// goes on until the worker has sent its last.
    pub fn finish(&self) {
        if let Ok(sender) = self.sender() {
            sender.close();
        }
    }

    /// Ends the worker now: its waits end, then it has the builder's `grace` to leave, SIGTERM and as long again, then
    /// SIGKILL for its whole process group. Returns when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn stop(&self) -> Result<Exit, Error> {
        self.inner.state.check_fork()?;
        self.finish();
        let _ = bring_up::send(&self.inner, &ToWorker::Close, &[]);
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

    /// What goes to the worker.
    #[must_use]
    pub fn input_spec(&self) -> Option<&Spec> {
        self.inner.ends.get()?.send.as_ref().map(|end| &end.pool.spec)
    }

    /// What comes back: as asked for, or as the worker stated.
    #[must_use]
    pub fn output_spec(&self) -> Option<&Spec> {
        self.inner.ends.get()?.recv.as_ref()?.pool().map(|pool| &pool.spec)
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

    /// Who has which slot of the input pool now.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        self.sender().map(|end| end.holders()).unwrap_or_default()
    }

    /// The link's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let sent = self.sender().map(|end| end.counts()).ok();
        // Counting may be what finds a lie.
        let _ = self.judge(self.inner.state.check());
        let slots = sent.map(|sent| sent.slots).unwrap_or_default();
        let (results, held) = self.receiver().map(|end| (end.received(), end.held())).unwrap_or_default();
        Stats {
            sent: slots.sent,
            received: slots.received,
            lost: slots.lost,
            in_flight: slots.sent.saturating_sub(slots.received).saturating_sub(slots.lost),
            no_slot: sent.map_or(0, |sent| sent.no_slot),
            results,
            held: held as u64,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The error is that of a forked child, which must leave the worker alone.
        let _ = self.stop();
    }
}

/// Counters of one link. At every moment `sent = received + lost + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames sent to the worker.
    pub sent: u64,
    /// Of those, the ones it took.
    pub received: u64,
    /// Of those, the ones it died before taking.
    pub lost: u64,
    /// Of those, the ones still on their way.
    pub in_flight: u64,
    /// Loans that found no slot in time.
    pub no_slot: u64,
    /// Frames received from the worker.
    pub results: u64,
    /// Frames of the worker's in this side's hands.
    pub held: u64,
}
