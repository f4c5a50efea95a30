//! What only macOS has. Not run: no Mac was at hand.

use crate::audience::Audience;
use crate::error::Error;
use crate::host::WorkerBuilder;
use crate::spec::Spec;

/// What more a worker can be on macOS.
pub trait WorkerBuilderExt: sealed::Sealed {
    /// Does without Mach ports, for sandboxes that deny them ([`Error::Denied`]): the worker is not met; its memory and bells are
    /// descriptors that it gets over a socket it inherits. Frames are in shared memory, never in IOSurfaces, and the
    /// [`Audience`]s it joins must be [in shared memory](AudienceExt::in_shared_memory), too. The operation this needs is
    /// `ipc-posix-shm`. Restarts and changes of spec keep to it.
    #[must_use]
    fn in_shared_memory(self) -> Self;
}

impl WorkerBuilderExt for WorkerBuilder {
    fn in_shared_memory(self) -> Self {
        self.by_descriptors()
    }
}

/// What more an audience can be on macOS.
pub trait AudienceExt: sealed::Sealed + Sized {
    /// [`Audience::new`] that every worker can join, be it [in shared memory](WorkerBuilderExt::in_shared_memory) or not: frames
    /// are in shared memory, never in IOSurfaces.
    ///
    /// # Errors
    /// As [`Audience::new`], and [`Error::Denied`].
    fn in_shared_memory(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error>;
}

impl AudienceExt for Audience {
    fn in_shared_memory(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error> {
        Self::by_descriptors(spec, slots)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::WorkerBuilder {}
    impl Sealed for super::Audience {}
}

/// The page's program, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/macos.md")]
struct Page;
