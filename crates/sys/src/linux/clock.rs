//! Clocks: the one of time stamps, and the one of waits.

pub use std::time::Instant;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds on the host's monotonic clock (`CLOCK_MONOTONIC`, the same in every process of the machine).
#[must_use]
#[inline]
pub fn now_ns() -> u64 {
    in_ns(clock_gettime(ClockId::Monotonic))
}

/// The same clock as of the last tick of the system, at most a few milliseconds ago: for ages that people are told, at a
/// fraction of the price (`CLOCK_MONOTONIC_COARSE`).
#[must_use]
#[inline]
pub fn about_now_ns() -> u64 {
    in_ns(clock_gettime(ClockId::MonotonicCoarse))
}

fn in_ns(now: Timespec) -> u64 {
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
