//! Port rights with one owner each.
//!
//! *Who calls it*: everything beside this file. *Invariants*: none of these types is `Clone` or `Copy`; dropping one
//! releases its right exactly once, and in the process that got it only: a forked child has the values but not the rights,
//! and the same numbers may name other rights there.

use super::task::{Kern, Name, Notify, Task};

/// This process was forked from the one that holds the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process was forked from process {owner}, whose Mach ports do not survive a fork: start workers by spawn")]
pub struct Forked {
    /// The process that has the right.
    pub owner: u32,
}

/// A name and the process it means something in.
#[derive(Debug)]
struct Owned<T: Task> {
    task: T,
    name: Name,
    owner: u32,
}

impl<T: Task> Owned<T> {
    fn new(task: &T, name: Name) -> Option<Self> {
        name.is_valid().then(|| Self { task: task.clone(), name, owner: task.pid() })
    }

    fn is_ours(&self) -> bool {
        self.task.pid() == self.owner
    }

    fn name(&self) -> Result<Name, Forked> {
        if self.is_ours() { Ok(self.name) } else { Err(Forked { owner: self.owner }) }
    }

    /// Whether there is something to release, and here.
    fn is_to_release(&self) -> bool {
        self.name.is_valid() && self.is_ours()
    }
}

macro_rules! right {
    ($(#[$doc:meta])* $right:ident, $release:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $right<T: Task>(Owned<T>);

        impl<T: Task> $right<T> {
            /// Takes charge of a right that `task` just got; none if `name` is null or dead.
            ///
            /// The caller passes on the one reference it has, and must not release it itself.
            pub fn own(task: &T, name: Name) -> Option<Self> {
                Owned::new(task, name).map(Self)
            }

            /// Its name, for a call or a comparison; the right stays owned.
            ///
            /// # Errors
            /// In a fork of the process that got it.
            pub fn name(&self) -> Result<Name, Forked> {
                self.0.name()
            }

        }

        impl<T: Task> Drop for $right<T> {
            fn drop(&mut self) {
                if self.0.is_to_release() {
                    // Refused only for a name that is not ours, which the invariant excludes.
                    let _ = self.0.task.$release(self.0.name);
                }
            }
        }
    };
}

right!(
    /// The right to send to a port; also a port that died since, under the same name.
    SendRight,
    // Not mod_refs(SEND), which fails on a name that has died (ipc_right.c, ipc_right_delta).
    deallocate
);
right!(
    /// The right to send one message, which the kernel takes for a notification.
    SendOnce,
    deallocate
);
right!(
    /// The right to receive what is sent to a port. The port dies with it.
    ReceiveRight,
    // Never mach_port_destroy: it would take send rights under the same name along.
    release_receive
);

impl<T: Task> SendRight<T> {
    /// Gives the right up without releasing it: the kernel has taken it.
    pub(super) fn consumed(mut self) {
        self.0.name = Name::NULL;
    }

    pub(super) fn task(&self) -> &T {
        &self.0.task
    }
}

impl<T: Task> ReceiveRight<T> {
    /// A new port nobody can send to yet, with room for `queue_limit` messages (1 to 1024).
    ///
    /// # Errors
    /// No space for a name.
    pub fn new(task: &T, queue_limit: u32) -> Result<Self, Kern> {
        Self::own(task, task.construct(queue_limit)?).ok_or(Kern::FAILURE)
    }

    /// Makes room for `queue_limit` messages (1 to 1024), where somebody else made the port.
    ///
    /// # Errors
    /// What the kernel answers; in a fork, [`Kern::INVALID_NAME`].
    pub fn set_queue_limit(&self, queue_limit: u32) -> Result<(), Kern> {
        let name = self.name().map_err(|_| Kern::INVALID_NAME)?;
        self.0.task.set_queue_limit(name, queue_limit)
    }

    /// A right to send to this port, for this process itself; it has the same name.
    ///
    /// # Errors
    /// No space for another reference; in a fork, [`Kern::INVALID_NAME`].
    pub fn make_send(&self) -> Result<SendRight<T>, Kern> {
        let name = self.name().map_err(|_| Kern::INVALID_NAME)?;
        self.0.task.make_send(name)?;
        SendRight::own(&self.0.task, name).ok_or(Kern::FAILURE)
    }

    /// Has `to` told when nobody can send to this port any more, from the first sender on.
    ///
    /// # Errors
    /// What the kernel answers; in a fork, [`Kern::INVALID_NAME`].
    pub fn tell_when_unreachable(&self, to: &Self) -> Result<(), Kern> {
        // With sync = 0 it would be told at once, for nobody can yet (ipc_port.c, ipc_port_nsrequest).
        self.request(Notify::NoSenders, self.name(), to)
    }

    /// Has `to` told when the receiver behind `port` is gone.
    ///
    /// # Errors
    /// [`Kern::INVALID_ARGUMENT`] when it is gone already; in a fork, [`Kern::INVALID_NAME`].
    pub fn told_of_death(&self, port: &SendRight<T>) -> Result<(), Kern> {
        self.request(Notify::DeadName, port.name(), self)
    }

    pub(super) fn task(&self) -> &T {
        &self.0.task
    }

    fn request(&self, what: Notify, port: Result<Name, Forked>, to: &Self) -> Result<(), Kern> {
        let (Ok(port), Ok(to)) = (port, to.name()) else { return Err(Kern::INVALID_NAME) };
        let previous = self.0.task.request_notification(port, what, 1, to)?;
        // An earlier request's right comes back to us; released, it tells its receiver no more than that.
        drop(SendOnce::own(&self.0.task, previous));
        Ok(())
    }
}
