//! The ledger: who has which slot of a pool this side fills. The only truth about it.
//!
//! *Who calls it*: [`super::send::SendEnd`], under its lock. *Invariants*: a slot is in one state; it is loaned only
//! when it is free and no view of this side's own pins it; each loan is a new generation; a peer's word is compared
//! with what the state allows and never believed beyond that. No I/O, no clock, no shared memory. *A hostile peer* can
//! only release what it holds, or be caught; on a live channel it can keep what it holds or visits, at most the slots there
//! are.

use frameport_mem::ring::Visit;
use frameport_wire::layout::{released, taken};

/// Where a slot's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nowhere: it may be loaned.
    Free,
    /// Loaned to this side's own code.
    Filling,
    /// On a lossless ring, or in the peer's hands: whether it was taken is asked when somebody wants to know.
    Sent { ring_seq: u64 },
    /// On a live ring, as far as this side has looked.
    Queued { ring_seq: u64 },
    /// Taken back from a live ring while the receiver was in this visit, and might be taking it.
    Doubt { ring_seq: u64, visit: Visit },
    /// Taken from a live ring.
    Held { ring_seq: u64 },
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

/// What became of everything sent: `sent = received + retracted + in flight`, which is what is lost when the
/// peer is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Taken by the peer, as far as this side looked. A lossless channel's ring counts them instead.
    pub(crate) received: u64,
    /// Taken back before the peer took it.
    pub(crate) retracted: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            retracted: self.retracted + other.retracted,
        }
    }
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
    /// How often a slot became free or one that is free lost its last view.
    came_back: u64,
    counts: Counts,
    /// Frames may be taken back.
    live: bool,
}

impl Ledger {
    pub(crate) fn new(slots: u32, live: bool) -> Self {
        let slot = Slot { state: State::Free, generation: 0, seq: 0, sent_ns: 0, pinned: false, word: 0 };
        Self {
            slots: vec![slot; slots as usize],
            free: (0..slots).rev().collect(),
            came_back: 0,
            counts: Counts::default(),
            live,
        }
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

    /// Filling → Sent or Queued.
    pub(crate) fn queue(&mut self, index: u32, ring_seq: u64, seq: u64, now_ns: u64) {
        let state = if self.live { State::Queued { ring_seq } } else { State::Sent { ring_seq } };
        if let Some(slot) = self.slot(index).filter(|slot| slot.state == State::Filling) {
            slot.state = state;
            slot.seq = seq;
            slot.sent_ns = now_ns;
            self.counts.sent += 1;
        }
    }

    /// Free → Sent or Queued: a slot that an audience has lent this member, with its generation there.
    pub(crate) fn adopt(&mut self, index: u32, generation: u64, ring_seq: u64, seq: u64, now_ns: u64) {
        if let Some(slot) = self.slot(index).filter(|slot| slot.state == State::Free) {
            slot.state = State::Filling;
            slot.generation = generation;
        }
        self.queue(index, ring_seq, seq, now_ns);
    }

    /// How many slots are not free.
    pub(crate) fn in_use(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state != State::Free).count()
    }

    /// Whether every slot is free and nobody sees it.
    pub(crate) fn is_home(&self) -> bool {
        self.slots.iter().all(|slot| slot.state == State::Free && !slot.pinned)
    }

    /// The slots that have become free since this was asked last: an audience's, whose member this is the ledger of.
    pub(crate) fn take_freed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.free)
    }

    /// Gives up everything a dead member had: it can only have read it.
    pub(crate) fn free_all(&mut self) {
        for index in 0..self.slots.len() as u32 {
            if self.slot(index).is_some_and(|slot| slot.state != State::Free) {
                self.set_free(index);
            }
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
                self.came_back += 1;
            }
        }
    }

    fn set_free(&mut self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.state = State::Free;
            if !slot.pinned {
                self.free.push(index);
            }
            self.came_back += 1;
        }
    }

    /// Grows whenever a slot comes back.
    pub(crate) fn came_back(&self) -> u64 {
        self.came_back
    }

    /// Whether the frame sent in `index` at `generation` is still out: not let go of, nor sent back in place.
    pub(crate) fn is_out(&self, index: u32, generation: u64) -> bool {
        let slot = self.slots.get(index as usize).filter(|slot| slot.generation == generation);
        slot.is_some_and(|slot| matches!(slot.state, State::Sent { .. } | State::Left))
    }

    /// Compares each sent slot of a lossless channel with the peer's word for it.
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

    /// Compares each sent slot of a live channel with the peer's word for it, after `visit` was loaded and `oldest` stored:
    /// what was taken back and not taken is free, at once or when the visit that may be taking it is over.
    pub(crate) fn settle(
        &mut self,
        visit: Visit,
        oldest: u64,
        word_of: impl Fn(u32) -> u64,
    ) -> Result<(), SlotViolation> {
        for index in 0..self.slots.len() as u32 {
            let Some(slot) = self.slot(index) else { break };
            let (State::Queued { ring_seq } | State::Doubt { ring_seq, .. } | State::Held { ring_seq }) = slot.state
            else {
                continue;
            };
            let (word, was_held) = (word_of(index), matches!(slot.state, State::Held { .. }));
            let is_new = word != slot.word;
            let next = match slot.state {
                _ if is_new && word == released(ring_seq) => State::Free,
                _ if is_new && word == taken(ring_seq) && !was_held => State::Held { ring_seq },
                _ if is_new => return Err(SlotViolation::Word { slot: index, generation: slot.generation, word }),
                State::Queued { .. } if ring_seq < oldest && visit.may_take(ring_seq) => {
                    State::Doubt { ring_seq, visit }
                }
                State::Queued { .. } if ring_seq < oldest => State::Free,
                State::Doubt { visit: open, .. } if open != visit => State::Free,
                unchanged => unchanged,
            };
            slot.word = word;
            if next == State::Free {
                self.set_free(index);
            } else {
                slot.state = next;
            }
            match is_new {
                true => self.counts.received += u64::from(!was_held),
                false => self.counts.retracted += u64::from(next == State::Free),
            }
        }
        Ok(())
    }

    /// The oldest frame of a live channel that may still be taken back.
    pub(crate) fn oldest_queued(&self) -> Option<u64> {
        let queued = self.slots.iter().filter_map(|slot| match slot.state {
            State::Queued { ring_seq } => Some(ring_seq),
            _ => None,
        });
        queued.min()
    }

    /// The peer sent the slot back in place: it is this side's own code's, as a received frame.
    pub(crate) fn returned(&mut self, index: u32, claimed: u64, word: u64) -> Result<(), SlotViolation> {
        let Some(slot) = self.slot(index) else {
            return Err(SlotViolation::NotHeld { slot: index, claimed, generation: 0, state: State::Free });
        };
        let (generation, state) = (slot.generation, slot.state);
        let expected = match state {
            State::Sent { .. } | State::Left => Some(slot.word),
            State::Queued { ring_seq } | State::Doubt { ring_seq, .. } | State::Held { ring_seq } => {
                Some(taken(ring_seq))
            }
            State::Free | State::Filling | State::Returned => None,
        };
        let Some(expected) = expected.filter(|_| claimed == generation) else {
            return Err(SlotViolation::NotHeld { slot: index, claimed, generation, state });
        };
        if word != expected {
            return Err(SlotViolation::Word { slot: index, generation, word });
        }
        slot.word = word;
        slot.state = State::Returned;
        self.counts.received += u64::from(matches!(state, State::Queued { .. } | State::Doubt { .. }));
        Ok(())
    }

    /// Returned → Free: this side's own code let go of a frame sent back in place.
    pub(crate) fn let_go(&mut self, index: u32) {
        if self.slot(index).is_some_and(|slot| slot.state == State::Returned) {
            self.set_free(index);
        }
    }

    /// The peer is gone after it took `taken` of the frames of a lossless channel, or what the last look has found on a live
    /// one: what it never took is lost, what it had is nobody's.
    pub(crate) fn reclaim(&mut self, taken: u64) {
        for index in 0..self.slots.len() as u32 {
            match self.slot(index).map(|slot| (slot.state, slot)) {
                Some((State::Sent { ring_seq }, slot)) if ring_seq < taken => slot.state = State::Left,
                Some((State::Held { .. }, slot)) => slot.state = State::Left,
                Some((State::Sent { .. } | State::Queued { .. } | State::Doubt { .. }, _)) => self.set_free(index),
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
        let mut ledger = Ledger::new(3, false);
        let loans: Vec<_> = std::iter::from_fn(|| ledger.loan()).collect();
        assert_eq!(loans, [(0, 1), (1, 1), (2, 1)]);
        ledger.unpin(2);
        ledger.unpin(0);
        assert_eq!(ledger.loan(), Some((0, 2)));
        assert_eq!(ledger.loan(), Some((2, 2)));
    }

    #[test]
    fn a_live_view_of_the_senders_own_keeps_a_released_slot_from_reuse() {
        let mut ledger = Ledger::new(1, false);
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
            let mut ledger = Ledger::new(1, false);
            send(&mut ledger, 0);
            ledger.look(|_| 0).unwrap();
            for _ in 0..2 {
                assert!(ledger.look(|_| word).is_err(), "word {word}");
            }
        }
        let mut ledger = Ledger::new(1, false);
        send(&mut ledger, 0);
        ledger.look(|_| released(0)).unwrap();
        send(&mut ledger, 1);
        ledger.look(|_| released(0)).unwrap();
        assert!(ledger.look(|_| 0).is_err(), "a word that goes back");
    }

    #[test]
    fn a_slot_sent_back_must_be_held_in_its_generation() {
        let mut ledger = Ledger::new(2, false);
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
        let mut ledger = Ledger::new(4, false);
        for ring_seq in 0..3 {
            send(&mut ledger, ring_seq);
        }
        ledger.loan().unwrap();
        ledger.reclaim(1);
        assert_eq!(ledger.counts(), Counts { sent: 3, received: 0, retracted: 0 });
        assert!(ledger.returned(1, 1, 0).is_err(), "it never took that");
        ledger.returned(0, 1, 0).unwrap();
        ledger.let_go(0);
        ledger.unpin(3);
        assert!(ledger.slots().all(|(_, slot)| slot.state == State::Free));
    }

    /// A receiver's word about its visits, as the ring has it: outside, claiming one entry, or taking any.
    fn visit(word: u64) -> Visit {
        Visit::from_word(word)
    }

    #[test]
    fn what_was_taken_back_is_free_unless_the_visit_may_take_it() {
        let (outside, claims_first, any) = (visit(0), visit(1), visit(2));
        for (during, first, second) in [
            (outside, State::Free, State::Free),
            (claims_first, State::Doubt { ring_seq: 0, visit: claims_first }, State::Free),
            (any, State::Doubt { ring_seq: 0, visit: any }, State::Doubt { ring_seq: 1, visit: any }),
        ] {
            let mut ledger = Ledger::new(3, true);
            for seq in 0..3 {
                send(&mut ledger, seq);
            }
            ledger.settle(during, 2, |_| 0).unwrap();
            let states: Vec<_> = ledger.slots().map(|(_, slot)| slot.state).collect();
            assert_eq!(states, [first, second, State::Queued { ring_seq: 2 }], "{during:?}");
            ledger.settle(visit(8), 2, |_| 0).unwrap();
            assert_eq!(ledger.counts(), Counts { sent: 3, received: 0, retracted: 2 }, "when it is over");
        }
    }

    #[test]
    fn a_frame_in_doubt_that_was_taken_is_received_and_comes_back_by_its_release() {
        let mut ledger = Ledger::new(2, true);
        for seq in 0..2 {
            send(&mut ledger, seq);
        }
        ledger.settle(visit(1), 1, |_| 0).unwrap();
        let words = [taken(0), 0];
        ledger.settle(visit(4), 1, |slot| words[slot as usize]).unwrap();
        assert_eq!(ledger.counts(), Counts { sent: 2, received: 1, retracted: 0 });
        assert_eq!(ledger.loan(), None);
        ledger.settle(visit(4), 1, |slot| [released(0), 0][slot as usize]).unwrap();
        assert_eq!(ledger.loan(), Some((0, 2)));
        assert_eq!(ledger.oldest_queued(), Some(1));
        ledger.reclaim(0);
        assert_eq!(ledger.counts(), Counts { sent: 2, received: 1, retracted: 0 });
    }

    #[test]
    fn live_words_that_fit_nothing_are_violations() {
        for (before, now) in
            [(0, taken(1)), (0, released(1)), (0, 7), (taken(0), 0), (taken(0), taken(1)), (0, u64::MAX)]
        {
            let mut ledger = Ledger::new(1, true);
            send(&mut ledger, 0);
            ledger.settle(visit(0), 0, |_| before).unwrap();
            assert!(ledger.settle(visit(0), 0, |_| now).is_err(), "{before} then {now}");
        }
    }

    #[test]
    fn a_live_frame_may_come_back_in_place_once_it_was_taken() {
        let mut ledger = Ledger::new(1, true);
        send(&mut ledger, 0);
        assert!(ledger.returned(0, 1, 0).is_err(), "not taken");
        ledger.returned(0, 1, taken(0)).unwrap();
        assert_eq!(ledger.counts().received, 1);
        ledger.settle(visit(4), 1, |_| taken(0)).unwrap();
        ledger.let_go(0);
        assert_eq!(ledger.loan(), Some((0, 2)));
    }
}
