//! One pool whose frames arrive at a receiving end: which of its slots are in this side's hands.
//!
//! *Who calls it*: [`super::recv::RecvEnd`] takes, frames and their holds release. *Invariants*: a slot is in this side's
//! hands from the take to the drop of its last hold; releasing never blocks and may happen on any thread; frames keep their
//! source, also when the end has let go of it. *A hostile peer* is caught at the take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frameport_mem::park::Bells;
use frameport_sys::pixels::{Access, Intent};
use frameport_wire::layout::released;

use super::keep::{Keeper, Keepers};
use super::lot::Lot;
use super::send::SendEnd;
use super::state::LinkState;
use crate::holders::{Holder, Peer, SlotHolder};
use crate::pool::Pool;
use crate::trace;

/// See the module.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: Arc<LinkState>,
    /// The channel's name, and who is at its other end.
    channel: String,
    peer: Peer,
    /// For slots sent back in place: the end that sent them out, which has their ledger.
    sent_by: Option<(Arc<SendEnd>, Arc<Lot>)>,
    bells: Arc<Bells>,
    /// Whom to ring for a released slot; nobody, where the sender never waits for one.
    bit: Option<u64>,
    /// The channels of this side's, by index, on which a slot may go back in place.
    returns: u32,
    hands: Box<[Hand]>,
}

/// One slot, as far as it is in this side's hands. Changed without the end's lock: frames are dropped on any thread.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// The ticket of the entry it came with while it is held, 0 while it is not.
    pub(super) ticket: AtomicU64,
    pub(super) holds: Keepers,
    /// Of the frame in it, for those who ask; read and written under the end's lock.
    pub(super) seq: AtomicU64,
    pub(super) since_ns: AtomicU64,
}

impl Source {
    /// The peer's own pool, or one that this side sent out (`sent_by`) for slots that come back in place. `bit` tells whom to
    /// ring for a released slot; bit n of `returns` that a slot may go back in place on channel n.
    pub(super) fn new(
        pool: Arc<Pool>,
        (state, bells): (&Arc<LinkState>, &Arc<Bells>),
        (channel, peer): (&str, &Peer),
        sent_by: Option<(Arc<SendEnd>, Arc<Lot>)>,
        bit: Option<u64>,
        returns: u32,
    ) -> Self {
        let (state, bells) = (Arc::clone(state), Arc::clone(bells));
        let (channel, peer) = (channel.to_owned(), peer.clone());
        Self { hands: Self::hands_of(&pool), pool, state, channel, peer, sent_by, bells, bit, returns }
    }

    fn hands_of(pool: &Pool) -> Box<[Hand]> {
        (0..pool.decl.slots).map(|_| Hand::default()).collect()
    }

    /// Whether a slot may go back in place on the channel of this index.
    pub(crate) fn returns_on(&self, channel: usize) -> bool {
        1_u32.checked_shl(u32::try_from(channel).unwrap_or(u32::MAX)).is_some_and(|bit| self.returns & bit != 0)
    }

    /// Whether it is the peer's own pool.
    pub(super) fn is_peers(&self) -> bool {
        self.sent_by.is_none()
    }

    pub(super) fn hand(&self, slot: u32) -> Option<&Hand> {
        self.hands.get(slot as usize)
    }

    /// The ledger's word on a slot the peer sends back in place.
    pub(super) fn check_returned(&self, slot: u32, generation: u64) -> Result<(), String> {
        let returned = self.sent_by.as_ref().map_or(Ok(()), |(end, lot)| end.returned(lot, slot, generation));
        returned.map_err(|lie| lie.to_string())
    }

    /// To be had by each keeper of a held slot. Only a worker's own frames are for editing: they may go back in place.
    pub(crate) fn access(&self, slot: u32) -> Option<Access> {
        let is_to_edit = matches!(self.peer, Peer::Host) && !self.pool.decl.shared;
        self.pool.access(slot, if is_to_edit { Intent::Write } else { Intent::Read })
    }

    /// Another view of a held slot.
    pub(crate) fn hold(&self, slot: u32) {
        self.hand(slot).into_iter().for_each(|hand| hand.holds.add_view());
    }

    /// Whether a frame's own hold is the only one.
    pub(crate) fn is_sole(&self, slot: u32) -> bool {
        self.hand(slot).is_some_and(|hand| hand.holds.is_frame_alone())
    }

    /// The frame or a view less; the last one releases the slot.
    pub(crate) fn unhold(&self, slot: u32, keeper: Keeper) {
        // A forked child has neither the mapping nor a right to speak for its parent.
        if self.state.forked() || !self.hand(slot).is_some_and(|hand| hand.holds.leave(keeper)) {
            return;
        }
        let Some(ring_seq) = self.forget(slot) else { return };
        match &self.sent_by {
            Some((end, lot)) => end.let_go(lot, slot),
            None => {
                self.pool.own.set_state(slot, released(ring_seq));
                self.bit.into_iter().for_each(|bit| self.bells.ring(bit));
            }
        }
    }

    /// Takes a slot out of this side's hands: the ring sequence it came with, if it was in them.
    pub(crate) fn forget(&self, slot: u32) -> Option<u64> {
        self.hand(slot)?.ticket.swap(0, Ordering::Release).checked_sub(1)
    }

    /// The slots in this side's hands.
    pub(super) fn held(&self) -> impl Iterator<Item = (u32, &Hand)> {
        (0..).zip(&self.hands).filter(|(_, hand)| hand.ticket.load(Ordering::Relaxed) != 0)
    }

    /// Whether a slot is in this side's hands.
    pub(super) fn is_held(&self) -> bool {
        // Acquire: what was done with a released frame comes before whatever is done with its memory next.
        self.hands.iter().any(|hand| hand.ticket.load(Ordering::Acquire) != 0)
    }

    /// The same, as they are told to people.
    pub(super) fn holders(&self, now_ns: u64) -> impl Iterator<Item = SlotHolder> {
        let holder = if self.is_peers() { Holder::Received } else { Holder::Returned };
        self.held().map(move |(slot, hand)| SlotHolder {
            channel: self.channel.clone(),
            slot,
            holder: holder(self.peer.clone()),
            seq: Some(hand.seq.load(Ordering::Relaxed)),
            age: Some(Duration::from_nanos(now_ns.saturating_sub(hand.since_ns.load(Ordering::Relaxed)))),
            bytes: self.pool.layout.size,
            views: hand.holds.views(),
            made_at: trace::places(&self.pool, slot),
        })
    }
}
