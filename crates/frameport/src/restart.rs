//! When a dead worker is started again, and when that is given up.
//!
//! *Who calls it*: [`crate::WorkerBuilder::restart`] for one worker, [`crate::GroupBuilder`] for each of a group's.
//! *Invariants*: arithmetic only, no clock; a start that fails is never followed by another without a pause. *A hostile
//! worker* can die at once each time: it is started again once every `longest`.

use std::time::Duration;

use frameport_sys::process::Exit;

use crate::error::Error;

/// How many starts ended by SIGKILL count as one that failed.
const KILLS: u32 = 50;
const SIGKILL: i32 = 9;

/// When a dead worker is started again: after each death, until `starts` starts in a row have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    starts: u32,
    first: Duration,
    longest: Duration,
}

impl Default for Restart {
    /// Three starts, 20 ms and 1 s.
    fn default() -> Self {
        Self { starts: 3, first: Duration::from_millis(20), longest: Duration::from_secs(1) }
    }
}

impl Restart {
    /// How many starts may fail in a row before it is given up; 3 unless set. A start that SIGKILL ended counts as a
    /// fiftieth: it is somebody else's doing, or that of a system short of memory.
    #[must_use]
    pub fn starts(mut self, starts: u32) -> Self {
        self.starts = starts;
        self
    }

    /// How long a dead worker's successor waits: `first` after a life that took or answered a frame, twice as long after
    /// each that did not, up to `longest`; 20 ms and 1 s unless set.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// How many starts may fail in a row.
    pub(crate) fn limit(&self) -> u32 {
        self.starts
    }

    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.starts == 0 {
            Err(Error::config("a worker that may be started again has 1 or more starts"))
        } else {
            Ok(())
        }
    }
}

/// How one worker's lives have gone so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    policy: Restart,
    /// Starts in a row that failed, a killed one being 1 of [`KILLS`].
    failed: u32,
    /// Lives and starts in a row that neither took nor answered a frame.
    barren: u32,
}

impl Course {
    pub(crate) fn new(policy: Restart) -> Self {
        Self { policy, failed: 0, barren: 0 }
    }

    /// A worker that had become ready is dead.
    pub(crate) fn lived(&mut self, fruitful: bool) {
        self.failed = 0;
        self.barren = if fruitful { 0 } else { self.barren.saturating_add(1) };
    }

    /// A worker did not become ready; true when that is to be the last start.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        self.barren = self.barren.saturating_add(1);
        self.failed = self.failed.saturating_add(if is_killed(error) { 1 } else { KILLS });
        self.failed >= self.policy.starts.saturating_mul(KILLS)
    }

    /// How long to wait before the next start.
    pub(crate) fn pause(&self) -> Duration {
        self.policy.first.saturating_mul(2_u32.saturating_pow(self.barren)).min(self.policy.longest)
    }

    /// Lives and starts in a row that came to nothing.
    pub(crate) fn barren(&self) -> u32 {
        self.barren
    }

    /// Which start in a row the next one is.
    pub(crate) fn next_start(&self) -> u32 {
        self.failed / KILLS + 1
    }
}

/// Whether SIGKILL ended a worker.
pub(crate) fn is_killed(error: &Error) -> bool {
    matches!(error, Error::WorkerDied(death) if death.exit == Exit::Signal(SIGKILL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_after_barren_lives_and_starts_are_given_up() {
        let ms = Duration::from_millis;
        let mut course = Course::new(Restart::default().starts(2).backoff(ms(10), ms(35)));
        assert_eq!(course.pause(), ms(10));
        course.lived(false);
        course.lived(false);
        assert_eq!(course.pause(), ms(35), "40 is over the longest");
        course.lived(true);
        assert_eq!((course.pause(), course.next_start()), (ms(10), 1));
        assert!(!course.failed(&Error::Interrupted));
        assert_eq!((course.pause(), course.next_start()), (ms(20), 2));
        course.lived(false);
        assert!(!course.failed(&Error::Interrupted), "the row begins anew");
        assert!(course.failed(&Error::Interrupted));
        assert!(Restart::default().starts(0).check().is_err());
    }
}
