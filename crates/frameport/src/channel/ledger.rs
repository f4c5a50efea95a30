//! The ledger: who has which slot of a pool this side fills. The only truth about it.
//!
//! *Who calls it*: [`super::send::SendEnd`], under its lock. *Invariants*: a slot is in one state; it is loaned only
//! when it is free and no view of this side's own pins it; each loan is a new generation; a peer's word is compared
//! with what the state allows and never believed beyond that. No I/O, no clock, no shared memory. *A hostile peer* can
//! only release what it holds, or be caught.

use frameport_wire::layout::released;

/// Where a slot's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nowhere: it may be loaned.
    Free,
    /// Loaned to this side's own code.
    Filling,
    /// On the ring, or in the peer's hands: whether it was taken is asked when somebody wants to know.
    Sent { ring_seq: u64 },
    /// Sent back in place by the peer: this side's own code holds it as a received frame.
    Returned,
    /// The peer died with it, or after sending it back in place: then it is on its ring and may still arrive. Nothing
    /// is loaned any more.
    Left,
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) state: State,
    pub(crate) generation: u64,
    /// Sequence of the frame in it.
    pub(crate) seq: u64,
    /// When the frame in it was sent, ns on the clock of its time stamp.
    pub(crate) sent_ns: u64,
    /// Views of this side's own are alive, or the loan itself is.
    pub(crate) pinned: bool,
    /// Last word seen of the peer.
    word: u64,
}

/// What became of everything sent: `sent = received + lost + in flight` at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Taken by the peer, as far as this side looked.
    pub(crate) received: u64,
    /// Never taken, and the peer is gone.
    pub(crate) lost: u64,
}

/// Provable misbehaviour with slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotViolation {
    #[error("slot {slot} (generation {generation}): it wrote release word {word}, which fits nothing it may do")]
    Word { slot: u32, generation: u64, word: u64 },
    #[error(
        "it sent back slot {slot} in generation {claimed}, which it does not hold (the slot is {state:?}, generation {generation})"
    )]
    NotHeld { slot: u32, claimed: u64, generation: u64, state: State },
}

#[derive(Debug)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
    /// Free and unpinned, freed last on top: still in cache.
    free: Vec<u32>,
    counts: Counts,
}

impl Ledger {
    pub(crate) fn new(slots: u32) -> Self {
        let slot = Slot { state: State::Free, generation: 0, seq: 0, sent_ns: 0, pinned: false, word: 0 };
        Self { slots: vec![slot; slots as usize], free: (0..slots).rev().collect(), counts: Counts::default() }
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(&self.slots)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    /// Free → Filling: the slot and its new generation.
    pub(crate) fn loan(&mut self) -> Option<(u32, u64)> {
        let index = self.free.pop()?;
        let slot = self.slot(index)?;
        slot.state = State::Filling;
        slot.generation += 1;
        slot.pinned = true;
        Some((index, slot.generation))
    }

    /// Filling → Queued.
    pub(crate) fn queue(&mut self, index: u32, ring_seq: u64, seq: u64, now_ns: u64) {
        if let Some(slot) = self.slot(index).filter(|slot| slot.state == State::Filling) {
            slot.state = State::Sent { ring_seq };
            slot.seq = seq;
            slot.sent_ns = now_ns;
            self.counts.sent += 1;
        }
    }

    /// The last view of this side's own is gone. A loan never sent becomes free.
    pub(crate) fn unpin(&mut self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.pinned = false;
            if slot.state == State::Filling {
                slot.state = State::Free;
            }
            if slot.state == State::Free {
                self.free.push(index);
            }
        }
    }

    fn set_free(&mut self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.state = State::Free;
            if !slot.pinned {
                self.free.push(index);
            }
        }
    }

    /// Compares each sent slot with the peer's word for it.
    pub(crate) fn look(&mut self, word_of: impl Fn(u32) -> u64) -> Result<(), SlotViolation> {
        for index in 0..self.slots.len() as u32 {
            let Some(slot) = self.slot(index) else { break };
            let State::Sent { ring_seq } = slot.state else { continue };
            let word = word_of(index);
            if word == slot.word {
                continue;
            }
            if word != released(ring_seq) {
                // Not remembered: whoever looks next finds it again, should this one only count.
                return Err(SlotViolation::Word { slot: index, generation: slot.generation, word });
            }
            slot.word = word;
            self.set_free(index);
        }
        Ok(())
    }

    /// Notes how many of the frames sent the peer has taken.
    pub(crate) fn note_taken(&mut self, taken: u64) {
        self.counts.received = taken;
    }

    /// Sent or Left → Returned: the peer sent the slot back in place.
    pub(crate) fn returned(&mut self, index: u32, claimed: u64, word: u64) -> Result<(), SlotViolation> {
        let Some(slot) = self.slot(index) else {
            return Err(SlotViolation::NotHeld { slot: index, claimed, generation: 0, state: State::Free });
        };
        let (generation, state) = (slot.generation, slot.state);
        if claimed != generation || !matches!(state, State::Sent { .. } | State::Left) {
            return Err(SlotViolation::NotHeld { slot: index, claimed, generation, state });
        }
        if word != slot.word {
            return Err(SlotViolation::Word { slot: index, generation, word });
        }
        slot.state = State::Returned;
        Ok(())
    }

    /// Returned → Free: this side's own code let go of a frame sent back in place.
    pub(crate) fn let_go(&mut self, index: u32) {
        if self.slot(index).is_some_and(|slot| slot.state == State::Returned) {
            self.set_free(index);
        }
    }

    /// The peer is gone after it took `taken` of the frames: what it never took is lost, what it had is nobody's.
    pub(crate) fn reclaim(&mut self, taken: u64) {
        self.counts.received = taken;
        self.counts.lost = self.counts.sent.saturating_sub(taken);
        for index in 0..self.slots.len() as u32 {
            match self.slot(index).map(|slot| (slot.state, slot)) {
                Some((State::Sent { ring_seq }, slot)) if ring_seq < taken => slot.state = State::Left,
                Some((State::Sent { .. }, _)) => self.set_free(index),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(ledger: &mut Ledger, ring_seq: u64) -> u32 {
        let (slot, _) = ledger.loan().unwrap();
        ledger.queue(slot, ring_seq, ring_seq, 0);
        ledger.unpin(slot);
        slot
    }

    #[test]
    fn the_slot_freed_last_is_loaned_first() {
        let mut ledger = Ledger::new(3);
        let loans: Vec<_> = std::iter::from_fn(|| ledger.loan()).collect();
        assert_eq!(loans, [(0, 1), (1, 1), (2, 1)]);
        ledger.unpin(2);
        ledger.unpin(0);
        assert_eq!(ledger.loan(), Some((0, 2)));
        assert_eq!(ledger.loan(), Some((2, 2)));
    }

    #[test]
    fn a_live_view_of_the_senders_own_keeps_a_released_slot_from_reuse() {
        let mut ledger = Ledger::new(1);
        let (slot, _) = ledger.loan().unwrap();
        ledger.queue(slot, 0, 0, 0);
        ledger.look(|_| released(0)).unwrap();
        assert_eq!(ledger.loan(), None, "pinned");
        ledger.unpin(slot);
        assert!(ledger.loan().is_some());
    }

    #[test]
    fn words_that_fit_nothing_are_violations() {
        for word in [released(1), released(0) - 1, 7, u64::MAX] {
            let mut ledger = Ledger::new(1);
            send(&mut ledger, 0);
            ledger.look(|_| 0).unwrap();
            for _ in 0..2 {
                assert!(ledger.look(|_| word).is_err(), "word {word}");
            }
        }
        let mut ledger = Ledger::new(1);
        send(&mut ledger, 0);
        ledger.look(|_| released(0)).unwrap();
        send(&mut ledger, 1);
        ledger.look(|_| released(0)).unwrap();
        assert!(ledger.look(|_| 0).is_err(), "a word that goes back");
    }

    #[test]
    fn a_slot_sent_back_must_be_held_in_its_generation() {
        let mut ledger = Ledger::new(2);
        ledger.loan().unwrap();
        assert!(ledger.returned(0, 1, 0).is_err(), "still being filled");
        ledger.queue(0, 0, 9, 0);
        ledger.unpin(0);
        assert!(ledger.returned(0, 2, 0).is_err(), "another generation");
        assert!(ledger.returned(0, 1, released(0)).is_err(), "released before");
        assert!(ledger.returned(1, 1, 0).is_err(), "free");
        assert!(ledger.returned(7, 1, 0).is_err(), "no such slot");
        ledger.returned(0, 1, 0).unwrap();
        assert!(ledger.returned(0, 1, 0).is_err(), "twice");
        ledger.let_go(0);
        assert_eq!(ledger.loan(), Some((0, 2)));
    }

    #[test]
    fn a_death_counts_what_the_peer_never_took_and_lets_its_last_replies_arrive() {
        let mut ledger = Ledger::new(4);
        for ring_seq in 0..3 {
            send(&mut ledger, ring_seq);
        }
        ledger.loan().unwrap();
        ledger.reclaim(1);
        assert_eq!(ledger.counts(), Counts { sent: 3, received: 1, lost: 2 });
        assert!(ledger.returned(1, 1, 0).is_err(), "it never took that");
        ledger.returned(0, 1, 0).unwrap();
        ledger.let_go(0);
        ledger.unpin(3);
        assert!(ledger.slots().all(|(_, slot)| slot.state == State::Free));
    }
}
