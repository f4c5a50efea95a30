//! The slots of a pool that many workers read: who of them still has which.
//!
//! *Who calls it*: [`crate::Audience`] loans and shares, each member's [`super::send::SendEnd`] retains and releases under its own
//! lock. *Invariants*: the lock here is the innermost and held for arithmetic only; a slot is loaned only when no member
//! has it and no view of this side's own pins it. *A hostile worker* can keep what it was given, within its quota, and
//! write nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots {
    inner: Mutex<Inner>,
    /// For each slot: the loan itself and the views made from it.
    pins: Box<[AtomicU32]>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    /// Freed last on top: still in cache.
    free: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    /// Members that have it.
    members: u32,
    pinned: bool,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        let inner = Inner { slots: vec![Slot::default(); count as usize], free: (0..count).rev().collect() };
        Self { inner: Mutex::new(inner), pins: (0..count).map(|_| AtomicU32::new(0)).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free slot and its new generation.
    pub(crate) fn loan(&self) -> Option<(u32, u64)> {
        let mut inner = self.lock();
        let index = inner.free.pop()?;
        let slot = inner.slots.get_mut(index as usize)?;
        slot.generation += 1;
        slot.pinned = true;
        self.pins.get(index as usize)?.store(1, Ordering::Relaxed);
        Some((index, slot.generation))
    }

    /// One member more has it.
    pub(crate) fn retain(&self, index: u32) {
        if let Some(slot) = self.lock().slots.get_mut(index as usize) {
            slot.members += 1;
        }
    }

    /// One member less has each of them.
    pub(crate) fn release(&self, indices: Vec<u32>) {
        if indices.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for index in indices {
            let Some(slot) = inner.slots.get_mut(index as usize) else { continue };
            slot.members = slot.members.saturating_sub(1);
            if slot.members == 0 && !slot.pinned {
                inner.free.push(index);
            }
        }
    }

    /// Another view of a loaned or sent slot.
    pub(crate) fn pin(&self, index: u32) {
        if let Some(pins) = self.pins.get(index as usize) {
            pins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One view less.
    pub(crate) fn unpin(&self, index: u32) {
        // AcqRel: what every view wrote comes before the slot's next loan.
        let last = self.pins.get(index as usize).is_some_and(|pins| pins.fetch_sub(1, Ordering::AcqRel) == 1);
        if last {
            let mut inner = self.lock();
            let Some(slot) = inner.slots.get_mut(index as usize) else { return };
            slot.pinned = false;
            if slot.members == 0 {
                inner.free.push(index);
            }
        }
    }

    /// How many slots are free.
    pub(crate) fn free(&self) -> usize {
        self.lock().free.len()
    }
}
