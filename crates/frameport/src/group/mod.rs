//! N workers of one command behind one queue.
//!
//! *What it is*: a layer on the host's [`Worker`]s. [`builder`] checks what was asked for, [`book`] knows where each frame
//! is and what comes out next, [`member`] is the thread that starts, serves and buries one worker, [`shared`] what they
//! share with the callers here. *Invariants*: a frame is filled where its worker reads it; every frame sent has one
//! outcome (an answer, a loss, or none where its worker passed over it); every wait ends at a stop.
//!
//! **The contract of a group's worker**: one result or none for each frame, with the frame's number (`reply` and
//! `send_back` see to that), before it has let go of the frame and asks for another. *A hostile worker* harms the frames it was given, and
//! a group that it keeps from starting.

mod book;
mod builder;
mod member;
mod shared;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::isolation::Level;
use frameport_sys::sync::Mutex;
use frameport_sys::thread::{Builder, JoinHandle};
use frameport_wire::spec::Spec;

pub use self::book::Redeliver;
use self::book::Rules;
pub use self::builder::GroupBuilder;
use self::shared::{Known, Shared};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
#[cfg(doc)]
use crate::host::Worker;

/// Workers of one command behind one queue. A frame goes to the worker with the fewest; dead workers are replaced.
///
/// May be used from any thread. Dropping it stops the workers: see [`stop`](Self::stop).
///
/// ```no_run
/// use frameport::{Delivery, Outcome, Worker, spec::{PixelFormat, VideoSpec}};
///
/// # fn main() -> Result<(), frameport::Error> {
/// let spec = VideoSpec::new(PixelFormat::Bgr24, 640, 480);
/// let group = Worker::command("python3").arg("worker.py")
///     .input("in", &spec, Delivery::Lossless).output("out", &spec, Delivery::Lossless)
///     .group(4).spawn()?;
/// for _ in 0..8 {
///     group.send(group.loan()?)?;
/// }
/// group.finish();
/// while let Ok(outcome) = group.recv() {          // in the order of the frames sent
///     match outcome {
///         Outcome::Answer { seq, frame } => println!("{seq}: {} bytes", frame.payload().len()),
///         Outcome::Lost { seq, why } => println!("{seq}: {why}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Group {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What became of a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A worker's result.
    Answer {
        /// Number of the frame, as [`Group::send`] returned it.
        seq: u64,
        /// The result.
        frame: Frame,
    },
    /// There will be no result.
    Lost {
        /// Number of the frame.
        seq: u64,
        /// The death of the worker that had it last, or the end of the group.
        why: Arc<Error>,
    },
}

/// What a group has for somebody who both sends and receives on one thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// An outcome to take.
    Outcome(Outcome),
    /// A slot to fill.
    Room(FrameMut),
}

impl Group {
    fn start(wanted: GroupBuilder, rules: Rules, mut until: Until<'_>) -> Result<Self, Error> {
        let workers = wanted.workers;
        let shared = Arc::new(Shared::new(wanted, rules)?);
        let group = Self { shared, threads: Mutex::default() };
        for index in 0..workers {
            let shared = Arc::clone(&group.shared);
            let thread = Builder::new().name(format!("frameport-{}", index + 1));
            match thread.spawn(move || member::run(&shared, index)) {
                Ok(thread) => group.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread),
                Err(error) => {
                    (index..workers).for_each(|missing| group.shared.leave(missing));
                    return Err(Error::system("starting a thread")(error));
                }
            }
        }
        group.shared.await_ready(&mut until).map(|()| group)
    }

    /// A slot to fill, of the worker with the fewest frames, waiting for one up to the builder's `send_deadline`.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] says what is waited for; [`Error::Group`], [`Error::LinkClosed`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        let (_, deadline) = self.shared.wanted.worker.slots_and_deadline();
        self.loan_until(Until::after(deadline))
    }

    /// A slot to fill, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::Interrupted`].
    pub fn loan_until(&self, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.shared.wait(&mut until, |shared, inner| shared.loan(inner))?.map_err(|ended| self.shared.no_room(ended))
    }

    /// A slot to fill, if the window and a worker have room now.
    ///
    /// # Errors
    /// [`Error::Group`], [`Error::LinkClosed`].
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.shared.check_fork()?;
        self.shared.loan(&self.shared.lock())
    }

    /// Sends a filled slot and returns the frame's number: 0, 1, 2 and so on, whatever number the loan was given. Where the
    /// worker it was loaned from has died meanwhile, the frame is given to another, or reported as lost, as
    /// [`GroupBuilder::redeliver`] says.
    ///
    /// # Errors
    /// [`Error::Group`], [`Error::LinkClosed`], [`Error::MetaTooLong`], and [`Error::Format`] for a frame of others. The
    /// frame is gone either way.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.shared.send(frame)
    }

    /// The next outcome, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] after [`finish`](Self::finish) when there are no more; [`Error::Group`] when no worker starts.
    pub fn recv(&self) -> Result<Outcome, Error> {
        self.recv_until(Until::forever())
    }

    /// The next outcome, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Outcome, Error> {
        self.recv_until(Until::after(limit))
    }

    /// The next outcome, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, mut until: Until<'_>) -> Result<Outcome, Error> {
        let next = self.shared.wait(&mut until, |shared, inner| shared.next_outcome(inner));
        next?.map_err(|ended| self.shared.gave_up(ended))
    }

    /// The next outcome, if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Outcome>, Error> {
        self.shared.check_fork()?;
        self.shared.next_outcome(&mut self.shared.lock())
    }

    /// The next outcome, or else a slot to fill, waiting for either: for programs that send and receive on one thread.
    ///
    /// # Errors
    /// As [`recv_until`](Self::recv_until).
    pub fn step_until(&self, mut until: Until<'_>) -> Result<Step, Error> {
        let step = self.shared.wait(&mut until, |shared, inner| match shared.next_outcome(inner)? {
            Some(outcome) => Ok(Some(Step::Outcome(outcome))),
            // After `finish` only outcomes follow.
            None => Ok(if inner.finishing { None } else { shared.loan(inner)?.map(Step::Room) }),
        });
        step?.map_err(|ended| self.shared.no_room(ended))
    }

    /// Says that no frame will follow: each worker's loop ends after those sent before, and [`recv`](Self::recv) after
    /// the last outcome.
    pub fn finish(&self) {
        if self.shared.check_fork().is_ok() {
            self.shared.finish();
        }
    }

    /// Ends all workers now, as [`Worker::stop`] does; frames without an outcome are lost. Returns when nothing of the
    /// workers is left; outcomes known by then can still be received.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn stop(&self) -> Result<(), Error> {
        self.shared.check_fork()?;
        self.shared.stop();
        self.shared.await_threads(&mut Until::forever());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // It has nothing left to do, nor to say.
            let _ = thread.join();
        }
        Ok(())
    }

    /// Waits until all workers have left by themselves, as they do after [`finish`](Self::finish); false when `limit` passes
    /// first.
    #[must_use]
    pub fn wait_exit(&self, limit: Duration) -> bool {
        self.shared.await_threads(&mut Until::after(limit))
    }

    /// The group's name: its worker's. Those of the workers have a number behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What goes to the workers.
    #[must_use]
    pub fn input_spec(&self) -> Option<Spec> {
        self.known().input
    }

    /// What comes back: as asked for, or as the worker stated that became ready last.
    #[must_use]
    pub fn output_spec(&self) -> Option<Spec> {
        self.known().output
    }

    /// How far the workers are kept from other processes.
    #[must_use]
    pub fn isolation(&self) -> Option<Level> {
        self.known().isolation
    }

    fn known(&self) -> Known {
        if self.shared.check_fork().is_err() { Known::default() } else { self.shared.lock().known.clone() }
    }

    /// The group's counters.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        if self.shared.check_fork().is_err() { GroupStats::default() } else { self.shared.stats() }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The error is that of a forked child, which must leave the workers alone.
        let _ = self.stop();
    }
}

/// Counters of a group. At every moment `sent = answered + dropped + lost + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Frames sent.
    pub sent: u64,
    /// Of those, the ones a worker answered.
    pub answered: u64,
    /// Of those, the ones a worker passed over.
    pub dropped: u64,
    /// Of those, the ones reported as lost.
    pub lost: u64,
    /// Of those, the ones whose fate is open.
    pub in_flight: u64,
    /// Answers and losses that were not received yet.
    pub waiting: u64,
    /// Frames of workers that answer nothing.
    pub extra: u64,
    /// How often a frame of a dead worker was given to another.
    pub redelivered: u64,
    /// Frames copied so that they could be.
    pub copied: u64,
    /// Each worker's.
    pub members: Vec<MemberStats>,
}

/// Counters of one worker of a group, over all its lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStats {
    /// Its name.
    pub name: String,
    /// Its process, while it is ready.
    pub pid: Option<u32>,
    /// How often it became ready.
    pub lives: u64,
    /// Frames sent to it.
    pub sent: u64,
    /// Of those, the ones it answered.
    pub answered: u64,
    /// Frames it has now.
    pub in_flight: u64,
}
