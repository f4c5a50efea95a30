//! The sending end of a channel.
//!
//! *Who calls it*: the host's `Worker` for what goes in, the worker's `Link` for what comes out. *Invariants*: one
//! private lock covers ring and ledger; it is never held across a wait or a system call (but the wake-up at
//! the link's end); a slot leaves by
//! [`SendEnd::send`] and comes back by the ledger's look at the peer's words. *A hostile peer* is caught by the ledger.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Bells, Ended, Look, Until};
use frameport_mem::ring;
use frameport_sys::clock::now_ns;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{frame_bit, slot_bit};

use super::ledger::{Counts, Ledger, SlotViolation, State};
use super::state::{End, LinkState};
use crate::error::{Error, Exhausted, SlotHolder};
use crate::frame::{Frame, FrameMut, Stamp};
use crate::pool::Pool;

/// See the module.
#[derive(Debug)]
pub(crate) struct SendEnd {
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: Arc<LinkState>,
    name: String,
    /// Index of the channel in the link.
    channel: usize,
    /// Who the other side is, for the error that names holders: "worker 'x' (pid 7)".
    peer: String,
    bells: Arc<Bells>,
    inner: Mutex<Inner>,
    /// For each slot: the loan itself and the views made from it.
    pins: Box<[AtomicU32]>,
    copied: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    ring: ring::Sender,
    ledger: Ledger,
    next_seq: u64,
    no_slot: u64,
    closed: bool,
}

/// What [`SendEnd::new`] is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) channel: usize,
    pub(crate) peer: String,
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: Arc<LinkState>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) ring: ring::Sender,
}

impl SendEnd {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { name, channel, peer, pool, state, bells, ring } = parts;
        let slots = pool.decl.slots;
        let inner = Inner { ring, ledger: Ledger::new(slots), next_seq: 0, no_slot: 0, closed: false };
        let pins = (0..slots).map(|_| AtomicU32::new(0)).collect();
        let inner = Mutex::new(inner);
        Arc::new(Self { pool, state, name, channel, peer, bells, inner, pins, copied: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot to fill, if one is free now.
    pub(crate) fn try_loan(self: &Arc<Self>) -> Result<Option<FrameMut>, Error> {
        self.state.check_fork()?;
        let mut inner = self.lock();
        self.state.check()?;
        if inner.closed {
            return Err(Error::LinkClosed { link: self.state.name().to_owned(), why: "its input was finished here" });
        }
        let looked = inner.ledger.look(|slot| self.pool.peer.state(slot));
        let loaned = looked.map(|()| inner.ledger.loan());
        drop(inner);
        let loaned = loaned.map_err(|lie| self.state.violation(&lie))?;
        Ok(loaned.and_then(|(slot, generation)| {
            self.pins.get(slot as usize)?.store(1, Ordering::Relaxed);
            Some(FrameMut::new(Arc::clone(self), slot, generation))
        }))
    }

    /// A slot to fill, waiting for one.
    pub(crate) fn loan(self: &Arc<Self>, until: &mut Until<'_>) -> Result<FrameMut, Error> {
        let look = || Ok::<_, Error>(self.try_loan()?.map_or(Look::Nothing, Look::Found));
        match self.bells.wait(slot_bit(self.channel), until, look)? {
            Ok(frame) => Ok(frame),
            Err(Ended::Interrupted) => Err(Error::Interrupted),
            Err(Ended::TimedOut { after }) => Err(self.exhausted(after)),
        }
    }

    /// The error of a loan that found nothing.
    pub(crate) fn exhausted(&self, waited: Duration) -> Error {
        self.lock().no_slot += 1;
        Error::PoolExhausted(Box::new(Exhausted {
            link: self.state.name().to_owned(),
            channel: self.name.clone(),
            waited,
            holders: self.holders(),
            hint: None,
        }))
    }

    /// Who has which slot now.
    pub(crate) fn holders(&self) -> Vec<SlotHolder> {
        if self.state.forked() {
            return Vec::new();
        }
        let mut inner = self.lock();
        let taken = inner.ring.taken();
        let now = now_ns();
        let bytes = self.pool.layout.size;
        let slots = inner.ledger.slots().filter_map(|(slot, entry)| {
            let peer = &self.peer;
            let (who, sent) = match entry.state {
                State::Free if entry.pinned => {
                    (format!("kept by a live array of {bytes} bytes of the sender's own"), true)
                }
                State::Free | State::Left => return None,
                State::Filling => ("being filled here (a loan neither sent nor dropped)".to_owned(), false),
                State::Sent { ring_seq } if taken.is_ok_and(|taken| ring_seq < taken) => {
                    (format!("held by {peer}"), true)
                }
                State::Sent { .. } => (format!("waiting to be received by {peer}"), true),
                State::Returned => (format!("sent back in place by {peer} and held here"), true),
            };
            let age = sent.then(|| Duration::from_nanos(now.saturating_sub(entry.sent_ns)));
            Some(SlotHolder { slot, who, seq: sent.then_some(entry.seq), age })
        });
        slots.collect()
    }

    /// Sends a filled slot. The frame is gone either way: on an error its slot is free again.
    pub(crate) fn send(&self, mut frame: FrameMut) -> Result<u64, Error> {
        self.state.check_fork()?;
        if !std::ptr::eq(Arc::as_ptr(&frame.end), self) {
            let what =
                format!("this frame was loaned from another channel than '{}' of '{}'", self.name, self.state.name());
            return Err(Error::Format { what });
        }
        let meta_len = self.write_meta(&self.pool, frame.slot, &frame.meta)?;
        let mut inner = self.lock();
        self.state.check()?;
        if inner.closed {
            return Err(Error::LinkClosed { link: self.state.name().to_owned(), why: "its input was finished here" });
        }
        let seq = frame.stamp.seq.unwrap_or(inner.next_seq);
        let ring_seq = inner.ring.next_seq();
        let now = now_ns();
        let descriptor = Descriptor {
            ring_seq,
            pool: self.pool.decl.id,
            slot: frame.slot,
            generation: frame.generation,
            seq,
            payload_len: frame.payload_len as u64,
            meta_len,
            ..frame.stamp.descriptor(now)
        };
        inner.ledger.queue(frame.slot, ring_seq, seq, now);
        if frame.forget() {
            inner.ledger.unpin(frame.slot);
        }
        inner.next_seq = seq.wrapping_add(1);
        inner.ring.publish(descriptor.encode());
        drop(inner);
        self.bells.ring(frame_bit(self.channel));
        Ok(seq)
    }

    /// Sends a slot of another pool that lies in this side's hands, in place. `slot` is the peer's again.
    pub(crate) fn send_back(&self, pool: &Pool, mut descriptor: Descriptor, meta: &[u8]) -> Result<(), Error> {
        self.state.check()?;
        descriptor.meta_len = self.write_meta(pool, descriptor.slot, meta)?;
        let mut inner = self.lock();
        descriptor.ring_seq = inner.ring.next_seq();
        inner.next_seq = descriptor.seq.wrapping_add(1);
        inner.ring.publish(descriptor.encode());
        drop(inner);
        self.bells.ring(frame_bit(self.channel));
        Ok(())
    }

    /// Whether a frame that goes back in place has room for the metadata it was given.
    pub(crate) fn check_meta(&self, frame: &Frame) -> Result<(), Error> {
        let (len, capacity) = (frame.own_meta_len(), frame.meta_capacity());
        if len > capacity as usize {
            return Err(Error::MetaTooLong { channel: self.name.clone(), len, capacity });
        }
        Ok(())
    }

    pub(crate) fn write_meta(&self, pool: &Pool, slot: u32, meta: &[u8]) -> Result<u32, Error> {
        if meta.is_empty() {
            return Ok(0);
        }
        let capacity = pool.decl.meta;
        let len = u32::try_from(meta.len()).ok().filter(|&len| len <= capacity);
        match len {
            Some(len) if pool.own.set_meta(slot, meta) => Ok(len),
            _ => Err(Error::MetaTooLong { channel: self.name.clone(), len: meta.len(), capacity }),
        }
    }

    /// A reply had to be copied because a view of the frame was alive.
    pub(crate) fn count_copy(&self) {
        self.copied.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Says that nothing follows.
    pub(crate) fn close(&self) {
        if self.state.forked() {
            return;
        }
        let mut inner = self.lock();
        if !inner.closed {
            inner.closed = true;
            inner.ring.close();
            drop(inner);
            self.bells.ring(frame_bit(self.channel));
        }
    }

    /// Another view of a loaned or sent slot.
    pub(crate) fn pin(&self, slot: u32) {
        if let Some(pins) = self.pins.get(slot as usize) {
            pins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One view less; true when it was the last.
    pub(crate) fn unpin(&self, slot: u32) -> bool {
        // AcqRel: what every view wrote comes before the slot's next loan.
        self.pins.get(slot as usize).is_some_and(|pins| pins.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// The last view is gone.
    pub(crate) fn unpinned(&self, slot: u32) {
        self.free(|ledger| ledger.unpin(slot));
    }

    /// The host's own code let go of a frame sent back in place.
    pub(crate) fn let_go(&self, slot: u32) {
        self.free(|ledger| ledger.let_go(slot));
    }

    /// Changes what this side's own threads may sleep for, and wakes them.
    fn free(&self, change: impl FnOnce(&mut Ledger)) {
        let mut inner = self.lock();
        change(&mut inner.ledger);
        // Under the lock that sleepers look under.
        let asleep = self.bells.is_own_side_asleep(slot_bit(self.channel));
        drop(inner);
        if asleep {
            self.bells.interrupt_all();
        }
    }

    /// The host's check of a slot sent back in place.
    pub(crate) fn returned(&self, slot: u32, generation: u64) -> Result<(), SlotViolation> {
        // A slot the pool does not have fails in the ledger, whatever its word.
        let word = if slot < self.pool.decl.slots { self.pool.peer.state(slot) } else { 0 };
        self.lock().ledger.returned(slot, generation, word)
    }

    /// The peer is gone. The link ends under the lock: nothing is sent after the reclaim, and who knows of the end sees
    /// closed counters.
    pub(crate) fn reclaim(&self, end: End) {
        let mut inner = self.lock();
        // Its last words count as far as they make sense.
        let _ = inner.ledger.look(|slot| self.pool.peer.state(slot));
        let taken = inner.ring.taken().unwrap_or(inner.ledger.counts().received);
        inner.ledger.reclaim(taken);
        self.state.finish(end);
    }

    /// The counters of a channel that carries this side's own pool only: the host's.
    pub(crate) fn counts(&self) -> SendCounts {
        let mut inner = self.lock();
        if self.state.end().is_none() && !self.state.forked() {
            match inner.ring.taken() {
                Ok(taken) => inner.ledger.note_taken(taken),
                // The next call of this side's ends the worker.
                Err(lie) => drop(self.state.violation(&lie)),
            }
        }
        SendCounts { slots: inner.ledger.counts(), no_slot: inner.no_slot }
    }
}

/// A sender's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendCounts {
    pub(crate) slots: Counts,
    pub(crate) no_slot: u64,
}

impl Stamp {
    fn descriptor(&self, now_ns: u64) -> Descriptor {
        let &Self { timestamp_ns, pts, duration, .. } = self;
        Descriptor { timestamp_ns: timestamp_ns.unwrap_or(now_ns), pts, duration, ..Descriptor::default() }
    }
}
