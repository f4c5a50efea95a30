//! When a wait gives up: at a deadline, or when its caller's interrupt says so.
//!
//! *Who calls it*: [`crate::park`], and every wait of the host for a worker's progress. *Invariants*: the clock is read only
//! once there is something to wait for; the interrupt is never called with a lock held. *A hostile peer* has no part in it.

use std::time::Duration;

use frameport_sys::clock::Instant;

/// How a wait ended without what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The deadline passed.
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The caller's interrupt said so.
    Interrupted,
}

/// When a wait gives up. Its time runs from the first moment there was nothing to be had at once: reading the clock costs
/// as much as half a hand-over, and most waits find what they look for without it.
#[derive(Default)]
pub struct Until<'a> {
    limit: Option<Duration>,
    started: Option<Instant>,
    interrupt: Option<(Duration, &'a mut dyn FnMut() -> bool)>,
    /// Whether the interrupt is due: not before the first sleep, for the caller comes from where it would have noticed.
    asks: bool,
}

impl std::fmt::Debug for Until<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Until").field("limit", &self.limit).field("started", &self.started).finish_non_exhaustive()
    }
}

impl<'a> Until<'a> {
    /// Never gives up.
    #[must_use]
    pub fn forever() -> Self {
        Self::default()
    }

    /// Gives up after `time`.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self { limit: Some(time), ..Self::default() }
    }

    /// Asks `interrupt` every `tick` of waiting and after each signal, and gives up when it says true.
    #[must_use]
    pub fn or_when(mut self, tick: Duration, interrupt: &'a mut dyn FnMut() -> bool) -> Self {
        self.interrupt = Some((tick, interrupt));
        self
    }

    /// Gives up after `time` at the latest.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.limit = Some(self.limit.map_or(time, |limit| limit.min(time)));
        self
    }

    /// How long it has been waited.
    fn elapsed(&mut self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.started.get_or_insert(now))
    }

    /// How long a sleep may last from now on, or how the wait has ended. The first call starts the time.
    ///
    /// # Errors
    /// The time is over or the interrupt says true.
    pub fn step(&mut self) -> Result<Option<Duration>, Ended> {
        let mut left = None;
        if let Some(limit) = self.limit {
            let after = self.elapsed();
            if after >= limit {
                return Err(Ended::TimedOut { after });
            }
            left = Some(limit.saturating_sub(after));
        }
        if let Some((tick, interrupt)) = &mut self.interrupt {
            if std::mem::replace(&mut self.asks, true) && interrupt() {
                return Err(Ended::Interrupted);
            }
            left = Some(left.map_or(*tick, |left| left.min(*tick)));
        }
        Ok(left)
    }
}
