//! One pool of frames for many workers: pixels are written once, and each worker reads them where they are.
//!
//! *Who calls it*: host applications; a worker joins by [`crate::WorkerBuilder::share`]. *Invariants*: only this process may
//! write the pixels (the region is sealed after it was mapped); a frame's slot is reused when no member has it and no view
//! of this side's own is alive; each member has a quota, and the quotas together leave a slot to fill, so that no member's
//! pace is another's; after a change of spec each member goes over to the new pool on its own. *A hostile worker* can keep its quota. Frames of an audience cannot be changed by it, nor go back in
//! place.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use frameport_mem::park::{Ended, Look, Until};
use frameport_sys::clock::now_ns;
use frameport_sys::handle::Means;
use frameport_sys::memory::ForkStamp;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::Delivery;
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::MAX_SLOTS;
use frameport_wire::spec::Spec;

use crate::channel::audience::Slots;
use crate::channel::keep::Keeper;
use crate::channel::send::SendEnd;
use crate::channel::state::End;
use crate::error::Error;
use crate::frame::{FrameMut, Home};
use crate::holders::{Exhausted, SlotHolder};
use crate::pool::{self, Pool, SharedMemory};
use crate::trace;

/// Bytes of metadata a frame of an audience may carry.
const META: u32 = 4096;

/// What everything of an audience shares.
#[derive(Debug)]
pub(crate) struct Core {
    pools: Mutex<Pools>,
    fork: ForkStamp,
    members: Mutex<Members>,
    /// Held while a frame is shared: every member gets the frames in one order.
    sending: Mutex<Sending>,
}

/// One pool of an audience: there is another after each change of spec.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) memory: SharedMemory,
    pub(crate) pool: Pool,
    pub(crate) slots: Arc<Slots>,
}

#[derive(Debug)]
struct Pools {
    newest: Arc<Shared>,
    /// Those that members or this side's own views still have.
    older: Vec<Weak<Shared>>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// Slots that members, those being started included, may have together.
    reserved: u32,
}

#[derive(Debug, Default)]
struct Sending {
    next_seq: u64,
    sent: u64,
    no_slot: u64,
}

/// A worker that receives an audience's frames.
struct Member {
    end: Arc<SendEnd>,
    /// Its worker has it too, if that may have another life.
    seat: Arc<Seat>,
    follow: Follow,
}

/// Gives a member another pool of its audience, if it is done with the one before the last.
pub(crate) type Follow = Box<dyn Fn(&Arc<Shared>) -> Result<(), Error> + Send + Sync>;

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("end", &self.end).field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Member {
    /// Offers it a frame of `shared`; false if it is late.
    fn offer(&self, shared: &Arc<Shared>, frame: &Descriptor) -> Result<bool, Error> {
        let quota = self.seat.quota as usize;
        if self.end.offer(&shared.slots, frame, quota)? {
            return Ok(true);
        }
        if !self.end.has_pool_of(&shared.slots) {
            (self.follow)(shared)?;
        }
        Ok(false)
    }

    /// Waits until it takes the frame.
    fn offer_until(
        &self,
        shared: &Arc<Shared>,
        frame: &Descriptor,
        until: &mut Until<'_>,
    ) -> Result<Result<(), Ended>, Error> {
        self.end.await_slot(until, || Ok(if self.offer(shared, frame)? { Look::Found(()) } else { Look::Nothing }))
    }
}

/// A member's right to its quota, given back on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Weak, for an audience has its members.
    core: Weak<Core>,
    quota: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn create(spec: &Spec, slots: u32, means: Means) -> Result<Arc<Self>, Error> {
        let decl = pool::declare(0, spec, slots, META)?;
        pool::check_memory("an audience", decl.len as u64)?;
        let memory = SharedMemory::create(decl, spec, means)?;
        let pool = memory.pool()?;
        Ok(Arc::new(Self { memory, pool, slots: Arc::new(Slots::new(slots)) }))
    }
}

impl Core {
    /// The pool that frames are loaned from.
    pub(crate) fn newest(&self) -> Arc<Shared> {
        Arc::clone(&lock(&self.pools).newest)
    }

    /// All that are still there, the newest last.
    fn pools(&self) -> Vec<Arc<Shared>> {
        let mut pools = lock(&self.pools);
        pools.older.retain(|pool| pool.strong_count() > 0);
        let older = pools.older.iter().filter_map(Weak::upgrade);
        older.chain(std::iter::once(Arc::clone(&pools.newest))).collect()
    }

    pub(crate) fn forked(&self) -> bool {
        self.fork.forked()
    }

    /// Sets `quota` slots aside for a member to be.
    pub(crate) fn reserve(core: &Arc<Self>, quota: u32) -> Result<Arc<Seat>, Error> {
        // Those that have left give their seats back first.
        core.members();
        let mut members = lock(&core.members);
        let (slots, others) = (core.newest().memory.decl.slots, members.reserved);
        if quota == 0 || others.saturating_add(quota) >= slots {
            return Err(Error::config(format!(
                "a member with a quota of {quota} does not fit an audience of {slots} slots, of which others have {others}: \
                 quotas are 1 or more, and one slot beside them is to be filled"
            )));
        }
        members.reserved += quota;
        Ok(Arc::new(Seat { core: Arc::downgrade(core), quota }))
    }

    fn members(&self) -> Vec<Arc<Member>> {
        let mut members = lock(&self.members);
        let gone = |member: &Arc<Member>| member.end.state.end().is_some();
        // Their seats are given back outside of the lock.
        let left: Vec<_> = members.list.extract_if(.., |member| gone(member)).collect();
        let list = members.list.clone();
        drop(members);
        drop(left);
        list
    }
}

impl Seat {
    /// The worker is ready: from now on it gets every frame.
    pub(crate) fn take(self: &Arc<Self>, end: Arc<SendEnd>, follow: Follow) {
        if let Some(core) = self.core.upgrade() {
            lock(&core.members).list.push(Arc::new(Member { end, seat: Arc::clone(self), follow }));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            let mut members = lock(&core.members);
            members.reserved = members.reserved.saturating_sub(self.quota);
        }
    }
}

/// One pool of frames that many workers receive. Cheap to clone; may be used from any thread.
#[derive(Clone, Debug)]
pub struct Audience {
    core: Arc<Core>,
}

impl Audience {
    /// Makes a pool of `slots` frames. Members need their quotas of it, and one slot beside them is to be filled.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Config`], and [`Error::Memory`] for more than is left.
    pub fn new(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error> {
        Self::for_means(spec.into(), slots, Means::USUAL)
    }

    /// An audience of members that are given it by descriptors, or by whatever a system has. For bindings; programs have
    /// `frameport::os::macos::AudienceExt`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[doc(hidden)]
    pub fn by_descriptors(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error> {
        Self::for_means(spec.into(), slots, Means::DESCRIPTORS)
    }

    fn for_means(spec: Spec, slots: u32, means: Means) -> Result<Self, Error> {
        if !(2..=MAX_SLOTS).contains(&slots) {
            return Err(Error::config(format!("{slots} slots for an audience: 2 to {MAX_SLOTS} are possible")));
        }
        let pools = Mutex::new(Pools { newest: Shared::create(&spec, slots, means)?, older: Vec::new() });
        let fork = ForkStamp::new().map_err(Error::system("marking the process against forks"))?;
        let (members, sending) = (Mutex::default(), Mutex::default());
        Ok(Self { core: Arc::new(Core { pools, fork, members, sending }) })
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// What the frames are that are loaned now.
    #[must_use]
    pub fn spec(&self) -> Spec {
        self.core.newest().pool.spec.clone()
    }

    /// Sends frames of another spec from now on: a new pool of as many slots. Never waits: a member gets frames of it when it
    /// has mapped it and is done with those of the pool before the last, and misses them until then, or is waited for, as its
    /// delivery says. What was loaned before may still be sent, and older frames stay what they are.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Memory`] for more than is left; [`Error::Forked`].
    pub fn change_spec(&self, spec: impl Into<Spec>) -> Result<(), Error> {
        let (core, spec) = (&self.core, spec.into());
        if core.forked() {
            return Err(Error::Forked);
        }
        let before = core.newest();
        if before.memory.spec == spec {
            return Ok(());
        }
        let new = Shared::create(&spec, before.memory.decl.slots, before.memory.means)?;
        {
            let mut pools = lock(&core.pools);
            let old = std::mem::replace(&mut pools.newest, Arc::clone(&new));
            pools.older.push(Arc::downgrade(&old));
        }
        // Those that are dead by now are told so elsewhere.
        core.members().iter().for_each(|member| drop((member.follow)(&new)));
        Ok(())
    }

    /// A slot to fill. Never waits: the quotas leave one; where this side's own loans and views have it, frames that live
    /// members have not received are taken back.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] when this side itself has too many slots; [`Error::Forked`].
    pub fn loan(&self) -> Result<FrameMut, Error> {
        let core = &self.core;
        if core.forked() {
            return Err(Error::Forked);
        }
        let shared = core.newest();
        let lent = shared.slots.loan().or_else(|| {
            let members = core.members();
            members.iter().for_each(|member| member.end.settle());
            let mut lent = shared.slots.loan();
            while lent.is_none() && members.iter().filter(|member| member.end.take_back()).count() > 0 {
                lent = shared.slots.loan();
            }
            lent
        });
        match lent {
            Some((slot, generation)) => {
                Ok(FrameMut::new(Home::Audience { core: Arc::clone(core), shared }, slot, generation))
            }
            None => {
                lock(&core.sending).no_slot += 1;
                Err(Error::PoolExhausted(Box::new(Exhausted {
                    link: "an audience".to_owned(),
                    channel: self.spec().to_string(),
                    waited: Duration::ZERO,
                    holders: self.holders(),
                    received: Vec::new(),
                    hint: Some(
                        "drop the loans and views kept here: the members' quotas leave room beside them".to_owned(),
                    ),
                })))
            }
        }
    }

    /// Sends a filled slot to every member, and returns the frame's number. A live member that has its quota misses the
    /// frame, which is counted on its channel; for a lossless one it is waited up to its deadline, then that worker is cut
    /// off, and its `recv` says so. Members that have left are forgotten.
    ///
    /// # Errors
    /// [`Error::MetaTooLong`], and [`Error::Format`] for a slot of another audience or a channel; [`Error::Forked`].
    pub fn send(&self, mut frame: FrameMut) -> Result<u64, Error> {
        let core = &self.core;
        if core.forked() {
            return Err(Error::Forked);
        }
        let shared = match &frame.home {
            Home::Audience { core: home, shared } if Arc::ptr_eq(home, core) => Arc::clone(shared),
            _ => return Err(Error::Format { what: "this frame was not loaned from this audience".to_owned() }),
        };
        let meta_len = pool::write_meta(&shared.pool, "audience", frame.slot, &frame.meta)?;
        // Before anybody can see it.
        frame.end_access();
        let mut sending = lock(&core.sending);
        let seq = frame.stamp.seq.unwrap_or(sending.next_seq);
        sending.next_seq = seq.wrapping_add(1);
        sending.sent += 1;
        let descriptor = Descriptor {
            slot: frame.slot,
            generation: frame.generation,
            seq,
            payload_len: frame.payload_len as u64,
            meta_len,
            ..frame.stamp.descriptor(now_ns())
        };
        let members = core.members();
        // First those that take it at once: nobody waits for a slow one but the sender.
        let late = members.iter().filter(|member| {
            let offered = member.offer(&shared, &descriptor);
            let is_late = matches!(offered, Ok(false));
            if is_late && member.end.delivery() != Delivery::Lossless {
                member.end.count_no_slot();
            }
            is_late && member.end.delivery() == Delivery::Lossless
        });
        for member in late.collect::<Vec<_>>() {
            let end = &member.end;
            let mut until = end.deadline().map_or_else(Until::forever, Until::after);
            // Who has ended meanwhile is forgotten at the next frame.
            if let Ok(Err(Ended::TimedOut { after })) = member.offer_until(&shared, &descriptor, &mut until) {
                end.count_no_slot();
                let seconds = after.as_secs_f32();
                end.state.give_up(End::CutOff(format!("it made no room for frame {seq} within {seconds} s")));
            }
        }
        drop(sending);
        // The loan's own pin.
        frame.forget();
        shared.slots.unpin(frame.slot, Keeper::Frame);
        Ok(seq)
    }

    /// Who has which slot now: this side's own loans and views, then each member what it was sent.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        let core = &self.core;
        if core.forked() {
            return Vec::new();
        }
        let mut holders = Vec::new();
        for Shared { pool, slots, .. } in core.pools().iter().map(Arc::as_ref) {
            holders.extend(slots.kept().into_iter().map(|(slot, holder, views)| SlotHolder {
                channel: "audience".to_owned(),
                slot,
                holder,
                seq: None,
                age: None,
                bytes: pool.layout.size,
                views,
                made_at: trace::places(pool, slot),
            }));
        }
        holders.extend(core.members().iter().flat_map(|member| member.end.holders()));
        holders
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> AudienceStats {
        let members = self.core.members();
        if !self.core.forked() {
            members.iter().for_each(|member| member.end.settle());
        }
        let Sending { sent, no_slot, .. } = *lock(&self.core.sending);
        let free = self.core.newest().slots.free() as u64;
        AudienceStats { sent, no_slot, members: members.len() as u64, free, copied: 0 }
    }
}

/// Counters of an audience; those of each member are its worker's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AudienceStats {
    /// Frames sent.
    pub sent: u64,
    /// Loans that found no slot.
    pub no_slot: u64,
    /// Workers that receive them now.
    pub members: u64,
    /// Slots nobody has.
    pub free: u64,
    /// Frames whose pixels were copied: none, ever.
    pub copied: u64,
}
