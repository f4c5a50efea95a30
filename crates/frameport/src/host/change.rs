//! Another spec for channels of a link that runs: new pools beside those there are.
//!
//! *Who calls it*: the handles' `change_spec` by way of [`LinkState::change`](crate::channel::state::LinkState::change),
//! [`super::Worker::change_spec`], and the service thread for what a worker says about pools. *Invariants*: one change of a link
//! at a time; a pool is known here before the worker is told of it, and used when it says that it has it; a channel has two
//! pools at most. What is told of pools leaves in the order in which it is done here. *A hostile worker* can make a change wait
//! to its deadline, and ask for what is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::handle::Handle;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_sys::thread;
use frameport_wire::control::{self, Delivery, NewPool, ToWorker};
use frameport_wire::layout::MAX_CHANNELS;
use frameport_wire::spec::Spec;

use super::builder::WorkerBuilder;
use super::supervised::Supervised;
use crate::audience::Shared;
use crate::channel::lot::Lot;
use crate::channel::recv::RecvEnd;
use crate::channel::send::SendEnd;
use crate::channel::send::change::PAUSE;
use crate::error::Error;
use crate::holders::Exhausted;
use crate::link::Ends;
use crate::pool::{self, Handles, Pool};

/// Waiting for a worker to let go of a pool, it is asked again after so many pauses.
const ASK_AGAIN: u32 = 100;
/// Messages that may wait for a worker to read before it gets no answers any more.
const ANSWERS: usize = 64;
/// How long the change a worker asks for may wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a link keeps about its changes.
#[derive(Debug)]
pub(super) struct Changes {
    /// The first ones are the channels' own.
    next_pool: AtomicU32,
    busy: AtomicBool,
    wishes: Mutex<Wishes>,
    /// A pool of this host's, and one of the worker's that goes with it.
    pairs: Mutex<Vec<(u32, u32)>>,
    /// What this host has changed: the spec of a channel of that index. Nothing once the next life has taken it over.
    changed: Mutex<Option<BTreeMap<usize, Spec>>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            next_pool: AtomicU32::new(MAX_CHANNELS as u32),
            busy: AtomicBool::new(false),
            wishes: Mutex::default(),
            pairs: Mutex::default(),
            changed: Mutex::new(Some(BTreeMap::new())),
        }
    }
}

/// What the worker wants to send: a thread sees to one wish, and the newest of those that came meanwhile waits for it.
#[derive(Debug, Default)]
struct Wishes {
    under_way: bool,
    next: Option<(usize, Spec)>,
}

/// The right to change a link, given back on drop.
struct Turn<'a>(&'a Changes);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Changes {
    fn pairs(&self) -> MutexGuard<'_, Vec<(u32, u32)>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervised {
    fn all_ends(&self) -> &Ends {
        self.ends.get_or_init(Ends::default)
    }

    /// Gives the channel of that index another spec.
    pub(super) fn change_channel(&self, channel: usize, spec: &Spec, until: &mut Until<'_>) -> Result<(), Error> {
        let ends = self.all_ends();
        let input = ends.send.iter().find(|end| end.channel() == channel);
        let output = ends.recv.iter().find(|end| end.channel() == channel);
        self.change(input, &output.into_iter().collect::<Vec<_>>(), spec, until)?;
        self.note_changed([channel], spec)
    }

    /// Gives the first channel to the worker another spec, and those back from it that had the same.
    pub(super) fn change_first(&self, spec: &Spec, until: &mut Until<'_>) -> Result<(), Error> {
        let ends = self.all_ends();
        let Some(input) = ends.send.first() else {
            let what = format!("worker '{}' has no input channel whose spec could change", self.state.name());
            return Err(Error::config(what));
        };
        let before = input.pool();
        let follows = |end: &&Arc<RecvEnd>| end.pools().last().is_some_and(|pool| pool.spec == before.spec);
        let outputs: Vec<_> = ends.recv.iter().filter(follows).collect();
        self.change(Some(input), &outputs, spec, until)?;
        self.note_changed(outputs.iter().map(|end| end.channel()).chain([input.channel()]), spec)
    }

    /// # Errors
    /// The worker's death, where its next life is to be without this change.
    fn note_changed(&self, channels: impl IntoIterator<Item = usize>, spec: &Spec) -> Result<(), Error> {
        let mut changed = self.changes.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changed) = &mut *changed else { return self.state.check() };
        changed.extend(channels.into_iter().map(|channel| (channel, spec.clone())));
        Ok(())
    }

    /// Makes `builder`, which this life is of, what the next one is to be.
    pub(super) fn pass_on(&self, builder: &mut WorkerBuilder) {
        let changed = self.changes.changed.lock().unwrap_or_else(PoisonError::into_inner).take();
        for (channel, spec) in changed.into_iter().flatten() {
            builder.channels.get_mut(channel).into_iter().for_each(|wanted| wanted.spec = spec.clone());
        }
    }

    fn change(
        &self,
        input: Option<&Arc<SendEnd>>,
        outputs: &[&Arc<RecvEnd>],
        spec: &Spec,
        until: &mut Until<'_>,
    ) -> Result<(), Error> {
        let _turn = self.take_turn(until)?;
        let input = input.filter(|end| end.pool().spec != *spec);
        let is_other = |end: &&&Arc<RecvEnd>| end.pools().last().is_none_or(|pool| pool.spec != *spec);
        let outputs: Vec<_> = outputs.iter().filter(is_other).collect();
        if input.is_some_and(|end| end.pool().decl.shared) {
            return Err(Error::config("these frames are an audience's: change its spec"));
        }
        input.map_or(Ok(()), |end| end.await_home(until))?;
        outputs.iter().try_for_each(|end| self.await_left(end, until))?;

        let older = input.map(|end| end.pool());
        let sizes = older.clone().into_iter().chain(outputs.iter().filter_map(|end| end.pools().pop()));
        let decls = sizes.map(|pool| pool::declare(self.next_pool(), spec, pool.decl.slots, pool.decl.meta));
        let decls = decls.collect::<Result<Vec<_>, _>>()?;
        pool::check_memory(self.state.name(), decls.iter().map(|decl| decl.len as u64).sum())?;
        let made = decls
            .into_iter()
            .map(|decl| Pool::create(decl, spec, self.control.means()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut made = made.into_iter();

        let new_input = input.and_then(|end| Some((end, made.next()?)));
        // The worker answers older frames from its older pools.
        let answers = new_input.as_ref().map_or(0, |(_, (pool, _))| pool.decl.id);
        for (end, (pool, handles)) in outputs.iter().zip(made) {
            if let (Some(from), Some(to)) = (&older, end.pools().pop()) {
                self.changes.pairs().push((from.decl.id, to.decl.id));
            }
            let (pool, channel) = (Arc::new(pool), end.channel());
            end.add_pool(Arc::clone(&pool), 0);
            self.announce(&pool, NewPool { channel, answers, ..self.news(&pool) }, handles)?;
        }
        if let Some((end, (pool, handles))) = new_input {
            let lot = Lot::new(Arc::new(pool));
            let takes_back = |out: &&Arc<RecvEnd>| {
                let newest = out.pools().pop();
                out.delivery() == Delivery::Lossless && newest.is_some_and(|pool| pool.same_memory(&lot.pool))
            };
            let back: Vec<_> = self.all_ends().recv.iter().filter(takes_back).collect();
            back.iter().for_each(|out| out.add_in_place(Arc::clone(&lot), Arc::clone(end)));
            end.add_lot(Arc::clone(&lot), None, 0, false);
            let returns = back.iter().map(|out| out.channel()).collect();
            self.announce(&lot.pool, NewPool { channel: end.channel(), returns, ..self.news(&lot.pool) }, handles)?;
        }
        Ok(())
    }

    /// Gives a member the pool its audience has gone over to, if it is done with the one before its last.
    pub(super) fn follow(&self, end: &SendEnd, shared: &Shared) -> Result<(), Error> {
        // Somebody else is at it.
        if self.changes.busy.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        let _turn = Turn(&self.changes);
        if self.state.end().is_some() || !end.is_home() || end.has_pool_of(&shared.slots) {
            return Ok(());
        }
        let (pool, handles) = shared.memory.member(self.next_pool(), self.control.means())?;
        let lot = Lot::new(Arc::new(pool));
        end.add_lot(Arc::clone(&lot), Some(Arc::clone(&shared.slots)), 0, false);
        self.announce(&lot.pool, NewPool { channel: end.channel(), ..self.news(&lot.pool) }, handles)
    }

    /// Waits until nobody else changes this link.
    fn take_turn(&self, until: &mut Until<'_>) -> Result<Turn<'_>, Error> {
        while self.changes.busy.swap(true, Ordering::Acquire) {
            self.pause(until)?;
        }
        Ok(Turn(&self.changes))
    }

    fn pause(&self, until: &mut Until<'_>) -> Result<(), Error> {
        match until.step() {
            Ok(limit) => thread::sleep(limit.map_or(PAUSE, |limit| limit.min(PAUSE))),
            Err(Ended::Interrupted) => return Err(Error::Interrupted),
            Err(Ended::TimedOut { after }) => {
                let (link, channel) = (self.state.name().to_owned(), "a change of spec".to_owned());
                return Err(Error::Timeout { link, channel, after });
            }
        }
        self.state.check()
    }

    /// Waits until the worker has let go of all its pools of a channel but the newest.
    fn await_left(&self, end: &RecvEnd, until: &mut Until<'_>) -> Result<(), Error> {
        for turn in 1_u32.. {
            let pools = end.pools();
            let [older @ .., _newest] = pools.as_slice() else { break };
            if older.is_empty() {
                break;
            }
            if turn.is_multiple_of(ASK_AGAIN) {
                older.iter().for_each(|pool| self.retire(pool.decl.id));
            }
            self.pause(until).map_err(|error| match error {
                Error::Timeout { after, .. } => self.is_held(end, after),
                other => other,
            })?;
        }
        Ok(())
    }

    /// The error of a change that waited for a pool of the worker's.
    fn is_held(&self, end: &RecvEnd, waited: Duration) -> Error {
        let (link, channel, received) = (self.state.name().to_owned(), end.name().to_owned(), end.holders());
        let hint = match received.is_empty() {
            true => "the worker still has frames of the pool before the last to send or to give back",
            false => {
                "release the frames received here: those of the pool before the last are in the way of another change"
            }
        };
        let (holders, hint) = (Vec::new(), Some(hint.to_owned()));
        Error::PoolExhausted(Box::new(Exhausted { link, channel, waited, holders, received, hint }))
    }

    fn next_pool(&self) -> u32 {
        self.changes.next_pool.fetch_add(1, Ordering::Relaxed)
    }

    fn news(&self, pool: &Pool) -> NewPool {
        NewPool { channel: 0, spec: pool.placed.clone(), pool: pool.decl.clone(), answers: 0, returns: Vec::new() }
    }

    fn announce(&self, pool: &Pool, news: NewPool, handles: Handles) -> Result<(), Error> {
        tracing::debug!(link = self.state.name(), pool = pool.decl.id, spec = %pool.spec, "new pool");
        self.tell(&ToWorker::Pool(news), handles.into_vec())
    }

    /// Tells the worker something about pools.
    fn tell(&self, message: &ToWorker, handles: Vec<Handle>) -> Result<(), Error> {
        let bytes = control::encode(message).map_err(|error| Error::Protocol { what: error.to_string() })?;
        self.told(self.outbox.pool(&self.control, bytes, handles));
        Ok(())
    }

    fn retire(&self, pool: u32) {
        // A message of numbers is never too long.
        let _ = self.tell(&ToWorker::Retire { pool }, Vec::new());
    }

    /// An older pool of this host's is home: the worker lets go of it, and of its own that went with it.
    pub(super) fn came_home(&self, pool: u32) {
        self.all_ends().recv.iter().for_each(|end| end.drop_pool(pool));
        let paired: Vec<(u32, u32)> = self.changes.pairs().extract_if(.., |(with, _)| *with == pool).collect();
        self.retire(pool);
        paired.into_iter().for_each(|(_, theirs)| self.retire(theirs));
    }

    /// The worker has a new pool of this host's, or one of its own.
    pub(super) fn joined(&self, pool: u32) {
        self.all_ends().send.iter().for_each(|end| end.joined(pool));
    }

    /// The worker has let go of an older pool of its own.
    pub(super) fn left(&self, pool: u32) {
        self.all_ends().recv.iter().for_each(|end| end.left(pool));
    }

    /// The worker wants to send something else. Not on the calling thread, which serves all workers; one wish at a time, for its
    /// next may come before the thread of the last, which it has an answer to, has ended.
    pub(super) fn respec(self: &Arc<Self>, channel: usize, spec: Spec) {
        {
            let mut wishes = self.changes.wishes();
            if wishes.under_way {
                let before = wishes.next.replace((channel, spec));
                drop(wishes);
                // Whoever wished something else of the same channel waits no longer, or sees that it was asked for since.
                if let Some((other, _)) = before.filter(|(other, _)| *other != channel) {
                    self.deny(other, "it has asked for another change since".to_owned());
                }
                return;
            }
            wishes.under_way = true;
        }
        let this = Arc::clone(self);
        let grant = move || {
            let mut wish = Some((channel, spec));
            while let Some((channel, spec)) = wish {
                this.grant(channel, &spec).unwrap_or_else(|error| this.deny(channel, error.to_string()));
                let mut wishes = this.changes.wishes();
                wish = wishes.next.take();
                wishes.under_way = wish.is_some();
            }
        };
        if let Err(error) = thread::Builder::new().name("frameport-spec".into()).spawn(grant) {
            let next = std::mem::take(&mut *self.changes.wishes()).next;
            let channels = next.into_iter().map(|(next, _)| next).chain([channel]);
            channels.for_each(|channel| self.deny(channel, error.to_string()));
        }
    }

    fn deny(&self, channel: usize, reason: String) {
        // One that asks and asks, and does not read, gets no answers.
        if self.outbox.waiting() < ANSWERS {
            let _ = self.tell(&ToWorker::Denied { channel, reason }, Vec::new());
        }
    }

    fn grant(&self, channel: usize, spec: &Spec) -> Result<(), Error> {
        let refused = |what| Err(Error::config(format!("worker '{}' wants to send {spec}: {what}", self.state.name())));
        let Some(output) = self.all_ends().recv.iter().find(|end| end.channel() == channel) else {
            return refused("it has no such channel".to_owned());
        };
        let Some(newest) = output.pools().pop() else { return Ok(()) };
        let need = pool::declare(0, spec, newest.decl.slots, newest.decl.meta)?.len as u64;
        if need > self.output_limit {
            let (slots, limit) = (newest.decl.slots, self.output_limit);
            return refused(format!("{need} bytes for {slots} slots are over the output limit of {limit}"));
        }
        self.change(None, &[output], spec, &mut Until::after(PATIENCE))
    }
}
