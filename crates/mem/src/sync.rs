//! What this crate synchronises with: what the system offers, or loom where a model runs.
//!
//! *Who calls it*: [`crate::ring`] and [`crate::park`].

#[cfg(loom)]
pub(crate) use crate::model::{claims, fence, omits, pause};
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU32};
#[cfg(not(loom))]
pub(crate) use {
    frameport_sys::sync::{Mutex, MutexGuard},
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
