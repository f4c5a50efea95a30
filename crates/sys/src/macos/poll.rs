//! Waiting for many descriptors from one thread.
//!
//! *Who calls it*: the host's service thread; events and control channels, which are queues of their own. *Invariants*: level-triggered; a token is the caller's and comes back as it was
//! given (kqueue(2)).

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::kqueue::{Event, EventFilter, EventFlags, kevent, kqueue};
use rustix::io::Errno;

use crate::mach::Name;

/// What can be watched: a descriptor to read from, and one to write to, which may be another.
pub trait Watched {
    /// Readable when there is something to do.
    fn to_read(&self) -> BorrowedFd<'_>;

    /// Writable when there is room.
    fn to_write(&self) -> BorrowedFd<'_> {
        self.to_read()
    }
}

/// A kqueue, closed at `exec`. A fork of this process has none: its number may be another descriptor's there (kern_event.c,
/// FG_CONFINED).
#[derive(Debug)]
pub(super) struct Queue {
    fd: ManuallyDrop<OwnedFd>,
    process: u32,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        let fd = kqueue()?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { fd: ManuallyDrop::new(fd), process: std::process::id() })
    }

    fn is_here(&self) -> rustix::io::Result<()> {
        if self.process == std::process::id() { Ok(()) } else { Err(Errno::BADF) }
    }

    /// Changes what it watches.
    pub(super) fn change(&self, filter: EventFilter, flags: EventFlags, token: u64) -> rustix::io::Result<()> {
        self.is_here()?;
        let event = Event::new(filter, flags, std::ptr::without_provenance_mut(token as usize));
        let mut none: [Event; 0] = [];
        // SAFETY: the caller borrows the descriptors in `filter` for the call; one that is closed later leaves the queue by
        // itself.
        unsafe { kevent(&*self.fd, &[event], &mut none, Some(Duration::ZERO)) }.map(drop)
    }

    /// Watches a port this process receives from: there is something to tell while a message waits in it, earlier ones too
    /// (ipc_pset.c, filt_portattach). A port that is gone is told of once and leaves the queue (kern_event.c, knote_vanish).
    pub(super) fn watch_port(&self, port: Name, token: u64) -> io::Result<()> {
        self.is_here()?;
        let change = libc::kevent {
            ident: port.0 as usize,
            filter: libc::EVFILT_MACHPORT,
            flags: libc::EV_ADD,
            fflags: 0,
            data: 0,
            udata: std::ptr::without_provenance_mut(token as usize),
        };
        let (queue, none) = (self.fd.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: one change is read, and there is no room for events to be written. A wrong name is refused.
        match unsafe { libc::kevent(queue, &raw const change, 1, none, 0, std::ptr::null()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What has something to tell: waits for it, `limit` at most, or until a signal comes.
    ///
    /// This is also what makes the queue itself unreadable: another that watches it, or `poll`, counts what it has in line
    /// and does not ask whether that is still so (kern_event.c, filt_kqprocess). To be called after what is watched was read.
    pub(super) fn ready(&self, limit: Option<Duration>) -> io::Result<Vec<u64>> {
        Ok(self.events(limit)?.iter().map(token).collect())
    }

    /// Watches a pipe for its end alone: what is written meanwhile is told of once each time, and waits (sys_pipe.c,
    /// filt_piperead).
    pub(super) fn watch_end(&self, pipe: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.change(EventFilter::Read(pipe.as_raw_fd()), EventFlags::ADD | EventFlags::CLEAR, token)?)
    }

    /// Whether the one with `token` has ended. Waits as [`ready`](Self::ready), for any to have something to tell.
    pub(super) fn has_ended(&self, of: u64, limit: Duration) -> io::Result<bool> {
        let ends = |event: &Event| token(event) == of && event.flags().contains(EventFlags::EOF);
        Ok(self.events(Some(limit))?.iter().any(ends))
    }

    fn events(&self, limit: Option<Duration>) -> io::Result<Vec<Event>> {
        self.is_here()?;
        let mut events = Vec::<Event>::with_capacity(64);
        // SAFETY: no descriptor is passed.
        match unsafe { kevent(&*self.fd, &[], spare_capacity(&mut events), limit) } {
            Ok(_) | Err(Errno::INTR) => Ok(events),
            Err(error) => Err(error.into()),
        }
    }
}

fn token(event: &Event) -> u64 {
    event.udata().addr() as u64
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.is_here().is_ok() {
            // SAFETY: dropped here and nowhere else, once.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A set of descriptors. May be changed from any thread while another waits.
#[derive(Debug)]
pub struct Poller(Queue);

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Self> {
        Queue::new().map(Self)
    }

    /// Adds `it`: readable, at its end or in error is an event with `token`.
    ///
    /// # Errors
    /// No memory.
    pub fn add(&self, it: &impl Watched, token: u64) -> io::Result<()> {
        Ok(self.0.change(EventFilter::Read(it.to_read().as_raw_fd()), EventFlags::ADD, token)?)
    }

    /// Whether room to write is an event of `it` too.
    pub fn watch_room(&self, it: &impl Watched, token: u64, yes: bool) {
        let flags = if yes { EventFlags::ADD } else { EventFlags::DELETE };
        // Refused where it was not watched.
        let _ = self.0.change(EventFilter::Write(it.to_write().as_raw_fd()), flags, token);
    }

    /// Takes `it` out again.
    pub fn remove(&self, it: &impl Watched) {
        let _ = self.0.change(EventFilter::Read(it.to_read().as_raw_fd()), EventFlags::DELETE, 0);
        self.watch_room(it, 0, false);
    }

    /// Waits for events and returns their tokens; none after a signal.
    ///
    /// # Errors
    /// What kevent answers.
    pub fn wait(&self) -> io::Result<Vec<u64>> {
        self.0.ready(None)
    }
}

impl AsFd for Poller {
    /// Readable while any descriptor of the set has an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
