//! A slot to fill, and the pins that keep it after it was sent.

use std::panic::Location;
use std::sync::Arc;

use frameport_mem::pixels::Bytes;
use frameport_sys::pixels::{Access, Intent};
use frameport_wire::spec::{ImageView, Layout, Spec};
use serde_json::{Map, Value};

use super::{Frame, Plane, Stamp, encode_meta, plane};
use crate::audience::{Core, Shared};
use crate::channel::keep::Keeper;
use crate::channel::lot::Lot;
use crate::channel::send::SendEnd;
use crate::error::Error;
use crate::pool::{Pool, PoolNote};
use crate::trace::Record;

/// Who lent a slot and gets it back.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    Channel { end: Arc<SendEnd>, lot: Arc<Lot> },
    Audience { core: Arc<Core>, shared: Arc<Shared> },
}

impl Home {
    pub(crate) fn pool(&self) -> &Pool {
        match self {
            Self::Channel { lot, .. } => &lot.pool,
            Self::Audience { shared, .. } => &shared.pool,
        }
    }

    fn forked(&self) -> bool {
        match self {
            Self::Channel { end, .. } => end.state.forked(),
            Self::Audience { core, .. } => core.forked(),
        }
    }

    /// Which pool of this channel's it is, if it is one.
    pub(crate) fn lot_of(&self, channel: &SendEnd) -> Option<&Arc<Lot>> {
        match self {
            Self::Channel { end, lot } if std::ptr::eq(Arc::as_ptr(end), channel) => Some(lot),
            _ => None,
        }
    }

    fn pin(&self, slot: u32) {
        match self {
            Self::Channel { lot, .. } => lot.pin(slot),
            Self::Audience { shared, .. } => shared.slots.pin(slot),
        }
    }

    /// The loan or a view less. In a forked child the slots are the parent's business.
    fn unpin(&self, slot: u32, keeper: Keeper) {
        match self {
            _ if self.forked() => {}
            Self::Channel { end, lot } if lot.unpin(slot, keeper) => end.unpinned(lot, slot),
            Self::Channel { .. } => {}
            Self::Audience { shared, .. } => shared.slots.unpin(slot, keeper),
        }
    }
}

/// A slot to fill: this side's alone until it is sent. Dropping it gives the slot back.
#[derive(Debug)]
pub struct FrameMut {
    pub(crate) home: Home,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    pub(crate) stamp: Stamp,
    pub(crate) payload_len: usize,
    pub(crate) meta: Vec<u8>,
    access: Option<Access>,
    gone: bool,
}

impl FrameMut {
    pub(crate) fn new(home: Home, slot: u32, generation: u64) -> Self {
        let payload_len = home.pool().layout.size;
        let access = home.pool().access(slot, Intent::Write);
        Self { home, slot, generation, stamp: Stamp::default(), payload_len, meta: Vec::new(), access, gone: false }
    }

    /// What the frame is to become.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.home.pool().spec
    }

    /// Where its values lie: there may be gaps that its spec does not tell of, where the system lays out the planes itself.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.home.pool().layout
    }

    /// Number of the pool it lies in: see [`Frame::pool_id`](super::Frame::pool_id). 0 for a frame of an audience, whose pool
    /// has another number on each link.
    #[must_use]
    pub fn pool_id(&self) -> u32 {
        self.home.pool().decl.id
    }

    /// What a binding keeps for the pool it lies in.
    #[doc(hidden)]
    #[must_use]
    pub fn pool_note(&self) -> &PoolNote {
        &self.home.pool().note
    }

    /// All bytes of the payload.
    ///
    /// # Panics
    /// Never: the slot is one of its pool's.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the ledger only loans slots of the pool")]
    pub fn payload(&self) -> Bytes<'_> {
        self.home.pool().bytes(self.slot, self.payload_len).expect("a slot of the pool")
    }

    /// Plane `index` to write to, if the format has that many.
    #[must_use]
    pub fn plane_mut(&mut self, index: usize) -> Option<Plane<'_>> {
        Plane::new(self.payload(), self.home.pool().layout.planes().get(index)?)
    }

    /// The planes, in the format's order.
    pub fn planes_mut(&mut self) -> impl Iterator<Item = Plane<'_>> {
        let payload = self.payload();
        self.home.pool().layout.planes().iter().filter_map(move |layout| Plane::new(payload, layout))
    }

    /// The frame as one strided array, where it is one.
    #[must_use]
    pub fn image_view(&self) -> Option<&ImageView> {
        self.home.pool().view.as_ref()
    }

    /// The places of the values in the order of files and pipes, gaps left out: one piece where there are none, else plane by
    /// plane or row by row.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes<'_>> {
        plane::pieces(self.payload(), &self.home.pool().layout)
    }

    /// Bytes of all values, gaps left out: what [`fill`](Self::fill) takes.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }

    /// Fills the frame: rows and planes one after the other without gaps, as files and pipes have them (FFmpeg's rawvideo),
    /// whatever gaps there are in the slot.
    ///
    /// # Errors
    /// Another number of bytes than the frame has values.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), Error> {
        plane::fill(plane::pieces(self.payload(), self.layout()), bytes, self.spec())
    }

    /// Copies the values of a frame of the same picture, wherever they lie there; false when it is another.
    pub(crate) fn copy_from(&mut self, frame: &Frame) -> bool {
        let (ours, theirs) = (&self.home.pool().layout, frame.layout());
        if ours == theirs {
            return self.payload().copy_from_bytes(frame.payload());
        }
        ours.planes().len() == theirs.planes().len()
            && self.planes_mut().zip(frame.planes()).all(|(to, from)| to.copy_from_plane(&from))
    }

    /// States how much of a bytes channel's capacity this frame uses.
    ///
    /// # Errors
    /// Another length than the spec's on a channel of video or tensors, or more than the capacity.
    pub fn set_len(&mut self, len: usize) -> Result<(), Error> {
        if !self.home.pool().accepts(len as u64) {
            return Err(Error::Format { what: format!("a payload of {len} bytes is not one of {}", self.spec()) });
        }
        self.payload_len = len;
        Ok(())
    }

    /// Sets the frame's number instead of the next one.
    pub fn set_seq(&mut self, seq: u64) {
        self.stamp.seq = Some(seq);
    }

    /// Sets the time stamp, in ns on the host's monotonic clock ([`crate::now`]); the moment of sending unless set.
    pub fn set_timestamp_ns(&mut self, ns: u64) {
        self.stamp.timestamp_ns = Some(ns);
    }

    /// Sets the presentation time in the spec's time base.
    pub fn set_pts(&mut self, pts: Option<i64>) {
        self.stamp.pts = pts;
    }

    /// Sets the duration in the spec's time base.
    pub fn set_duration(&mut self, duration: Option<u32>) {
        self.stamp.duration = duration;
    }

    /// Sets the metadata: one JSON object.
    pub fn set_meta(&mut self, meta: &Map<String, Value>) {
        self.meta = encode_meta(meta);
    }

    /// The same, already encoded.
    pub fn set_meta_bytes(&mut self, meta: Vec<u8>) {
        self.meta = meta;
    }

    /// Whether this process may still look at the pixels.
    ///
    /// # Errors
    /// [`Error::Forked`] in a forked child, where they are not mapped.
    pub fn check_fork(&self) -> Result<(), Error> {
        if self.home.forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Keeps the slot from reuse while a view of this side's own is alive, also after `send`.
    #[must_use]
    #[track_caller]
    pub fn pin(&self) -> Pin {
        let here = Location::caller();
        self.pin_made_at(|| here.to_string())
    }

    /// [`pin`](Self::pin) for a view that was made at `place`, which is asked for only if that is recorded
    /// ([`traces_views`](crate::traces_views)).
    #[must_use]
    pub fn pin_made_at(&self, place: impl FnOnce() -> String) -> Pin {
        Pin::new(&self.home, self.slot, place)
    }

    /// Gives up the loan's own pin, which is the caller's to do: the slot is not this frame's any more.
    pub(crate) fn forget(&mut self) {
        self.end_access();
        self.gone = true;
    }

    /// This side writes no more: what it wrote is there for whoever sees the frame from now on.
    pub(crate) fn end_access(&mut self) {
        self.access.take().into_iter().for_each(Access::pass_on);
    }
}

impl Drop for FrameMut {
    fn drop(&mut self) {
        self.end_access();
        if !self.gone {
            self.home.unpin(self.slot, Keeper::Frame);
        }
    }
}

/// Keeps a slot this side filled from reuse.
#[derive(Debug)]
pub struct Pin {
    home: Home,
    slot: u32,
    access: Option<Access>,
    made: Option<Record>,
}

impl Pin {
    fn new(home: &Home, slot: u32, place: impl FnOnce() -> String) -> Self {
        home.pin(slot);
        // A loan's views may write it; one that outlives the loan sees what the receiver makes of it.
        let access = home.pool().access(slot, Intent::Write);
        Self { home: home.clone(), slot, access, made: Record::new(home.pool(), slot, place) }
    }
}

impl Clone for Pin {
    #[track_caller]
    fn clone(&self) -> Self {
        let here = Location::caller();
        Self::new(&self.home, self.slot, || here.to_string())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // First, for whoever is told of a free slot.
        (self.made, self.access) = (None, None);
        self.home.unpin(self.slot, Keeper::View);
    }
}
