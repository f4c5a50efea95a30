//! What an application wants of a group, checked before anything is started.

use std::time::Duration;

use frameport_mem::park::Until;
use frameport_wire::layout::MAX_SLOTS;

use super::Group;
use super::book::{Redeliver, Rules};
use crate::error::Error;
use crate::host::WorkerBuilder;
use crate::restart::Restart;

/// The most workers a group may have.
const MAX_WORKERS: usize = 256;

/// A group to be: the worker, how many of them, and what to do when one dies.
#[derive(Clone, Debug)]
pub struct GroupBuilder {
    pub(super) worker: WorkerBuilder,
    pub(super) workers: usize,
    ordered: bool,
    window: Option<usize>,
    redeliver: Redeliver,
    tries: u32,
    pub(super) restart: Restart,
}

impl GroupBuilder {
    pub(crate) fn new(worker: WorkerBuilder, workers: usize) -> Self {
        Self {
            worker,
            workers,
            ordered: true,
            window: None,
            redeliver: Redeliver::default(),
            tries: 5,
            restart: Restart::default(),
        }
    }

    /// Whether results come in the order of the frames sent, or as the workers have them; true unless set.
    #[must_use]
    pub fn ordered(mut self, yes: bool) -> Self {
        self.ordered = yes;
        self
    }

    /// How many frames may be sent whose results were not received yet; workers times slots unless set. A loan waits
    /// for its place in the window. (One more is let through where a worker may sit on the oldest frame until it gets
    /// another.)
    #[must_use]
    pub fn window(mut self, frames: usize) -> Self {
        self.window = Some(frames);
        self
    }

    /// What becomes of the frames a dead worker had; [`Redeliver::AtLeastOnce`] unless set.
    #[must_use]
    pub fn redeliver(mut self, how: Redeliver) -> Self {
        self.redeliver = how;
        self
    }

    /// How many workers may die of the same frame before it is given up and reported as lost; 5 unless set. Frames a dead
    /// worker had not taken yet are not suspected, nor is one whose worker SIGKILL ended while it ends others as well.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// How many starts of one worker may fail in a row before the group gives up; 3 unless set. A start that SIGKILL
    /// ended counts as a fiftieth: it is somebody else's doing, or that of a system short of memory.
    #[must_use]
    pub fn starts(mut self, starts: u32) -> Self {
        self.restart = self.restart.starts(starts);
        self
    }

    /// How long a dead worker's successor waits: `first` at once after a life that answered a frame, twice as long after
    /// each that did not, up to `longest`; 20 ms and 1 s unless set.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.restart = self.restart.backoff(first, longest);
        self
    }

    /// Starts the workers and waits until the first is ready; the others join when they are.
    ///
    /// # Errors
    /// [`Error::Config`] before anything is started; [`Error::Group`] when no worker starts, with nothing left running.
    pub fn spawn(self) -> Result<Group, Error> {
        self.spawn_until(Until::forever())
    }

    /// [`spawn`](Self::spawn) that also gives up when `until` does.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`Error::Interrupted`].
    pub fn spawn_until(self, until: Until<'_>) -> Result<Group, Error> {
        let (slots, _) = self.worker.slots_and_deadline();
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return Err(Error::config(format!("a group of {} workers: 1 to {MAX_WORKERS} are possible", self.workers)));
        }
        self.restart.check()?;
        if self.worker.is_supervised() {
            return Err(Error::config(
                "a group starts its workers again by itself: leave out the worker's restart() and stall()",
            ));
        }
        if self.window == Some(0) || self.tries == 0 {
            return Err(Error::config("a group's window and tries are at least 1"));
        }
        if self.worker.in_and_out().is_none() {
            return Err(Error::config(
                "a group's worker has one input and one output, both lossless: call input() and output()",
            ));
        }
        let window = self.window.unwrap_or(self.workers * slots.min(MAX_SLOTS) as usize);
        let rules = Rules { ordered: self.ordered, window, tries: self.tries, redeliver: self.redeliver };
        Group::start(self, rules, until)
    }
}
