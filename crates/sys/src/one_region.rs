//! The memory of a pool in one region: slot k at k times the stride.
//!
//! *Who calls it*: every system, for pools or for those it has no other memory for. *Invariants*: those of the system's
//! regions; a slot's bytes lie inside the mapping. *A hostile peer* can write what it may write; it has no say in any size.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::handle::{Handle, Means};
use crate::memory::{Map, Region};
use crate::plan::{Intent, Place, Plan};
use crate::writers::Writers;

/// The right to a pool's pixels, for as many workers as there are.
#[derive(Debug)]
pub struct Store(Region);

impl Store {
    /// Makes the memory of a pool, whole, for workers that are given it by `means`, and maps it.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(plan: &Plan, means: Means) -> io::Result<(Self, Pixels)> {
        let (region, map) = Region::create_for(means, "frameport-pool", plan.len, plan.writers)?;
        Ok((Self(region), Pixels { map, stride: plan.stride }))
    }

    /// Another of the same memory.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// What a worker makes its [`Pixels`] of.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        self.0.into_handle()
    }
}

/// A pool's pixels as this process has them.
#[derive(Debug)]
pub struct Pixels {
    map: Map,
    stride: usize,
}

impl Pixels {
    /// Takes over pixels that came from the host, after checking that they are what was announced.
    ///
    /// # Errors
    /// `InvalidData` when they are not, or what the system answers.
    pub fn adopt(handle: Handle, plan: &Plan) -> io::Result<Self> {
        let map = Region::adopt(handle, plan.len, plan.writers)?.map(plan.writers == Writers::All)?;
        Ok(Self { map, stride: plan.stride })
    }

    /// Whole slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.map.len().checked_div(self.stride).unwrap_or_default()
    }

    /// Bytes from one slot to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where the planes lie, where the system has laid them out itself.
    #[must_use]
    pub fn places(&self) -> Option<Vec<Place>> {
        None
    }

    /// The first byte of a slot, and how many there are; none beyond the last.
    #[must_use]
    #[inline]
    pub fn slot(&self, slot: u32) -> Option<(NonNull<u8>, usize)> {
        let at = (slot as usize).checked_mul(self.stride)?;
        if at.checked_add(self.stride)? > self.map.len() {
            return None;
        }
        // SAFETY: in bounds, just checked.
        let base = unsafe { self.map.base().byte_add(at) };
        Some((base, self.stride))
    }

    /// Whether this process may write them.
    #[must_use]
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.map.is_writable()
    }

    /// To be had while somebody has a slot. None beyond the last.
    #[inline]
    pub fn access(self: &Arc<Self>, _slot: u32, _intent: Intent) -> Option<Access> {
        Some(Access)
    }
}

/// A slot that somebody has.
#[derive(Debug)]
pub struct Access;

impl Access {
    /// Ends the access of one who wrote and passes the slot on.
    #[inline]
    pub fn pass_on(self) {}
}
