//! The receiving end of a channel.
//!
//! *Who calls it*: [`super::handle::Receiver`]; the worker's of an in channel, the host's of an out channel. *Invariants*: a slot
//! is in this side's hands from the take to the drop of its last hold, and is never taken twice meanwhile; releasing
//! never blocks and may happen on any thread. *A hostile peer* is caught here when an entry is malformed, names a slot
//! already held, goes back in generation, or (in place) a slot it has no right to.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use frameport_mem::park::{Bells, Ended, Look, Until};
use frameport_mem::ring;
use frameport_sys::clock::{about_now_ns, now_ns};
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::Delivery;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{frame_bit, slot_bit, taken, ticket};
use frameport_wire::spec::Spec;

use super::lot::Lot;
use super::send::SendEnd;
use super::source::Source;
use super::state::{End, LinkState};
use crate::error::Error;
use crate::frame::{Frame, Hold};
use crate::holders::{Peer, SlotHolder};
use crate::pool::Pool;

/// See the module.
#[derive(Debug)]
pub(crate) struct RecvEnd {
    pub(crate) state: Arc<LinkState>,
    name: String,
    channel: usize,
    peer: Peer,
    bells: Arc<Bells>,
    delivery: Delivery,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: ring::Receiver,
    sources: Vec<Known>,
    /// Those of which no frame will arrive any more, as long as some are held.
    gone: Vec<Weak<Source>>,
    received: u64,
}

/// A pool whose slots may arrive here.
#[derive(Debug)]
struct Known {
    source: Arc<Source>,
    /// For each slot the highest generation seen: a sender's generations rise.
    generations: Vec<u64>,
}

impl Known {
    fn new(source: Source) -> Self {
        Self { generations: vec![0; source.pool.decl.slots as usize], source: Arc::new(source) }
    }
}

/// What [`RecvEnd::new`] is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) channel: usize,
    pub(crate) peer: Peer,
    pub(crate) state: Arc<LinkState>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) delivery: Delivery,
    pub(crate) ring: ring::Receiver,
    pub(crate) pool: Arc<Pool>,
    /// The ends whose slots may come back here in place.
    pub(crate) in_place: Vec<Arc<SendEnd>>,
    /// The channels of this side's on which slots of the pool may go back in place: bit n for channel n.
    pub(crate) returns: u32,
}

impl RecvEnd {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { name, channel, peer, state, bells, delivery, ring, pool, in_place, returns } = parts;
        let inner = Mutex::new(Inner { ring, sources: Vec::new(), gone: Vec::new(), received: 0 });
        let this = Self { state, name, channel, peer, bells, delivery, inner };
        this.add_pool(pool, returns);
        in_place.into_iter().for_each(|end| this.add_in_place(end.lot(), end));
        Arc::new(this)
    }

    /// From now on frames of this pool of the peer's may arrive, and go back in place on the channels `returns`: bit n for
    /// channel n.
    pub(crate) fn add_pool(&self, pool: Arc<Pool>, returns: u32) {
        // The sender of a live channel never waits for a slot.
        let bit = (self.delivery == Delivery::Lossless).then(|| slot_bit(self.channel));
        self.add(pool, None, bit, returns);
    }

    /// From now on slots that `end` sends out of `lot` may come back here.
    pub(crate) fn add_in_place(&self, lot: Arc<Lot>, end: Arc<SendEnd>) {
        self.add(Arc::clone(&lot.pool), Some((end, lot)), None, 0);
    }

    fn add(&self, pool: Arc<Pool>, sent_by: Option<(Arc<SendEnd>, Arc<Lot>)>, bit: Option<u64>, returns: u32) {
        let (link, label) = ((&self.state, &self.bells), (self.name.as_str(), &self.peer));
        self.lock().sources.push(Known::new(Source::new(pool, link, label, sent_by, bit, returns)));
    }

    /// No frame of pool `id` will arrive any more. Those that are here stay what they are.
    pub(crate) fn drop_pool(&self, id: u32) {
        self.drop_where(|source| source.pool.decl.id == id);
    }

    /// The peer says that no frame of its older pool `id` will arrive any more; of the newest it cannot say so.
    pub(crate) fn left(&self, id: u32) {
        let is_newest = self.pools().last().is_none_or(|pool| pool.decl.id == id);
        self.drop_where(|source| !is_newest && source.is_peers() && source.pool.decl.id == id);
    }

    fn drop_where(&self, is_gone: impl Fn(&Source) -> bool) {
        let mut inner = self.lock();
        let gone: Vec<Known> = inner.sources.extract_if(.., |known| is_gone(&known.source)).collect();
        inner.gone.retain(|source| source.strong_count() > 0);
        inner.gone.extend(gone.iter().map(|known| Arc::downgrade(&known.source)));
        drop(inner);
        // Outside of the lock: the last reference unmaps.
        drop(gone);
    }

    /// What travels now.
    ///
    /// # Panics
    /// Never: an end has the pool of its newest spec.
    #[expect(clippy::expect_used, reason = "a pool goes when there is a newer one")]
    pub(crate) fn spec(&self) -> Spec {
        self.pools().pop().expect("the pool of the newest spec").spec.clone()
    }

    /// The peer's own pools whose frames may arrive, the newest last.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        let inner = self.lock();
        let own = inner.sources.iter().filter(|known| known.source.is_peers());
        own.map(|known| Arc::clone(&known.source.pool)).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its index in the link.
    pub(crate) fn channel(&self) -> usize {
        self.channel
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether frames of the pool are in this side's hands, or are still to be received here.
    pub(crate) fn sees(&self, pool: &Arc<Pool>) -> bool {
        let inner = self.lock();
        let mut sources = inner.sources.iter().filter(|known| Arc::ptr_eq(&known.source.pool, pool));
        let has_next = inner.ring.has_next(self.delivery != Delivery::Lossless);
        sources.any(|known| has_next || known.source.is_held())
    }

    /// Whether a frame is there.
    pub(crate) fn has_next(&self) -> bool {
        self.lock().ring.has_next(self.delivery != Delivery::Lossless)
    }

    /// The next frame, if one is there. What was sent before an end still arrives, but for the end of a liar.
    pub(crate) fn try_recv(&self) -> Result<Option<Frame>, Error> {
        self.state.check_fork()?;
        if let Some(end @ End::Violation(_)) = self.state.end() {
            return Err(self.state.error(end));
        }
        let mut inner = self.lock();
        let mut polled = self.poll(&mut inner);
        if matches!(polled, Ok(None)) {
            // Both say that no entry will follow those published before: look once more after them.
            let (ended, closed) = (self.state.end().is_some(), inner.ring.is_closed());
            if !ended && !closed {
                return Ok(None);
            }
            polled = self.poll(&mut inner);
            if matches!(polled, Ok(None)) {
                drop(inner);
                self.state.check()?;
                return Err(Error::LinkClosed {
                    link: self.state.name().to_owned(),
                    why: "the other side finished sending",
                });
            }
        }
        drop(inner);
        match polled {
            Ok(Some((source, descriptor))) => Ok(Some(Frame::new(Hold::of_taken(source, descriptor.slot), descriptor))),
            Ok(None) => Ok(None),
            Err(lie) => Err(self.state.violation(&lie)),
        }
    }

    /// Takes the next frame, if one is there.
    fn poll(&self, inner: &mut Inner) -> Result<Option<(Arc<Source>, Descriptor)>, String> {
        let Inner { ring, sources, received, .. } = inner;
        if self.delivery == Delivery::Lossless {
            let polled = ring.poll().map_err(|lie| lie.to_string())?;
            return polled.map(|words| self.take(sources, received, words)).transpose();
        }
        let visited = ring.visit(|words| {
            let (source, descriptor) = self.take(sources, received, words)?;
            source.pool.own.set_state(descriptor.slot, taken(descriptor.ring_seq));
            Ok((source, descriptor))
        });
        visited.map_err(|lie| lie.to_string())?.transpose()
    }

    /// Checks an entry against what this side knows and takes its slot.
    fn take(
        &self,
        sources: &mut [Known],
        received: &mut u64,
        words: [u64; 8],
    ) -> Result<(Arc<Source>, Descriptor), String> {
        let descriptor = Descriptor::decode(words).map_err(|error| error.to_string())?;
        let Descriptor { ring_seq, pool: id, slot, generation, seq, payload_len, meta_len, .. } = descriptor;
        let Some(Known { source, generations }) = sources.iter_mut().find(|known| known.source.pool.decl.id == id)
        else {
            return Err(format!("entry {ring_seq} names pool {id}, which does not travel on channel '{}'", self.name));
        };
        let (Some(last), Some(hand)) = (generations.get_mut(slot as usize), source.hand(slot)) else {
            return Err(format!("entry {ring_seq} names slot {slot} of a pool of {}", source.pool.decl.slots));
        };
        // Acquire: pairs with the release in `forget`, so that the store of `holds` below comes after the last drop.
        let earlier = hand.ticket.load(Ordering::Acquire);
        if earlier != 0 {
            return Err(format!("entry {ring_seq} names slot {slot}, which is held here since entry {}", earlier - 1));
        }
        if generation <= *last {
            return Err(format!("entry {ring_seq}: slot {slot} went from generation {last} to {generation}"));
        }
        if !source.pool.accepts(payload_len) || meta_len > source.pool.decl.meta {
            return Err(format!(
                "entry {ring_seq} states {payload_len} bytes and {meta_len} of metadata for {}",
                source.pool.spec
            ));
        }
        source.check_returned(slot, generation)?;
        *last = generation;
        hand.holds.begin();
        hand.seq.store(seq, Ordering::Relaxed);
        hand.since_ns.store(about_now_ns(), Ordering::Relaxed);
        hand.ticket.store(ticket(ring_seq), Ordering::Relaxed);
        *received += 1;
        self.state.note_received(id);
        Ok((Arc::clone(source), descriptor))
    }

    /// Whether a receive would not wait: a frame is there, or none will come.
    pub(crate) fn is_ready(&self) -> bool {
        let live = self.delivery != Delivery::Lossless;
        self.state.end().is_some() || {
            let inner = self.lock();
            inner.ring.has_next(live) || inner.ring.is_closed()
        }
    }

    /// Whether the peer sleeps until this side lets go of a slot.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.bells.is_peer_asleep(slot_bit(self.channel))
    }

    /// The `parked` bit of this end.
    pub(crate) fn bit(&self) -> u64 {
        frame_bit(self.channel)
    }

    /// The next frame, waiting for it.
    pub(crate) fn recv(&self, until: &mut Until<'_>) -> Result<Frame, Error> {
        let look = || Ok::<_, Error>(self.try_recv()?.map_or(Look::Nothing, Look::Found));
        match self.bells.wait(frame_bit(self.channel), until, look)? {
            Ok(frame) => Ok(frame),
            Err(Ended::Interrupted) => Err(Error::Interrupted),
            Err(Ended::TimedOut { after }) => {
                Err(Error::Timeout { link: self.state.name().to_owned(), channel: self.name.clone(), after })
            }
        }
    }

    /// Waits as [`recv`](Self::recv) does for what `look` finds, and for what comes with the bits `also`.
    pub(crate) fn watch<T>(
        &self,
        also: u64,
        until: &mut Until<'_>,
        look: impl FnMut() -> Result<Look<T>, Error>,
    ) -> Result<Result<T, Ended>, Error> {
        self.bells.wait(frame_bit(self.channel) | also, until, look)
    }

    /// Whether the sender said that nothing follows those it has sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().ring.is_closed()
    }

    /// Frames received, and those the sender took back before.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.received, inner.ring.skipped())
    }

    /// All whose frames may be in this side's hands.
    pub(super) fn sources(&self) -> Vec<Arc<Source>> {
        let inner = self.lock();
        let gone = inner.gone.iter().filter_map(Weak::upgrade);
        inner.sources.iter().map(|known| Arc::clone(&known.source)).chain(gone).collect()
    }

    /// The frames in this side's hands. What is taken or dropped meanwhile may be told or not.
    pub(crate) fn holders(&self) -> Vec<SlotHolder> {
        if self.state.forked() {
            return Vec::new();
        }
        let now = now_ns();
        self.sources().iter().flat_map(|source| source.holders(now)).collect()
    }

    /// How many frames are in this side's hands.
    pub(crate) fn held(&self) -> usize {
        self.sources().iter().map(|source| source.held().count()).sum()
    }
}
