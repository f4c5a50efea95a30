//! What somebody asks of the sending end who watches whether the peer still moves.
//!
//! *Who calls it*: the thread of a worker with a policy for that ([`crate::WorkerBuilder::stall`]). *Invariants*: a slot that
//! is written off is the peer's until it lets go of it, whatever is counted. *A hostile worker* can pass for one that moves
//! as long as it lets go of something.

use super::SendEnd;

/// What the peer has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burden {
    /// How often it let go of a slot.
    pub(crate) let_go: u64,
    /// Number of the frame it has had the longest, taken or not, and when that was sent, in ns.
    pub(crate) oldest: Option<(u64, u64)>,
}

impl SendEnd {
    /// Looks at the peer's words; `None` when the link has ended.
    pub(crate) fn burden(&self) -> Option<Burden> {
        let mut inner = self.lock();
        if self.state.end().is_some() {
            return None;
        }
        if let Err(lie) = self.look(&mut inner) {
            drop(inner);
            drop(self.state.violation(&lie));
            return None;
        }
        let oldest = inner.accounts().filter_map(|account| account.ledger.oldest_out()).min_by_key(|slot| slot.sent_ns);
        let oldest = oldest.map(|slot| (slot.seq, slot.sent_ns));
        let let_go = inner.accounts().map(|account| account.ledger.let_go_count()).sum();
        Some(Burden { let_go, oldest })
    }

    /// Whether slots were written off and the peer let go of none since.
    pub(super) fn is_stalled(&self) -> bool {
        self.lock().accounts().any(|account| account.ledger.is_stalled())
    }

    /// Writes off the slots the peer has, and wakes those who wait for one. How many frames are lost.
    pub(crate) fn write_off(&self) -> u64 {
        let mut inner = self.lock();
        if self.state.end().is_some() {
            return 0;
        }
        let _ = inner.ring.taken();
        let taken = inner.ring.known_taken();
        let lost = inner.accounts().map(|account| account.ledger.write_off(taken)).sum();
        drop(inner);
        self.bells.interrupt_all();
        lost
    }
}
