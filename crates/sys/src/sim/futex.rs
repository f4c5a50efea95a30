//! The doorbell: a word that can be slept on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::clock::deadline;
use super::sched::{self, Key};

fn key(word: &AtomicU32) -> Key {
    Key::Place(std::ptr::from_ref(word).addr())
}

/// Whether the world has it.
#[must_use]
pub fn is_there() -> bool {
    sched::with(|state| state.faults.futex).unwrap_or(true)
}

/// Sleeps until `word` differs from what was seen of it, somebody wakes it, or `limit` is over. Returns early at will.
pub fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    sched::point("futex wait");
    if word.load(Ordering::SeqCst) == seen {
        sched::block(vec![key(word)], deadline(limit), "sleeps on a bell", true);
    }
}

/// Wakes everybody who sleeps on `word`, in every process.
pub fn wake_all(word: &AtomicU32) {
    sched::point("futex wake");
    sched::with(|state| state.tasks.wake(key(word)));
}
