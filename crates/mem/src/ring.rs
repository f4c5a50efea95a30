//! The ring: one sender, one receiver, 64-byte entries, every word with one writer.
//!
//! *Who calls it*: the two channel ends of `frameport`, each behind its own private lock. *Invariants*: word 0 of an entry
//! is its ticket, stored last and with release: who sees the ticket that is due sees the entry, the metadata and the pixels
//! (so a frame costs one cache line each way); the sender overwrites an entry only when the slot that travelled in it has
//! come back, which the caller's ledger knows: a ring has room for every slot that may be on it, and untaken entries lie in
//! distinct slots, so a sender never meets an entry in use; nothing is ever repaired. *A hostile sender* is caught
//! by [`Receiver::poll`] when a ticket is neither the one due nor the one before it, by [`Receiver::visit`] when its counts
//! fall or contradict each other; any other content is the caller's to check. *A hostile receiver* can state any `taken` and
//! `visit`: see [`Sender::taken`] and [`Sender::visit`].
//!
//! # Taking frames back
//! On a live channel the sender takes back entries nobody has taken, while the receiver may be about to take one. The receiver
//! marks its pick as a visit (`visit`, a word of its own that only rises) and within it says what it took (`state[slot]`, its
//! own word too). The sender publishes first, unlinks second (`oldest`: entries below are no longer to be taken), passes a
//! `SeqCst` fence, then looks: a slot it unlinked is free at once unless the visit may take it, else when that visit is over,
//! unless it was taken. A visit claims one entry: `visit` says which. Where that was taken back meanwhile it claims the one
//! that is due now, and after a few it becomes a visit that may take any entry from there on. So a receiver that is stopped
//! in the middle costs its sender one slot (and what is unlinked meanwhile only if it had just lost every race), and the
//! sender never waits for it.
//!
//! *Why no taken frame is ever reused.* Let FS be the sender's fence after it stored `oldest`, FR the fence of a claim or of a
//! visit for any. They are totally ordered. If FS comes first, the receiver reads the new `oldest` after FR and does not take
//! the entry. If FR comes first, the sender reads that word of `visit` or a later one. The claim of another entry: the
//! receiver cannot take this one before it has stored a later word and passed a fence after FS. The claim of this one, or a
//! visit for any: the sender waits until `visit` changes. A later word: every store of `visit` is a release store, so
//! everything the visit wrote before is visible, and "not taken" is a fact. A slot's state is loaded after `visit`, with
//! acquire.
//! *Why an entry is whole.* Entries that a visit for any may read lie in distinct slots, all of them occupied: with as many
//! positions as slots, the position of a new entry, whose slot is free, is none of theirs. A claim protects its slot, not its
//! entry, which may be overwritten once it is unlinked: the receiver loads `oldest` again after the words (an acquire fence
//! between; the sender's fence lies between its store of `oldest` and any later entry) and drops them if it has moved.
//! *Why the newest is there.* What was sent before a visit began is visible to it: `produced` and then `oldest` were stored
//! before the sender's fence, and a visit loads `oldest` first, then `produced`. So it never takes an entry that was older
//! than the newest ones when it began, and finds nothing only where nothing is.
//! *Both sides are wait-free*: a visit is a few passes at most, a send one, whatever the other does.
//!
//! The protocol was model-checked before it was written; `model.rs` beside this file checks this code (`--cfg loom`).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use frameport_sys::memory::Map;
use frameport_wire::descriptor::WORDS;
use frameport_wire::layout::{CLOSED, ENTRIES, OLDEST, PRODUCED, TAKEN, VISIT, block_len, ticket};

use crate::words::{OwnWords, PeerWords};

const fn word(offset: usize) -> usize {
    offset / 8
}

/// Entries a visit claims one after the other, each taken back in the very moment, before it does not choose any more.
const CLAIMS: usize = 4;

/// The receiver's word about its visits: a sequence times four, plus what it does with it. It rises with every store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit(u64);

impl Visit {
    /// Outside; all entries below `next` are done with.
    const fn outside(next: u64) -> u64 {
        next.wrapping_mul(4)
    }

    /// About to take entry `seq` and no other.
    const fn claim(seq: u64) -> u64 {
        Self::outside(seq).wrapping_add(1)
    }

    /// About to take any entry from `seq` on.
    const fn any_from(seq: u64) -> u64 {
        Self::outside(seq).wrapping_add(2)
    }

    /// Outside; nothing was there.
    const fn none_of(seq: u64) -> u64 {
        Self::outside(seq).wrapping_add(3)
    }

    /// What a word says.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Whether the receiver may be taking entry `seq` now.
    #[must_use]
    pub fn may_take(self, seq: u64) -> bool {
        match self.0 % 4 {
            1 => self.0 / 4 == seq,
            2 => self.0 / 4 <= seq,
            _ => false,
        }
    }
}

/// Provable misbehaviour of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingViolation {
    /// The sender's entry is another one than the one due.
    #[error("the entry where {due} is due says it is {}", found.wrapping_sub(1))]
    WrongEntry {
        /// Sequence that is due.
        due: u64,
        /// Ticket the entry has.
        found: u64,
    },
    /// The sender's counts fell, or do not fit each other or the ring.
    #[error("it says that entries {oldest} to {produced} may be taken, where {due} is due")]
    Counts {
        /// Where its entries begin.
        oldest: u64,
        /// Where they end.
        produced: u64,
        /// The lowest the receiver may take.
        due: u64,
    },
    /// The receiver's word about its visits fell.
    #[error("its word about its visits went back from {seen} to {now}")]
    Visit {
        /// Highest value seen.
        seen: u64,
        /// Value now.
        now: u64,
    },
    /// The receiver's count of taken entries fell, or is above what was published.
    #[error("it says it has taken {now} entries, after {seen} and of {produced}")]
    Taken {
        /// Highest value seen.
        seen: u64,
        /// Value now.
        now: u64,
        /// Entries published.
        produced: u64,
    },
}

/// The sending end: writes entries, `produced` and `closed` of its own region.
#[derive(Debug)]
pub struct Sender {
    own: OwnWords,
    peer: PeerWords,
    mask: u64,
    produced: u64,
    oldest: u64,
    taken: u64,
    visit: u64,
}

impl Sender {
    /// The sending end over the blocks at `offset` of both control regions; `None` if they do not fit or `capacity` is no
    /// power of two.
    #[must_use]
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let words = word(block_len(capacity));
        let (own, peer) = (OwnWords::new(own, offset, words)?, PeerWords::new(peer, offset, words)?);
        capacity.is_power_of_two().then(|| Self {
            own,
            peer,
            mask: capacity as u64 - 1,
            produced: 0,
            oldest: 0,
            taken: 0,
            visit: 0,
        })
    }

    /// The sequence the next entry gets.
    #[must_use]
    #[inline]
    pub fn next_seq(&self) -> u64 {
        self.produced
    }

    /// Writes the next entry and makes it visible. The caller rings the receiver.
    #[inline]
    pub fn publish(&mut self, words: [u64; WORDS]) {
        let start = word(ENTRIES) + (self.produced & self.mask) as usize * WORDS;
        let [_, content @ ..] = words;
        for (index, value) in content.into_iter().enumerate() {
            self.own.store(start + 1 + index, value, Ordering::Relaxed);
        }
        // Pairs with the acquire in `Receiver::poll`.
        self.own.store(start, ticket(self.produced), Ordering::Release);
        self.produced += 1;
        self.own.store(word(PRODUCED), self.produced, Ordering::Release);
    }

    /// How many entries the receiver has taken. It looks at a word the frame path leaves alone, so ask when somebody wants
    /// to know, not for every frame.
    ///
    /// # Errors
    /// A count that fell or is above what was published.
    pub fn taken(&mut self) -> Result<u64, RingViolation> {
        // Pairs with the release in `Receiver::poll`.
        let (seen, now, produced) = (self.taken, self.peer.load_acquire(word(TAKEN)), self.produced);
        if now < seen || now > produced {
            return Err(RingViolation::Taken { seen, now, produced });
        }
        self.taken = now;
        Ok(now)
    }

    /// Takes back all entries below `oldest` that nobody has taken: after this none of them is, but by a visit that is open
    /// now. Passes the fence of the module's proof: [`visit`](Self::visit) and the slots' states are to be looked at next,
    /// in that order.
    pub fn unlink(&mut self, oldest: u64) {
        if oldest > self.oldest {
            self.oldest = oldest.min(self.produced);
            // Pairs with the acquire in `Receiver::visit`: who reads it finds the newer entries published.
            self.own.store(word(OLDEST), self.oldest, Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }

    /// Entries below are no longer to be taken.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// What the receiver is doing. What it took before is visible after this.
    ///
    /// # Errors
    /// A word that fell.
    pub fn visit(&mut self) -> Result<Visit, RingViolation> {
        // Pairs with the releases in `Receiver::visit`.
        let (seen, now) = (self.visit, self.peer.load_acquire(word(VISIT)));
        if now < seen {
            return Err(RingViolation::Visit { seen, now });
        }
        self.visit = now;
        Ok(Visit::from_word(now))
    }

    /// Says that no entry will follow. The caller rings the receiver.
    pub fn close(&mut self) {
        // Pairs with the acquire in `Receiver::is_closed`: who sees it sees the last entry.
        self.own.store(word(CLOSED), 1, Ordering::Release);
    }
}

/// The receiving end: loads the sender's entries, writes `taken` or `visit` of its own region.
#[derive(Debug)]
pub struct Receiver {
    own: OwnWords,
    peer: PeerWords,
    mask: u64,
    next: u64,
    oldest: u64,
    skipped: u64,
}

impl Receiver {
    /// The receiving end over the blocks at `offset` of both control regions; `None` if they do not fit or `capacity` is no
    /// power of two.
    #[must_use]
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let words = word(block_len(capacity));
        let (own, peer) = (OwnWords::new(own, offset, words)?, PeerWords::new(peer, offset, words)?);
        capacity.is_power_of_two().then(|| Self {
            own,
            peer,
            mask: capacity as u64 - 1,
            next: 0,
            oldest: 0,
            skipped: 0,
        })
    }

    /// The next entry's words of a lossless channel, each loaded once, or `None` when it is not there yet. It is taken with
    /// that.
    ///
    /// # Errors
    /// A [`RingViolation`]; the link has no further use then.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<[u64; WORDS]>, RingViolation> {
        let start = word(ENTRIES) + (self.next & self.mask) as usize * WORDS;
        // Pairs with the release in `Sender::publish`.
        let found = self.peer.load_acquire(start);
        if found != ticket(self.next) {
            // What the position held one round before, or nothing in the first round.
            let before = ticket(self.next).saturating_sub(self.mask + 1);
            return if found == before { Ok(None) } else { Err(RingViolation::WrongEntry { due: self.next, found }) };
        }
        let words = self.entry(self.next, Some(found));
        self.next += 1;
        // Pairs with the acquire in `Sender::taken`.
        self.own.store(word(TAKEN), self.next, Ordering::Release);
        Ok(Some(words))
    }

    /// The words at the position of entry `seq`, each loaded once; the first is not loaded again where it is `known`.
    fn entry(&self, seq: u64, known: Option<u64>) -> [u64; WORDS] {
        let start = word(ENTRIES) + (seq & self.mask) as usize * WORDS;
        let load = |index| self.peer.load(start + index);
        std::array::from_fn(|index| known.filter(|_| index == 0).unwrap_or_else(|| load(index)))
    }

    /// The oldest entry of a live channel that is still to be had, each word loaded once, as `claim` takes it: it must store
    /// the slot's [`taken`](frameport_wire::layout::taken) word, and nothing else of it is this side's own.
    ///
    /// # Errors
    /// A [`RingViolation`]; the link has no further use then.
    pub fn visit<T>(&mut self, claim: impl FnOnce([u64; WORDS]) -> T) -> Result<Option<T>, RingViolation> {
        // Without anything new there is nothing to visit for.
        if self.peer.load(word(PRODUCED)) == self.next {
            return Ok(None);
        }
        let (mut due, produced) = self.counts()?;
        if due == produced {
            return Ok(None);
        }
        let mut claims = 0..CLAIMS;
        let words = loop {
            let is_claim = claims.next().is_some();
            let visit = if is_claim { Visit::claim(due) } else { Visit::any_from(due) };
            // Release: a later store does not carry on what an earlier one released.
            self.own.store(word(VISIT), visit, Ordering::Release);
            fence(Ordering::SeqCst);
            let before = due;
            if is_claim {
                let is_linked = || self.peer.load_acquire(word(OLDEST)) <= before;
                let claimed = is_linked().then(|| self.entry(before, None)).filter(|_| {
                    fence(Ordering::Acquire);
                    is_linked()
                });
                if let Some(words) = claimed {
                    break words;
                }
            }
            let produced;
            (due, produced) = self.counts()?;
            if due == produced {
                // Taken back to make room for what is about to follow.
                self.own.store(word(VISIT), Visit::none_of(before), Ordering::Release);
                return Ok(None);
            }
            if !is_claim {
                break self.entry(due, None);
            }
        };
        let [found, ..] = words;
        if found != ticket(due) {
            return Err(RingViolation::WrongEntry { due, found });
        }
        self.skipped += due - self.next;
        self.next = due + 1;
        let taken = claim(words);
        // Pairs with the acquire in `Sender::visit`: who sees that it is over sees what was taken in it.
        self.own.store(word(VISIT), Visit::outside(self.next), Ordering::Release);
        Ok(Some(taken))
    }

    /// The first entry that may be taken and the end of those published.
    fn counts(&mut self) -> Result<(u64, u64), RingViolation> {
        // In this order: see the module's proof. Both pair with the sender's releases.
        let oldest = self.peer.load_acquire(word(OLDEST));
        let produced = self.peer.load_acquire(word(PRODUCED));
        let due = self.next.max(oldest);
        if oldest < self.oldest || produced < due {
            return Err(RingViolation::Counts { oldest, produced, due });
        }
        self.oldest = oldest;
        Ok((due, produced))
    }

    /// Whether something is to be had, or the sender lies. A glance: nothing is taken.
    #[must_use]
    pub fn has_next(&self, live: bool) -> bool {
        if live {
            return self.peer.load_acquire(word(PRODUCED)) != self.next;
        }
        let found = self.peer.load_acquire(word(ENTRIES) + (self.next & self.mask) as usize * WORDS);
        found != ticket(self.next).saturating_sub(self.mask + 1)
    }

    /// Entries of a live channel that the sender took back before this side came to them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether the sender said that nothing follows. Ask before a last [`poll`](Self::poll), not after.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.peer.load_acquire(word(CLOSED)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::memory::{Region, Writers};

    const CAPACITY: usize = 4;

    struct Bench {
        /// What a lying side writes through.
        sent: OwnWords,
        received: OwnWords,
        sender: Sender,
        receiver: Receiver,
    }

    fn bench() -> Bench {
        let region = || Region::create("ring", block_len(CAPACITY), Writers::Creator).unwrap();
        let ((left, left_map), (right, right_map)) = (region(), region());
        let (left_own, right_own) = (Arc::new(left_map), Arc::new(right_map));
        let (left_seen, right_seen) = (Arc::new(left.map(false).unwrap()), Arc::new(right.map(false).unwrap()));
        Bench {
            sent: OwnWords::new(&left_own, 0, block_len(CAPACITY) / 8).unwrap(),
            received: OwnWords::new(&right_own, 0, block_len(CAPACITY) / 8).unwrap(),
            sender: Sender::new(&left_own, &right_seen, 0, CAPACITY).unwrap(),
            receiver: Receiver::new(&right_own, &left_seen, 0, CAPACITY).unwrap(),
        }
    }

    fn entry(seq: u64) -> [u64; WORDS] {
        std::array::from_fn(|index| if index == 0 { ticket(seq) } else { seq * 31 + index as u64 })
    }

    #[test]
    fn entries_arrive_in_order_whole_and_once() {
        let mut bench = bench();
        for seq in 0..100 {
            bench.sender.publish(entry(seq));
            if seq % 3 == 2 {
                assert_eq!(bench.sender.taken(), Ok(seq - 2));
                for due in seq - 2..=seq {
                    assert_eq!(bench.receiver.poll(), Ok(Some(entry(due))));
                }
                assert_eq!(bench.receiver.poll(), Ok(None));
            }
        }
        assert_eq!(bench.sender.taken(), Ok(99));
        assert!(!bench.receiver.is_closed());
        bench.sender.close();
        assert!(bench.receiver.is_closed());
        assert_eq!(bench.receiver.poll(), Ok(Some(entry(99))), "what was sent before the close still arrives");
    }

    #[test]
    fn a_ticket_that_is_neither_due_nor_the_one_before_is_a_violation() {
        for round in [0, 1] {
            for (lie, found) in [("one ahead", 2), ("far ahead", 1 << 40), ("all ones", u64::MAX), ("back", 0)] {
                let mut bench = bench();
                for seq in 0..round * CAPACITY as u64 {
                    bench.sender.publish(entry(seq));
                    bench.receiver.poll().unwrap().unwrap();
                }
                let due = round * CAPACITY as u64;
                let found = if found == 2 { due + 2 } else { found };
                bench.sent.store(word(ENTRIES), found, Ordering::Release);
                let expected =
                    if found == 0 && round == 0 { Ok(None) } else { Err(RingViolation::WrongEntry { due, found }) };
                assert_eq!(bench.receiver.poll(), expected, "{lie} in round {round}");
            }
        }
    }

    #[test]
    fn a_count_of_taken_entries_that_cannot_be_is_a_violation() {
        let mut bench = bench();
        for seq in 0..2 {
            bench.sender.publish(entry(seq));
        }
        bench.receiver.poll().unwrap();
        assert_eq!(bench.sender.taken(), Ok(1));
        for now in [0, 3, u64::MAX] {
            bench.received.store(word(TAKEN), now, Ordering::Release);
            assert_eq!(bench.sender.taken(), Err(RingViolation::Taken { seen: 1, now, produced: 2 }));
        }
    }

    #[test]
    fn a_visit_takes_the_oldest_entry_that_was_not_taken_back() {
        let mut bench = bench();
        assert_eq!(bench.receiver.visit(|words| words), Ok(None));
        for seq in 0..3 {
            bench.sender.publish(entry(seq));
        }
        bench.sender.unlink(1);
        assert_eq!(bench.receiver.visit(|words| words), Ok(Some(entry(1))));
        let over = bench.sender.visit().unwrap();
        assert_eq!((over.may_take(1), over.may_take(2)), (false, false));
        bench.sender.unlink(3);
        assert_eq!(bench.receiver.visit(|words| words), Ok(None), "all are taken back");
        bench.sender.publish(entry(3));
        assert_eq!(bench.receiver.visit(|words| words), Ok(Some(entry(3))));
        assert_eq!(bench.receiver.skipped(), 2);
    }

    #[test]
    fn a_visit_says_what_it_may_take() {
        let mut bench = bench();
        for seq in 0..2 {
            bench.sender.publish(entry(seq));
        }
        bench.sender.unlink(1);
        let Bench { sender, receiver, .. } = &mut bench;
        let seen = receiver.visit(|_| sender.visit().unwrap()).unwrap().unwrap();
        assert_eq!([0, 1, 2].map(|seq| seen.may_take(seq)), [false, true, false]);
    }

    #[test]
    fn counts_of_a_live_sender_that_cannot_be_are_violations() {
        for (oldest, produced) in [(4, 3), (0, 1), (1, 1)] {
            let mut bench = bench();
            for seq in 0..2 {
                bench.sender.publish(entry(seq));
            }
            bench.sender.unlink(1);
            bench.receiver.visit(|_| ()).unwrap();
            bench.sent.store(word(OLDEST), oldest, Ordering::Release);
            bench.sent.store(word(PRODUCED), produced, Ordering::Release);
            let due = oldest.max(2);
            assert_eq!(bench.receiver.visit(|_| ()), Err(RingViolation::Counts { oldest, produced, due }));
        }
    }

    #[test]
    fn a_receivers_word_that_falls_is_a_violation() {
        let mut bench = bench();
        bench.received.store(word(VISIT), 9, Ordering::Release);
        bench.sender.visit().unwrap();
        bench.received.store(word(VISIT), 8, Ordering::Release);
        assert_eq!(bench.sender.visit(), Err(RingViolation::Visit { seen: 9, now: 8 }));
    }

    #[test]
    fn a_block_that_does_not_fit_is_refused() {
        let (_region, map) = Region::create("ring", block_len(CAPACITY), Writers::All).unwrap();
        let map = Arc::new(map);
        assert!(Sender::new(&map, &map, 8, CAPACITY).is_none());
        assert!(Sender::new(&map, &map, 4, 1).is_none());
        assert!(Receiver::new(&map, &map, 0, 3).is_none());
        assert!(Receiver::new(&map, &map, usize::MAX - 7, CAPACITY).is_none());
    }
}
