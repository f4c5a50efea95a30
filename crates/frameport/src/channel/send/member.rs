//! The sending end as one member of an audience has it: it lends nothing itself, it passes on what the audience lent.
//!
//! *Who calls it*: [`crate::Audience`], one call after the other. *Invariants*: a slot counts for the member from the offer it
//! takes to its release, retraction or death, each of which gives it back to the audience; no more than its quota are with it.
//! *A hostile worker* can keep its quota.

use std::sync::Arc;

use frameport_mem::park::{Ended, Look, Until};
use frameport_sys::clock::now_ns;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{frame_bit, slot_bit};

use super::{Account, Inner, SendEnd};
use crate::channel::audience::Slots;
use crate::error::Error;

impl SendEnd {
    /// Sends a frame of the audience to this member, if no more than `quota` slots are with it then. False if they are: its
    /// receiver is slower than a lossless channel allows for, or holds all it may.
    pub(crate) fn offer(&self, slots: &Arc<Slots>, frame: &Descriptor, quota: usize) -> Result<bool, Error> {
        self.state.check_fork()?;
        let mut inner = self.lock();
        self.check_open(&inner)?;
        let offered = self.publish_shared(&mut inner, slots, *frame, quota);
        self.unlock(inner);
        self.bells.ring(frame_bit(self.channel));
        offered.map_err(|lie| self.state.violation(&lie))
    }

    fn publish_shared(
        &self,
        inner: &mut Inner,
        slots: &Arc<Slots>,
        mut frame: Descriptor,
        quota: usize,
    ) -> Result<bool, String> {
        self.look(inner)?;
        if inner.account_of(slots).is_none_or(|account| !account.joined) {
            return Ok(false);
        }
        if inner.in_use() >= quota {
            // An older frame makes room for this one.
            let Some(oldest) = inner.oldest_queued() else { return Ok(false) };
            inner.ring.unlink(oldest + 1);
            self.look(inner)?;
            if inner.in_use() >= quota {
                return Ok(false);
            }
        }
        let ring_seq = inner.ring.next_seq();
        let Some(Account { lot, ledger, .. }) = inner.account_of(slots) else { return Ok(false) };
        slots.retain(frame.slot);
        (frame.ring_seq, frame.pool) = (ring_seq, lot.pool.decl.id);
        ledger.adopt(frame.slot, frame.generation, ring_seq, frame.seq, now_ns());
        inner.ring.publish(frame.encode());
        if let Some(depth) = self.delivery.depth() {
            let published = inner.ring.next_seq();
            inner.ring.unlink(published.saturating_sub(depth.into()));
            self.look(inner)?;
        }
        Ok(true)
    }

    /// Waits until `look` finds something, and looks when a slot comes back.
    pub(crate) fn await_slot<T>(
        &self,
        until: &mut Until<'_>,
        look: impl FnMut() -> Result<Look<T>, Error>,
    ) -> Result<Result<T, Ended>, Error> {
        self.bells.wait(slot_bit(self.channel), until, look)
    }

    /// Whether the member has this pool of its audience, or is to get it.
    pub(crate) fn has_pool_of(&self, slots: &Arc<Slots>) -> bool {
        self.lock().account_of(slots).is_some()
    }

    /// Gives back to the audience what this member has let go of.
    pub(crate) fn settle(&self) {
        if self.state.end().is_none() {
            let mut inner = self.lock();
            let looked = self.look(&mut inner);
            self.unlock(inner);
            drop(looked.map_err(|lie| self.state.violation(&lie)));
        }
    }

    /// Takes back the oldest frame this member has not taken; false if there is none.
    pub(crate) fn take_back(&self) -> bool {
        let mut inner = self.lock();
        let Some(oldest) = inner.oldest_queued().filter(|_| self.state.end().is_none()) else { return false };
        inner.ring.unlink(oldest + 1);
        let looked = self.look(&mut inner);
        drop(inner);
        looked.map_err(|lie| self.state.violation(&lie)).is_ok()
    }
}
