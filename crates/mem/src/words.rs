//! 64-bit words in shared memory: those this side writes, and those it only loads.
//!
//! *Who calls it*: [`crate::ring`], [`crate::page`], [`crate::park`], nobody else. *Invariants*: offsets are aligned
//! and in bounds from construction on; an index out of range is this side's own bug (peer-supplied numbers are checked
//! before they become an index) and ends in the panic of a slice index. *A hostile peer* decides what a load of a
//! [`PeerWords`] returns. With `--cfg loom` the words are those of `model.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use frameport_sys::memory::Map;

#[cfg(not(loom))]
use self::mapped::Words;
#[cfg(loom)]
use crate::model::Words;

#[cfg(not(loom))]
mod mapped {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    use frameport_sys::memory::Map;
    use frameport_sys::thread::preempt;

    /// A range of words of one mapping.
    #[derive(Clone, Debug)]
    pub(super) struct Words {
        map: Arc<Map>,
        offset: usize,
        count: usize,
    }

    impl Words {
        pub(super) fn new(map: &Arc<Map>, offset: usize, count: usize) -> Option<Self> {
            let end = count.checked_mul(8)?.checked_add(offset)?;
            (offset.is_multiple_of(8) && end <= map.len()).then(|| Self { map: Arc::clone(map), offset, count })
        }

        #[inline]
        fn at(&self, index: usize) -> &AtomicU64 {
            assert!(index < self.count, "word {index} of {}", self.count);
            // SAFETY: `new` proved that `offset + 8·count` lies in the mapping, and index < count.
            let word = unsafe { self.map.base().as_ptr().byte_add(self.offset + index * 8) };
            // SAFETY: the mapping is page-aligned and the offset a multiple of 8; it lives as long as `self.map`; all
            // processes access these bytes as 64-bit atomics only. A read-only mapping is only loaded from (PeerWords).
            unsafe { AtomicU64::from_ptr(word.cast()) }
        }

        #[inline]
        pub(super) fn load(&self, index: usize) -> u64 {
            preempt();
            self.at(index).load(Ordering::Relaxed)
        }

        #[inline]
        pub(super) fn load_acquire(&self, index: usize) -> u64 {
            let value = self.load(index);
            fence(Ordering::Acquire);
            value
        }

        #[inline]
        pub(super) fn store(&self, index: usize, value: u64, ordering: Ordering) {
            preempt();
            self.at(index).store(value, ordering);
        }

        #[inline]
        pub(super) fn bell(&self) -> &AtomicU32 {
            preempt();
            // SAFETY: `at(0)` is in bounds and 8-aligned, so its first four bytes are a valid place for 32 bits; this word
            // of a control region is accessed as 32 bits only.
            unsafe { AtomicU32::from_ptr(self.at(0).as_ptr().cast()) }
        }

        pub(super) fn wait(&self, seen: u32, limit: Option<std::time::Duration>) {
            frameport_sys::futex::wait(self.bell(), seen, limit);
        }

        pub(super) fn wake_all(&self) {
            frameport_sys::futex::wake_all(self.bell());
        }
    }
}

/// Words this side writes.
#[derive(Clone, Debug)]
pub(crate) struct OwnWords(Words);

impl OwnWords {
    /// `count` words at `offset`; `None` when they are not inside a writable mapping.
    pub(crate) fn new(map: &Arc<Map>, offset: usize, count: usize) -> Option<Self> {
        map.is_writable().then(|| Words::new(map, offset, count)).flatten().map(Self)
    }

    /// What this side stored last.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.0.load(index)
    }

    #[inline]
    pub(crate) fn store(&self, index: usize, value: u64, ordering: Ordering) {
        self.0.store(index, value, ordering);
    }

    /// Changes the 32-bit word in the first half of the first word, which nothing accesses as 64 bits, and wakes those who
    /// sleep on it.
    pub(crate) fn ring(&self) {
        self.0.bell().fetch_add(1, Ordering::Release);
        self.0.wake_all();
    }
}

/// Words the peer writes and this side only loads.
#[derive(Clone, Debug)]
pub(crate) struct PeerWords(Words);

impl PeerWords {
    /// `count` words at `offset`; `None` when they are not inside the mapping.
    pub(crate) fn new(map: &Arc<Map>, offset: usize, count: usize) -> Option<Self> {
        Words::new(map, offset, count).map(Self)
    }

    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.0.load(index)
    }

    /// A load that everything the peer did before its release store is visible after.
    #[inline]
    pub(crate) fn load_acquire(&self, index: usize) -> u64 {
        self.0.load_acquire(index)
    }

    /// The word [`OwnWords::ring`] changes.
    #[inline]
    pub(crate) fn bell(&self) -> u32 {
        self.0.bell().load(Ordering::Relaxed)
    }

    /// Sleeps while the bell is as `seen`.
    pub(crate) fn wait(&self, seen: u32, limit: Option<Duration>) {
        self.0.wait(seen, limit);
    }

    /// Wakes this side's own threads that sleep on the peer's bell.
    pub(crate) fn wake_all(&self) {
        self.0.wake_all();
    }
}
