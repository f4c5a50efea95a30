//! The control channel: two pipes for bytes, and Mach messages for rights, or a socket for descriptors.
//!
//! *Who calls it*: the host's service thread and the worker's watcher thread. *Invariants*: no socket but one that the host
//! alone writes, for whoever reads one gets the descriptors others write to it; handles travel from the host to the worker
//! only, and before the bytes that speak of them; the ends of both sides are told by the pipes and by ports, in one queue,
//! whichever is first. *A hostile peer* can send any bytes, close its end, never read, or fill its own queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::kqueue::{EventFilter, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, retry_on_intr};

use super::handle::{Handle, Kind, Means, fileports};
use super::meet::{Meeting, failed};
use super::poll::{Queue, Watched};
use super::surface::Surface;
use super::task::ThisTask;
use crate::mach::check_in::id;
use crate::mach::death::{Fate, Watch};
use crate::mach::host::HostLink;
use crate::mach::received::Received;
use crate::mach::surface::{Key, Opened, register};
use crate::mach::worker::WorkerLink;
use crate::mach::{Check, SetupError, handover};
use crate::passing::{self, Giver, Taker};

/// Most handles one message carries.
pub const MAX_HANDLES: usize = 128;
/// How long a message may wait for its worker to come, and for room in the pipe, which holds less than the largest.
const ROOM: Duration = Duration::from_secs(5);
/// The token of the pipe in a channel's queue.
pub(super) const PIPE: u64 = 0;
/// The token of the ports that tell of the peer.
pub(super) const PORTS: u64 = 1;

/// Both ends of a pipe, made ours: read, write.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe()?;
    make_ours(&read)?;
    make_ours(&write)?;
    Ok((read, write))
}

/// Closed at `exec`, never blocking, and no SIGPIPE.
pub(super) fn make_ours(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    // SAFETY: F_SETNOSIGPIPE takes an integer. The kernel honours it for pipes too (sys_generic.c).
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETNOSIGPIPE, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who is at this end.
#[derive(Debug)]
enum Side {
    /// The host, which meets its worker at the entrance; and the worker's end until it is given away.
    Host(Arc<Meeting>),
    /// The worker.
    Worker(Box<WorkerLink<ThisTask>>),
    /// A worker that has not come to its host, and why.
    Apart(SetupError),
    /// The host of a worker without a port.
    Giver(Giver),
    /// Such a worker; and its end until it is given away.
    Taker(Taker),
}

/// By what a worker will get handles.
#[derive(Debug)]
pub(super) enum Way {
    /// It is met.
    Meeting(Arc<Meeting>),
    /// It inherits this end of a socket.
    Socket(OwnedFd),
}

/// Where handles go.
enum To<'a> {
    Port(Arc<HostLink<ThisTask>>),
    Socket(&'a Giver),
}

/// Messages with handles that were sent, and whose bytes were not.
#[derive(Debug, Default)]
struct Ahead {
    handles: usize,
    /// Of the handle after those, where it is a pool's.
    surfaces: u32,
}

/// One end of a control channel.
#[derive(Debug)]
pub struct Control {
    read: OwnedFd,
    write: OwnedFd,
    /// Watches what there is to read, and the ports that tell of the peer from the meeting on.
    queue: Arc<Queue>,
    side: Side,
    /// What they have told.
    watch: Mutex<Watch>,
    /// Handles that went through so far.
    handed: AtomicU32,
    /// What is ahead of the bytes it belongs to. Held while something is sent.
    ahead: Mutex<Ahead>,
    /// The surfaces the worker was sent, or has opened.
    opened: Mutex<Opened<Surface>>,
    /// Milliseconds a read may take; zero: any time.
    read_limit: AtomicU64,
}

impl Control {
    fn new(read: OwnedFd, write: OwnedFd, queue: Arc<Queue>, side: Side) -> io::Result<Self> {
        queue.change(EventFilter::Read(read.as_raw_fd()), EventFlags::ADD, PIPE)?;
        let (handed, read_limit) = (AtomicU32::new(0), AtomicU64::new(0));
        let (ahead, opened) = (Mutex::default(), Mutex::default());
        let watch = Mutex::default();
        Ok(Self { read, write, queue, side, watch, handed, ahead, opened, read_limit })
    }

    /// Two connected ends, both close-on-exec: the host's, and the worker's to be spawned with.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Self)> {
        Self::pair_by(Means::USUAL)
    }

    /// [`pair`](Self::pair), over which handles travel by these means.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    pub fn pair_by(means: Means) -> io::Result<(Self, Self)> {
        let ((up, worker_write), (worker_read, down)) = (pipe()?, pipe()?);
        let (queue, worker_queue) = (Arc::new(Queue::new()?), Arc::new(Queue::new()?));
        let (side, worker_side) = match means {
            Means::Messages => {
                let meeting = Arc::new(Meeting::new(down.try_clone()?, queue.clone()));
                (Side::Host(meeting.clone()), Side::Host(meeting))
            }
            Means::Descriptors => {
                let (giver, taker) = passing::pair()?;
                make_ours(&giver)?;
                (Side::Giver(giver), Side::Taker(taker))
            }
        };
        let host = Self::new(up, down, queue, side)?;
        Ok((host, Self::new(worker_read, worker_write, worker_queue, worker_side)?))
    }

    /// The worker's end, in the worker.
    pub(super) fn of_worker(
        read: OwnedFd,
        write: OwnedFd,
        link: Result<WorkerLink<ThisTask>, SetupError>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new()?);
        if let Ok(link) = &link {
            for port in link.watched().map_err(io::Error::other)? {
                queue.watch_port(port, PORTS)?;
            }
        }
        Self::new(read, write, queue, link.map_or_else(Side::Apart, |link| Side::Worker(Box::new(link))))
    }

    /// The worker's end, in a worker without a port.
    pub(super) fn of_taker(read: OwnedFd, write: OwnedFd, taker: Taker) -> io::Result<Self> {
        Self::new(read, write, Arc::new(Queue::new()?), Side::Taker(taker))
    }

    /// By which means handles travel.
    #[must_use]
    pub fn means(&self) -> Means {
        match self.side {
            Side::Host(_) | Side::Worker(_) | Side::Apart(_) => Means::Messages,
            Side::Giver(_) | Side::Taker(_) => Means::Descriptors,
        }
    }

    /// Whether this worker has come to its host; bytes go through in any case.
    ///
    /// # Errors
    /// A [`SetupError`]: what keeps them apart.
    pub fn met(&self) -> io::Result<()> {
        match &self.side {
            Side::Apart(why) => Err(io::Error::other(why.clone())),
            _ => Ok(()),
        }
    }

    /// The worker's end taken apart, to be given away: read, write, and by what it will get handles.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, OwnedFd, Way)> {
        match self.side {
            Side::Host(meeting) => Ok((self.read, self.write, Way::Meeting(meeting))),
            Side::Taker(taker) => Ok((self.read, self.write, Way::Socket(taker.into()))),
            Side::Worker(_) | Side::Apart(_) | Side::Giver(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends all of `bytes`, the handles before the first of them. Blocks no longer than the peer takes to come and to make
    /// room, and a few seconds at most.
    ///
    /// # Errors
    /// `WouldBlock` when the peer has not come or does not read; `TimedOut` when it takes no handles; `BrokenPipe` when it is
    /// gone; `InvalidInput` for too many handles, or for any from a worker.
    pub fn send(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<()> {
        let (mut sent, end) = (0, Instant::now() + ROOM);
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            match self.send_within(rest, if sent == 0 { handles } else { &[] }, left) {
                Ok(some) => sent += some,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !left.is_zero() => self.await_room(left)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what there is room for and returns how much that was; the handles go before the first byte. To be called again
    /// with the same handles until some of the bytes were sent: those that went already don't go twice.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, or the worker has not come yet; `TimedOut` when there is none for handles, and
    /// none to be waited for: its queue has room for all that goes to a worker before it must have read
    /// ([`crate::mach::worker`], [`passing`]), and is filled by itself; `BrokenPipe` when it is gone; `InvalidInput` for too
    /// many handles, for any from a worker, and for one that travels by other means.
    pub fn send_some(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<usize> {
        self.send_within(bytes, handles, Duration::ZERO)
    }

    /// Waits for the worker and for room in its queue, `limit` at most, and not for room in the pipe.
    fn send_within(&self, bytes: &[u8], handles: &[Handle], limit: Duration) -> io::Result<usize> {
        let end = Instant::now() + limit;
        // Before the lock: what needs no worker does not wait for one.
        let to = match &self.side {
            _ if handles.is_empty() => None,
            Side::Host(meeting) if handles.len() <= MAX_HANDLES => Some(To::Port(meeting.link(limit)?)),
            Side::Giver(giver) if handles.len() <= MAX_HANDLES => Some(To::Socket(giver)),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = to {
            self.hand_over(&to, handles, &mut ahead, end)?;
        }
        let sent = retry_on_intr(|| rustix::io::write(&self.write, bytes))?;
        *ahead = Ahead::default();
        Ok(sent)
    }

    /// Sends those handles that have not gone ahead.
    fn hand_over(&self, to: &To<'_>, handles: &[Handle], ahead: &mut Ahead, end: Instant) -> io::Result<()> {
        let left = || end.saturating_duration_since(Instant::now());
        for handle in handles.iter().skip(ahead.handles) {
            let number = self.handed.load(Ordering::Relaxed);
            let give = |link: &HostLink<_>, rights: &_| handover::give(link.peer(), number, rights, left());
            match (to, &handle.0) {
                (To::Socket(giver), Kind::Descriptors(descriptors)) => giver.give(descriptors, left())?,
                (To::Socket(_), _) => return Err(io::ErrorKind::InvalidInput.into()),
                (To::Port(link), Kind::Rights(rights)) => give(link, rights).map_err(failed)?,
                (To::Port(link), Kind::Descriptors(descriptors)) => {
                    give(link, &fileports(descriptors)?).map_err(failed)?;
                }
                (To::Port(link), Kind::Surfaces(surfaces)) => {
                    let of = u32::try_from(surfaces.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
                    for (slot, surface) in (0..).zip(surfaces).skip(ahead.surfaces as usize) {
                        register(link.peer(), Key { pool: number, slot, of }, surface, left()).map_err(failed)?;
                        ahead.surfaces += 1;
                    }
                }
            }
            self.handed.fetch_add(1, Ordering::Relaxed);
            *ahead = Ahead { handles: ahead.handles + 1, surfaces: 0 };
        }
        Ok(())
    }

    /// Waits until there is room to send, or the peer is gone, `limit` at most.
    ///
    /// # Errors
    /// No memory.
    pub fn await_room(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.write, PollFlags::OUT)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there. `Ok(0)` is the end: nobody has the other end, or whom it was for is gone, and all it wrote was read.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there and `wait_for_it` is false, or the limit of reads is over; `InvalidData` when the
    /// worker has sent to a port that is for nobody.
    pub fn recv(&self, bytes: &mut [u8], wait_for_it: bool) -> io::Result<usize> {
        let limit = Some(self.read_limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0).map(Duration::from_millis);
        let limit = if wait_for_it { limit } else { Some(Duration::ZERO) };
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let tells = self.queue.ready(left)?.contains(&PORTS);
            let ask = || if tells { self.fate() } else { Ok(None) };
            let read = || Ok(retry_on_intr(|| rustix::io::read(&self.read, &mut *bytes))?);
            match self.watch.lock().unwrap_or_else(PoisonError::into_inner).read(ask, read) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && left != Some(Duration::ZERO) => {}
                answer => return answer,
            }
        }
    }

    /// What the ports tell of the peer.
    fn fate(&self) -> Result<Option<Fate>, SetupError> {
        match &self.side {
            Side::Host(meeting) => meeting.link(Duration::ZERO).map_or(Ok(None), |link| link.fate()),
            Side::Worker(link) => link.fate(),
            Side::Apart(_) | Side::Giver(_) | Side::Taker(_) => Ok(None),
        }
    }

    /// After the end: whether no process has the other end any more, not even one that the peer has left behind. What there
    /// is to read is lost.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(rustix::io::read(&self.read, &mut [0]), Ok(0))
    }

    /// Ends reads that wait longer than `limit` with `WouldBlock`; zero: never.
    ///
    /// # Errors
    /// None here.
    pub fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        let milliseconds = u64::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.read_limit.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Reads what is there, waiting for it, with the handles that belong to it or to what was read before. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `InvalidData` for a message that is not one of the host's, or whose surface cannot be opened (a [`SetupError`]); what
    /// [`met`](Self::met) says.
    pub fn recv_with_handles(&self, bytes: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<usize> {
        self.met()?;
        let got = self.recv(bytes, true)?;
        if let Side::Taker(taker) = &self.side {
            while let Some(descriptors) = taker.take()? {
                handles.push(Handle(Kind::Descriptors(descriptors)));
            }
        }
        let Side::Worker(link) = &self.side else { return Ok(got) };
        let wrong = |why: SetupError| io::Error::new(io::ErrorKind::InvalidData, why);
        while let Some(message) = Received::next(link.port(), Duration::ZERO).map_err(|error| wrong(error.into()))? {
            let number = self.handed.load(Ordering::Relaxed);
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            let handle = match message.id() {
                id::HAND_OVER if !opened.is_partial() => {
                    let taken = handover::take(message, link.host(), number);
                    Some(Kind::Rights(taken.map_err(|check| wrong(check.into()))?))
                }
                id::REGISTER => {
                    let surfaces = opened.open(&ThisTask, message, link.host(), number);
                    surfaces.map_err(wrong)?.map(Kind::Surfaces)
                }
                found => return Err(wrong(Check::Id { found }.into())),
            };
            if let Some(handle) = handle {
                self.handed.fetch_add(1, Ordering::Relaxed);
                handles.push(Handle(handle));
            }
        }
        Ok(got)
    }
}

impl Watched for Control {
    fn to_read(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn to_write(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
