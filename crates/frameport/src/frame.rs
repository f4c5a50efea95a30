//! Frames: a loan to fill, a received frame to read or edit, and their planes.
//!
//! *Who calls it*: applications. *Invariants*: a [`Frame`]'s pixels stay what they were received as until it and every
//! [`Hold`] made from it are gone (an honest sender does not write after sending); a [`FrameMut`] is this side's alone
//! until it is sent; no reference to the pixels is ever made. *A hostile worker* can change pixels under a frame it
//! sent, at any time: what the application computes from them is then garbage, and nothing else; take a
//! [`Frame::snapshot`] where that matters.

use std::sync::Arc;

use frameport_mem::pixels::Bytes;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::spec::{ImageView, PlaneLayout, Spec};
use serde_json::{Map, Value};

use crate::channel::recv::RecvEnd;
use crate::channel::send::SendEnd;
use crate::error::Error;
use crate::pool::Pool;

/// The sequence number, times and so on that a frame carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) seq: Option<u64>,
    pub(crate) timestamp_ns: Option<u64>,
    pub(crate) pts: Option<i64>,
    pub(crate) duration: Option<u32>,
}

/// Keeps a received slot from reuse. Clones share it; the last one's drop releases the slot.
#[derive(Debug)]
pub struct Hold {
    end: Arc<RecvEnd>,
    source: usize,
    slot: u32,
}

impl Hold {
    /// The hold a take has just counted.
    pub(crate) fn of_taken(end: Arc<RecvEnd>, source: usize, slot: u32) -> Self {
        Self { end, source, slot }
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.end.hold(self.source, self.slot);
        Self { end: Arc::clone(&self.end), ..*self }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end.unhold(self.source, self.slot);
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    hold: Hold,
    descriptor: Descriptor,
    /// Set where this side gave the frame metadata of its own, for a reply in place.
    meta: Option<Vec<u8>>,
}

impl Frame {
    pub(crate) fn new(hold: Hold, descriptor: Descriptor) -> Self {
        Self { hold, descriptor, meta: None }
    }

    fn pool(&self) -> Option<&Pool> {
        self.hold.end.source(self.hold.source).map(|source| source.pool.as_ref())
    }

    /// What the frame is.
    ///
    /// # Panics
    /// Never: a frame's pool outlives it.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a hold is only made for a pool of its channel")]
    pub fn spec(&self) -> &Spec {
        &self.pool().expect("a frame's pool outlives it").spec
    }

    /// Number of the frame in its stream: a gap tells how many are missing.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.descriptor.seq
    }

    /// When its sender stamped it, in ns on the host's monotonic clock ([`crate::now`]).
    #[must_use]
    pub fn timestamp_ns(&self) -> u64 {
        self.descriptor.timestamp_ns
    }

    /// Presentation time in the spec's time base.
    #[must_use]
    pub fn pts(&self) -> Option<i64> {
        self.descriptor.pts
    }

    /// Duration in the spec's time base.
    #[must_use]
    pub fn duration(&self) -> Option<u32> {
        self.descriptor.duration
    }

    /// The metadata its sender gave it; empty if none.
    ///
    /// # Errors
    /// Bytes that are no JSON object.
    pub fn meta(&self) -> Result<Map<String, Value>, Error> {
        let bytes = self.meta_bytes();
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&bytes).map_err(|source| Error::Meta { seq: self.seq(), source })
    }

    /// The metadata as it was sent: UTF-8 JSON, or nothing.
    #[must_use]
    pub fn meta_bytes(&self) -> Vec<u8> {
        let sent = || self.pool()?.peer.meta(self.hold.slot, self.descriptor.meta_len);
        self.meta.clone().or_else(sent).unwrap_or_default()
    }

    /// Gives the frame other metadata, for a reply in place. One JSON object.
    pub fn set_meta(&mut self, meta: &Map<String, Value>) {
        self.meta = Some(encode_meta(meta));
    }

    /// The same, already encoded.
    pub fn set_meta_bytes(&mut self, meta: Vec<u8>) {
        self.meta = Some(meta);
    }

    /// The metadata this side gave it.
    pub(crate) fn own_meta(&self) -> Vec<u8> {
        self.meta.clone().unwrap_or_default()
    }

    /// All bytes of the payload.
    ///
    /// # Panics
    /// Never: the length was checked when the frame was received.
    #[must_use]
    #[expect(clippy::expect_used, reason = "slot and length were checked at the take")]
    pub fn payload(&self) -> Bytes<'_> {
        let len = usize::try_from(self.descriptor.payload_len).unwrap_or(usize::MAX);
        self.pool().and_then(|pool| pool.bytes(self.hold.slot, len)).expect("checked at the take")
    }

    /// The planes, in the format's order.
    pub fn planes(&self) -> impl Iterator<Item = Plane<'_>> {
        let layouts = self.pool().map_or([].as_slice(), |pool| pool.layout.planes());
        let payload = self.payload();
        layouts.iter().filter_map(move |layout| Plane::new(payload, layout))
    }

    /// Plane `index`, if the format has that many.
    #[must_use]
    pub fn plane(&self, index: usize) -> Option<Plane<'_>> {
        self.planes().nth(index)
    }

    /// The frame as one strided array, where it is one.
    #[must_use]
    pub fn image_view(&self) -> Option<&ImageView> {
        self.pool()?.view.as_ref()
    }

    /// An owned copy of the payload, which nobody else can change.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.payload().to_vec()
    }

    /// Keeps the pixels beyond the frame's own life.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// Whether views made by [`hold`](Self::hold) are alive.
    #[must_use]
    pub fn is_viewed(&self) -> bool {
        !self.hold.end.sole(self.hold.source, self.hold.slot)
    }

    /// Everything a reply carries over.
    pub(crate) fn stamp(&self) -> Stamp {
        let Descriptor { seq, timestamp_ns, pts, duration, .. } = self.descriptor;
        Stamp { seq: Some(seq), timestamp_ns: Some(timestamp_ns), pts, duration }
    }

    /// Takes the slot out of this side's hands, for a reply in place: its pool, and what to say of it.
    pub(crate) fn into_parts(self) -> Option<(Arc<Pool>, Descriptor, Vec<u8>)> {
        let Self { hold, descriptor, meta } = self;
        let pool = Arc::clone(&hold.end.source(hold.source)?.pool);
        hold.end.forget(hold.source, hold.slot)?;
        Some((pool, descriptor, meta.unwrap_or_default()))
    }

    /// Whether `end` received it.
    pub(crate) fn is_from(&self, end: &Arc<RecvEnd>) -> bool {
        Arc::ptr_eq(&self.hold.end, end)
    }
}

/// A slot to fill: this side's alone until it is sent. Dropping it gives the slot back.
#[derive(Debug)]
pub struct FrameMut {
    pub(crate) end: Arc<SendEnd>,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    pub(crate) stamp: Stamp,
    pub(crate) payload_len: usize,
    pub(crate) meta: Vec<u8>,
    gone: bool,
}

impl FrameMut {
    pub(crate) fn new(end: Arc<SendEnd>, slot: u32, generation: u64) -> Self {
        let payload_len = end.pool.layout.size;
        Self { end, slot, generation, stamp: Stamp::default(), payload_len, meta: Vec::new(), gone: false }
    }

    /// What the frame is to become.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.end.pool.spec
    }

    /// All bytes of the payload.
    ///
    /// # Panics
    /// Never: the slot is one of its pool's.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the ledger only loans slots of the pool")]
    pub fn payload(&self) -> Bytes<'_> {
        self.end.pool.bytes(self.slot, self.payload_len).expect("a slot of the pool")
    }

    /// Plane `index` to write to, if the format has that many.
    #[must_use]
    pub fn plane_mut(&mut self, index: usize) -> Option<Plane<'_>> {
        Plane::new(self.payload(), self.end.pool.layout.planes().get(index)?)
    }

    /// The planes, in the format's order.
    pub fn planes_mut(&mut self) -> impl Iterator<Item = Plane<'_>> {
        let payload = self.payload();
        self.end.pool.layout.planes().iter().filter_map(move |layout| Plane::new(payload, layout))
    }

    /// The frame as one strided array, where it is one.
    #[must_use]
    pub fn image_view(&self) -> Option<&ImageView> {
        self.end.pool.view.as_ref()
    }

    /// Fills the whole payload.
    ///
    /// # Errors
    /// Another number of bytes than the frame has.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let payload = self.payload();
        if payload.len() == bytes.len() && payload.copy_from(0, bytes) {
            return Ok(());
        }
        Err(Error::Format {
            what: format!("{} bytes do not fill a frame of {}, which has {}", bytes.len(), self.spec(), payload.len()),
        })
    }

    /// States how much of a bytes channel's capacity this frame uses.
    ///
    /// # Errors
    /// Another length than the spec's on a channel of video or tensors, or more than the capacity.
    pub fn set_len(&mut self, len: usize) -> Result<(), Error> {
        if !self.end.pool.accepts(len as u64) {
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

    /// Keeps the slot from reuse while a view of this side's own is alive, also after `send`.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.end.pin(self.slot);
        Pin { end: Arc::clone(&self.end), slot: self.slot }
    }

    /// Gives up the loan's own pin; true when it was the last. The slot is then not this frame's any more.
    pub(crate) fn forget(&mut self) -> bool {
        self.gone = true;
        self.end.unpin(self.slot)
    }
}

impl Drop for FrameMut {
    fn drop(&mut self) {
        if !self.gone && !self.end.state.forked() && self.end.unpin(self.slot) {
            self.end.unpinned(self.slot);
        }
    }
}

/// Keeps a slot this side filled from reuse.
#[derive(Debug)]
pub struct Pin {
    end: Arc<SendEnd>,
    slot: u32,
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        self.end.pin(self.slot);
        Self { end: Arc::clone(&self.end), slot: self.slot }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.end.state.forked() && self.end.unpin(self.slot) {
            self.end.unpinned(self.slot);
        }
    }
}

/// One plane of a frame: rows of bytes, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    bytes: Bytes<'a>,
    layout: &'a PlaneLayout,
}

impl<'a> Plane<'a> {
    fn new(payload: Bytes<'a>, layout: &'a PlaneLayout) -> Option<Self> {
        // A frame of a bytes channel may be shorter than its spec's one plane.
        let rest = payload.len().checked_sub(layout.offset)?;
        let last = layout.stride.checked_mul(layout.rows.checked_sub(1)?)?;
        let bytes = payload.part(layout.offset, last.checked_add(layout.row_bytes)?.min(rest))?;
        Some(Self { bytes, layout })
    }

    /// Rows, stride, bytes of a row, values per pixel and their type.
    #[must_use]
    pub fn layout(&self) -> &PlaneLayout {
        self.layout
    }

    /// All bytes from the first row's first to the last row's last, gaps included.
    #[must_use]
    pub fn bytes(&self) -> Bytes<'a> {
        self.bytes
    }

    /// Row `y` without its gap; `None` beyond the last.
    #[must_use]
    pub fn row(&self, y: usize) -> Option<Bytes<'a>> {
        let inside = y < self.layout.rows;
        inside.then(|| self.bytes.part(self.layout.stride.checked_mul(y)?, self.layout.row_bytes)).flatten()
    }

    /// Copies tightly packed rows into the plane.
    ///
    /// # Errors
    /// Another number of bytes than the plane has.
    pub fn copy_from(&self, pixels: &[u8]) -> Result<(), Error> {
        let PlaneLayout { rows, row_bytes, .. } = *self.layout;
        if pixels.len() == rows.saturating_mul(row_bytes) {
            let copied = pixels
                .chunks_exact(row_bytes)
                .enumerate()
                .all(|(y, from)| self.row(y).is_some_and(|row| row.copy_from(0, from)));
            if copied {
                return Ok(());
            }
        }
        Err(Error::Format { what: format!("{} bytes do not fill a plane of {rows} rows of {row_bytes}", pixels.len()) })
    }

    /// A tightly packed copy of the plane.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        (0..self.layout.rows).filter_map(|y| self.row(y)).flat_map(|row| row.to_vec()).collect()
    }
}

fn encode_meta(meta: &Map<String, Value>) -> Vec<u8> {
    // An object of JSON values always has a text.
    if meta.is_empty() { Vec::new() } else { serde_json::to_vec(meta).unwrap_or_default() }
}
