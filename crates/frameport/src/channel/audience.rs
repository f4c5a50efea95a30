//! The slots of a pool that many workers read: who of them still has which.
//!
//! *Who calls it*: [`crate::Audience`] loans and shares, each member's [`super::send::SendEnd`] retains and releases under its own
//! lock. *Invariants*: the lock here is the innermost and held for arithmetic only; a slot is loaned only when no member
//! has it and no view of this side's own pins it. *A hostile worker* can keep what it was given, within its quota, and
//! write nothing.

use std::sync::PoisonError;

use frameport_sys::sync::{Mutex, MutexGuard};

use super::keep::{Keeper, Keepers};
use crate::holders::Holder;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots {
    inner: Mutex<Inner>,
    /// For each slot: the loan itself and the views made from it.
    pins: Box<[Keepers]>,
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
        Self { inner: Mutex::new(inner), pins: (0..count).map(|_| Keepers::default()).collect() }
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
        self.pins.get(index as usize)?.begin();
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
            pins.add_view();
        }
    }

    /// The loan or a view less.
    pub(crate) fn unpin(&self, index: u32, keeper: Keeper) {
        if self.pins.get(index as usize).is_some_and(|pins| pins.leave(keeper)) {
            let mut inner = self.lock();
            let Some(slot) = inner.slots.get_mut(index as usize) else { return };
            slot.pinned = false;
            if slot.members == 0 {
                inner.free.push(index);
            }
        }
    }

    /// What this side's own loans and views keep: the slot, by what, and how many views.
    pub(crate) fn kept(&self) -> Vec<(u32, Holder, u32)> {
        let inner = self.lock();
        let kept = (0..).zip(inner.slots.iter().zip(&self.pins)).filter(|(_, (slot, _))| slot.pinned);
        let kept = kept.map(|(index, (_, pins))| {
            (index, if pins.is_views_alone() { Holder::Views } else { Holder::Loan }, pins.views())
        });
        kept.collect()
    }

    /// How many slots are free.
    pub(crate) fn free(&self) -> usize {
        self.lock().free.len()
    }
}
