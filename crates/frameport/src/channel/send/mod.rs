//! The sending end of a channel.
//!
//! *Who calls it*: [`super::handle::Sender`]; the host's of an in channel, the worker's of an out channel. *Invariants*: one
//! private lock covers ring and ledger; it is never held across a wait or a system call (but the wake-up at
//! the link's end); a slot leaves by
//! [`SendEnd::send`] and comes back by the ledger's look at the peer's words; a new spec is another pool beside the old one, which
//! goes when its last slot is home, and there are two at most. *A hostile peer* is caught by the ledger.

mod account;
pub(crate) mod change;
mod group;
mod holders;
mod member;
mod stall;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Bells, Ended, Look, Until};
use frameport_mem::ring;
use frameport_sys::clock::now_ns;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::Delivery;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{frame_bit, slot_bit};
use frameport_wire::spec::Spec;

use self::account::Account;
use super::audience::Slots;
use super::keep::Keeper;
use super::ledger::{Counts, Ledger, SlotViolation};
use super::lot::Lot;
use super::state::{End, LinkState};
use crate::error::Error;
use crate::frame::{Frame, FrameMut, Home, Stamp};
use crate::holders::Peer;
use crate::pool::{self, Pool};

/// See the module.
#[derive(Debug)]
pub(crate) struct SendEnd {
    pub(crate) state: Arc<LinkState>,
    name: String,
    /// Index of the channel in the link.
    channel: usize,
    peer: Peer,
    bells: Arc<Bells>,
    delivery: Delivery,
    deadline: Option<Duration>,
    inner: Mutex<Inner>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Inner {
    ring: ring::Sender,
    /// The newest pool, and those before it that have slots out.
    current: Account,
    older: Vec<Account>,
    /// What the ledgers of pools that are gone had counted.
    settled: Counts,
    next_seq: u64,
    closed: bool,
    /// The peer is gone.
    reclaimed: bool,
    /// What a worker has asked for last.
    wish: Option<Arc<Wish>>,
}

/// Another spec that a worker asks for.
#[derive(Debug)]
struct Wish {
    spec: Spec,
    /// Whether it came, or why not.
    answer: OnceLock<Result<(), String>>,
}

/// What did not become a frame, or not without a copy, counted over all lives of the peer.
#[derive(Debug, Default)]
struct Tally {
    no_slot: AtomicU64,
    refused: AtomicU64,
    /// Frames sent back that had to be copied.
    copied: AtomicU64,
}

/// What [`SendEnd::new`] is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) channel: usize,
    pub(crate) peer: Peer,
    pub(crate) pool: Arc<Pool>,
    pub(crate) state: Arc<LinkState>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) delivery: Delivery,
    /// How long a loan waits on a lossless channel, unless told; `None` for ever.
    pub(crate) deadline: Option<Duration>,
    pub(crate) audience: Option<Arc<Slots>>,
    /// The same channel's end in the peer's last life: numbers go on.
    pub(crate) earlier: Option<Arc<SendEnd>>,
    pub(crate) ring: ring::Sender,
}

impl SendEnd {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { name, channel, peer, pool, state, bells, delivery, deadline, audience, earlier, ring } = parts;
        let mut current = Account::new(Lot::new(pool), audience, delivery, 0);
        let (mut next_seq, mut tally) = (0, Arc::default());
        if let Some(earlier) = earlier {
            let before = earlier.lock();
            current.ledger.go_on_from(&before.current.ledger);
            (next_seq, tally) = (before.next_seq, Arc::clone(&earlier.tally));
        }
        let inner = Mutex::new(Inner {
            ring,
            current,
            older: Vec::new(),
            settled: Counts::default(),
            next_seq,
            closed: false,
            reclaimed: false,
            wish: None,
        });
        Arc::new(Self { state, name, channel, peer, bells, delivery, deadline, inner, tally })
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

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The `parked` bit of this end.
    pub(crate) fn bit(&self) -> u64 {
        slot_bit(self.channel)
    }

    /// The newest pool.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.lock().current.lot.pool)
    }

    /// The newest pool's lot, for those who get its slots back in place.
    pub(crate) fn lot(&self) -> Arc<Lot> {
        Arc::clone(&self.lock().current.lot)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot to fill, if one is free now: of the newest pool, or, for an answer to a frame of the peer's pool `answers`, of
    /// the one that goes with that.
    pub(crate) fn try_loan(self: &Arc<Self>, answers: Option<u32>) -> Result<Option<FrameMut>, Error> {
        self.state.check_fork()?;
        let mut inner = self.lock();
        if inner.current.audience.is_some() {
            let what =
                format!("channel '{}' of {} has the frames of an audience: loan them there", self.name, self.peer);
            return Err(Error::config(what));
        }
        self.check_open(&inner)?;
        let loaned = self.look_for_slot(&mut inner, answers);
        self.unlock(inner);
        let loaned = loaned.map_err(|lie| self.state.violation(&lie))?;
        Ok(loaned.map(|(lot, slot, generation)| {
            lot.begin(slot);
            FrameMut::new(Home::Channel { end: Arc::clone(self), lot }, slot, generation)
        }))
    }

    fn check_open(&self, inner: &Inner) -> Result<(), Error> {
        self.state.check()?;
        match inner.closed {
            true => Err(Error::LinkClosed { link: self.state.name().to_owned(), why: "its input was finished here" }),
            false => Ok(()),
        }
    }

    /// A free slot; on a live channel, where there is none, that of the oldest frame nobody has taken.
    fn look_for_slot(&self, inner: &mut Inner, answers: Option<u32>) -> Result<Option<(Arc<Lot>, u32, u64)>, String> {
        self.look(inner)?;
        loop {
            let lender = inner.lender(answers.unwrap_or_else(|| self.state.newest_received()));
            if !lender.joined {
                return Ok(None);
            }
            if let Some((slot, generation)) = lender.ledger.loan() {
                return Ok(Some((Arc::clone(&lender.lot), slot, generation)));
            }
            // It may be another pool's, which makes no slot here.
            let Some(oldest) = inner.oldest_queued() else { return Ok(None) };
            inner.ring.unlink(oldest + 1);
            self.look(inner)?;
        }
    }

    /// Compares what was sent with the peer's words.
    fn look(&self, inner: &mut Inner) -> Result<(), String> {
        if self.delivery == Delivery::Lossless {
            return inner.accounts().try_for_each(Account::look);
        }
        // In this order: see the ring's proof.
        let visit = inner.ring.visit().map_err(|lie| lie.to_string())?;
        let oldest = inner.ring.oldest();
        inner.accounts().try_for_each(|account| account.settle(visit, oldest))
    }

    /// A slot to fill: on a lossless channel waiting for one, on a live one now or not at all.
    pub(crate) fn loan(self: &Arc<Self>, answers: Option<u32>, until: &mut Until<'_>) -> Result<FrameMut, Error> {
        if self.delivery != Delivery::Lossless {
            return self.try_loan(answers)?.ok_or_else(|| self.exhausted(Duration::ZERO));
        }
        let look = || match self.try_loan(answers)? {
            Some(frame) => Ok(Look::Found(Some(frame))),
            // None will come back, as far as can be told.
            None if self.is_stalled() => Ok(Look::Found(None)),
            None => Ok::<_, Error>(Look::Nothing),
        };
        match self.bells.wait(slot_bit(self.channel), until, look)? {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(self.exhausted(Duration::ZERO)),
            Err(Ended::Interrupted) => Err(Error::Interrupted),
            Err(Ended::TimedOut { after }) => Err(self.exhausted(after)),
        }
    }

    /// Sends a filled slot. The frame is gone either way: on an error its slot is free again.
    pub(crate) fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.try_send(frame).inspect_err(|error| {
            // A forked child counts nothing of its parent's.
            if !matches!(error, Error::Forked) {
                self.count_refused();
            }
        })
    }

    /// A filled slot was not sent.
    pub(crate) fn count_refused(&self) {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A loan found no slot, or a member of an audience did not get a frame, for it has all it may have.
    pub(crate) fn count_no_slot(&self) {
        self.tally.no_slot.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this pool is the only one there was, and no loan and no view of this side's own is left of it.
    pub(crate) fn is_unseen(&self, pool: &Arc<Pool>) -> bool {
        let inner = self.lock();
        Arc::ptr_eq(&inner.current.lot.pool, pool) && inner.current.ledger.slots().all(|(_, slot)| !slot.pinned)
    }

    fn try_send(&self, mut frame: FrameMut) -> Result<u64, Error> {
        self.state.check_fork()?;
        let Some(lot) = frame.home.lot_of(self).map(Arc::clone) else {
            let what =
                format!("this frame was loaned from another channel than '{}' of '{}'", self.name, self.state.name());
            return Err(Error::Format { what });
        };
        let meta_len = self.write_meta(&lot.pool, frame.slot, &frame.meta)?;
        let mut inner = self.lock();
        self.check_open(&inner)?;
        let seq = frame.stamp.seq.unwrap_or(inner.next_seq);
        let ring_seq = inner.ring.next_seq();
        let now = now_ns();
        let descriptor = Descriptor {
            ring_seq,
            pool: lot.pool.decl.id,
            slot: frame.slot,
            generation: frame.generation,
            seq,
            payload_len: frame.payload_len as u64,
            meta_len,
            ..frame.stamp.descriptor(now)
        };
        let unpinned = lot.unpin(frame.slot, Keeper::Frame);
        frame.forget();
        if let Some(ledger) = inner.ledger_of(&lot) {
            ledger.queue(frame.slot, ring_seq, seq, now);
            if unpinned {
                ledger.unpin(frame.slot);
            }
        }
        inner.next_seq = seq.wrapping_add(1);
        inner.ring.publish(descriptor.encode());
        let mut looked = Ok(());
        if let Some(depth) = self.delivery.depth() {
            // Publish first, unlink second: see the ring's proof.
            let published = inner.ring.next_seq();
            inner.ring.unlink(published.saturating_sub(depth.into()));
            looked = self.look(&mut inner);
        }
        drop(inner);
        self.bells.ring(frame_bit(self.channel));
        looked.map(|()| seq).map_err(|lie| self.state.violation(&lie))
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

    fn write_meta(&self, pool: &Pool, slot: u32, meta: &[u8]) -> Result<u32, Error> {
        pool::write_meta(pool, &self.name, slot, meta)
    }

    /// A reply had to be copied because a view of the frame was alive.
    pub(crate) fn count_copy(&self) {
        self.tally.copied.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self) -> u64 {
        self.tally.copied.load(Ordering::Relaxed)
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

    /// The last view is gone.
    pub(crate) fn unpinned(&self, lot: &Arc<Lot>, slot: u32) {
        self.free(lot, |ledger| ledger.unpin(slot));
    }

    /// The host's own code let go of a frame sent back in place.
    pub(crate) fn let_go(&self, lot: &Arc<Lot>, slot: u32) {
        self.free(lot, |ledger| ledger.let_go(slot));
    }

    /// Changes what this side's own threads may sleep for, and wakes them.
    fn free(&self, lot: &Arc<Lot>, change: impl FnOnce(&mut Ledger)) {
        let mut inner = self.lock();
        inner.ledger_of(lot).map(change);
        // Under the lock that sleepers look under.
        let asleep = self.bells.is_own_side_asleep(slot_bit(self.channel));
        self.unlock(inner);
        if asleep {
            self.bells.interrupt_all();
        }
    }

    /// The host's check of a slot sent back in place.
    pub(crate) fn returned(&self, lot: &Arc<Lot>, slot: u32, generation: u64) -> Result<(), SlotViolation> {
        // A slot the pool does not have fails in the ledger, whatever its word.
        let word = if slot < lot.pool.decl.slots { lot.pool.peer.state(slot) } else { 0 };
        let mut inner = self.lock();
        // A pool is known to receivers no longer than it is here.
        inner.ledger_of(lot).map_or(Ok(()), |ledger| ledger.returned(slot, generation, word))
    }

    /// The peer is gone. The link ends under the locks of all its ends: nothing is sent after the reclaim, and who knows of
    /// the end sees closed counters.
    pub(crate) fn reclaim_all(ends: &[Arc<Self>], state: &LinkState, end: End) {
        let mut locked: Vec<_> = ends.iter().map(|end| (end, end.lock())).collect();
        for (this, inner) in &mut locked {
            // Its last words count as far as they make sense.
            let _ = (this.look(inner), inner.ring.taken());
            let taken = inner.ring.known_taken();
            inner.accounts().for_each(|account| account.reclaim(taken));
            inner.reclaimed = true;
        }
        state.finish(end);
    }

    /// The counters of a channel that carries this side's own pools only: the host's.
    pub(crate) fn counts(&self) -> SendCounts {
        let mut inner = self.lock();
        if self.state.end().is_none() && !self.state.forked() {
            let looked = match self.delivery {
                Delivery::Lossless => {
                    let taken = inner.ring.taken().map_err(|lie| lie.to_string());
                    taken.map(|taken| inner.accounts().for_each(|account| account.ledger.note_taken(taken)))
                }
                Delivery::Latest | Delivery::Newest(_) => self.look(&mut inner),
            };
            if let Err(lie) = looked {
                drop(inner);
                drop(self.state.violation(&lie));
                inner = self.lock();
            }
        }
        let settled = inner.settled;
        let mut slots = inner.accounts().fold(settled, |all, account| all + account.ledger.counts());
        if self.delivery == Delivery::Lossless {
            slots.received = inner.ring.known_taken().saturating_sub(slots.off_taken);
        }
        if inner.reclaimed {
            slots.lost = slots.sent.saturating_sub(slots.received).saturating_sub(slots.retracted);
        }
        drop(inner);
        let [no_slot, refused] = [&self.tally.no_slot, &self.tally.refused].map(|count| count.load(Ordering::Relaxed));
        SendCounts { slots, no_slot, refused }
    }
}

/// A sender's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendCounts {
    pub(crate) slots: Counts,
    pub(crate) no_slot: u64,
    pub(crate) refused: u64,
}

impl Stamp {
    pub(crate) fn descriptor(&self, now_ns: u64) -> Descriptor {
        let &Self { timestamp_ns, pts, duration, .. } = self;
        Descriptor { timestamp_ns: timestamp_ns.unwrap_or(now_ns), pts, duration, ..Descriptor::default() }
    }
}
