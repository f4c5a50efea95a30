//! The ring: one sender, one receiver, 64-byte entries, every word with one writer.
//!
//! *Who calls it*: the two channel ends of `frameport`, each behind its own private lock. *Invariants*: word 0 of an entry
//! is its ticket, stored last and with release: who sees the ticket that is due sees the entry, the metadata and the pixels
//! (so a frame costs one cache line each way); the sender overwrites an entry only when the slot that travelled in it has
//! come back, which the caller's ledger knows: a ring has room for every slot that may be on it, and untaken entries lie in
//! distinct slots, so a lossless sender never meets an entry in use; nothing is ever repaired. *A hostile sender* is caught
//! by [`Receiver::poll`] when a ticket is neither the one due nor the one before it; any other content is the caller's to
//! check. *A hostile receiver* can state any `taken`: see [`Sender::taken`].
//!
//! `produced`, `oldest` and `visit` are the words of deliveries that take frames back. A lossless receiver looks at none of
//! them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::memory::Map;
use frameport_wire::descriptor::WORDS;
use frameport_wire::layout::{CLOSED, ENTRIES, PRODUCED, TAKEN, block_len, ticket};

use crate::words::{OwnWords, PeerWords};

const fn word(offset: usize) -> usize {
    offset / 8
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
    taken: u64,
}

impl Sender {
    /// The sending end over the blocks at `offset` of both control regions; `None` if they do not fit or `capacity` is no
    /// power of two.
    #[must_use]
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let words = word(block_len(capacity));
        let (own, peer) = (OwnWords::new(own, offset, words)?, PeerWords::new(peer, offset, words)?);
        capacity.is_power_of_two().then(|| Self { own, peer, mask: capacity as u64 - 1, produced: 0, taken: 0 })
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

    /// Says that no entry will follow. The caller rings the receiver.
    pub fn close(&mut self) {
        // Pairs with the acquire in `Receiver::is_closed`: who sees it sees the last entry.
        self.own.store(word(CLOSED), 1, Ordering::Release);
    }
}

/// The receiving end: loads the sender's entries, writes `taken` of its own region.
#[derive(Debug)]
pub struct Receiver {
    own: OwnWords,
    peer: PeerWords,
    mask: u64,
    next: u64,
}

impl Receiver {
    /// The receiving end over the blocks at `offset` of both control regions; `None` if they do not fit or `capacity` is no
    /// power of two.
    #[must_use]
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let words = word(block_len(capacity));
        let (own, peer) = (OwnWords::new(own, offset, words)?, PeerWords::new(peer, offset, words)?);
        capacity.is_power_of_two().then(|| Self { own, peer, mask: capacity as u64 - 1, next: 0 })
    }

    /// The next entry's words, each loaded once, or `None` when it is not there yet. It is taken with that.
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
        let words = std::array::from_fn(|index| if index == 0 { found } else { self.peer.load(start + index) });
        self.next += 1;
        // Pairs with the acquire in `Sender::taken`.
        self.own.store(word(TAKEN), self.next, Ordering::Release);
        Ok(Some(words))
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
    fn a_block_that_does_not_fit_is_refused() {
        let (_region, map) = Region::create("ring", block_len(CAPACITY), Writers::All).unwrap();
        let map = Arc::new(map);
        assert!(Sender::new(&map, &map, 8, CAPACITY).is_none());
        assert!(Sender::new(&map, &map, 4, 1).is_none());
        assert!(Receiver::new(&map, &map, 0, 3).is_none());
        assert!(Receiver::new(&map, &map, usize::MAX - 7, CAPACITY).is_none());
    }
}
