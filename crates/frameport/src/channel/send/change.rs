//! A new pool for a sending end, for frames of another spec.
//!
//! *Who calls it*: the host's change of spec for what it sends, the worker's watcher thread for what the worker sends.
//! *Invariants*: a new pool is used when the peer says that it has it; there are two at most, for the rings have room for
//! the slots of two, so the next change waits until the one before the last is home. *A hostile worker* can make a change
//! wait to its deadline.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::sync::MutexGuard;
use frameport_sys::thread;
use frameport_wire::spec::Spec;

use super::{Account, Inner, SendEnd, Wish};
use crate::channel::audience::Slots;
use crate::channel::lot::Lot;
use crate::error::Error;

/// Between two looks whether a pool is home. Nobody is rung for it.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

impl SendEnd {
    /// Lets go of the lock, and of older pools whose slots are all home.
    pub(super) fn unlock(&self, mut inner: MutexGuard<'_, Inner>) {
        let gone = inner.drop_home();
        drop(inner);
        gone.into_iter().for_each(|pool| self.state.came_home(pool));
    }

    /// Waits until no pool but the newest is there.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] names who has the older one's slots; [`Error::Interrupted`], or why the link has ended.
    pub(crate) fn await_home(&self, until: &mut Until<'_>) -> Result<(), Error> {
        loop {
            self.state.check_fork()?;
            let mut inner = self.lock();
            self.check_open(&inner)?;
            let looked = self.look(&mut inner);
            self.unlock(inner);
            looked.map_err(|lie| self.state.violation(&lie))?;
            if self.lock().older.is_empty() {
                return Ok(());
            }
            match until.step() {
                Ok(limit) => thread::sleep(limit.map_or(PAUSE, |limit| limit.min(PAUSE))),
                Err(Ended::Interrupted) => return Err(Error::Interrupted),
                Err(Ended::TimedOut { after }) => return Err(self.who_has_all(after)),
            }
        }
    }

    /// Whether no pool but the newest is there.
    pub(crate) fn is_home(&self) -> bool {
        let mut inner = self.lock();
        // A lie is found by those who can say so.
        let _ = self.look(&mut inner);
        self.unlock(inner);
        self.lock().older.is_empty()
    }

    /// From now on this pool lends: for answers to frames of the peer's pool `answers` and later ones, and once the peer has
    /// `joined` it.
    pub(crate) fn add_lot(&self, lot: Arc<Lot>, audience: Option<Arc<Slots>>, answers: u32, joined: bool) {
        let mut inner = self.lock();
        // Counts though the next change may come before anybody looks.
        let granted = inner.wish.as_ref().filter(|wish| wish.spec == lot.pool.spec);
        granted.into_iter().for_each(|wish| drop(wish.answer.set(Ok(()))));
        let new = Account { joined, ..Account::new(lot, audience, self.delivery, answers) };
        let mut old = std::mem::replace(&mut inner.current, new);
        // Answers to older frames still come from there.
        old.leaves = answers == 0;
        inner.older.push(old);
        self.unlock(inner);
    }

    /// The peer has pool `id`.
    pub(crate) fn joined(&self, id: u32) {
        let mut inner = self.lock();
        let of_id = inner.accounts().find(|account| account.lot.pool.decl.id == id);
        let found = of_id.map(|account| account.joined = true).is_some();
        drop(inner);
        if found {
            // Those who wait for a slot.
            self.state.wake();
        }
    }

    /// Nothing more is loaned from pool `id`, which goes when it is home.
    pub(crate) fn leave(&self, id: u32) {
        let mut inner = self.lock();
        let of_id = inner.older.iter_mut().find(|account| account.lot.pool.decl.id == id);
        of_id.into_iter().for_each(|account| account.leaves = true);
        // A lie is found by those who can say so.
        let _ = self.look(&mut inner);
        self.unlock(inner);
    }

    /// The host does not grant what was asked for.
    pub(crate) fn deny(&self, reason: String) {
        self.lock().wish.iter().for_each(|wish| drop(wish.answer.set(Err(reason.clone()))));
    }

    /// Asks the host for another spec by `ask`, and waits until it is there.
    ///
    /// # Errors
    /// [`Error::Config`] with the host's reason, [`Error::Timeout`], [`Error::Interrupted`], or why the link has ended.
    pub(crate) fn request(&self, spec: &Spec, ask: impl FnOnce(), until: &mut Until<'_>) -> Result<(), Error> {
        let wish = Arc::new(Wish { spec: spec.clone(), answer: OnceLock::new() });
        {
            let mut inner = self.lock();
            if inner.current.lot.pool.spec == *spec {
                return Ok(());
            }
            inner.wish = Some(Arc::clone(&wish));
        }
        ask();
        loop {
            if let Some(answer) = wish.answer.get() {
                return answer.clone().map_err(Error::config);
            }
            if !self.lock().wish.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &wish)) {
                let what = format!("channel '{}': another thread has asked for another spec since", self.name);
                return Err(Error::config(what));
            }
            self.state.check()?;
            match until.step() {
                Ok(limit) => thread::sleep(limit.map_or(PAUSE, |limit| limit.min(PAUSE))),
                Err(Ended::Interrupted) => return Err(Error::Interrupted),
                Err(Ended::TimedOut { after }) => {
                    let (link, channel) = (self.state.name().to_owned(), self.name.clone());
                    return Err(Error::Timeout { link, channel, after });
                }
            }
        }
    }
}
