//! What a group asks of the sending end of one of its workers.
//!
//! *Who calls it*: [`crate::Group`], by way of the worker. *Invariants*: as [`super`]; it looks, and changes nothing else.
//! *A hostile worker* is caught by the ledger.

use frameport_wire::layout::frame_bit;

use super::SendEnd;
use crate::error::Error;

impl SendEnd {
    /// Looks at the peer's words: a number that grows whenever a slot comes back.
    pub(crate) fn came_back(&self) -> Result<u64, Error> {
        let mut inner = self.lock();
        if self.state.end().is_none() && !self.state.forked() {
            let looked = self.look(&mut inner);
            if let Err(lie) = looked {
                drop(inner);
                return Err(self.state.violation(&lie));
            }
        }
        Ok(inner.current.ledger.came_back())
    }

    /// How many frames the peer has taken, and whether it waits for another.
    pub(crate) fn demand(&self) -> Result<(u64, bool), Error> {
        let waits = self.bells.is_peer_asleep(frame_bit(self.channel));
        let taken = self.lock().ring.taken();
        taken.map(|taken| (taken, waits)).map_err(|lie| self.state.violation(&lie))
    }

    /// Whether the frame sent in `slot` at `generation` is still out, as far as this side looked.
    pub(crate) fn is_out(&self, slot: u32, generation: u64) -> bool {
        self.lock().current.ledger.is_out(slot, generation)
    }
}
