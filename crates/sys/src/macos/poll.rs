//! Waiting for many descriptors from one thread.
//!
//! *Who calls it*: the host's service thread. *Invariants*: level-triggered; a token is the caller's and comes back as it was
//! given (kqueue(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::kqueue::{Event, EventFilter, EventFlags, kevent, kqueue};

/// What can be watched: a descriptor to read from, and one to write to, which may be another.
pub trait Watched {
    /// Readable when there is something to do.
    fn to_read(&self) -> BorrowedFd<'_>;

    /// Writable when there is room.
    fn to_write(&self) -> BorrowedFd<'_> {
        self.to_read()
    }
}

/// A kqueue of this process's alone, closed at `exec`.
pub(super) fn new_queue() -> io::Result<OwnedFd> {
    let queue = kqueue()?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
    Ok(queue)
}

/// Changes what a queue watches.
pub(super) fn change(queue: &OwnedFd, filter: EventFilter, flags: EventFlags, token: u64) -> rustix::io::Result<()> {
    let event = Event::new(filter, flags, std::ptr::without_provenance_mut(token as usize));
    let mut none: [Event; 0] = [];
    // SAFETY: the caller borrows the descriptors in `filter` for the call; one that is closed later leaves the queue by itself.
    unsafe { kevent(queue, &[event], &mut none, Some(std::time::Duration::ZERO)) }.map(drop)
}

/// A set of descriptors. May be changed from any thread while another waits.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Self> {
        new_queue().map(Self)
    }

    /// Adds `it`: readable, at its end or in error is an event with `token`.
    ///
    /// # Errors
    /// No memory.
    pub fn add(&self, it: &impl Watched, token: u64) -> io::Result<()> {
        Ok(change(&self.0, EventFilter::Read(it.to_read().as_raw_fd()), EventFlags::ADD, token)?)
    }

    /// Whether room to write is an event of `it` too.
    pub fn watch_room(&self, it: &impl Watched, token: u64, yes: bool) {
        let flags = if yes { EventFlags::ADD } else { EventFlags::DELETE };
        // Refused where it was not watched.
        let _ = change(&self.0, EventFilter::Write(it.to_write().as_raw_fd()), flags, token);
    }

    /// Takes `it` out again.
    pub fn remove(&self, it: &impl Watched) {
        let _ = change(&self.0, EventFilter::Read(it.to_read().as_raw_fd()), EventFlags::DELETE, 0);
        self.watch_room(it, 0, false);
    }

    /// Waits for events and returns their tokens.
    ///
    /// # Errors
    /// What kevent answers, interruption by a signal aside.
    pub fn wait(&self) -> io::Result<Vec<u64>> {
        let mut events = Vec::<Event>::with_capacity(64);
        // SAFETY: no descriptor is passed.
        rustix::io::retry_on_intr(|| unsafe { kevent(&self.0, &[], spare_capacity(&mut events), None) })?;
        Ok(events.iter().map(|event| event.udata().addr() as u64).collect())
    }
}

impl AsFd for Poller {
    /// Readable while any descriptor of the set has an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
