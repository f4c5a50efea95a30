//! A received frame, and the holds that keep its slot.

use std::panic::Location;
use std::sync::{Arc, OnceLock};

use frameport_mem::pixels::Bytes;
use frameport_sys::pixels::Access;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::spec::{ImageView, Layout, Spec};
use serde_json::{Map, Value};

use super::{Plane, Stamp, encode_meta, plane};
use crate::channel::keep::Keeper;
use crate::channel::lives::Lives;
use crate::channel::source::Source;
use crate::channel::state::LinkState;
use crate::error::Error;
use crate::pool::{Pool, PoolNote};
use crate::trace::Record;

/// Keeps a received slot from reuse. Clones share it; the last one's drop releases the slot.
#[derive(Debug)]
pub struct Hold {
    pub(crate) source: Arc<Source>,
    pub(crate) slot: u32,
    keeper: Keeper,
    access: Option<Access>,
    made: Option<Record>,
}

impl Hold {
    /// A received frame's own hold, which a take has just counted.
    pub(crate) fn of_taken(source: Arc<Source>, slot: u32) -> Self {
        let access = source.access(slot);
        Self { source, slot, keeper: Keeper::Frame, access, made: None }
    }

    /// Another view, made at `place`.
    fn view(&self, place: impl FnOnce() -> String) -> Self {
        self.source.hold(self.slot);
        let made = Record::new(&self.source.pool, self.slot, place);
        let access = self.source.access(self.slot);
        Self { source: Arc::clone(&self.source), slot: self.slot, keeper: Keeper::View, access, made }
    }

    /// The newest parameters, as [`Frame::params`], for those who cannot keep the frame while they wait.
    ///
    /// # Errors
    /// As [`Frame::params`].
    pub fn params(&self) -> Result<Arc<Map<String, Value>>, Error> {
        self.source.state.params()
    }
}

impl Clone for Hold {
    #[track_caller]
    fn clone(&self) -> Self {
        let here = Location::caller();
        self.view(|| here.to_string())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // First, for whoever is told of a free slot.
        (self.made, self.access) = (None, None);
        self.source.unhold(self.slot, self.keeper);
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub(crate) hold: Hold,
    descriptor: Descriptor,
    /// Set where this side gave the frame metadata of its own, for a reply in place.
    meta: Option<Vec<u8>>,
    /// The parameters, once somebody has looked.
    params: OnceLock<Arc<Map<String, Value>>>,
}

impl Frame {
    pub(crate) fn new(hold: Hold, descriptor: Descriptor) -> Self {
        Self { hold, descriptor, meta: None, params: OnceLock::new() }
    }

    fn pool(&self) -> &Pool {
        &self.hold.source.pool
    }

    /// What the frame is: its channel's spec when it was loaned.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.pool().spec
    }

    /// Number of the pool it lies in, unique in its link and rising with each change of spec.
    #[must_use]
    pub fn pool_id(&self) -> u32 {
        self.descriptor.pool
    }

    /// What a binding keeps for the pool it lies in.
    #[doc(hidden)]
    #[must_use]
    pub fn pool_note(&self) -> &PoolNote {
        &self.pool().note
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
        let sent = || self.pool().peer.meta(self.hold.slot, self.descriptor.meta_len);
        self.meta.clone().or_else(sent).unwrap_or_default()
    }

    /// Whether it has metadata.
    #[must_use]
    pub fn has_meta(&self) -> bool {
        self.meta.as_ref().map_or(self.descriptor.meta_len > 0, |meta| !meta.is_empty())
    }

    /// Gives the frame other metadata, for a reply in place. One JSON object.
    pub fn set_meta(&mut self, meta: &Map<String, Value>) {
        self.meta = Some(encode_meta(meta));
    }

    /// The same, already encoded.
    pub fn set_meta_bytes(&mut self, meta: Vec<u8>) {
        self.meta = Some(meta);
    }

    /// What the host had set for this worker when somebody first asked: all that was set before the frame was sent, or
    /// newer, and the same for as long as the frame is there. See [`Link::params`](crate::Link::params). Empty for a frame a
    /// host got.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn params(&self) -> Result<&Arc<Map<String, Value>>, Error> {
        let known = self.params.get().map_or_else(|| self.hold.params(), |known| Ok(Arc::clone(known)))?;
        Ok(self.params.get_or_init(|| known))
    }

    /// [`params`](Self::params) without waiting: `None` while they are on their way.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub fn params_if_here(&self) -> Result<Option<&Arc<Map<String, Value>>>, Error> {
        if self.params.get().is_some() {
            return Ok(self.params.get());
        }
        Ok(self.hold.source.state.params_if_here()?.map(|newest| self.params.get_or_init(|| newest)))
    }

    /// Bytes of the metadata this side gave it.
    pub(crate) fn own_meta_len(&self) -> usize {
        self.meta.as_ref().map_or(0, Vec::len)
    }

    /// Bytes of metadata it has room for.
    pub(crate) fn meta_capacity(&self) -> u32 {
        self.pool().decl.meta
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
        self.pool().bytes(self.hold.slot, len).expect("checked at the take")
    }

    /// The planes, in the format's order.
    pub fn planes(&self) -> impl Iterator<Item = Plane<'_>> {
        let layouts = self.pool().layout.planes();
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
        self.pool().view.as_ref()
    }

    /// Where its values lie: there may be gaps that its spec does not tell of, where the system lays out the planes itself.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.pool().layout
    }

    /// The values in the order of files and pipes, gaps left out: one piece where there are none, else plane by plane or row
    /// by row.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes<'_>> {
        plane::pieces(self.payload(), self.layout())
    }

    /// Writes other values over the frame's, to go back in place: rows and planes one after the other without gaps.
    ///
    /// # Errors
    /// Another number of bytes than the frame has values; a frame of an audience, which is others' too.
    pub fn fill(&mut self, bytes: &[u8]) -> Result<(), Error> {
        plane::fill(plane::pieces(self.payload(), self.layout()), bytes, self.spec())
    }

    /// Bytes of all values, gaps left out: what [`snapshot`](Self::snapshot) gives.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }

    /// An owned copy of the values, which nobody else can change: rows and planes one after the other without gaps.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.pieces().flat_map(|piece| piece.to_vec()).collect()
    }

    /// Keeps the pixels beyond the frame's own life.
    #[must_use]
    #[track_caller]
    pub fn hold(&self) -> Hold {
        let here = Location::caller();
        self.hold_made_at(|| here.to_string())
    }

    /// [`hold`](Self::hold) for a view that was made at `place`, which is asked for only if that is recorded
    /// ([`traces_views`](crate::traces_views)).
    #[must_use]
    pub fn hold_made_at(&self, place: impl FnOnce() -> String) -> Hold {
        self.hold.view(place)
    }

    /// Whether views made by [`hold`](Self::hold) are alive.
    #[must_use]
    pub fn is_viewed(&self) -> bool {
        !self.hold.source.is_sole(self.hold.slot)
    }

    /// Whether this process may still look at the pixels.
    ///
    /// # Errors
    /// [`Error::Forked`] in a forked child, where they are not mapped.
    pub fn check_fork(&self) -> Result<(), Error> {
        self.hold.source.state.check_fork()
    }

    /// Everything a reply carries over.
    pub(crate) fn stamp(&self) -> Stamp {
        let Descriptor { seq, timestamp_ns, pts, duration, .. } = self.descriptor;
        Stamp { seq: Some(seq), timestamp_ns: Some(timestamp_ns), pts, duration }
    }

    /// Whether its slot may go back in place on the channel of this index.
    pub(crate) fn returns_on(&self, channel: usize) -> bool {
        self.hold.source.returns_on(channel)
    }

    /// Takes the slot out of this side's hands, for a reply in place: where it lies and what to say of it.
    pub(crate) fn into_parts(self) -> Option<(Arc<Source>, Descriptor, Vec<u8>)> {
        let Self { hold, descriptor, meta, .. } = self;
        hold.source.forget(hold.slot)?;
        Some((Arc::clone(&hold.source), descriptor, meta.unwrap_or_default()))
    }

    /// Whether it came over the link of `state`.
    pub(crate) fn is_of_link(&self, state: &Arc<LinkState>) -> bool {
        Arc::ptr_eq(&self.hold.source.state, state)
    }

    /// Whether it came from one of the lives of a worker.
    pub(crate) fn is_of_lives(&self, lives: &Lives) -> bool {
        self.hold.source.state.is_of(lives)
    }
}
