//! The sending end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::memory::Map;
use frameport_wire::layout::{CLOSED, OLDEST, PRODUCED, TAKEN, VISIT, ticket};

use super::{RingViolation, Visit, WORDS, block_words, entry_start, word};
use crate::sync::{fence, omits};
use crate::words::{OwnWords, PeerWords};

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
        let words = block_words(capacity);
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
        let start = entry_start(self.produced, self.mask);
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

    /// What [`taken`](Self::taken) found when it looked last.
    #[must_use]
    pub fn known_taken(&self) -> u64 {
        self.taken
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
        if !omits("sender's fence") {
            fence(Ordering::SeqCst);
        }
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
