//! Sleeping where processes have no futex, as on macOS before 14.4: on the doorbell, which the peer rings for a sleeper as it
//! does for an event loop.
//!
//! *Who calls it*: [`super::Bells`]. *Invariants*: what was rung can be taken up once, so that one thread of a side listens at
//! a time, and whoever else sleeps is told by it whenever it leaves; whoever takes up a ring of the doorbell passes it on to
//! those who wait for it otherwise: the listener to the side's event loops, they to the listener. *A hostile peer*: as with
//! a futex.
//!
//! **Why no wake-up is lost.** The proof of [`super`] ends with a sleeper that saw the bell as it was before its second look,
//! and a waker that changes the bell, then rings. The sleeper compares the bell once more under the lock below. If the listener
//! that took up that ring had left before, the bell has changed by then, for a ring is taken up after it was made. Else the
//! sleeper either listens itself, and the ring is there for it to hear, or waits to be told, by the listener that takes it up
//! or by one that leaves for another reason, and then looks and compares again.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Doorbell, Event, Mutex, MutexGuard, omits, wait_any, wait_for};

/// See the module.
#[derive(Debug)]
pub(super) struct Listening {
    /// Beside that of the event loops.
    event: Event,
    /// Whether a thread listens.
    taken: Mutex<bool>,
    left: Condvar,
}

impl Listening {
    pub(super) fn new(doorbell: &Doorbell) -> io::Result<Self> {
        Ok(Self { event: Event::new(doorbell)?, taken: Mutex::new(false), left: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps if `is_silent`, until the doorbell rings, somebody [wakes](Self::wake) or `limit` is over. Returns early at will:
    /// the caller looks again. Whether it took up what was rung.
    pub(super) fn sleep(&self, doorbell: &Doorbell, is_silent: impl FnOnce() -> bool, limit: Option<Duration>) -> bool {
        let mut taken = self.lock();
        if !omits("comparison before listening") && !is_silent() {
            return false;
        }
        if *taken {
            wait_for(&self.left, taken, limit);
            return false;
        }
        *taken = true;
        drop(taken);
        // What poll could fail for, bad memory or descriptors, cannot be.
        let _ = wait_any(&[&self.event], limit);
        let rung = self.event.clear(doorbell);
        *self.lock() = false;
        if !omits("word of the listener") {
            self.left.notify_all();
        }
        rung
    }

    /// Has all that sleep look again.
    pub(super) fn wake(&self) {
        self.event.signal();
    }
}
