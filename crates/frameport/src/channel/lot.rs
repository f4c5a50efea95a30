//! One pool that a sending end lends from: its memory, and what of this side's own keeps its slots.
//!
//! *Who calls it*: [`super::send::SendEnd`], which has one, and older ones while their frames are out after a change of spec;
//! loans and pins keep the one they are of. *Invariants*: what is here is changed without a lock; who has a slot beyond that
//! is the ledger's to know. *A hostile peer* has no part in it.

use std::sync::Arc;

use super::keep::{Keeper, Keepers};
use crate::pool::Pool;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lot {
    pub(crate) pool: Arc<Pool>,
    /// For each slot: the loan itself and the views made from it.
    pins: Box<[Keepers]>,
}

impl Lot {
    pub(crate) fn new(pool: Arc<Pool>) -> Arc<Self> {
        let pins = (0..pool.decl.slots).map(|_| Keepers::default()).collect();
        Arc::new(Self { pool, pins })
    }

    pub(crate) fn pins(&self) -> &[Keepers] {
        &self.pins
    }

    fn keepers(&self, slot: u32) -> Option<&Keepers> {
        self.pins.get(slot as usize)
    }

    /// A loan has got the slot.
    pub(crate) fn begin(&self, slot: u32) {
        self.keepers(slot).into_iter().for_each(Keepers::begin);
    }

    /// Another view of a loaned or sent slot.
    pub(crate) fn pin(&self, slot: u32) {
        self.keepers(slot).into_iter().for_each(Keepers::add_view);
    }

    /// The loan or a view less; true when it was the last.
    pub(crate) fn unpin(&self, slot: u32, keeper: Keeper) -> bool {
        self.keepers(slot).is_some_and(|pins| pins.leave(keeper))
    }
}
