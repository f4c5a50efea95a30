//! Locks and channels between the tasks of one process.
//!
//! *Invariants*: the lock inside is the standard library's, which is always free when it is tried: its owner says when it
//! lets go.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError};
use std::time::Duration;

use super::clock::{Instant, deadline};
use super::sched::{self, Key};

pub mod mpsc;

/// A lock.
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    inner: std::sync::Mutex<T>,
}

/// A lock, taken.
#[derive(Debug)]
pub struct MutexGuard<'a, T: ?Sized> {
    inner: Option<std::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> Mutex<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { inner: std::sync::Mutex::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    fn key(&self) -> Key {
        Key::Place(std::ptr::from_ref(self).addr())
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// Never: the type is the standard library's.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        sched::point("lock");
        Ok(self.take())
    }

    fn take(&self) -> MutexGuard<'_, T> {
        loop {
            let inner = match self.inner.try_lock() {
                Ok(inner) => inner,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    if !sched::block(vec![self.key()], None, "waits for a lock", false) {
                        // The world is over, and whoever has it does not run any more.
                        sched::never();
                    }
                    continue;
                }
            };
            return MutexGuard { inner: Some(inner), mutex: self };
        }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().unwrap_or_else(|| unreachable!("taken until the drop"))
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().unwrap_or_else(|| unreachable!("taken until the drop"))
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.inner.take().is_some() {
            sched::with(|state| state.tasks.wake(self.mutex.key()));
            sched::point("unlock");
        }
    }
}

/// Whether a wait ended by its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// It did.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// A condition that tasks wait for.
#[derive(Debug, Default)]
pub struct Condvar {
    /// It must have an address of its own.
    _place: u64,
}

impl Condvar {
    /// One nobody waits for.
    #[must_use]
    pub const fn new() -> Self {
        Self { _place: 0 }
    }

    fn key(&self) -> Key {
        Key::Place(std::ptr::from_ref(self).addr())
    }

    /// Lets go of the lock and waits, `limit` at most: whether it was woken.
    fn sleep<'a, T>(&self, mut guard: MutexGuard<'a, T>, limit: Option<Duration>) -> (MutexGuard<'a, T>, bool) {
        let mutex = guard.mutex;
        // No other task runs between the release and the wait.
        drop(guard.inner.take());
        sched::with(|state| state.tasks.wake(mutex.key()));
        let woken = sched::block(vec![self.key()], deadline(limit), "waits for a condition", true);
        (mutex.take(), woken)
    }

    /// Lets go of the lock and waits.
    ///
    /// # Errors
    /// Never: the type is the standard library's.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        Ok(self.sleep(guard, None).0)
    }

    /// Waits for as long as `condition` holds.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.sleep(guard, None).0;
        }
        Ok(guard)
    }

    /// Lets go of the lock and waits, `limit` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (guard, woken) = self.sleep(guard, Some(limit));
        Ok((guard, WaitTimeoutResult(!woken)))
    }

    /// Waits for as long as `condition` holds, `limit` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let end = Instant::now() + limit;
        while condition(&mut guard) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            guard = self.sleep(guard, Some(left)).0;
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        sched::point("notify");
        sched::with(|state| state.tasks.wake(self.key()));
    }
}

/// A value of which each simulated process has its own: see [`process_local!`](crate::process_local).
#[derive(Debug)]
pub struct ProcessLocal<T: 'static> {
    init: fn() -> T,
}

impl<T> ProcessLocal<T> {
    /// One that begins as `init` makes it.
    #[must_use]
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }
}

impl<T: Send + Sync + 'static> Deref for ProcessLocal<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let place = std::ptr::from_ref(self).addr();
        let found = sched::inside(|state| {
            let local = state.local(place, || Box::new((self.init)()));
            local.downcast_ref::<T>().map(std::ptr::from_ref)
        });
        let found = found.unwrap_or_else(|| unreachable!("made by the same init"));
        // SAFETY: it lies in a box that the world keeps until no task runs any more, and is only lent.
        unsafe { &*found }
    }
}

/// Declares statics of which each process has its own.
#[macro_export]
macro_rules! process_local {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = $init:expr;)+) => {
        $($(#[$attribute])* static $name: $crate::sync::ProcessLocal<$type> =
            $crate::sync::ProcessLocal::new(|| $init);)+
    };
}
