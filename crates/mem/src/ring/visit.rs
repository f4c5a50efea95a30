//! A live channel's visit: the receiver's word about it, and how it takes an entry the sender may take back meanwhile.

use std::sync::atomic::Ordering;

use frameport_wire::layout::{OLDEST, PRODUCED, VISIT, ticket};

use super::{Receiver, RingViolation, WORDS, word};
use crate::sync::{claims, fence, omits};

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

impl Receiver {
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
        let mut claims = 0..claims();
        let words = loop {
            let is_claim = claims.next().is_some();
            let visit = if is_claim { Visit::claim(due) } else { Visit::any_from(due) };
            // Release: a later store does not carry on what an earlier one released.
            self.own.store(word(VISIT), visit, Ordering::Release);
            if !omits("visit's fence") {
                fence(Ordering::SeqCst);
            }
            let before = due;
            if is_claim {
                let is_linked = |place| omits(place) || self.peer.load_acquire(word(OLDEST)) <= before;
                let claimed = is_linked("look before the words").then(|| self.entry(before, None)).filter(|_| {
                    if !omits("fence after the words") {
                        fence(Ordering::Acquire);
                    }
                    is_linked("look after the words")
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
}
