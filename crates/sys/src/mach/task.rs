//! The calls the rest of this module makes to a kernel, and nothing more.
//!
//! *Who calls it*: the owners of rights and the messages beside this file. *Invariants*: each method is one call of
//! libSystem or of the IOSurface framework, with the arguments it is given. A send and a receive wait no longer than their time
//! limit. [`Task::check_in`] and [`Task::look_up`] ask launchd, which answers at once or hangs with the whole login: they have
//! none.

use std::fmt;

use super::message::Buffer;
use super::surface::Geometry;
use crate::plan::Intent;

/// The name a right has in one process's space (`mach_port_name_t`). Means nothing anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub u32);

impl Name {
    /// `MACH_PORT_NULL`: no right.
    pub const NULL: Self = Self(0);
    /// `MACH_PORT_DEAD`: a right that died on its way.
    pub const DEAD: Self = Self(u32::MAX);

    /// Whether this can name a right (`MACH_PORT_VALID`).
    #[must_use]
    pub fn is_valid(self) -> bool {
        self != Self::NULL && self != Self::DEAD
    }
}

/// What a call answered when it did not succeed: a `kern_return_t`, `mach_msg_return_t` or bootstrap error.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kern(pub i32);

impl Kern {
    /// No error; never inside an `Err`.
    pub const SUCCESS: Self = Self(0);
    /// `KERN_INVALID_ARGUMENT`.
    pub const INVALID_ARGUMENT: Self = Self(4);
    /// `KERN_FAILURE`: also what stands for a framework's call that says only that it failed.
    pub const FAILURE: Self = Self(5);
    /// `KERN_INVALID_NAME`: no such right in this space.
    pub const INVALID_NAME: Self = Self(15);
    /// `KERN_INVALID_RIGHT`: the name stands for another kind of right.
    pub const INVALID_RIGHT: Self = Self(17);
    /// `KERN_INVALID_VALUE`.
    pub const INVALID_VALUE: Self = Self(18);
    /// `MACH_SEND_INVALID_DEST`: the receiver is gone; nothing was consumed.
    pub const SEND_INVALID_DEST: Self = Self(0x1000_0003);
    /// `MACH_SEND_TIMED_OUT`: the queue stayed full; the message came back into the buffer.
    pub const SEND_TIMED_OUT: Self = Self(0x1000_0004);
    /// `MACH_SEND_INTERRUPTED`: as [`Self::SEND_TIMED_OUT`].
    pub const SEND_INTERRUPTED: Self = Self(0x1000_0007);
    /// `MACH_SEND_MSG_TOO_SMALL`.
    pub const SEND_MSG_TOO_SMALL: Self = Self(0x1000_0008);
    /// `MACH_SEND_INVALID_RIGHT`: a descriptor names no right of its kind.
    pub const SEND_INVALID_RIGHT: Self = Self(0x1000_000a);
    /// `MACH_SEND_INVALID_TYPE`.
    pub const SEND_INVALID_TYPE: Self = Self(0x1000_000f);
    /// `MACH_SEND_INVALID_HEADER`.
    pub const SEND_INVALID_HEADER: Self = Self(0x1000_0010);
    /// `MACH_RCV_INVALID_NAME`: no receive right by that name.
    pub const RCV_INVALID_NAME: Self = Self(0x1000_4002);
    /// `MACH_RCV_TIMED_OUT`: no message came.
    pub const RCV_TIMED_OUT: Self = Self(0x1000_4003);
    /// `MACH_RCV_TOO_LARGE`: the kernel destroyed a message that did not fit.
    pub const RCV_TOO_LARGE: Self = Self(0x1000_4004);
    /// `MACH_RCV_INTERRUPTED`.
    pub const RCV_INTERRUPTED: Self = Self(0x1000_4005);
    /// `MACH_RCV_HEADER_ERROR`: the kernel destroyed a message whose reply right found no room.
    pub const RCV_HEADER_ERROR: Self = Self(0x1000_400b);
    /// `MACH_RCV_BODY_ERROR`: a message came, with some of its rights or memory missing.
    pub const RCV_BODY_ERROR: Self = Self(0x1000_400c);
    /// `BOOTSTRAP_NOT_PRIVILEGED`: the sandbox forbids it.
    pub const NOT_PRIVILEGED: Self = Self(1100);
    /// `BOOTSTRAP_UNKNOWN_SERVICE`: nobody has that name.
    pub const UNKNOWN_SERVICE: Self = Self(1102);
    /// `BOOTSTRAP_SERVICE_ACTIVE`: somebody else receives under that name.
    pub const SERVICE_ACTIVE: Self = Self(1103);

    /// The code without `MACH_MSG_MASK`, which tells what besides went wrong while rights were put back.
    #[must_use]
    pub fn message_code(self) -> Self {
        Self(self.0 & !0x3e00)
    }
}

impl fmt::Debug for Kern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Kern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Message codes are looked up in hexadecimal, the others in decimal.
        if self.0 >= 0x1000_0000 { write!(f, "{:#x}", self.0) } else { write!(f, "{}", self.0) }
    }
}

/// `MACH_NOTIFY_NO_SENDERS`.
const NO_SENDERS: i32 = 70;
/// `MACH_NOTIFY_DEAD_NAME`.
const DEAD_NAME: i32 = 72;

/// Which of a port's fates to be told of (`mach/notify.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nobody can send to this receive right any more.
    NoSenders,
    /// The receiver behind this send right is gone.
    DeadName,
}

impl Notify {
    /// The message id that asks for it and that tells of it.
    #[must_use]
    pub fn id(self) -> i32 {
        match self {
            Self::NoSenders => NO_SENDERS,
            Self::DeadName => DEAD_NAME,
        }
    }
}

/// A process's own view of the kernel. Cheap to clone: the real one has no content.
///
/// Names passed to a method are the caller's to be right about: a wrong one is answered with an error, or releases a right
/// of some other part of the process, which is why only the owners of rights in [`right`](super::right) pass them.
pub trait Task: Clone + fmt::Debug {
    /// A surface as this process holds it.
    type Surface: Surface;

    /// The process this runs in; another one after a fork.
    fn pid(&self) -> u32;

    /// `mach_port_construct` with `MPO_QLIMIT`: a receive right without any sender.
    ///
    /// # Errors
    /// No space for a name.
    fn construct(&self, queue_limit: u32) -> Result<Name, Kern>;

    /// `mach_port_set_attributes(MACH_PORT_LIMITS_INFO)`: room for `queue_limit` messages in a port that somebody else made.
    ///
    /// # Errors
    /// No receive right by that name.
    fn set_queue_limit(&self, name: Name, queue_limit: u32) -> Result<(), Kern>;

    /// `mach_port_insert_right` of a name for itself as MAKE_SEND: one more reference to send, under the same name.
    ///
    /// # Errors
    /// No receive right by that name.
    fn make_send(&self, name: Name) -> Result<(), Kern>;

    /// `mach_port_mod_refs(RECEIVE, -1)`: destroys the port; what is queued in it is destroyed too.
    ///
    /// # Errors
    /// No receive right by that name.
    fn release_receive(&self, name: Name) -> Result<(), Kern>;

    /// `mach_port_deallocate`: releases one reference of a send right, a send-once right or a dead name.
    ///
    /// # Errors
    /// No such right by that name.
    fn deallocate(&self, name: Name) -> Result<(), Kern>;

    /// Whether one send right, held once and watched by nobody, is all this process has by that name (`mach_port_type` and
    /// `mach_port_get_refs`).
    fn is_sole_send(&self, name: Name) -> bool;

    /// `mach_port_request_notification` with `to` as MAKE_SEND_ONCE. Returns the right of an earlier request, or null.
    ///
    /// # Errors
    /// [`Kern::INVALID_ARGUMENT`] for [`Notify::DeadName`] on a name that is dead already: `ipc_right_request_alloc` makes
    /// that case a notification for send-possible requests only.
    fn request_notification(&self, port: Name, what: Notify, sync: u32, to: Name) -> Result<Name, Kern>;

    /// `mach_msg` with `MACH_SEND_MSG | MACH_SEND_TIMEOUT | MACH_SEND_INTERRUPT` of the buffer's first `size` bytes. Zero does
    /// not wait.
    ///
    /// An interruption is the caller's to deal with: libSystem would repeat the call with the header from before it, which
    /// copies the destination once more and leaves the one that came back (libsyscall/mach/mach_msg.c, mach_msg2_internal).
    ///
    /// # Safety
    /// The message has no out-of-line descriptor: sending one can unmap memory.
    unsafe fn send(&self, message: &mut Buffer, size: u32, limit_ms: u32) -> Kern;

    /// `mach_msg` with `MACH_RCV_MSG | MACH_RCV_TIMEOUT` and the audit trailer, into the whole buffer. Zero does not wait.
    fn receive(&self, from: Name, into: &mut Buffer, limit_ms: u32) -> Kern;

    /// `mach_msg_destroy`: releases every right of a message, and the memory it says is to be deallocated.
    ///
    /// # Safety
    /// The buffer holds a message as the kernel wrote it, apart from names since set to null and memory since marked to be
    /// deallocated, and was not destroyed before: what it says about memory is unmapped unseen.
    unsafe fn destroy(&self, message: &mut Buffer);

    /// `bootstrap_check_in`: the receive right of a name nobody has.
    ///
    /// # Errors
    /// [`Kern::NOT_PRIVILEGED`] where a sandbox denies mach-register; [`Kern::SERVICE_ACTIVE`].
    fn check_in(&self, service: &str) -> Result<Name, Kern>;

    /// `bootstrap_look_up`: a send right to the receiver of a name.
    ///
    /// # Errors
    /// [`Kern::NOT_PRIVILEGED`] where a sandbox denies mach-lookup; [`Kern::UNKNOWN_SERVICE`].
    fn look_up(&self, service: &str) -> Result<Name, Kern>;

    /// `mach_ports_lookup`, its array already freed: the three registered ports, one reference of each for the caller.
    ///
    /// # Errors
    /// No memory.
    fn registered(&self) -> Result<[Name; 3], Kern>;

    /// `mach_ports_register`: replaces all three; the caller's references stay its own.
    ///
    /// # Errors
    /// A name that is no send right.
    fn register(&self, ports: [Name; 3]) -> Result<(), Kern>;

    /// `IOSurfaceCreateMachPort`: a send right that keeps the surface alive and in use, for the caller.
    ///
    /// # Errors
    /// The framework says only that it failed.
    fn surface_port(&self, surface: &Self::Surface) -> Result<Name, Kern>;

    /// `IOSurfaceLookupFromMachPort`. The right stays the caller's.
    fn surface_from_port(&self, port: Name) -> Option<Self::Surface>;
}

/// What a surface is asked and told. Dropping one releases the reference, not its use.
pub trait Surface {
    /// What the system says of it (`IOSurfaceGetWidth` and so on): to be believed, unlike what a peer says.
    fn geometry(&self) -> Geometry;

    /// `IOSurfaceLock`: for a write, or with `kIOSurfaceLockReadOnly`. It makes what others wrote visible; it keeps nobody out.
    ///
    /// # Errors
    /// What the framework answers; then it is not locked.
    fn lock(&self, intent: Intent) -> Result<(), Kern>;

    /// `IOSurfaceUnlock`, with the options of the lock.
    fn unlock(&self, intent: Intent);

    /// `IOSurfaceIncrementUseCount`.
    fn begin_use(&self);

    /// `IOSurfaceDecrementUseCount`.
    fn end_use(&self);

    /// `IOSurfaceIsInUse`, by any process: a port of it that is alive counts.
    fn is_in_use(&self) -> bool;
}
