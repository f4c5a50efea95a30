//! Payload bytes: pointer views with one audited copy, never slices.
//!
//! *Who calls it*: frames and loans of `frameport`, and the pages of this crate for metadata. *Invariants*: a view lies
//! inside its mapping and cannot outlive it; every access goes through [`Bytes::copy_to`], [`Bytes::copy_from`] or a
//! raw pointer whose user takes the responsibility. *A hostile peer* that may write the memory can change it during a
//! copy: the copy is then a mixture of old and new bytes. That race is a plain-memory copy against another process's
//! store, which the language leaves undefined in theory (no atomic or volatile copy of bulk memory exists to avoid it;
//! see the discussions in rust-lang/unsafe-code-guidelines #152 and #345); the copy routine is opaque to the optimiser
//! here, reads each source byte once into memory nobody else sees, and nothing is decided on the source again.

use std::marker::PhantomData;
use std::ptr::NonNull;

use frameport_sys::memory::Map;
use frameport_sys::pixels::Pixels;

/// A range of bytes in a mapping that others may write.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    mapping: PhantomData<&'a ()>,
}

// SAFETY: a view is an address range of a mapping that is itself shared between threads and processes.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as above; accesses through `&Bytes` are the copies below, made for memory that changes under them.
unsafe impl Sync for Bytes<'_> {}

impl<'a> Bytes<'a> {
    /// `len` bytes at `offset`; `None` when they are not inside the mapping.
    #[must_use]
    #[inline]
    pub fn new(map: &'a Map, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > map.len() {
            return None;
        }
        // SAFETY: offset <= end <= map.len(), so the result is inside or one past the mapping.
        let base = unsafe { map.base().byte_add(offset) };
        Some(Self { base, len, writable: map.is_writable(), mapping: PhantomData })
    }

    /// The first `len` bytes of a slot; `None` when it does not have them, or is none of the pool's.
    #[must_use]
    #[inline]
    pub fn of_slot(pixels: &'a Pixels, slot: u32, len: usize) -> Option<Self> {
        let (base, size) = pixels.slot(slot)?;
        (len <= size).then(|| Self { base, len, writable: pixels.is_writable(), mapping: PhantomData })
    }

    /// `len` bytes at `offset` of this view; `None` when they are not inside it.
    #[must_use]
    #[inline]
    pub fn part(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: offset <= end <= len, so the result is inside or one past this view.
        let base = unsafe { self.base.byte_add(offset) };
        Some(Self { base, len, ..self })
    }

    /// Bytes in the view.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this process may write it: not the frames of an audience.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// First byte. Whoever reads or writes through it accepts that the memory may change meanwhile.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Copies bytes from `offset` on into `to`; false when they are not all inside the view.
    #[must_use]
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        let Some(part) = self.part(offset, to.len()) else { return false };
        // SAFETY: both ranges are valid for their length; `to` is private memory, so they do not overlap.
        unsafe { copy(part.base.as_ptr(), to.as_mut_ptr(), to.len()) };
        true
    }

    /// Copies `from` to `offset` of the view; false when it does not fit or the memory may not be written.
    #[must_use]
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> bool {
        let Some(part) = self.part(offset, from.len()).filter(|part| part.writable) else { return false };
        // SAFETY: both ranges are valid for their length; `from` is private memory, so they do not overlap.
        unsafe { copy(from.as_ptr(), part.base.as_ptr(), from.len()) };
        true
    }

    /// Copies another view of the same length over this one; false when the lengths differ, the ranges overlap or the
    /// memory may not be written.
    #[must_use]
    pub fn copy_from_bytes(&self, from: Bytes<'_>) -> bool {
        let (a, b) = (self.base.addr().get(), from.base.addr().get());
        let apart =
            a.checked_add(self.len).is_some_and(|end| end <= b) || b.checked_add(from.len).is_some_and(|end| end <= a);
        if self.len != from.len || !self.writable || !apart {
            return false;
        }
        // SAFETY: both ranges are valid for their common length and do not overlap, just checked.
        unsafe { copy(from.base.as_ptr(), self.base.as_ptr(), self.len) };
        true
    }

    /// An owned copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let whole = self.copy_to(0, &mut bytes);
        debug_assert!(whole);
        bytes
    }
}

/// The one copy between private and shared memory.
///
/// # Safety
/// Both ranges are valid for `len` bytes and do not overlap.
#[inline(never)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise. `inline(never)` keeps the optimiser from merging this read with another.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::memory::{Region, Writers};

    #[test]
    fn copies_stay_inside() {
        let (region, map) = Region::create("pixels", 4096, Writers::All).unwrap();
        let other = region.map(false).unwrap();
        let all = Bytes::new(&map, 0, 4096).unwrap();
        let part = all.part(100, 8).unwrap();
        assert!(part.copy_from(2, b"abcdef"));
        assert!(!part.copy_from(3, b"abcdef"), "one byte too far");
        assert!(!part.copy_to(usize::MAX, &mut [0; 2]));
        assert!(all.part(4096, 0).is_some() && all.part(4096, 1).is_none() && all.part(1, usize::MAX).is_none());
        assert!(Bytes::new(&map, 4090, 7).is_none());
        let seen = Bytes::new(&other, 100, 8).unwrap();
        assert_eq!(seen.to_vec(), b"\0\0abcdef");
        assert!(!seen.copy_from(0, b"x"), "a read-only mapping");
        assert!(all.part(0, 8).unwrap().copy_from_bytes(part));
        assert!(!all.part(99, 8).unwrap().copy_from_bytes(part), "overlap");
        assert_eq!(all.part(0, 8).unwrap().to_vec(), b"\0\0abcdef");
    }
}
