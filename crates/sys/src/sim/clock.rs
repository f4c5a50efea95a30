//! Virtual time.

use std::ops::Add;
use std::time::Duration;

use super::sched;

/// Nanoseconds of the world's one clock.
#[must_use]
pub fn now_ns() -> u64 {
    sched::look_at_clock()
}

/// The same.
#[must_use]
pub fn about_now_ns() -> u64 {
    now_ns()
}

/// A moment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self(now_ns())
    }

    /// How long ago it was.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// How long after `earlier` it was.
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(in_ns(time)))
    }
}

pub(super) fn in_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// When a wait of `limit` from now on is over.
pub(super) fn deadline(limit: Option<Duration>) -> Option<u64> {
    limit.map(|limit| sched::look_at_clock().saturating_add(in_ns(limit)))
}
