//! Clocks: the one of time stamps, and the one of waits.

pub use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the host's monotonic clock (`CLOCK_MONOTONIC`, the same in every process of the machine).
#[must_use]
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// [`now_ns`]: the approximate clocks of this system are not those of time stamps.
#[must_use]
#[inline]
pub fn about_now_ns() -> u64 {
    now_ns()
}
