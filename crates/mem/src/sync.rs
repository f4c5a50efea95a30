//! What this crate synchronises with: what the system offers, or loom where a model runs.
//!
//! *Who calls it*: [`crate::ring`] and [`crate::park`].

#[cfg(loom)]
pub(crate) use crate::model::{Doorbell, Event, claims, fence, omits, pause, wait_any, wait_for};
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic::AtomicU32};
#[cfg(not(loom))]
pub(crate) use {
    frameport_sys::event::{Doorbell, Event, wait_any},
    frameport_sys::sync::{Condvar, Mutex, MutexGuard},
    frameport_sys::thread::sleep as pause,
    std::sync::atomic::{AtomicU32, fence},
};

/// Entries a visit claims one after the other, each taken back in the very moment, before it does not choose any more.
#[cfg(not(loom))]
#[inline]
pub(crate) const fn claims() -> usize {
    4
}

/// Whether a model runs without this part of the protocol, to see that it is missed.
#[cfg(not(loom))]
#[inline]
pub(crate) const fn omits(_part: &str) -> bool {
    false
}

/// Waits for a notification, `limit` at most.
#[cfg(not(loom))]
pub(crate) fn wait_for<T>(condvar: &Condvar, guard: MutexGuard<'_, T>, limit: Option<std::time::Duration>) {
    match limit {
        Some(limit) => drop(condvar.wait_timeout(guard, limit)),
        None => drop(condvar.wait(guard)),
    }
}
