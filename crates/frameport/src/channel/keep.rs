//! What keeps a slot here: the frame itself and the views made from it, counted apart.
//!
//! *Who calls it*: both ends, for loans and pins and for received frames and holds. *Invariants*: the keeper that leaves
//! last is told so, once; everything the others did comes before that. *A hostile peer* has no part in it.

use std::sync::atomic::{AtomicU32, Ordering};

/// One that keeps a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The loan or the received frame.
    Frame,
    /// A view of it: a pin, a hold.
    View,
}

/// Set while the frame itself is there; the bits below count its views.
const FRAME: u32 = 1 << 31;

impl Keeper {
    fn weight(self) -> u32 {
        match self {
            Self::Frame => FRAME,
            Self::View => 1,
        }
    }
}

/// Those that keep one slot. Changed without a lock: views are dropped on any thread.
#[derive(Debug, Default)]
pub(crate) struct Keepers(AtomicU32);

impl Keepers {
    /// A frame has got the slot, which nobody kept.
    pub(crate) fn begin(&self) {
        self.0.store(FRAME, Ordering::Relaxed);
    }

    /// Another view, made from a keeper.
    pub(crate) fn add_view(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One keeper less; true when it was the last.
    pub(crate) fn leave(&self, keeper: Keeper) -> bool {
        // AcqRel: what every keeper did with the pixels comes before the slot's next use.
        self.0.fetch_sub(keeper.weight(), Ordering::AcqRel) == keeper.weight()
    }

    /// Whether the frame is the only one.
    pub(crate) fn is_frame_alone(&self) -> bool {
        self.0.load(Ordering::Acquire) == FRAME
    }

    /// Whether the frame is gone and views are left.
    pub(crate) fn is_views_alone(&self) -> bool {
        (1..FRAME).contains(&self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn views(&self) -> u32 {
        self.0.load(Ordering::Relaxed) & !FRAME
    }
}
