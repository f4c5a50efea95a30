//! The doorbell: a futex in memory both processes see.
//!
//! *Who calls it*: `frameport-mem`'s parking. *Invariants*: always the shared kind (a private futex never wakes
//! another process), also on read-only mappings; every wait has a time-out. *A hostile peer* can wake this side as
//! often as it likes, or never: callers look again after every return and wait on a private word beside it
//! ([futex(2)], [futex_waitv(2)], the latter from Linux 5.16 on).
//!
//! [futex(2)]: https://man7.org/linux/man-pages/man2/futex.2.html
//! [futex_waitv(2)]: https://docs.kernel.org/userspace-api/futex2.html

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How often a wait that can watch one word only looks at the other.
const TICK: Duration = Duration::from_millis(10);

static NO_WAITV: AtomicBool = AtomicBool::new(false);

/// Sleeps until one of two words differs from what was seen of it, somebody wakes one of them, a signal arrives, or
/// `limit` is over. Returns early at will: the caller looks again. No limit costs no timer.
pub fn wait_either(first: (&AtomicU32, u32), second: (&AtomicU32, u32), limit: Option<Duration>) {
    if !NO_WAITV.load(Ordering::Relaxed) {
        let mut words = [Wait::new(), Wait::new()];
        for (word, (at, seen)) in words.iter_mut().zip([first, second]) {
            word.val = u64::from(seen);
            word.uaddr = WaitPtr::new(at.as_ptr().cast());
            word.flags = WaitFlags::SIZE_U32;
        }
        // futex_waitv takes an absolute time.
        let until = limit.and_then(|limit| clock_gettime(ClockId::Monotonic).checked_add(timespec(limit)));
        let waited = futex::waitv(&words, WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic);
        // Older containers' filters answer PERM to calls they do not know.
        if !matches!(waited, Err(Errno::NOSYS | Errno::PERM)) {
            return;
        }
        NO_WAITV.store(true, Ordering::Relaxed);
    }
    if second.0.load(Ordering::SeqCst) == second.1 {
        let _ =
            futex::wait(first.0, Flags::empty(), first.1, Some(&timespec(limit.map_or(TICK, |limit| limit.min(TICK)))));
    }
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
    use std::time::Instant;

    #[test]
    fn either_word_ends_the_wait() {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        for ring in 0..2 {
            let seen = words.each_ref().map(|word| word.load(Ordering::SeqCst));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    words[ring].fetch_add(1, Ordering::SeqCst);
                    wake_all(&words[ring]);
                });
                while words[ring].load(Ordering::SeqCst) == seen[ring] {
                    wait_either((&words[0], seen[0]), (&words[1], seen[1]), Some(Duration::from_secs(60)));
                }
            });
        }
    }

    #[test]
    fn the_limit_ends_the_wait() {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let start = Instant::now();
        wait_either((&words[0], 0), (&words[1], 0), Some(Duration::from_millis(20)));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
