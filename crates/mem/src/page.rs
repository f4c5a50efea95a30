//! A pool's two pages: for each slot its release word, and its metadata.
//!
//! *Who calls it*: the channel ends of `frameport`. *Invariants*: each side writes its own page and loads the other's;
//! `state[slot]` is the last thing its writer did with the slot, so there is nothing to overflow and nothing to
//! acknowledge; metadata is written before the entry that announces it is published, and copied out before it is
//! looked at. *A hostile peer* can write any state (the ledger compares it with what it expects) and change metadata
//! while it is copied (the copy is then garbage that the JSON reader refuses).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::memory::Map;
use frameport_wire::layout::{meta_offset, page_len};

use crate::pixels::Bytes;
use crate::words::{OwnWords, PeerWords};

/// The page this side writes.
#[derive(Debug)]
pub struct OwnPage {
    state: OwnWords,
    meta: Meta,
}

/// The page the peer writes.
#[derive(Debug)]
pub struct PeerPage {
    state: PeerWords,
    meta: Meta,
}

#[derive(Debug)]
struct Meta {
    map: Arc<Map>,
    slots: u32,
    capacity: u32,
}

impl Meta {
    fn new(map: &Arc<Map>, slots: u32, capacity: u32) -> Option<Self> {
        (page_len(slots, capacity) <= map.len()).then(|| Self { map: Arc::clone(map), slots, capacity })
    }

    fn of(&self, slot: u32, len: usize) -> Option<Bytes<'_>> {
        let fits = slot < self.slots && len <= self.capacity as usize;
        fits.then(|| Bytes::new(&self.map, meta_offset(self.slots, self.capacity, slot), len)).flatten()
    }
}

impl OwnPage {
    /// The page in `map`; `None` when it does not fit or may not be written.
    #[must_use]
    pub fn new(map: &Arc<Map>, slots: u32, capacity: u32) -> Option<Self> {
        Some(Self { state: OwnWords::new(map, 0, slots as usize)?, meta: Meta::new(map, slots, capacity)? })
    }

    /// Says what was done with `slot`: [`released`](frameport_wire::layout::released).
    #[inline]
    pub fn set_state(&self, slot: u32, word: u64) {
        // Pairs with the acquire in `PeerPage::state`: who sees a slot released sees the last access to its pixels
        // before it.
        self.state.store(slot as usize, word, Ordering::Release);
    }

    /// Writes the metadata of `slot`; false when it does not fit.
    #[must_use]
    pub fn set_meta(&self, slot: u32, bytes: &[u8]) -> bool {
        self.meta.of(slot, bytes.len()).is_some_and(|to| to.copy_from(0, bytes))
    }
}

impl PeerPage {
    /// The page in `map`; `None` when it does not fit.
    #[must_use]
    pub fn new(map: &Arc<Map>, slots: u32, capacity: u32) -> Option<Self> {
        Some(Self { state: PeerWords::new(map, 0, slots as usize)?, meta: Meta::new(map, slots, capacity)? })
    }

    /// What the peer last did with `slot`.
    #[must_use]
    #[inline]
    pub fn state(&self, slot: u32) -> u64 {
        self.state.load_acquire(slot as usize)
    }

    /// A copy of the metadata of `slot`; `None` when `len` is more than a slot has.
    #[must_use]
    pub fn meta(&self, slot: u32, len: u32) -> Option<Vec<u8>> {
        self.meta.of(slot, len as usize).map(|bytes| bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::memory::{Region, Writers};

    #[test]
    fn states_and_metadata_reach_the_other_side() {
        let (region, map) = Region::create("page", page_len(3, 64), Writers::Creator).unwrap();
        let own = OwnPage::new(&Arc::new(map), 3, 64).unwrap();
        let peer_map = Arc::new(region.map(false).unwrap());
        let peer = PeerPage::new(&peer_map, 3, 64).unwrap();
        assert!(OwnPage::new(&peer_map, 3, 64).is_none(), "a page this side may not write");
        own.set_state(2, 41);
        assert!(own.set_meta(2, &[7; 64]));
        assert_eq!([0, 1, 2].map(|slot| peer.state(slot)), [0, 0, 41]);
        assert_eq!(peer.meta(2, 64).unwrap(), [7; 64]);
        assert_eq!(peer.meta(1, 64).unwrap(), [0; 64]);
        assert!(!own.set_meta(2, &[0; 65]) && !own.set_meta(3, &[]));
        assert!(peer.meta(0, 65).is_none() && peer.meta(3, 1).is_none());
        assert!(PeerPage::new(&peer_map, 4096, 64).is_none());
    }
}
