//! What a worker is given by its host beside bytes: regions, doorbells and surfaces, as Mach rights that travel in messages, or
//! as descriptors.
//!
//! *Who calls it*: memory and doorbells make handles, the control channel sends them. *Invariants*: descriptors go to any
//! worker, in a message as fileports; entries and surfaces only to one that was met. *A hostile peer*: the worker believes its
//! host, but takes nothing for what it is not.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;

use rustix::io::FdFlags;

use super::raw;
use super::surface::Surface;
use super::task::ThisTask;
use crate::mach::handover::Bundle;
use crate::mach::{Name, SendRight};

/// By which means a worker is given what its host has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By messages to its port, for which both must have met: memory entries, surfaces, fileports.
    Messages,
    /// By descriptors over a socket it inherits: shared memory by name, for as long as it has one, and no surface.
    Descriptors,
}

impl Means {
    /// What the system does best.
    pub const USUAL: Self = Self::Messages;
    /// By descriptors, without a port of the system's own.
    pub const DESCRIPTORS: Self = Self::Descriptors;

    /// Why what was made for these means cannot be given to a worker by `other` ones.
    #[must_use]
    pub fn bar(self, other: Self) -> Option<&'static str> {
        let barred = (self, other) == (Self::Messages, Self::Descriptors);
        barred.then_some(
            "a worker in shared memory has no port to get surfaces by: make the audience in shared memory, too",
        )
    }
}

/// What belongs to one region, doorbell or pool, owned.
#[derive(Debug)]
pub struct Handle(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// Rights that go in one message.
    Rights(Bundle<ThisTask>),
    /// The surfaces of a pool in the order of its slots. Each has a port for no longer than its own message.
    Surfaces(Vec<Arc<Surface>>),
    /// Descriptors that go together.
    Descriptors(Vec<OwnedFd>),
}

impl Handle {
    /// The descriptors it is, or those that its rights stand for; none of an entry or of surfaces.
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        match self.0 {
            Kind::Rights(bundle) => bundle.rights.iter().map_while(|right| from_fileport(right)).collect(),
            Kind::Surfaces(_) => Vec::new(),
            Kind::Descriptors(descriptors) => descriptors,
        }
    }
}

/// Rights that stand for open descriptors, to go in a message.
pub(super) fn fileports(descriptors: &[OwnedFd]) -> io::Result<Bundle<ThisTask>> {
    let fileport = |fd: &OwnedFd| {
        let mut name = 0;
        // SAFETY: the descriptor is open, and the pointer valid for the call.
        if unsafe { raw::fileport_makeport(fd.as_raw_fd(), &raw mut name) } != 0 {
            return Err(io::Error::last_os_error());
        }
        SendRight::own(&ThisTask, Name(name)).map(Arc::new).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    };
    Ok(Bundle { rights: descriptors.iter().map(fileport).collect::<io::Result<_>>()?, len: 0 })
}

/// The descriptor a right stands for. None where it stands for something else.
fn from_fileport(right: &SendRight<ThisTask>) -> Option<OwnedFd> {
    // SAFETY: any name may be passed; another kind of port is refused.
    let number = unsafe { raw::fileport_makefd(right.name().ok()?.0) };
    if number < 0 {
        return None;
    }
    // SAFETY: the call has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}
