//! 64-bit words in shared memory: those this side writes, and those it only loads.
//!
//! *Who calls it*: [`crate::ring`], [`crate::page`], [`crate::park`], nobody else. *Invariants*: offsets are aligned
//! and in bounds from construction on; an index out of range is this side's own bug (peer-supplied numbers are checked
//! before they become an index) and ends in the panic of a slice index. *A hostile peer* decides what a load of a
//! [`PeerWords`] returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use frameport_sys::memory::Map;

/// A range of words of one mapping.
#[derive(Clone, Debug)]
struct Words {
    map: Arc<Map>,
    offset: usize,
    count: usize,
}

impl Words {
    fn new(map: &Arc<Map>, offset: usize, count: usize) -> Option<Self> {
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
        self.0.at(index).load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn store(&self, index: usize, value: u64, ordering: Ordering) {
        self.0.at(index).store(value, ordering);
    }

    /// The 32-bit word in the first half of the first word, for a futex; nothing accesses it as 64 bits.
    #[inline]
    pub(crate) fn bell(&self) -> &AtomicU32 {
        bell(&self.0)
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
        self.0.at(index).load(Ordering::Relaxed)
    }

    /// A load that everything the peer did before its release store is visible after.
    #[inline]
    pub(crate) fn load_acquire(&self, index: usize) -> u64 {
        let value = self.load(index);
        fence(Ordering::Acquire);
        value
    }

    /// See [`OwnWords::bell`].
    #[inline]
    pub(crate) fn bell(&self) -> &AtomicU32 {
        bell(&self.0)
    }
}

fn bell(words: &Words) -> &AtomicU32 {
    // SAFETY: `at(0)` is in bounds and 8-aligned, so its first four bytes are a valid place for 32 bits; this word of
    // a control region is accessed as 32 bits only.
    unsafe { AtomicU32::from_ptr(words.at(0).as_ptr().cast()) }
}
