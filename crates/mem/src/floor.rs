//! What a link is measured against: bare words and whole reads of a mapping, with nothing around them.
//!
//! *Who calls it*: the benchmark, nobody else. *Invariants*: a word lies on a cache line of its own inside a writable
//! mapping. *A hostile peer* has no part in it: both ends are the benchmark itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use frameport_sys::memory::Map;
use frameport_wire::layout::LINE;

use crate::pixels::Bytes;

/// The first 32 bits of cache line `line`; `None` when it is not inside a writable mapping.
#[must_use]
pub fn word(map: &Map, line: usize) -> Option<&AtomicU32> {
    let offset = line.checked_mul(LINE)?;
    if !map.is_writable() || offset.checked_add(LINE)? > map.len() {
        return None;
    }
    // SAFETY: the line lies inside the mapping, just checked.
    let at = unsafe { map.base().as_ptr().byte_add(offset) };
    // SAFETY: mappings are page-aligned and the offset a multiple of 64; the mapping outlives the borrow; both ends
    // access the word as a 32-bit atomic only.
    Some(unsafe { AtomicU32::from_ptr(at.cast()) })
}

/// The wrapping sum of all 64-bit words: every byte is read once; `None` unless start and length are multiples of 8.
#[must_use]
pub fn sum(bytes: Bytes<'_>) -> Option<u64> {
    let start: *mut u64 = bytes.as_ptr().cast();
    if !start.is_aligned() || !bytes.len().is_multiple_of(8) {
        return None;
    }
    let load = |index: usize| {
        // SAFETY: index < len / 8 at both call sites, so the word is inside the view.
        let at = unsafe { start.add(index) };
        // SAFETY: aligned, just checked, and mapped for as long as the view lives.
        unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Relaxed)
    };
    let words = bytes.len() / 8;
    let whole = words - words % 4;
    let mut sums = [0_u64; 4];
    for index in (0..whole).step_by(4) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(load(index + lane));
        }
    }
    let rest = (whole..words).map(load).fold(0, u64::wrapping_add);
    Some(sums.into_iter().fold(rest, u64::wrapping_add))
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::memory::{Region, Writers};

    #[test]
    fn words_and_sums_stay_inside() {
        let (region, map) = Region::create("floor", 4096, Writers::All).unwrap();
        word(&map, 1).unwrap().store(7, Ordering::Relaxed);
        word(&map, 63).unwrap().store(5, Ordering::Relaxed);
        assert!(word(&map, 64).is_none() && word(&map, usize::MAX).is_none());
        assert!(word(&region.map(false).unwrap(), 0).is_none(), "a read-only mapping");
        let all = Bytes::new(&map, 0, 4096).unwrap();
        assert_eq!(sum(all), Some(12));
        assert_eq!(sum(all.part(64, 8 * 7).unwrap()), Some(7));
        assert_eq!(sum(all.part(64, 7).unwrap()), None);
        assert_eq!(sum(all.part(1, 8).unwrap()), None);
    }
}
