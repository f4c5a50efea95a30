//! Shared memory that is reached by descriptor: a POSIX object whose name is gone before anybody else has it.
//!
//! *Who calls it*: regions of systems that have neither memfd nor seals, for workers that get descriptors; tests on every
//! system. *Invariants*: the name is random, new and ours, and there no longer than this function runs; the size is set once,
//! and XNU lets nobody set it again (posix_shm.c, `pshm_truncate`); a descriptor opened for reading cannot be mapped for
//! writing, nor its mapping be made writable (`pshm_mmap`). *A hostile peer* can write what it may write. One of the same user
//! that guesses the name while it is there has the object; same-user processes are no boundary here (SECURITY.md).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::param::page_size;
use rustix::shm::{self, OFlags};

use crate::mach::SetupError;
use crate::writers::Writers;

/// What every name begins with, as lines of sandbox profiles say it. With what follows no longer than the 31 bytes XNU has.
pub const PREFIX: &str = "/frameport.";

/// A new object.
#[derive(Debug)]
pub struct Object {
    /// For this process: may be mapped for writing.
    pub own: OwnedFd,
    /// For others: may be mapped for what they may do.
    pub theirs: OwnedFd,
}

/// Takes the name away, whatever happens.
struct Unlink<'a>(&'a str);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        let _ = shm::unlink(self.0);
    }
}

/// Makes an object of `len` bytes or what whole pages they need, under a name made of `random` while it does.
///
/// # Errors
/// [`SetupError::MemoryDenied`] where a sandbox may be the cause; too many open files, no memory.
pub fn create(random: u64, len: usize, writers: Writers) -> io::Result<Object> {
    let name = format!("{PREFIX}{random:016x}");
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let own = shm::open(&name, new, Mode::RUSR | Mode::WUSR).map_err(denied)?;
    let _unlink = Unlink(&name);
    rustix::fs::ftruncate(&own, len as u64).map_err(denied)?;
    let theirs = match writers {
        Writers::All => own.try_clone()?,
        Writers::Creator => shm::open(&name, OFlags::RDONLY, Mode::empty()).map_err(denied)?,
    };
    Ok(Object { own, theirs })
}

/// Looks whether `object`, which came from a host, has the size that was announced, and allows no more than it should.
///
/// # Errors
/// `InvalidData` when it is not so; [`SetupError::MemoryDenied`] where a sandbox may be the cause.
pub fn check(object: impl AsFd, len: usize, writers: Writers) -> io::Result<()> {
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mode = rustix::fs::fcntl_getfl(&object)? & rustix::fs::OFlags::ACCMODE;
    let allowed = match writers {
        Writers::All => rustix::fs::OFlags::RDWR,
        Writers::Creator => rustix::fs::OFlags::RDONLY,
    };
    if mode != allowed {
        return wrong(format!("the region was opened with {mode:?}, not {allowed:?}"));
    }
    let found = rustix::fs::fstat(&object).map_err(denied)?.st_size;
    // As announced, or that in whole pages.
    let pages = len.checked_next_multiple_of(page_size()).ok_or(io::ErrorKind::InvalidData)?;
    if !usize::try_from(found).is_ok_and(|found| (len..=pages).contains(&found)) {
        return wrong(format!("the region has {found} bytes, {len} were announced"));
    }
    Ok(())
}

/// The error of what is never refused to us but by a sandbox.
pub(crate) fn denied(error: Errno) -> io::Error {
    match error {
        Errno::PERM | Errno::ACCESS => io::Error::new(io::ErrorKind::PermissionDenied, SetupError::MemoryDenied),
        other => other.into(),
    }
}
