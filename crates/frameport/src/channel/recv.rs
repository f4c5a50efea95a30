//! The receiving end of a channel.
//!
//! *Who calls it*: [`super::handle::Receiver`]; the worker's of an in channel, the host's of an out channel. *Invariants*: a slot
//! is in this side's hands from the take to the drop of its last hold, and is never taken twice meanwhile; releasing
//! never blocks and may happen on any thread. *A hostile peer* is caught here when an entry is malformed, names a slot
//! already held, goes back in generation, or (in place) a slot it has no right to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Bells, Ended, Look, Until};
use frameport_mem::ring;
use frameport_sys::clock::now_ns;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::Delivery;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{frame_bit, released, slot_bit, taken, ticket};
use frameport_wire::spec::Spec;

use super::keep::{Keeper, Keepers};
use super::send::SendEnd;
use super::state::{End, LinkState};
use crate::error::Error;
use crate::frame::{Frame, Hold};
use crate::holders::{Holder, Peer, SlotHolder};
use crate::pool::Pool;
use crate::trace;

/// See the module.
#[derive(Debug)]
pub(crate) struct RecvEnd {
    pub(crate) state: Arc<LinkState>,
    /// The channel's own pool.
    pub(crate) pool: Arc<Pool>,
    name: String,
    channel: usize,
    peer: Peer,
    bells: Arc<Bells>,
    delivery: Delivery,
    sources: Vec<Source>,
    inner: Mutex<Inner>,
}

/// A pool whose slots may arrive here.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) pool: Arc<Pool>,
    /// For slots sent back in place: the end that sent them out, which has their ledger.
    sent_by: Option<Arc<SendEnd>>,
    hands: Box<[Hand]>,
}

/// One slot, as far as it is in this side's hands. Changed without the lock: frames are dropped on any thread.
#[derive(Debug, Default)]
struct Hand {
    /// The ticket of the entry it came with while it is held, 0 while it is not.
    ticket: AtomicU64,
    holds: Keepers,
    /// Of the frame in it, for those who ask; read and written under the lock.
    seq: AtomicU64,
    since_ns: AtomicU64,
}

impl Source {
    fn new(pool: Arc<Pool>, sent_by: Option<Arc<SendEnd>>) -> Self {
        let hands = (0..pool.decl.slots).map(|_| Hand::default()).collect();
        Self { pool, sent_by, hands }
    }
}

#[derive(Debug)]
struct Inner {
    ring: ring::Receiver,
    /// For each source and slot the highest generation seen: a sender's generations rise.
    generations: Vec<Vec<u64>>,
    received: u64,
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
}

impl RecvEnd {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { name, channel, peer, state, bells, delivery, ring, pool, in_place } = parts;
        let mut sources = vec![Source::new(Arc::clone(&pool), None)];
        sources.extend(in_place.into_iter().map(|end| Source::new(Arc::clone(&end.pool), Some(end))));
        let generations = sources.iter().map(|source| vec![0; source.pool.decl.slots as usize]).collect();
        let inner = Mutex::new(Inner { ring, generations, received: 0 });
        Arc::new(Self { state, pool, name, channel, peer, bells, delivery, sources, inner })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The specs of its sources.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.sources.iter().map(|source| &source.pool.spec)
    }

    pub(crate) fn source(&self, index: usize) -> Option<&Source> {
        self.sources.get(index)
    }

    /// The next frame, if one is there. What was sent before an end still arrives, but for the end of a liar.
    pub(crate) fn try_recv(self: &Arc<Self>) -> Result<Option<Frame>, Error> {
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
            Ok(Some((source, descriptor))) => {
                Ok(Some(Frame::new(Hold::of_taken(Arc::clone(self), source, descriptor.slot), descriptor)))
            }
            Ok(None) => Ok(None),
            Err(lie) => Err(self.state.violation(&lie)),
        }
    }

    /// Takes the next frame, if one is there.
    fn poll(&self, inner: &mut Inner) -> Result<Option<(usize, Descriptor)>, String> {
        let Inner { ring, generations, received } = inner;
        if self.delivery == Delivery::Lossless {
            let polled = ring.poll().map_err(|lie| lie.to_string())?;
            return polled.map(|words| self.take(generations, received, words)).transpose();
        }
        let visited = ring.visit(|words| {
            let (source, descriptor) = self.take(generations, received, words)?;
            if let Some(Source { pool, .. }) = self.sources.get(source) {
                pool.own.set_state(descriptor.slot, taken(descriptor.ring_seq));
            }
            Ok((source, descriptor))
        });
        visited.map_err(|lie| lie.to_string())?.transpose()
    }

    /// Checks an entry against what this side knows and takes its slot.
    fn take(
        &self,
        generations: &mut [Vec<u64>],
        received: &mut u64,
        words: [u64; 8],
    ) -> Result<(usize, Descriptor), String> {
        let descriptor = Descriptor::decode(words).map_err(|error| error.to_string())?;
        let Descriptor { ring_seq, pool: id, slot, generation, seq, payload_len, meta_len, .. } = descriptor;
        let known = self.sources.iter().position(|source| source.pool.decl.id == id);
        let Some((index, source)) = known.and_then(|index| Some((index, self.sources.get(index)?))) else {
            return Err(format!("entry {ring_seq} names pool {id}, which does not travel on channel '{}'", self.name));
        };
        let place = slot as usize;
        let last = generations.get_mut(index).and_then(|slots| slots.get_mut(place));
        let (Some(last), Some(hand)) = (last, source.hands.get(place)) else {
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
        // The ledger's word on slots sent back in place.
        source.sent_by.as_ref().map_or(Ok(()), |end| end.returned(slot, generation)).map_err(|lie| lie.to_string())?;
        *last = generation;
        hand.holds.begin();
        hand.seq.store(seq, Ordering::Relaxed);
        hand.since_ns.store(now_ns(), Ordering::Relaxed);
        hand.ticket.store(ticket(ring_seq), Ordering::Relaxed);
        *received += 1;
        Ok((index, descriptor))
    }

    /// Whether a receive would not wait: a frame is there, or none will come.
    pub(crate) fn is_ready(&self) -> bool {
        let live = self.delivery != Delivery::Lossless;
        self.state.end().is_some() || {
            let inner = self.lock();
            inner.ring.has_next(live) || inner.ring.is_closed()
        }
    }

    /// The `parked` bit of this end.
    pub(crate) fn bit(&self) -> u64 {
        frame_bit(self.channel)
    }

    /// The next frame, waiting for it.
    pub(crate) fn recv(self: &Arc<Self>, until: &mut Until<'_>) -> Result<Frame, Error> {
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

    fn hand(&self, source: usize, slot: u32) -> Option<&Hand> {
        self.sources.get(source)?.hands.get(slot as usize)
    }

    /// Another view of a held slot.
    pub(crate) fn hold(&self, source: usize, slot: u32) {
        if let Some(hand) = self.hand(source, slot) {
            hand.holds.add_view();
        }
    }

    /// Whether a frame's own hold is the only one.
    pub(crate) fn sole(&self, source: usize, slot: u32) -> bool {
        self.hand(source, slot).is_some_and(|hand| hand.holds.is_frame_alone())
    }

    /// The frame or a view less; the last one releases the slot.
    pub(crate) fn unhold(&self, source: usize, slot: u32, keeper: Keeper) {
        // A forked child has neither the mapping nor a right to speak for its parent.
        if self.state.forked() {
            return;
        }
        let last = self.hand(source, slot).is_some_and(|hand| hand.holds.leave(keeper));
        if last
            && let Some(ring_seq) = self.forget(source, slot)
            && let Some(Source { pool, sent_by, .. }) = self.sources.get(source)
        {
            match sent_by {
                Some(sent_by) => sent_by.let_go(slot),
                None => {
                    pool.own.set_state(slot, released(ring_seq));
                    // The sender of a live channel never waits for a slot.
                    if self.delivery == Delivery::Lossless {
                        self.bells.ring(slot_bit(self.channel));
                    }
                }
            }
        }
    }

    /// Takes a slot out of this side's hands: the ring sequence it came with, if it was in them.
    pub(crate) fn forget(&self, source: usize, slot: u32) -> Option<u64> {
        self.hand(source, slot)?.ticket.swap(0, Ordering::Release).checked_sub(1)
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

    /// The frames in this side's hands.
    pub(crate) fn holders(&self) -> Vec<SlotHolder> {
        if self.state.forked() {
            return Vec::new();
        }
        // Nothing is taken meanwhile; what is dropped may be told once more.
        let locked = self.lock();
        let now = now_ns();
        let slots = self.sources.iter().flat_map(|source| (0..).zip(&source.hands).map(move |hand| (source, hand)));
        let held = slots.filter(|(_, (_, hand))| hand.ticket.load(Ordering::Relaxed) != 0);
        let held = held.map(|(source, (slot, hand))| SlotHolder {
            channel: self.name.clone(),
            slot,
            holder: match source.sent_by {
                Some(_) => Holder::Returned(self.peer.clone()),
                None => Holder::Received(self.peer.clone()),
            },
            seq: Some(hand.seq.load(Ordering::Relaxed)),
            age: Some(Duration::from_nanos(now.saturating_sub(hand.since_ns.load(Ordering::Relaxed)))),
            bytes: source.pool.layout.size,
            views: hand.holds.views(),
            made_at: trace::places(&source.pool, slot),
        });
        let held = held.collect();
        drop(locked);
        held
    }

    /// How many frames are in this side's hands.
    pub(crate) fn held(&self) -> usize {
        let hands = self.sources.iter().flat_map(|source| &source.hands);
        hands.filter(|hand| hand.ticket.load(Ordering::Relaxed) != 0).count()
    }
}
