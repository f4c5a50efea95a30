//! The one clock, read to the nanosecond or for next to nothing.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the host's monotonic clock (`CLOCK_MONOTONIC`, the same in every process of the machine).
#[must_use]
pub fn now_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// The same clock as of the kernel's last tick, a few ms ago at most: for ages that people read.
#[must_use]
pub fn coarse_ns() -> u64 {
    read(ClockId::MonotonicCoarse)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
