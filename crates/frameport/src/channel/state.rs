//! Whether a link is still open, and why not.
//!
//! *Who calls it*: both channel ends at every call, the service thread and the watcher thread to end a link.
//! *Invariants*: a link ends once; the first cause stays. *A hostile peer* can end its own link.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use frameport_mem::park::{Bells, Until};
use frameport_sys::event::Event;
use frameport_sys::memory::ForkStamp;
use frameport_wire::spec::Spec;
use serde_json::{Map, Value};

use super::lives::Lives;
use super::recv::RecvEnd;
use crate::error::{Death, Error};
use crate::worker::Newest;

/// Why a link ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// This side closed it.
    Closed,
    /// The peer left in order, or (for a worker) its host said to stop.
    PeerClosed,
    /// The worker is dead.
    Died(Arc<Death>),
    /// The peer did what it must not.
    Violation(String),
    /// The peer was too slow for what it had asked for.
    CutOff(String),
    /// The worker let go of nothing for longer than its host puts up with.
    Stalled(String),
    /// Nothing could be handed over to the worker any more.
    Untold(String),
    /// The host is gone.
    HostGone,
}

impl End {
    /// Whether it is one that a worker's next life can follow.
    pub(crate) fn is_death(&self) -> bool {
        matches!(self, Self::Died(_) | Self::Violation(_) | Self::CutOff(_) | Self::Stalled(_) | Self::Untold(_))
    }
}

/// What one side does at an event of the link.
pub(crate) type Hook = Box<dyn Fn() + Send + Sync>;

/// What one side does when a pool of this number is home for good.
pub(crate) type HomeHook = Box<dyn Fn(u32) + Send + Sync>;

/// How this side gives the channel of an index another spec: a host does it, a worker asks for it.
pub(crate) type Changer = Box<dyn Fn(usize, &Spec, &mut Until<'_>) -> Result<(), Error> + Send + Sync>;

/// The link's name and its end, shared by everything that belongs to it.
pub(crate) struct LinkState {
    name: String,
    end: OnceLock<End>,
    bells: OnceLock<Arc<Bells>>,
    fork: ForkStamp,
    used: AtomicBool,
    on_first_use: OnceLock<Hook>,
    on_violation: OnceLock<Hook>,
    on_home: OnceLock<HomeHook>,
    changer: OnceLock<Changer>,
    /// The newest pool of the peer's that a frame was received of.
    newest_received: AtomicU32,
    receivers: OnceLock<Vec<Weak<RecvEnd>>>,
    /// What the host sets for this worker; empty at a host.
    newest: OnceLock<Newest>,
    /// The worker over all its lives, where this is one of several.
    lives: OnceLock<Weak<Lives>>,
}

impl std::fmt::Debug for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkState").field("name", &self.name).field("end", &self.end).finish_non_exhaustive()
    }
}

impl LinkState {
    pub(crate) fn new(name: &str) -> Result<Arc<Self>, Error> {
        let fork = ForkStamp::new().map_err(Error::system("marking the process against forks"))?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            end: OnceLock::new(),
            bells: OnceLock::new(),
            fork,
            used: AtomicBool::new(false),
            on_first_use: OnceLock::new(),
            on_violation: OnceLock::new(),
            on_home: OnceLock::new(),
            changer: OnceLock::new(),
            newest_received: AtomicU32::new(0),
            receivers: OnceLock::new(),
            newest: OnceLock::new(),
            lives: OnceLock::new(),
        }))
    }

    /// Sets what happens when a channel is used first: a worker says that it is ready.
    pub(crate) fn on_first_use(&self, hook: Hook) {
        let _ = self.on_first_use.set(hook);
    }

    /// Sets what happens when the peer is caught lying: a host kills it.
    pub(crate) fn on_violation(&self, hook: Hook) {
        let _ = self.on_violation.set(hook);
    }

    /// Sets what happens when an older pool that this side sent from is home: the peer is told.
    pub(crate) fn on_home(&self, hook: HomeHook) {
        let _ = self.on_home.set(hook);
    }

    /// An older pool that this side sent from is home.
    pub(crate) fn came_home(&self, pool: u32) {
        self.on_home.get().inspect(|hook| hook(pool));
    }

    /// Sets how a channel gets another spec.
    pub(crate) fn set_changer(&self, changer: Changer) {
        let _ = self.changer.set(changer);
    }

    /// Gives the channel of that index another spec.
    ///
    /// # Errors
    /// See [`crate::Sender::change_spec`].
    pub(crate) fn change(&self, channel: usize, spec: &Spec, until: &mut Until<'_>) -> Result<(), Error> {
        self.check_fork()?;
        self.check()?;
        self.changer.get().map_or(Ok(()), |change| change(channel, spec, until))
    }

    /// A frame of this pool was received.
    #[inline]
    pub(crate) fn note_received(&self, pool: u32) {
        if self.newest_received.load(Ordering::Relaxed) < pool {
            self.newest_received.fetch_max(pool, Ordering::Relaxed);
        }
    }

    /// The newest pool of the peer's that a frame was received of; their numbers rise.
    pub(crate) fn newest_received(&self) -> u32 {
        self.newest_received.load(Ordering::Relaxed)
    }

    /// Makes this link one of the lives of a worker.
    pub(crate) fn belong(&self, lives: &Arc<Lives>) {
        let _ = self.lives.set(Arc::downgrade(lives));
    }

    /// Whether this link is one of `lives`.
    pub(crate) fn is_of(&self, lives: &Lives) -> bool {
        self.lives.get().is_some_and(|own| std::ptr::eq(own.as_ptr(), lives))
    }

    /// A channel is about to be used.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) && !self.forked() && !self.used.swap(true, Ordering::Relaxed) {
            self.on_first_use.get().inspect(|hook| hook());
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// From now on an end wakes everybody who waits on `bells`.
    pub(crate) fn attach(&self, bells: &Arc<Bells>) {
        let _ = self.bells.set(Arc::clone(bells));
    }

    /// Says in shared memory which parameters are the newest.
    pub(crate) fn set_params(&self, version: u64) {
        if let Some(bells) = self.bells.get() {
            bells.set_params(version);
        }
    }

    /// A worker's parameters as they arrive.
    pub(crate) fn newest(&self) -> &Newest {
        self.newest.get_or_init(Newest::default)
    }

    /// The worker's newest parameters, at least those set before any frame it has, waiting for them if need be: as long as
    /// a thread takes to wake up. Empty at a host.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn params(&self) -> Result<Arc<Map<String, Value>>, Error> {
        self.check_fork()?;
        let known = self.newest.get().zip(self.bells.get());
        Ok(known.map(|(newest, bells)| newest.at_least(bells.peer_params())).unwrap_or_default())
    }

    /// The same, but `None` where it would wait.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub(crate) fn params_if_here(&self) -> Result<Option<Arc<Map<String, Value>>>, Error> {
        self.check_fork()?;
        let known = self.newest.get().zip(self.bells.get());
        Ok(known.map_or_else(|| Some(Arc::default()), |(newest, bells)| newest.if_here(bells.peer_params())))
    }

    /// Ends the link; false when it had ended before.
    pub(crate) fn finish(&self, end: End) -> bool {
        let first = self.end.set(end).is_ok();
        self.wake();
        first
    }

    /// The receiving ends whose frames make the link's event readable.
    pub(crate) fn watch(&self, receivers: &[Arc<RecvEnd>]) {
        let _ = self.receivers.set(receivers.iter().map(Arc::downgrade).collect());
    }

    /// The descriptor that is readable while a receive of this link, or a loan that found nothing, might not wait.
    pub(crate) fn event(&self) -> Result<&Event, Error> {
        self.check_fork()?;
        let bells = self.bells.get().ok_or_else(|| Error::config("this link has no channels"))?;
        let is_new = !bells.has_event();
        let event = bells.event().map_err(Error::system("making a descriptor for event loops"))?;
        if is_new {
            self.arm(self.receivers().iter().fold(0, |bits, end| bits | end.bit()));
        }
        Ok(event)
    }

    pub(crate) fn receivers(&self) -> Vec<Arc<RecvEnd>> {
        self.receivers.get().into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Nothing was found at `bits`: the event is readable when that may have changed. False if there is none.
    pub(crate) fn arm(&self, bits: u64) -> bool {
        let Some(bells) = self.bells.get().filter(|bells| bells.has_event()) else { return false };
        let armed = bells.arm(bits);
        let receivers = self.receivers();
        let ready = receivers.iter().filter(|end| end.bit() & armed != 0 && end.is_ready());
        let ready = ready.fold(0, |bits, end| bits | end.bit());
        if ready != 0 || self.end().is_some() {
            bells.report(ready);
        }
        true
    }

    /// Something was found.
    pub(crate) fn disarm(&self) {
        self.bells.get().inspect(|bells| bells.disarm());
    }

    /// Makes every wait of this side look again.
    pub(crate) fn wake(&self) {
        if let Some(bells) = self.bells.get() {
            bells.interrupt_all();
        }
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Whether this process is a forked child of the one the link belongs to.
    pub(crate) fn forked(&self) -> bool {
        self.fork.forked()
    }

    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check_fork(&self) -> Result<(), Error> {
        if self.forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// # Errors
    /// Why the link has ended.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.end() {
            None => Ok(()),
            Some(end) => Err(self.error(end)),
        }
    }

    pub(crate) fn error(&self, end: &End) -> Error {
        let closed = |why| Error::LinkClosed { link: self.name.clone(), why };
        match end {
            End::Closed => closed("it was closed here"),
            End::PeerClosed => closed("the other side closed it"),
            End::HostGone => closed("the host is gone"),
            End::Died(death) => Error::WorkerDied(Arc::clone(death)),
            End::Violation(what) => Error::Violation { link: self.name.clone(), what: what.clone() },
            End::CutOff(what) => Error::CutOff { link: self.name.clone(), what: what.clone() },
            End::Stalled(what) => Error::Stalled { link: self.name.clone(), what: what.clone() },
            End::Untold(what) => Error::Untold { link: self.name.clone(), what: what.clone() },
        }
    }

    /// Ends the link of a peer that is too slow, or has stalled, and says so.
    pub(crate) fn give_up(&self, end: End) {
        tracing::warn!(link = self.name, "{}", self.error(&end));
        if self.finish(end) {
            self.on_violation.get().inspect(|hook| hook());
        }
    }

    /// Ends the link for a provable lie of its peer, and says so.
    pub(crate) fn violation(&self, what: &dyn std::fmt::Display) -> Error {
        if self.finish(End::Violation(what.to_string())) {
            tracing::error!(link = self.name, "protocol violation: {what}");
            self.on_violation.get().inspect(|hook| hook());
        }
        self.check().err().unwrap_or(Error::Forked)
    }
}
