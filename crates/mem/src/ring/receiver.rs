//! The receiving end of either kind of channel; what is particular to a live one is in [`super::visit`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::memory::Map;
use frameport_wire::layout::{CLOSED, PRODUCED, TAKEN, ticket};

use super::{RingViolation, WORDS, block_words, entry_start, word};
use crate::words::{OwnWords, PeerWords};

/// The receiving end: loads the sender's entries, writes `taken` or `visit` of its own region.
#[derive(Debug)]
pub struct Receiver {
    pub(super) own: OwnWords,
    pub(super) peer: PeerWords,
    mask: u64,
    pub(super) next: u64,
    pub(super) oldest: u64,
    pub(super) skipped: u64,
}

impl Receiver {
    /// The receiving end over the blocks at `offset` of both control regions; `None` if they do not fit or `capacity` is no
    /// power of two.
    #[must_use]
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let words = block_words(capacity);
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
        let start = entry_start(self.next, self.mask);
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
    pub(super) fn entry(&self, seq: u64, known: Option<u64>) -> [u64; WORDS] {
        let start = entry_start(seq, self.mask);
        let load = |index| self.peer.load(start + index);
        std::array::from_fn(|index| known.filter(|_| index == 0).unwrap_or_else(|| load(index)))
    }

    /// Whether something is to be had, or the sender lies. A glance: nothing is taken.
    #[must_use]
    pub fn has_next(&self, live: bool) -> bool {
        if live {
            return self.peer.load_acquire(word(PRODUCED)) != self.next;
        }
        let found = self.peer.load_acquire(entry_start(self.next, self.mask));
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
