//! Waking a thread that waits in an event loop: a descriptor that is readable until somebody has looked.
//!
//! *Who calls it*: `frameport-mem`'s parking, only for a side that has asked for an [`Event`]. *Invariants*: each side owns
//! one end of a socket pair, so that the other can change no flag of it; nothing here blocks. *A hostile peer* can ring at
//! will (each ring costs one look), ring never, or close its end, which is then not watched any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::handle::Handle;
use super::poll::Poller;

/// One side's end of the pair: the other side rings it.
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// This side's end, and the handle for the other side.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Handle)> {
        let (own, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self(own), theirs))
    }

    /// The other side's end, as it came.
    #[must_use]
    pub fn adopt(handle: Handle) -> Self {
        Self(handle)
    }

    /// Makes the other side's [`Event`] readable. One that is full is.
    pub fn ring(&self) {
        let _ = rustix::net::send(&self.0, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes up what was rung: how much that was, 0 at the end of the stream.
    fn drain(&self) -> rustix::io::Result<usize> {
        // What a flood leaves makes the event readable once more, and costs a look.
        Ok(rustix::net::recv(&self.0, &mut [0; 4096], RecvFlags::DONTWAIT)?.1)
    }
}

/// A descriptor for event loops: readable once the doorbell was rung or [`signal`](Self::signal) called, until
/// [`clear`](Self::clear).
#[derive(Debug)]
pub struct Event {
    both: Poller,
    own: OwnedFd,
    hung_up: AtomicBool,
}

impl Event {
    /// An event for `doorbell`.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(doorbell: &Doorbell) -> io::Result<Self> {
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let both = Poller::new()?;
        both.add(&own, 0)?;
        both.add(&doorbell.0, 0)?;
        Ok(Self { both, own, hung_up: AtomicBool::new(false) })
    }

    /// From now on it is readable while `other` is, too.
    ///
    /// # Errors
    /// No memory, or over `max_user_watches`.
    pub fn follow(&self, other: &Self) -> io::Result<()> {
        self.both.add(other, 0)
    }

    /// No longer.
    pub fn unfollow(&self, other: &Self) {
        self.both.remove(other);
    }

    /// Makes it readable.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.own, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable. Look at what is waited for after it. Whether the doorbell was rung, which another event for it
    /// does not see any more.
    pub fn clear(&self, doorbell: &Doorbell) -> bool {
        let _ = rustix::io::read(&self.own, &mut [0; 8]);
        if self.hung_up.load(Ordering::Relaxed) {
            return false;
        }
        let rung = doorbell.drain();
        if rung == Ok(0) {
            self.hung_up.store(true, Ordering::Relaxed);
            self.both.remove(&doorbell.0);
        }
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
pub fn wait_any(events: &[&Event], limit: Option<std::time::Duration>) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds: Vec<PollFd<'_>> = events.iter().map(|event| PollFd::new(*event, PollFlags::IN)).collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn is_readable(event: &Event) -> bool {
        let before = std::time::Instant::now();
        wait_any(&[event], Some(Duration::ZERO)).unwrap();
        let mut found = Vec::with_capacity(4);
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::epoll::wait(&event.both, rustix::buffer::spare_capacity(&mut found), Some(&now)).unwrap();
        assert!(before.elapsed() < Duration::from_secs(60));
        !found.is_empty()
    }

    #[test]
    fn an_event_is_readable_from_a_ring_or_signal_to_the_clear() {
        let (own, theirs) = Doorbell::pair().unwrap();
        let event = Event::new(&own).unwrap();
        assert!(!is_readable(&event));
        let peer = Doorbell::adopt(theirs);
        for act in [&|| peer.ring(), &|| event.signal(), &|| (0..10).for_each(|_| peer.ring())] as [&dyn Fn(); 3] {
            act();
            assert!(is_readable(&event) && is_readable(&event));
            event.clear(&own);
            assert!(!is_readable(&event));
        }
    }

    #[test]
    fn an_event_that_follows_another_is_readable_while_either_is() {
        let ((own, _theirs), (inner_own, _inner_theirs)) = (Doorbell::pair().unwrap(), Doorbell::pair().unwrap());
        let (outer, inner) = (Event::new(&own).unwrap(), Event::new(&inner_own).unwrap());
        outer.follow(&inner).unwrap();
        inner.signal();
        assert!(is_readable(&outer));
        outer.clear(&own);
        assert!(is_readable(&outer), "the other still is");
        inner.clear(&inner_own);
        assert!(!is_readable(&outer));
        inner.signal();
        outer.unfollow(&inner);
        assert!(!is_readable(&outer));
    }

    #[test]
    fn a_peer_that_floods_or_hangs_up_costs_a_look() {
        let (own, theirs) = Doorbell::pair().unwrap();
        let event = Event::new(&own).unwrap();
        let peer = Doorbell::adopt(theirs);
        for _ in 0..100_000 {
            peer.ring();
        }
        drop(peer);
        let mut looks = 0;
        while is_readable(&event) {
            event.clear(&own);
            looks += 1;
        }
        assert!(looks < 200, "{looks}");
        event.signal();
        assert!(is_readable(&event), "its own side still wakes it");
    }
}
