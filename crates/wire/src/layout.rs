//! Where each shared word lies.
//!
//! *What it is*: the arithmetic of the two control regions of a link and of the two pages of a pool. *Who calls it*:
//! `frameport-mem`, which alone touches the words. *Invariants*: every word has one size and one writer; words that
//! different sides poll lie on different cache lines; both sides compute the same offsets from numbers the host
//! states once in its welcome, and the hello compares [`Sizes`] first. *A hostile peer* has no say in any of it.
//!
//! A **control region** (one per side, written by that side only):
//!
//! | byte | word |
//! | --- | --- |
//! | 0 | `bell`, u32: futex word the other side sleeps on |
//! | 8 | `params`, u64, the host's only: version of the newest parameters |
//! | 64 | `parked`, u64: bit mask of what this side is asleep for |
//! | 128 + n·block | the block of channel n |
//!
//! A **channel block** (the sender of the channel writes `produced`, `oldest`, `closed` and the entries of its region, the
//! receiver `visit` and `taken` of its own):
//!
//! | byte | word |
//! | --- | --- |
//! | 0, 8 | `produced`, `oldest` |
//! | 64, 72, 80 | `visit`, `taken`, `closed` |
//! | 128 + 64·i | entry i of C |
//!
//! A **page** (two per pool, one per side, written by that side only): `state[slot]`, the last thing that side did with the
//! slot's content: [`taken`] (on a live channel only) or [`released`]; then the metadata of each slot.

use serde::{Deserialize, Serialize};

use crate::descriptor::WORDS;

/// Bytes of a cache line, the unit that keeps two writers apart.
pub const LINE: usize = 64;
/// Offset of `bell` in a control region.
pub const BELL: usize = 0;
/// Offset of `params` in the host's control region. On the line of `bell`, which no side looks at while frames flow.
pub const PARAMS: usize = BELL + 8;
/// Offset of `parked` in a control region.
pub const PARKED: usize = LINE;
/// Offset of the first channel block.
pub const BLOCKS: usize = 2 * LINE;
/// Offset of `produced` in a channel block.
pub const PRODUCED: usize = 0;
/// Offset of `oldest` in a channel block: entries below are no longer to be taken. Live channels only.
pub const OLDEST: usize = 8;
/// Offset of `visit` in a channel block: odd while the receiver picks an entry. Live channels only.
pub const VISIT: usize = LINE;
/// Offset of `taken` in a channel block: entries below are taken. Lossless channels only.
pub const TAKEN: usize = LINE + 8;
/// Offset of `closed` in a channel block: 1 once no entry will follow those published. Not on the line of `produced`,
/// which changes with every frame.
pub const CLOSED: usize = LINE + 16;
/// Offset of the first entry in a channel block.
pub const ENTRIES: usize = 2 * LINE;
/// Most channels a link may have: two bits of `parked` each.
pub const MAX_CHANNELS: usize = 31;
/// `parked` bit: ring the doorbell too, somebody waits in an event loop.
pub const BY_EVENT: u64 = 1 << 63;
/// Most slots a pool may have.
pub const MAX_SLOTS: u32 = 1024;
/// Most slots that may travel on a ring: two pools of each channel of a link.
const MOST_TRAVELLERS: u32 = 2 * MAX_SLOTS * MAX_CHANNELS as u32;

/// Sizes both sides compare in the hello, so that builds that disagree say so instead of reading wrong words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Bytes of a ring entry.
    pub descriptor: usize,
    /// Bytes before the first channel block.
    pub header: usize,
    /// Bytes of a channel block before its entries.
    pub block: usize,
}

/// The sizes of this build.
pub const SIZES: Sizes = Sizes { descriptor: WORDS * 8, header: BLOCKS, block: ENTRIES };

/// `parked` bit: asleep until a frame arrives on channel `n`.
#[must_use]
pub const fn frame_bit(n: usize) -> u64 {
    1 << (2 * (n % MAX_CHANNELS))
}

/// `parked` bit: asleep until a slot of channel `n` comes back.
#[must_use]
pub const fn slot_bit(n: usize) -> u64 {
    frame_bit(n) << 1
}

/// Entries of a ring on which `travellers` slots may be at once: the next power of two.
#[must_use]
pub fn ring_capacity(travellers: u32) -> usize {
    (travellers.clamp(1, MOST_TRAVELLERS) as usize).next_power_of_two()
}

/// Bytes of a channel block with `capacity` entries; [`usize::MAX`], as of everything here, where there are too many.
#[must_use]
pub const fn block_len(capacity: usize) -> usize {
    capacity.saturating_mul(WORDS * 8).saturating_add(ENTRIES)
}

/// Offset of each channel's block, and the length of the whole region, for rings of these capacities.
#[must_use]
pub fn blocks(capacities: &[usize]) -> (Vec<usize>, usize) {
    let mut end = BLOCKS;
    let starts = capacities
        .iter()
        .map(|&capacity| {
            let start = end;
            end = end.saturating_add(block_len(capacity));
            start
        })
        .collect();
    (starts, end)
}

/// The word 0 of a current entry of ring sequence `seq`; 0 is an entry never written.
#[must_use]
pub const fn ticket(seq: u64) -> u64 {
    seq.wrapping_add(1)
}

/// The word that says slot content of ring sequence `seq` was taken, on a channel that takes frames back.
#[must_use]
pub const fn taken(seq: u64) -> u64 {
    seq.wrapping_add(1).wrapping_mul(2)
}

/// The word that says slot content of ring sequence `seq` was released.
#[must_use]
pub const fn released(seq: u64) -> u64 {
    taken(seq).wrapping_add(1)
}

/// Offset of the metadata of `slot` in a page of `slots` slots with `capacity` bytes of metadata each.
#[must_use]
pub const fn meta_offset(slots: u32, capacity: u32, slot: u32) -> usize {
    let metas = (slot as usize).saturating_mul(capacity as usize);
    metas.saturating_add((slots as usize).saturating_mul(8).next_multiple_of(LINE))
}

/// Bytes of a page.
#[must_use]
pub const fn page_len(slots: u32, capacity: u32) -> usize {
    meta_offset(slots, capacity, slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_keep_their_golden_offsets() {
        assert_eq!(SIZES, Sizes { descriptor: 64, header: 128, block: 128 });
        assert_eq!(blocks(&[4, 8]), (vec![128, 128 + 128 + 256], 128 + 128 + 256 + 128 + 512));
        assert_eq!(page_len(4, 4096), 64 + 4 * 4096);
        assert_eq!(meta_offset(9, 100, 2), 128 + 200);
        assert_eq!((ticket(0), ticket(5), released(0), released(5)), (1, 6, 3, 13));
        assert_eq!((taken(0), taken(5), OLDEST, VISIT, TAKEN), (2, 12, 8, 64, 72));
        assert_eq!((frame_bit(0), slot_bit(0), frame_bit(1), slot_bit(30)), (1, 2, 4, 1 << 61));
    }

    #[test]
    fn sizes_beyond_all_memory_are_the_largest_there_is() {
        assert_eq!(blocks(&[1 << 60, 4]), (vec![128, usize::MAX], usize::MAX));
        assert_eq!(page_len(u32::MAX, u32::MAX), usize::MAX);
    }

    #[test]
    fn a_ring_has_room_for_every_slot_that_may_travel_on_it() {
        assert_eq!([0, 1, 3, 4, 9].map(ring_capacity), [1, 1, 4, 4, 16]);
        assert_eq!(ring_capacity(u32::MAX), 65_536, "two full pools of every channel");
    }
}
