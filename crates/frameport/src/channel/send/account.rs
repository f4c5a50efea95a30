//! What a sending end knows of one of its pools, and which of them lends.
//!
//! *Who calls it*: [`super::SendEnd`], under its lock. *Invariants*: the newest pool is always there; an older one goes as
//! soon as all its slots are home, and never comes back. *A hostile peer* can keep an older pool there, within its slots.

use std::sync::Arc;

use frameport_mem::ring::Visit;
use frameport_wire::control::Delivery;

use super::Inner;
use crate::channel::audience::Slots;
use crate::channel::ledger::{Ledger, SlotViolation};
use crate::channel::lot::Lot;

/// One pool's ledger and what goes with it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) lot: Arc<Lot>,
    pub(super) ledger: Ledger,
    /// Whose frames these are, where this end is one of many that send them.
    pub(super) audience: Option<Arc<Slots>>,
    /// Whether the peer has it mapped.
    pub(super) joined: bool,
    /// The peer's first pool whose frames are answered from here.
    pub(super) answers: u32,
    /// Whether nothing more is loaned here, so that it may go when it is home.
    pub(super) leaves: bool,
}

impl Account {
    pub(super) fn new(lot: Arc<Lot>, audience: Option<Arc<Slots>>, delivery: Delivery, answers: u32) -> Self {
        let mut ledger = Ledger::new(lot.pool.decl.slots, delivery != Delivery::Lossless);
        if audience.is_some() {
            // It lends nothing itself.
            ledger.take_freed();
        }
        Self { lot, ledger, audience, joined: true, answers, leaves: false }
    }

    /// Compares what was sent on a lossless channel with the peer's words.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let pool = &self.lot.pool;
        let looked = self.ledger.look(|slot| pool.peer.state(slot));
        self.give_back(looked)
    }

    /// The same on a live one.
    pub(super) fn settle(&mut self, visit: Visit, oldest: u64) -> Result<(), String> {
        let pool = &self.lot.pool;
        let looked = self.ledger.settle(visit, oldest, |slot| pool.peer.state(slot));
        self.give_back(looked)
    }

    /// Gives an audience back what its member has let go of.
    fn give_back(&mut self, looked: Result<(), SlotViolation>) -> Result<(), String> {
        if let Some(slots) = &self.audience {
            slots.release(self.ledger.take_freed());
        }
        looked.map_err(|lie| lie.to_string())
    }

    /// The peer is gone after it took this many of the frames of a lossless channel.
    pub(super) fn reclaim(&mut self, taken: u64) {
        self.ledger.reclaim(taken);
        if self.audience.is_some() {
            self.ledger.free_all();
            let _ = self.give_back(Ok(()));
        }
    }
}

impl Inner {
    /// All of them, the oldest first.
    pub(super) fn accounts(&mut self) -> impl Iterator<Item = &mut Account> {
        self.older.iter_mut().chain(std::iter::once(&mut self.current))
    }

    /// The one that answers frames of the peer's pool `received`: of those that may, the newest.
    pub(super) fn lender(&mut self, received: u32) -> &mut Account {
        if self.current.answers > received {
            let older = self.older.iter().rposition(|account| account.answers <= received && !account.leaves);
            if let Some(account) = older.and_then(|index| self.older.get_mut(index)) {
                return account;
            }
        }
        &mut self.current
    }

    pub(super) fn ledger_of(&mut self, lot: &Arc<Lot>) -> Option<&mut Ledger> {
        self.accounts().find(|account| Arc::ptr_eq(&account.lot, lot)).map(|account| &mut account.ledger)
    }

    /// That of a pool of an audience.
    pub(super) fn account_of(&mut self, slots: &Arc<Slots>) -> Option<&mut Account> {
        let is_of = |account: &&mut Account| account.audience.as_ref().is_some_and(|own| Arc::ptr_eq(own, slots));
        self.accounts().find(is_of)
    }

    /// The oldest frame of a live channel that may still be taken back.
    pub(super) fn oldest_queued(&mut self) -> Option<u64> {
        self.accounts().filter_map(|account| account.ledger.oldest_queued()).min()
    }

    /// How many slots are not free.
    pub(super) fn in_use(&mut self) -> usize {
        self.accounts().map(|account| account.ledger.in_use()).sum()
    }

    /// Lets go of older pools that are home; their numbers.
    pub(super) fn drop_home(&mut self) -> Vec<u32> {
        if self.older.is_empty() {
            return Vec::new();
        }
        let gone = self.older.extract_if(.., |account| account.leaves && account.ledger.is_home());
        let gone: Vec<Account> = gone.collect();
        self.settled = gone.iter().fold(self.settled, |all, account| all + account.ledger.counts());
        gone.iter().map(|account| account.lot.pool.decl.id).collect()
    }
}
