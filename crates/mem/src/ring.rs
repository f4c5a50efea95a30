//! The ring: one sender, one receiver, 64-byte entries, every word with one writer.
//!
//! *Who calls it*: the two channel ends of `frameport`, each behind its own private lock. *Invariants*: an entry's own
//! sequence is written last, and before the `produced` that covers it (both release, paired with the receiver's
//! acquire), so that either says that the entry is whole; the sender overwrites
//! an entry only when the slot that travelled in it has come back, which the caller's ledger knows: a ring has room
//! for every slot that may be on it, and untaken entries lie in distinct slots, so a lossless sender never meets an
//! entry in use; nothing is ever repaired. *A hostile sender* is caught by [`Receiver::poll`] when its words go
//! backwards, run too far ahead, or an entry is not the one due; any other content is the caller's to check.
//!
//! `oldest` and `visit` are the words of deliveries that take frames back. A lossless channel keeps `oldest` at 0, and
//! its receiver needs no visit: nothing is unlinked under it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::memory::Map;
use frameport_wire::descriptor::WORDS;
use frameport_wire::layout::{CLOSED, ENTRIES, OLDEST, PRODUCED, block_len};

use crate::words::{OwnWords, PeerWords};

const fn word(offset: usize) -> usize {
    offset / 8
}

/// Provable misbehaviour of the side that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingViolation {
    /// `produced` fell.
    #[error("its cursor went back from {seen} to {now}")]
    Backwards {
        /// Highest value seen.
        seen: u64,
        /// Value now.
        now: u64,
    },
    /// More entries are said to be there than the ring has.
    #[error("its cursor is {ahead} entries ahead on a ring of {capacity}")]
    TooFar {
        /// Entries said to be waiting.
        ahead: u64,
        /// Entries the ring has.
        capacity: u64,
    },
    /// `oldest` is not 0 on a lossless channel.
    #[error("it took frames back on a lossless channel")]
    TookBack,
    /// The entry's own sequence is another one.
    #[error("the entry for frame {due} says it is {found}")]
    WrongEntry {
        /// Sequence that is due.
        due: u64,
        /// Sequence the entry states.
        found: u64,
    },
}

/// The sending end: writes entries, `produced`, `oldest` and `closed` of its own region.
#[derive(Debug)]
pub struct Sender {
    own: OwnWords,
    mask: u64,
    produced: u64,
}

impl Sender {
    /// The sending end over the block at `offset` of this side's control region; `None` if it does not fit or
    /// `capacity` is no power of two.
    #[must_use]
    pub fn new(region: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let own = OwnWords::new(region, offset, word(block_len(capacity)))?;
        capacity.is_power_of_two().then(|| Self { own, mask: capacity as u64 - 1, produced: 0 })
    }

    /// The sequence the next entry gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.produced
    }

    /// Writes the next entry and makes it visible. The caller rings the receiver.
    pub fn publish(&mut self, words: [u64; WORDS]) {
        let start = word(ENTRIES) + (self.produced & self.mask) as usize * WORDS;
        let [seq, ..] = words;
        for (index, value) in words.into_iter().enumerate().skip(1) {
            self.own.store(start + index, value, Ordering::Relaxed);
        }
        // Both pair with an acquire in `Receiver::poll`: who sees the entry's own sequence sees the rest of it and the
        // pixels, who sees `produced` sees all entries below it.
        self.own.store(start, seq, Ordering::Release);
        self.produced += 1;
        self.own.store(word(PRODUCED), self.produced, Ordering::Release);
    }

    /// Says that no entry will follow. The caller rings the receiver.
    pub fn close(&mut self) {
        // Pairs with the acquire in `Receiver::is_closed`: who sees it sees the last `produced`.
        self.own.store(word(CLOSED), 1, Ordering::Release);
    }
}

/// The receiving end: loads the sender's words.
#[derive(Debug)]
pub struct Receiver {
    peer: PeerWords,
    mask: u64,
    next: u64,
    produced: u64,
}

impl Receiver {
    /// The receiving end over the block at `offset` of the peer's control region; `None` if it does not fit or
    /// `capacity` is no power of two.
    #[must_use]
    pub fn new(region: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let peer = PeerWords::new(region, offset, word(block_len(capacity)))?;
        capacity.is_power_of_two().then(|| Self { peer, mask: capacity as u64 - 1, next: 0, produced: 0 })
    }

    /// The next entry's words, each loaded once, or `None` when the ring is empty.
    ///
    /// # Errors
    /// A [`RingViolation`]; the link has no further use then.
    pub fn poll(&mut self) -> Result<Option<[u64; WORDS]>, RingViolation> {
        let start = word(ENTRIES) + (self.next & self.mask) as usize * WORDS;
        // Pairs with the release of the sequence in `Sender::publish`. An entry that says it is the one due needs no
        // look at `produced`, which would be a second cache line on its way; zeros say nothing about entry 0.
        if (self.next == 0 || self.peer.load_acquire(start) != self.next) && !self.is_published()? {
            return Ok(None);
        }
        let words: [u64; WORDS] = std::array::from_fn(|index| self.peer.load(start + index));
        let [found, ..] = words;
        if found != self.next {
            return Err(RingViolation::WrongEntry { due: self.next, found });
        }
        self.next += 1;
        Ok(Some(words))
    }

    /// Whether `produced` covers the entry that is due.
    fn is_published(&mut self) -> Result<bool, RingViolation> {
        if self.next >= self.produced {
            // Pairs with the release of `produced` in `Sender::publish`.
            let now = self.peer.load_acquire(word(PRODUCED));
            if now < self.produced {
                return Err(RingViolation::Backwards { seen: self.produced, now });
            }
            let (ahead, capacity) = (now.saturating_sub(self.next), self.mask + 1);
            if ahead > capacity {
                return Err(RingViolation::TooFar { ahead, capacity });
            }
            if self.peer.load(word(OLDEST)) != 0 {
                return Err(RingViolation::TookBack);
            }
            self.produced = now;
        }
        Ok(self.next < self.produced)
    }

    /// Whether the sender said that nothing follows. Ask before a last [`poll`](Self::poll), not after.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.peer.load_acquire(word(CLOSED)) != 0
    }

    /// The sequence of the entry that is due.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// A look at this ring that needs no lock.
    #[must_use]
    pub fn glance(&self) -> Glance {
        Glance { peer: self.peer.clone(), mask: self.mask }
    }
}

/// A look at a ring beside its [`Receiver`], for waits: it may say yes for nothing.
#[derive(Clone, Debug)]
pub struct Glance {
    peer: PeerWords,
    mask: u64,
}

impl Glance {
    /// Whether a receiver at which `next` is due may find its entry. Says nothing about the end of the ring.
    #[inline]
    #[must_use]
    pub fn is_worth_a_poll(&self, next: u64) -> bool {
        self.peer.load(word(ENTRIES) + (next & self.mask) as usize * WORDS) == next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::memory::{Region, Writers};

    const CAPACITY: usize = 4;

    struct Bench {
        raw: OwnWords,
        sender: Sender,
        receiver: Receiver,
    }

    fn bench() -> Bench {
        let (region, map) = Region::create("ring", block_len(CAPACITY), Writers::Creator).unwrap();
        let (own, peer) = (Arc::new(map), Arc::new(region.map(false).unwrap()));
        Bench {
            raw: OwnWords::new(&own, 0, block_len(CAPACITY) / 8).unwrap(),
            sender: Sender::new(&own, 0, CAPACITY).unwrap(),
            receiver: Receiver::new(&peer, 0, CAPACITY).unwrap(),
        }
    }

    fn entry(seq: u64) -> [u64; WORDS] {
        std::array::from_fn(|index| if index == 0 { seq } else { seq * 31 + index as u64 })
    }

    #[test]
    fn entries_arrive_in_order_whole_and_once() {
        let mut bench = bench();
        for seq in 0..100 {
            bench.sender.publish(entry(seq));
            if seq % 3 == 2 {
                for due in seq - 2..=seq {
                    assert_eq!(bench.receiver.poll(), Ok(Some(entry(due))));
                }
                assert_eq!(bench.receiver.poll(), Ok(None));
            }
        }
        assert!(!bench.receiver.is_closed());
        bench.sender.close();
        assert!(bench.receiver.is_closed());
        assert_eq!(bench.receiver.poll(), Ok(Some(entry(99))), "what was sent before the close still arrives");
    }

    #[test]
    fn a_glance_says_when_a_poll_is_worth_it() {
        let mut bench = bench();
        let glance = bench.receiver.glance();
        for seq in 0..9 {
            assert_eq!(bench.receiver.next_seq(), seq);
            bench.sender.publish(entry(seq));
            assert!(glance.is_worth_a_poll(seq));
            bench.receiver.poll().unwrap();
            assert!(!glance.is_worth_a_poll(seq + 1));
        }
    }

    #[test]
    fn lying_cursors_are_violations() {
        let lie = |offset: usize, value: u64| {
            let mut bench = bench();
            bench.sender.publish(entry(0));
            bench.receiver.poll().unwrap();
            bench.raw.store(word(offset), value, Ordering::Release);
            if offset != PRODUCED {
                bench.sender.publish(entry(1));
            }
            // An entry that is due needs no cursor: a lie in that shows at the next look at it.
            let polled = bench.receiver.poll().and_then(|_| bench.receiver.poll());
            polled.unwrap_err()
        };
        assert_eq!(lie(PRODUCED, 0), RingViolation::Backwards { seen: 1, now: 0 });
        assert_eq!(lie(PRODUCED, 6), RingViolation::TooFar { ahead: 5, capacity: 4 });
        assert!(matches!(lie(PRODUCED, u64::MAX), RingViolation::TooFar { .. }));
        assert_eq!(lie(OLDEST, 1), RingViolation::TookBack);
        assert_eq!(lie(PRODUCED, 2), RingViolation::WrongEntry { due: 1, found: 0 });
    }

    #[test]
    fn a_block_that_does_not_fit_is_refused() {
        let (_region, map) = Region::create("ring", block_len(CAPACITY), Writers::All).unwrap();
        let map = Arc::new(map);
        assert!(Sender::new(&map, 8, CAPACITY).is_none());
        assert!(Sender::new(&map, 4, 1).is_none());
        assert!(Receiver::new(&map, 0, 3).is_none());
        assert!(Receiver::new(&map, usize::MAX - 7, CAPACITY).is_none());
    }
}
