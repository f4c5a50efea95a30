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
    /// Written off while the peer had it, or (in this visit) might be taking it: no longer counted on, and not loaned before
    /// the peer lets go of it after all.
    Off { ring_seq: u64, visit: Option<Visit> },
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

/// What became of everything sent: `sent = received + retracted + lost + in flight` at every moment. What is in flight when the
/// peer is gone is lost, which its end counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Taken by the peer, as far as this side looked. A lossless channel's ring counts them instead.
    pub(crate) received: u64,
    /// Taken back before the peer took it.
    pub(crate) retracted: u64,
    /// Written off, or never taken and the peer is gone.
    pub(crate) lost: u64,
    /// Of a lossless channel's entries taken, those that count as lost.
    pub(crate) off_taken: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            retracted: self.retracted + other.retracted,
            lost: self.lost + other.lost,
            off_taken: self.off_taken + other.off_taken,
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
    /// How often the peer let go of a slot.
    let_go: u64,
    /// The peer let go of nothing since slots were written off.
    stalled: bool,
    /// Entries of a lossless ring whose frames were written off and that the peer had not taken when somebody looked.
    off: Vec<u64>,
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
            let_go: 0,
            stalled: false,
            off: Vec::new(),
        }
    }

    /// Slots of the peer's next life may lie in the memory of those of `earlier`: generations go on rising.
    pub(crate) fn go_on_from(&mut self, earlier: &Self) {
        let last = earlier.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
        self.slots.iter_mut().for_each(|slot| slot.generation = last);
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

    /// The peer gives a slot up.
    fn note_let_go(&mut self) {
        self.let_go += 1;
        self.stalled = false;
    }

    /// How often the peer let go of a slot, as far as this side looked.
    pub(crate) fn let_go_count(&self) -> u64 {
        self.let_go
    }

    /// Whether slots were written off and the peer let go of none since.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The slot that the peer has had the longest, taken or not, but for those written off.
    pub(crate) fn oldest_out(&self) -> Option<&Slot> {
        let is_out = |slot: &&Slot| {
            matches!(slot.state, State::Sent { .. } | State::Queued { .. } | State::Doubt { .. } | State::Held { .. })
        };
        self.slots.iter().filter(is_out).min_by_key(|slot| slot.sent_ns)
    }

    /// Writes off what the peer has, of a lossless channel also what it has not taken; `taken` is how many entries of such
    /// a channel it took. How many frames are lost by that.
    pub(crate) fn write_off(&mut self, taken: u64) -> u64 {
        let before = self.counts.lost;
        for slot in &mut self.slots {
            let (ring_seq, visit) = match slot.state {
                State::Sent { ring_seq } | State::Held { ring_seq } => (ring_seq, None),
                State::Doubt { ring_seq, visit } => (ring_seq, Some(visit)),
                _ => continue,
            };
            match slot.state {
                State::Held { .. } => self.counts.received = self.counts.received.saturating_sub(1),
                State::Sent { .. } => self.off.push(ring_seq),
                _ => {}
            }
            slot.state = State::Off { ring_seq, visit };
            self.counts.lost += 1;
        }
        if !self.live {
            self.note_taken(taken);
        }
        let lost = self.counts.lost - before;
        self.stalled |= lost > 0;
        lost
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
            let (State::Sent { ring_seq } | State::Off { ring_seq, .. }) = slot.state else { continue };
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
            self.note_let_go();
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
            let (State::Queued { ring_seq }
            | State::Doubt { ring_seq, .. }
            | State::Held { ring_seq }
            | State::Off { ring_seq, .. }) = slot.state
            else {
                continue;
            };
            let word = word_of(index);
            let was_off = matches!(slot.state, State::Off { .. });
            let was_held = matches!(slot.state, State::Held { .. } | State::Off { visit: None, .. });
            let is_new = word != slot.word;
            let next = match slot.state {
                _ if is_new && word == released(ring_seq) => State::Free,
                _ if is_new && word == taken(ring_seq) && was_off && !was_held => State::Off { ring_seq, visit: None },
                _ if is_new && word == taken(ring_seq) && !was_held => State::Held { ring_seq },
                _ if is_new => return Err(SlotViolation::Word { slot: index, generation: slot.generation, word }),
                State::Queued { .. } if ring_seq < oldest && visit.may_take(ring_seq) => {
                    State::Doubt { ring_seq, visit }
                }
                State::Queued { .. } if ring_seq < oldest => State::Free,
                State::Doubt { visit: open, .. } | State::Off { visit: Some(open), .. } if open != visit => State::Free,
                unchanged => unchanged,
            };
            slot.word = word;
            if next == State::Free {
                self.set_free(index);
                if is_new {
                    self.note_let_go();
                }
            } else {
                slot.state = next;
            }
            match is_new {
                // Lost when it was written off.
                _ if was_off => {}
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

    /// Notes how many entries of a lossless ring the peer has taken, for the frames that were written off before.
    pub(crate) fn note_taken(&mut self, taken: u64) {
        let before = self.off.len();
        self.off.retain(|ring_seq| *ring_seq >= taken);
        self.counts.off_taken += (before - self.off.len()) as u64;
    }

    /// The peer sent the slot back in place: it is this side's own code's, as a received frame.
    pub(crate) fn returned(&mut self, index: u32, claimed: u64, word: u64) -> Result<(), SlotViolation> {
        let live = self.live;
        let Some(slot) = self.slot(index) else {
            return Err(SlotViolation::NotHeld { slot: index, claimed, generation: 0, state: State::Free });
        };
        let (generation, state) = (slot.generation, slot.state);
        let expected = match state {
            State::Sent { .. } | State::Left => Some(slot.word),
            State::Off { .. } if !live => Some(slot.word),
            State::Queued { ring_seq }
            | State::Doubt { ring_seq, .. }
            | State::Held { ring_seq }
            | State::Off { ring_seq, .. } => Some(taken(ring_seq)),
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
        self.note_let_go();
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
        if !self.live {
            self.note_taken(taken);
        }
        let live = self.live;
        let has_taken = |state| match state {
            State::Sent { ring_seq } => ring_seq < taken,
            State::Off { ring_seq, visit } => visit.is_none() && (live || ring_seq < taken),
            State::Held { .. } => true,
            _ => false,
        };
        for index in 0..self.slots.len() as u32 {
            match self.slot(index).map(|slot| (slot.state, slot)) {
                Some((state, slot)) if has_taken(state) => slot.state = State::Left,
                Some((State::Sent { .. } | State::Queued { .. } | State::Doubt { .. } | State::Off { .. }, _)) => {
                    self.set_free(index)
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
