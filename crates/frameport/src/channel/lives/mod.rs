//! A worker over all its lives, as its channels see it: what a sender or receiver does while one life ends and the next is
//! not there yet.
//!
//! *Who calls it*: [`super::handle`] for the channels of a worker that is restarted, the thread that restarts it
//! ([`crate::host`]). *Invariants*: whether another life follows is decided once for each death; what a life had sent is
//! received before its death is reported, once for each channel; a wait ends at its deadline, its interrupt or the end of
//! all lives; the descriptor for event loops stays the same. The lock is held for bookkeeping only, and those of ports
//! and ends come after it. *A hostile worker* can die as often as the policy allows.

mod event;

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Ended, Look, Until};
use frameport_sys::clock::Instant;
use frameport_sys::memory::ForkStamp;
use frameport_sys::sync::{Condvar, Mutex, MutexGuard};
use frameport_wire::control::Delivery;

use self::event::Bell;
use super::port::{Front, RecvPort, SendPort};
use super::send::SendEnd;
use super::state::LinkState;
use crate::error::Error;
use crate::frame::{Frame, FrameMut, Home};
use crate::holders::{Exhausted, Seconds};
use crate::link::Ends;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lives {
    name: String,
    fork: ForkStamp,
    pub(super) senders: Vec<Arc<SendPort>>,
    pub(super) receivers: Vec<Arc<RecvPort>>,
    /// How many starts in a row may fail.
    starts: u32,
    inner: Mutex<Inner>,
    changed: Condvar,
    bell: OnceLock<Bell>,
}

#[derive(Debug)]
struct Inner {
    newest: Arc<LinkState>,
    /// The newest is dead, and what was decided to follow it is not there yet.
    gap: Option<Gap>,
    /// No frame will follow.
    finishing: bool,
    over: Option<Over>,
    /// No thread starts another any more.
    done: bool,
    restarts: u64,
    /// Grows whenever somebody who waits should look again.
    changes: u64,
}

impl Inner {
    /// Whether another life is wanted, should this one end.
    fn is_wanted(&self) -> bool {
        self.over.is_none() && !self.finishing
    }
}

/// Between two lives.
#[derive(Debug)]
struct Gap {
    since: Instant,
    why: String,
    /// Which start in a row.
    start: u32,
}

/// Why nothing follows.
#[derive(Debug)]
enum Over {
    Closed,
    Finished,
    Failed { starts: u32, cause: Arc<Error> },
}

impl Lives {
    /// The first life.
    pub(crate) fn new(ends: &Ends, state: &Arc<LinkState>, starts: u32) -> Result<Arc<Self>, Error> {
        let fork = ForkStamp::new().map_err(Error::system("marking the process against forks"))?;
        let newest = Arc::clone(state);
        let lives = Arc::new(Self {
            name: state.name().to_owned(),
            fork,
            senders: ends.send.iter().map(|end| Arc::new(SendPort::new(end))).collect(),
            receivers: ends.recv.iter().map(|end| Arc::new(RecvPort::new(end))).collect(),
            starts,
            inner: Mutex::new(Inner {
                newest,
                gap: None,
                finishing: false,
                over: None,
                done: false,
                restarts: 0,
                changes: 0,
            }),
            changed: Condvar::new(),
            bell: OnceLock::new(),
        });
        state.belong(&lives);
        Ok(lives)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn forked(&self) -> bool {
        self.fork.forked()
    }

    /// # Errors
    /// [`Error::Forked`]: the thread that starts lives, and perhaps a lock's owner, stayed behind.
    pub(crate) fn check_fork(&self) -> Result<(), Error> {
        if self.forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// How often it was started again.
    pub(crate) fn restarts(&self) -> u64 {
        if self.forked() { 0 } else { self.lock().restarts }
    }

    /// Something has changed that others wait for.
    fn tell(&self, inner: &mut Inner) {
        inner.changes += 1;
        self.changed.notify_all();
        self.bell.get().inspect(|bell| bell.event.signal());
    }

    /// Whether another life follows that of `state`, which is dead; decided once.
    pub(crate) fn goes_on(&self, state: &Arc<LinkState>) -> bool {
        let Some(end) = state.end().filter(|end| end.is_death()) else { return false };
        let mut inner = self.lock();
        if !Arc::ptr_eq(&inner.newest, state) || inner.gap.is_some() {
            return true;
        }
        if inner.over.is_some() || inner.finishing {
            return false;
        }
        let why = state.error(end).in_short();
        inner.gap = Some(Gap { since: Instant::now(), why, start: 1 });
        if let (Some(bell), Ok(event)) = (self.bell.get(), state.event()) {
            bell.event.unfollow(event);
        }
        self.tell(&mut inner);
        true
    }

    /// Which start in a row the next one is.
    pub(crate) fn note_start(&self, start: u32) {
        self.lock().gap.as_mut().into_iter().for_each(|gap| gap.start = start);
    }

    /// Waits before the next start; false when none is wanted any more.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        self.sleep(Some(deadline), || false)
    }

    /// Waits until the results of no more than one dead life are left; false when no other life is wanted any more.
    pub(crate) fn await_room(&self) -> bool {
        self.sleep(None, || self.receivers.iter().all(|port| port.settle() <= 1))
    }

    fn sleep(&self, deadline: Option<Instant>, found: impl Fn() -> bool) -> bool {
        let mut inner = self.lock();
        while inner.is_wanted() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if found() || left.is_some_and(|left| left.is_zero()) {
                return true;
            }
            inner = match left {
                Some(left) => self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        false
    }

    /// Whether another life is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.lock().is_wanted()
    }

    /// The next life, which is ready; false when it came too late. `also` is done before anybody learns of it.
    pub(crate) fn adopt(self: &Arc<Self>, ends: &Ends, state: &Arc<LinkState>, also: impl FnOnce()) -> bool {
        let mut inner = self.lock();
        if !inner.is_wanted() {
            return false;
        }
        also();
        state.belong(self);
        for (port, end) in self.senders.iter().zip(&ends.send) {
            port.adopt(end);
        }
        for (port, end) in self.receivers.iter().zip(&ends.recv) {
            port.settle();
            port.adopt(end);
        }
        (inner.newest, inner.gap) = (Arc::clone(state), None);
        inner.restarts += 1;
        self.follow(state);
        self.tell(&mut inner);
        true
    }

    /// Starts in a row have failed.
    pub(crate) fn fail(&self, cause: Error) {
        self.end(Over::Failed { starts: self.starts, cause: Arc::new(cause) });
    }

    /// Everything ends.
    pub(crate) fn stop(&self) {
        self.end(Over::Closed);
    }

    fn end(&self, over: Over) {
        let mut inner = self.lock();
        inner.over.get_or_insert(over);
        self.tell(&mut inner);
    }

    /// No frame will follow, and no other life.
    pub(crate) fn finish(&self) {
        if self.forked() {
            return;
        }
        let mut inner = self.lock();
        inner.finishing = true;
        if inner.gap.is_some() {
            inner.over.get_or_insert(Over::Finished);
        }
        self.tell(&mut inner);
        drop(inner);
        self.senders.iter().for_each(|port| port.close());
    }

    /// Says that nothing follows on channel `port`.
    pub(super) fn close(&self, port: &SendPort) {
        if !self.forked() {
            port.close();
            if self.senders.iter().all(|port| port.is_closed()) {
                self.finish();
            }
        }
    }

    /// No other life is started any more.
    pub(crate) fn done(&self) {
        let mut inner = self.lock();
        inner.done = true;
        self.tell(&mut inner);
    }

    /// Waits until no other life is started any more.
    pub(crate) fn await_done(&self, until: &mut Until<'_>) -> bool {
        self.wait(until, || self.lock().done).is_ok()
    }

    /// Waits until `found`, which is looked at again whenever something changes.
    fn wait(&self, until: &mut Until<'_>, found: impl Fn() -> bool) -> Result<(), Ended> {
        loop {
            let seen = self.lock().changes;
            if found() {
                return Ok(());
            }
            // The interrupt may be slow, or need the lock itself.
            let limit = until.step()?.unwrap_or(Duration::from_secs(1));
            let inner = self.lock();
            if inner.changes == seen {
                drop(self.changed.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// # Errors
    /// Why there is nothing any more.
    fn check(&self) -> Result<(), Error> {
        let closed = |why| Err(Error::LinkClosed { link: self.name.clone(), why });
        match &self.lock().over {
            None => Ok(()),
            Some(Over::Closed) => closed("it was closed here"),
            Some(Over::Finished) => closed("its input was finished here"),
            Some(Over::Failed { starts, cause }) => {
                Err(Error::GivenUp { link: self.name.clone(), starts: *starts, cause: Arc::clone(cause) })
            }
        }
    }

    /// A change of the newest life's channels, or of the next one's, should it die meanwhile.
    pub(crate) fn change(
        &self,
        until: &mut Until<'_>,
        mut change: impl FnMut(&mut Until<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            self.check_fork()?;
            self.check()?;
            let newest = Arc::clone(&self.lock().newest);
            match change(until) {
                Err(error) if error.is_death() && self.goes_on(&newest) => {}
                changed => return changed,
            }
            let moved = || {
                let inner = self.lock();
                !Arc::ptr_eq(&inner.newest, &newest) || inner.over.is_some()
            };
            match self.wait(until, moved) {
                Ok(()) => {}
                Err(Ended::Interrupted) => return Err(Error::Interrupted),
                Err(Ended::TimedOut { after }) => {
                    let channel = "a change of spec".to_owned();
                    return Err(Error::Timeout { link: self.name.clone(), channel, after });
                }
            }
        }
    }

    /// A slot of channel `port`, if one is free now.
    pub(super) fn try_loan(&self, port: &SendPort) -> Result<Option<FrameMut>, Error> {
        self.check_fork()?;
        let end = port.end();
        let found = self.loan_of(&end, || end.try_loan(None));
        if matches!(found, Ok(None)) && self.arm(end.bit()) {
            // It may have come back before the event was armed.
            return self.loan_of(&end, || end.try_loan(None));
        }
        found
    }

    /// What `loan` of `end` finds; nothing where its worker is dead and another life follows.
    fn loan_of<T>(&self, end: &SendEnd, loan: impl FnOnce() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
        match loan() {
            Err(error) if error.is_death() && self.goes_on(&end.state) => self.check().map(|()| None),
            found => found,
        }
    }

    /// A slot of channel `port`: on a lossless channel waiting for one, also for the life it is a slot of.
    pub(super) fn loan(&self, port: &SendPort, until: &mut Until<'_>) -> Result<FrameMut, Error> {
        loop {
            self.check_fork()?;
            let end = port.end();
            if let Some(frame) = self.loan_of(&end, || end.loan(None, until).map(Some))? {
                return Ok(frame);
            }
            if port.delivery != Delivery::Lossless {
                return Err(self.exhausted(port, Duration::ZERO));
            }
            let moved = || !Arc::ptr_eq(&port.end(), &end) || self.lock().over.is_some();
            match self.wait(until, moved) {
                Ok(()) => {}
                Err(Ended::Interrupted) => return Err(Error::Interrupted),
                Err(Ended::TimedOut { after }) => return Err(self.exhausted(port, after)),
            }
        }
    }

    /// The error of a loan that found nothing.
    pub(super) fn exhausted(&self, port: &SendPort, waited: Duration) -> Error {
        let end = port.end();
        let hint = self.lock().gap.as_ref().map(|Gap { since, why, start }| {
            let (since, of) = (Seconds(since.elapsed()), self.starts);
            format!("'{}' is being restarted (start {start} of {of} in a row, for {since}): {why}", self.name)
        });
        let Some(hint) = hint else { return end.exhausted(waited) };
        end.count_no_slot();
        let (link, channel) = (self.name.clone(), port.name.clone());
        let (holders, received) = (Vec::new(), Vec::new());
        Error::PoolExhausted(Box::new(Exhausted { link, channel, waited, holders, received, hint: Some(hint) }))
    }

    /// Sends a slot of channel `port`. One of an earlier life goes back there.
    pub(super) fn send(&self, port: &SendPort, frame: FrameMut) -> Result<u64, Error> {
        self.check_fork()?;
        let end = port.end();
        let stale = || Error::Stale { link: self.name.clone(), channel: port.name.clone() };
        if let Home::Channel { end: home, .. } = &frame.home
            && !Arc::ptr_eq(home, &end)
            && home.state.is_of(self)
            && home.name() == port.name
        {
            end.count_refused();
            return Err(stale());
        }
        match end.send(frame) {
            Err(error) if error.is_death() && self.goes_on(&end.state) => Err(stale()),
            sent => sent,
        }
    }

    /// Sends a slot over the channel it was loaned from.
    pub(crate) fn send_out(&self, frame: FrameMut) -> Result<u64, Error> {
        let port = match &frame.home {
            Home::Channel { end, .. } if end.state.is_of(self) => {
                self.senders.iter().find(|port| port.name == end.name())
            }
            _ => None,
        };
        let Some(port) = port else {
            return Err(Error::Format { what: format!("this frame was not loaned from '{}'", self.name) });
        };
        self.send(port, frame)
    }

    /// The next frame of channel `port`, if one is there.
    pub(super) fn try_recv(&self, port: &RecvPort) -> Result<Option<Frame>, Error> {
        loop {
            self.check_fork()?;
            let end = match port.front() {
                Front::Life(end) => end,
                Front::Dead(death) => {
                    self.passed();
                    return Err(death);
                }
                Front::Nothing => return self.check().map(|()| None),
            };
            match end.try_recv() {
                Err(error) if error.is_death() && self.goes_on(&end.state) => {
                    if port.pass(&end) {
                        self.passed();
                        return Err(error);
                    }
                }
                found => return found,
            }
        }
    }

    /// A receiver has gone on from a life: others may wait for the room, or for what it looks at.
    fn passed(&self) {
        let mut inner = self.lock();
        self.tell(&mut inner);
    }

    /// The next frame of channel `port`, waiting for it.
    pub(super) fn recv(&self, port: &RecvPort, until: &mut Until<'_>) -> Result<Frame, Error> {
        loop {
            self.check_fork()?;
            let end = port.life();
            let look = || match self.try_recv(port)? {
                Some(frame) => Ok(Look::Found(Some(frame))),
                // Somebody else was told of its end.
                None if port.has_left(end.as_ref()) => Ok(Look::Found(None)),
                None => Ok::<_, Error>(Look::Nothing),
            };
            let waited = match &end {
                Some(end) => end.watch(0, until, look)?,
                None => {
                    let moved = || port.has_left(None) || self.lock().over.is_some();
                    match self.wait(until, moved) {
                        Ok(()) => Ok(self.try_recv(port)?),
                        Err(ended) => Err(ended),
                    }
                }
            };
            match waited {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(Ended::Interrupted) => return Err(Error::Interrupted),
                Err(Ended::TimedOut { after }) => {
                    return Err(Error::Timeout { link: self.name.clone(), channel: port.name.clone(), after });
                }
            }
        }
    }

    /// Whether a receive on channel `port` would not wait.
    pub(super) fn is_ready(&self, port: &RecvPort) -> bool {
        if self.forked() {
            return true;
        }
        match port.life() {
            Some(end) => end.is_ready(),
            None => port.has_left(None) || self.lock().over.is_some(),
        }
    }
}
