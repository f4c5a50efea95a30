//! What can go wrong between a host and a worker, and what to do about it.

use std::{fmt, io};

use super::message::SendError;
use super::received::ReceiveError;
use super::right::Forked;
use super::surface::Mismatch;
use super::task::Kern;

/// What was wrong with a message, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Check {
    /// Longer than any message of ours; the kernel destroyed it.
    #[error("it was too large")]
    TooLarge,
    /// Some of its rights or memory found no room in this process.
    #[error("it arrived incomplete")]
    Incomplete,
    /// Another kind of message.
    #[error("its id is {found}")]
    Id {
        /// Its `msgh_id`.
        found: i32,
    },
    /// Descriptors where none belong, or none where some do.
    #[error("it has descriptors where none belong, or none where they do")]
    Complex,
    /// Another length.
    #[error("it has {found} bytes, not {expected}")]
    Size {
        /// Its `msgh_size`.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// Another number of rights.
    #[error("it has {found} descriptors")]
    Descriptors {
        /// Its `msgh_descriptor_count`.
        found: u32,
    },
    /// A descriptor of memory, of many ports or of a guarded port.
    #[error("it has a descriptor of type {found}")]
    Kind {
        /// The descriptor's type.
        found: u32,
    },
    /// A right that is no send right.
    #[error("it carries a right of disposition {found}")]
    Disposition {
        /// The descriptor's disposition.
        found: u32,
    },
    /// A right whose port has died, or none.
    #[error("the right it carries is dead")]
    DeadRight,
    /// A reply port, which none of our messages has.
    #[error("it asks for a reply")]
    ReplyPort,
    /// No audit token behind it.
    #[error("the kernel did not say who sent it")]
    Trailer,
    /// No worker is expected by that nonce, or not any more.
    #[error("nobody is expected by its nonce")]
    Nonce,
    /// Sent by another user.
    #[error("it was sent by user {found}")]
    User {
        /// The sender's effective user.
        found: u32,
    },
    /// Sent by another process.
    #[error("it was sent by process {found}, not {expected}")]
    Process {
        /// The sender.
        found: u32,
        /// Who should have sent it.
        expected: u32,
    },
    /// A worker of another version.
    #[error("it speaks version {found} of the check-in")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A right this process has from somebody else, or of its own.
    #[error("the right it carries belongs to somebody else")]
    Shared,
    /// A number beyond what was agreed.
    #[error("it names a slot or a form of pixels that was not agreed on")]
    Content,
}

/// What a sandbox must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The host's: to receive under a name.
    Register,
    /// The worker's: to find a name.
    LookUp,
    /// To open a surface.
    OpenSurface,
    /// To make an object of shared memory, and to look at one.
    SharedMemory,
}

impl Operation {
    /// The one of that name in a sandbox profile.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Register, Self::LookUp, Self::OpenSurface, Self::SharedMemory].into_iter().find(|it| it.name() == name)
    }

    /// The operation's name in a sandbox profile.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "mach-register",
            Self::LookUp => "mach-lookup",
            Self::OpenSurface => "iokit-open",
            Self::SharedMemory => "ipc-posix-shm",
        }
    }

    /// The line that allows it, in the language of sandbox profiles. Not run.
    #[must_use]
    pub fn profile_line(self) -> &'static str {
        match self {
            Self::Register => "(allow mach-register (global-name-prefix \"io.github.frameport.\"))",
            Self::LookUp => "(allow mach-lookup (global-name-prefix \"io.github.frameport.\"))",
            Self::OpenSurface => {
                "(allow iokit-open (iokit-user-client-class \"IOSurfaceRootUserClient\" \"IOSurfaceSendRight\"))"
            }
            Self::SharedMemory => "(allow ipc-posix-shm (ipc-posix-name-prefix \"/frameport.\"))",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A way to a first right that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was tried.
    pub operation: Operation,
    /// What the kernel or launchd answered.
    pub answer: Kern,
    /// What stood in the registered port's slot: why the fallback did not help either.
    pub slot: Slot,
}

/// What a worker found in its third registered port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Not looked at.
    Unseen,
    /// No right: the host lent none, or a fork on the way has wiped it.
    Empty,
    /// A right to a port that is gone.
    Dead,
    /// The kernel did not let it be read.
    Unreadable(Kern),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was answered with {}", self.operation, self.answer)?;
        if self.answer == Kern::NOT_PRIVILEGED {
            write!(f, " by a sandbox")?;
        }
        match self.slot {
            Slot::Unseen => Ok(()),
            Slot::Empty => write!(f, ", and the registered port is empty, as after a fork between host and worker"),
            Slot::Dead => write!(f, ", and the registered port leads to a host that is gone"),
            Slot::Unreadable(answer) => write!(f, ", and the registered ports were answered with {answer}"),
        }
    }
}

/// Which sign of death came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nobody holds a right to send to our port any more.
    NoSenders,
    /// The port we send to is gone.
    DeadName,
    /// The pipe has ended.
    EndOfFile,
}

/// Why a host and a worker did not come together, or not to a surface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// No way to a first right.
    #[error(
        "no way to a Mach port: {0}; add {line} to the sandbox profile, or start the worker in shared memory",
        line = .0.operation.profile_line()
    )]
    RendezvousDenied(Denied),
    /// The host did not answer a worker in time.
    #[error("the host did not answer the worker's check-in in time")]
    RendezvousTimeout,
    /// A message was not what it must be.
    #[error("a message of the other side was refused: {0}")]
    PeerRejected(Check),
    /// The other side is gone.
    #[error("the other side is gone ({0:?})")]
    Died(Sign),
    /// The system gave no surface for a right that is alive.
    #[error(
        "the surface of slot {slot} cannot be opened, as by a sandbox: add {line} to its profile, or start the worker in shared \
         memory",
        line = Operation::OpenSurface.profile_line()
    )]
    SurfaceLookupFailed {
        /// Its slot.
        slot: u32,
    },
    /// An object of shared memory could not be made, or looked at.
    #[error("shared memory is denied, as by a sandbox: add {line} to its profile", line = Operation::SharedMemory.profile_line())]
    MemoryDenied,
    /// A surface is not what was announced.
    #[error("the surface of slot {slot} has another {mismatch}")]
    SurfaceMismatch {
        /// Its slot.
        slot: u32,
        /// Expected and found.
        mismatch: Mismatch,
    },
    /// More surfaces than a worker can have use for.
    #[error("the host hands over more than {limit} surfaces: that of slot {slot} is refused")]
    TooManySurfaces {
        /// The slot.
        slot: u32,
        /// Most surfaces of a worker.
        limit: usize,
    },
    /// The other side reads no messages.
    #[error("the queue of the other side is full: slot {slot} was not handed over")]
    QueueFull {
        /// The slot whose surface did not fit in.
        slot: u32,
    },
    /// A message was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A right of another process.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// What else the kernel answered.
    #[error("the kernel answered {0}")]
    Kernel(Kern),
}

impl SetupError {
    /// That of an I/O error, if it is one of these.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What a sandbox would have to allow, where one is the cause or may be.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::RendezvousDenied(denied) => Some(denied.operation),
            Self::SurfaceLookupFailed { .. } => Some(Operation::OpenSurface),
            Self::MemoryDenied => Some(Operation::SharedMemory),
            _ => None,
        }
    }
}

impl From<Kern> for SetupError {
    fn from(answer: Kern) -> Self {
        Self::Kernel(answer)
    }
}

impl From<Check> for SetupError {
    fn from(check: Check) -> Self {
        Self::PeerRejected(check)
    }
}

impl From<ReceiveError> for SetupError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Unfit(check) => check.into(),
            ReceiveError::Failed(answer) => answer.into(),
            ReceiveError::Forked(forked) => forked.into(),
        }
    }
}
