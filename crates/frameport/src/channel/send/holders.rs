//! Who has the slots of a sending end, for the person who waits for one.
//!
//! *Who calls it*: [`super::SendEnd`] for a loan that found nothing, applications that ask. *Invariants*: as [`super`]; it looks,
//! counts a loan that found nothing, and changes nothing else. *A hostile worker* is told as one that has what it has.

use std::time::Duration;

use frameport_sys::clock::now_ns;

use super::{Account, SendEnd};
use crate::channel::ledger::State;
use crate::error::Error;
use crate::holders::{Exhausted, Holder, Peer, SlotHolder};
use crate::trace;

impl SendEnd {
    /// The error of a loan that found nothing, which is counted.
    pub(crate) fn exhausted(&self, waited: Duration) -> Error {
        self.count_no_slot();
        self.who_has_all(waited)
    }

    /// The error that says who has the slots.
    pub(super) fn who_has_all(&self, waited: Duration) -> Error {
        let joined = self.lock().current.joined;
        let (mut holders, receivers) = (self.holders(), self.state.receivers());
        let mut received: Vec<_> = receivers.iter().flat_map(|end| end.holders()).collect();
        let stalled = || {
            let what =
                "its slots are written off, for it let go of none for too long: drop the frame, or end the worker";
            format!("{} has stalled and {what}", self.peer)
        };
        let hint = match received.len() {
            _ if self.is_stalled() => Some(stalled()),
            _ if !joined => Some("the other side has not mapped the pool of the new spec yet".to_owned()),
            0 if receivers.is_empty() || self.peer == Peer::Host => None,
            0 => Some("if the worker waits to send, receive its results with recv()".to_owned()),
            1 => Some("release the frame received here: the other side may wait for its slot".to_owned()),
            held => Some(format!("release the {held} frames received here: the other side may wait for their slots")),
        };
        // One that was sent back in place is told once, by what the receiver knows of it.
        for slot in holders.iter_mut().filter(|slot| matches!(slot.holder, Holder::Returned(_))) {
            let same = |held: &SlotHolder| (&held.holder, held.slot, held.seq) == (&slot.holder, slot.slot, slot.seq);
            if let Some(held) = received.iter().position(same).map(|at| received.remove(at)) {
                slot.views += held.views;
                slot.age = held.age;
            }
        }
        let (link, channel) = (self.state.name().to_owned(), self.name.clone());
        Error::PoolExhausted(Box::new(Exhausted { link, channel, waited, holders, received, hint }))
    }

    /// Who has which slot now.
    pub(crate) fn holders(&self) -> Vec<SlotHolder> {
        if self.state.forked() {
            return Vec::new();
        }
        let mut inner = self.lock();
        let taken = inner.ring.taken();
        // A lie is found by those who can say so.
        let _ = self.look(&mut inner);
        let now = now_ns();
        let mut held = Vec::new();
        for Account { lot, ledger, .. } in inner.accounts() {
            held.extend(ledger.slots().zip(lot.pins()).filter_map(|((slot, entry), pins)| {
                let peer = || self.peer.clone();
                let (holder, sent) = match entry.state {
                    State::Filling if pins.is_views_alone() => (Holder::Views, false),
                    State::Filling => (Holder::Loan, false),
                    State::Free if entry.pinned => (Holder::Views, true),
                    State::Free | State::Left => return None,
                    State::Sent { ring_seq } if taken.is_ok_and(|taken| ring_seq < taken) => {
                        (Holder::Peer(peer()), true)
                    }
                    State::Held { .. } => (Holder::Peer(peer()), true),
                    State::Sent { .. } | State::Queued { .. } => (Holder::Waiting(peer()), true),
                    State::Doubt { .. } => (Holder::InDoubt(peer()), true),
                    State::Off { .. } => (Holder::WrittenOff(peer()), true),
                    State::Returned => (Holder::Returned(peer()), true),
                };
                Some(SlotHolder {
                    channel: self.name.clone(),
                    slot,
                    holder,
                    seq: sent.then_some(entry.seq),
                    age: sent.then(|| Duration::from_nanos(now.saturating_sub(entry.sent_ns))),
                    bytes: lot.pool.layout.size,
                    views: pins.views(),
                    made_at: trace::places(&lot.pool, slot),
                })
            }));
        }
        held
    }
}
