//! Waking a thread that waits in an event loop: a descriptor that is readable until somebody has looked.
//!
//! *Who calls it*: `frameport-mem`'s parking, only for a side that has asked for an [`Event`]. *Invariants*: two pipes, one for
//! each direction, because a host must never read a socket that a worker can write: descriptors sent there would be installed
//! unasked (uipc_usrreq.c, unp_externalize); nothing here blocks. *A hostile peer* can ring at will, ring never, or close its
//! end, which is then not watched any more.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::kqueue::{EventFilter, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::handle::{Handle, Kind};
use super::poll::Queue;
use super::socket;

/// One side's ends: the other side rings it by the other pipe.
#[derive(Debug)]
pub struct Doorbell(Option<(OwnedFd, OwnedFd)>);

impl Doorbell {
    /// This side's ends, and the handle for the other side.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Handle)> {
        let (own_read, their_write) = socket::pipe()?;
        let (their_read, own_write) = socket::pipe()?;
        Ok((Self(Some((own_read, own_write))), Handle(Kind::Descriptors(vec![their_read, their_write]))))
    }

    /// The other side's ends, as they came. One that is no doorbell never rings.
    #[must_use]
    pub fn adopt(handle: Handle) -> Self {
        let mut ends = handle.into_descriptors().into_iter().filter(|end| socket::make_ours(end).is_ok());
        Self(ends.next().zip(ends.next()))
    }

    /// Makes the other side's [`Event`] readable. One that is full is.
    pub fn ring(&self) {
        if let Some((_, write)) = &self.0 {
            let _ = rustix::io::write(write, &[1]);
        }
    }

    /// Takes up what was rung: how much that was, 0 at the end of the stream.
    fn drain(&self) -> rustix::io::Result<usize> {
        let Some((read, _)) = &self.0 else { return Ok(0) };
        // What a flood leaves makes the event readable once more, and costs a look.
        rustix::io::read(read, &mut [0; 4096])
    }
}

/// A descriptor for event loops: readable once the doorbell was rung or [`signal`](Self::signal) called, until
/// [`clear`](Self::clear).
#[derive(Debug)]
pub struct Event {
    both: Queue,
    own: (OwnedFd, OwnedFd),
    hung_up: AtomicBool,
}

impl Event {
    /// An event for `doorbell`.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(doorbell: &Doorbell) -> io::Result<Self> {
        let (own, both) = (socket::pipe()?, Queue::new()?);
        both.change(EventFilter::Read(own.0.as_raw_fd()), EventFlags::ADD, 0)?;
        if let Some((read, _)) = &doorbell.0 {
            both.change(EventFilter::Read(read.as_raw_fd()), EventFlags::ADD, 0)?;
        }
        Ok(Self { both, own, hung_up: AtomicBool::new(doorbell.0.is_none()) })
    }

    /// From now on it is readable while `other` is, too: a queue may watch another (kern_event.c, kqueue_kqfilter). That
    /// `other` was cleared it learns at its own [`clear`](Self::clear).
    ///
    /// # Errors
    /// No memory.
    pub fn follow(&self, other: &Self) -> io::Result<()> {
        Ok(self.both.change(EventFilter::Read(other.both.as_fd().as_raw_fd()), EventFlags::ADD, 0)?)
    }

    /// No longer.
    pub fn unfollow(&self, other: &Self) {
        // Refused where it was not followed.
        let _ = self.both.change(EventFilter::Read(other.both.as_fd().as_raw_fd()), EventFlags::DELETE, 0);
    }

    /// Makes it readable.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.own.1, &[1]);
    }

    /// Makes it unreadable. Look at what is waited for after it. Whether the doorbell was rung, which another event for it
    /// does not see any more.
    pub fn clear(&self, doorbell: &Doorbell) -> bool {
        let _ = rustix::io::read(&self.own.0, &mut [0; 4096]);
        let rung = if self.hung_up.load(Ordering::Relaxed) { Err(Errno::PIPE) } else { doorbell.drain() };
        if rung == Ok(0) {
            self.hung_up.store(true, Ordering::Relaxed);
            if let Some((read, _)) = &doorbell.0 {
                let _ = self.both.change(EventFilter::Read(read.as_raw_fd()), EventFlags::DELETE, 0);
            }
        }
        // What was read is not in line any more. Nobody is there to wait for the answer.
        let _ = self.both.ready(Some(Duration::ZERO));
        rung.is_ok_and(|bytes| bytes > 0)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

/// Waits until one of `events` is readable, a signal arrives or `limit` is over; `None` is for ever.
///
/// # Errors
/// What poll answers, interruption by a signal aside.
pub fn wait_any(events: &[&Event], limit: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = events.iter().map(|event| PollFd::new(*event, PollFlags::IN)).collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
