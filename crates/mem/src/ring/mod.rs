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
//! *Why the newest is there.* What was sent before a visit began, so that the receiver can know (it was told, or passed the
//! fence of its sleep), is visible to it: `produced` and then `oldest` were stored before the sender's fence, and a visit loads
//! `oldest` first, then `produced`. So it never takes an entry that was older than the newest ones when it began, and finds
//! nothing only where nothing is.
//! *Both sides are wait-free*: a visit is a few passes at most, a send one, whatever the other does.
//!
//! The protocol was model-checked before it was written; `tests/model` of this crate checks this code (`make test-model`).

mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod visit;

#[cfg(not(loom))]
use frameport_wire::descriptor::WORDS;
use frameport_wire::layout::ENTRIES;

pub use receiver::Receiver;
pub use sender::Sender;
pub use visit::Visit;

/// Words of an entry in a model: each one more multiplies its schedules.
#[cfg(loom)]
const WORDS: usize = 2;

/// The index of the word at a byte offset of a channel block.
const fn word(offset: usize) -> usize {
    offset / 8
}

/// The words of a block with `capacity` entries.
const fn block_words(capacity: usize) -> usize {
    capacity.saturating_mul(WORDS).saturating_add(word(ENTRIES))
}

/// The index of the first word of entry `seq` in a ring whose capacity is `mask` + 1.
#[inline]
const fn entry_start(seq: u64, mask: u64) -> usize {
    word(ENTRIES) + (seq & mask) as usize * WORDS
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
