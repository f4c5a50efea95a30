//! The doorbell: a futex in memory both processes see.
//!
//! *Who calls it*: `frameport-mem`'s parking. *Invariants*: always the shared kind (a private futex never wakes
//! another process), also on read-only mappings. *A hostile peer* can wake this side as often as it likes, or never: callers
//! look again after every return, and interrupt their own sleepers ([futex(2)]).
//!
//! [futex(2)]: https://man7.org/linux/man-pages/man2/futex.2.html

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;

/// Whether the system has it.
#[must_use]
#[inline]
pub const fn is_there() -> bool {
    true
}

/// Sleeps until `word` differs from what was seen of it, somebody wakes it, a signal arrives, or `limit` is over. Returns
/// early at will: the caller looks again. No limit costs no timer.
pub fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let _ = futex::wait(word, Flags::empty(), seen, limit.map(timespec).as_ref());
}

/// Wakes everybody who sleeps on `word`, in every process.
pub fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::empty(), i32::MAX.cast_unsigned());
}

fn timespec(limit: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX >> 1), tv_nsec: limit.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    #[test]
    fn a_wake_ends_the_wait() {
        let word = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                word.fetch_add(1, Ordering::SeqCst);
                wake_all(&word);
            });
            while word.load(Ordering::SeqCst) == 0 {
                wait(&word, 0, Some(Duration::from_secs(60)));
            }
        });
    }

    #[test]
    fn the_limit_ends_the_wait() {
        let start = Instant::now();
        wait(&AtomicU32::new(0), 0, Some(Duration::from_millis(20)));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
