//! The third registered port: the way to a first right where a sandbox denies names.
//!
//! *Who calls it*: the host around a spawn, the worker when a look-up failed. *Invariants*: slots 0 and 1 stay as found, for
//! libxpc keeps its bootstrap port in the first; the host's right stands in slot 2 only while it spawns, under a lock; each
//! array looked up is released, all three references of it. Everything a worker inherits of it is a right to send to the
//! second rendezvous port, which is worth nothing without a nonce.
//!
//! `fork` in libSystem is reported to wipe slots 1 and 2 of the parent *and* the child (not run): a thread that forks between
//! our two calls takes the right away from the worker, which looks for itself and says so where it finds no other way.

use std::sync::{Mutex, PoisonError};

use super::error::Slot;
use super::right::SendRight;
use super::task::{Kern, Name, Task};

/// The slot of ours.
const OURS: usize = 2;

/// One reference of each registered port.
struct Registered<T: Task>([Option<SendRight<T>>; 3]);

impl<T: Task> Registered<T> {
    fn of(task: &T) -> Result<(Self, [Name; 3]), Kern> {
        let names = task.registered()?;
        Ok((Self(names.map(|name| SendRight::own(task, name))), names))
    }
}

/// What a dead right in a slot is written back as: the kernel refuses a dead name.
fn written(name: Name) -> Name {
    if name.is_valid() { name } else { Name::NULL }
}

/// Spawns with `right` in slot 2, for the new process to inherit.
///
/// # Errors
/// What the kernel answers before the spawn; then nothing was spawned.
pub fn lend<T: Task, R>(task: &T, right: &SendRight<T>, spawn: impl FnOnce() -> R) -> Result<R, Kern> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let name = right.name().map_err(|_| Kern::INVALID_NAME)?;
    let (before, names) = Registered::of(task)?;
    let found = names.map(written);
    let [zero, one, _] = found;
    task.register([zero, one, name])?;
    let _restore = Restore { task, found, _kept: before };
    Ok(spawn())
}

/// Puts the slots back as found, whatever the spawn does.
struct Restore<'t, T: Task> {
    task: &'t T,
    found: [Name; 3],
    /// Keeps the names in `found` valid.
    _kept: Registered<T>,
}

impl<T: Task> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        // Refused only without memory; then our right stays for later children, and is worth nothing to them.
        let _ = self.task.register(self.found);
    }
}

/// Takes the right a host lent out of slot 2.
///
/// # Errors
/// Why there is none.
pub fn take<T: Task>(task: &T) -> Result<SendRight<T>, Slot> {
    let (Registered(mut rights), names) = Registered::of(task).map_err(Slot::Unreadable)?;
    let right = rights[OURS].take();
    if names[OURS] != Name::NULL {
        // So that the worker's own children do not inherit it.
        let [zero, one, _] = names.map(written);
        let _ = task.register([zero, one, Name::NULL]);
    }
    right.ok_or(if names[OURS] == Name::DEAD { Slot::Dead } else { Slot::Empty })
}
