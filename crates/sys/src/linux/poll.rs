//! Waiting for many file descriptors from one thread.
//!
//! *Who calls it*: the host's service thread. *Invariants*: level-triggered; a token is the caller's and comes back as
//! it was given ([epoll(7)]).
//!
//! [epoll(7)]: https://man7.org/linux/man-pages/man7/epoll.7.html

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// A set of descriptors. May be changed from any thread while another waits.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Adds `fd`: readable, at its end or in error is an event with `token`.
    ///
    /// # Errors
    /// What epoll_ctl answers: no memory, over `max_user_watches`.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN | EventFlags::RDHUP)?)
    }

    /// Whether room to write is an event of `fd` too.
    pub fn watch_room(&self, fd: impl AsFd, token: u64, yes: bool) {
        let room = if yes { EventFlags::OUT } else { EventFlags::empty() };
        // Refused for a descriptor that was taken out: its peer is gone.
        let _ = epoll::modify(&self.0, fd, EventData::new_u64(token), EventFlags::IN | EventFlags::RDHUP | room);
    }

    /// Takes `fd` out again.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for events and returns their tokens.
    ///
    /// # Errors
    /// What epoll_wait answers, interruption by a signal aside.
    pub fn wait(&self) -> io::Result<Vec<u64>> {
        let mut events = Vec::with_capacity(64);
        rustix::io::retry_on_intr(|| epoll::wait(&self.0, spare_capacity(&mut events), None))?;
        Ok(events.into_iter().map(|event| event.data.u64()).collect())
    }
}

impl AsFd for Poller {
    /// Readable while any descriptor of the set has an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
