//! The control channel: two pipes for bytes, Mach messages for rights.
//!
//! *Who calls it*: the host's service thread and the worker's watcher thread. *Invariants*: no socket, for whoever reads one
//! gets the descriptors others write to it; rights travel from the host to the worker only, and before the bytes that speak of
//! them. *A hostile peer* can send any bytes, close its end, or never read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, retry_on_intr};

use super::handle::{Handle, Kind};
use super::meet::Meeting;
use super::poll::Watched;
use super::surface::Surface;
use super::task::ThisTask;
use crate::mach::check_in::id;
use crate::mach::handover;
use crate::mach::received::Received;
use crate::mach::surface::{Key, Opened, Registrar};
use crate::mach::worker::WorkerLink;

/// Most handles one message carries.
pub const MAX_HANDLES: usize = 128;
/// How long a message may wait for room in the pipe, which holds less than the largest.
const ROOM: Duration = Duration::from_secs(5);
/// Between looks for what no descriptor tells of.
const STEP: Duration = Duration::from_millis(1);

/// Both ends of a pipe, made ours: read, write.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe()?;
    make_ours(&read)?;
    make_ours(&write)?;
    Ok((read, write))
}

/// Closed at `exec`, never blocking, and no SIGPIPE.
pub(super) fn make_ours(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    // SAFETY: F_SETNOSIGPIPE takes an integer. The kernel honours it for pipes too (sys_generic.c).
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETNOSIGPIPE, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for `flags` of a descriptor, `limit` at most. False when it is over.
fn wait(fd: &OwnedFd, flags: PollFlags, limit: Option<Duration>) -> io::Result<bool> {
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(fd, flags)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who is at this end.
#[derive(Debug)]
enum Side {
    /// The host, which meets its worker at the entrance; and the worker's end until it is given away.
    Host(Arc<Meeting>),
    /// The worker.
    Worker(Box<WorkerLink<ThisTask>>),
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
    side: Side,
    /// Handles that went through so far.
    handed: AtomicU32,
    /// What is ahead of the bytes it belongs to. Held while something is sent.
    ahead: Mutex<Ahead>,
    /// The surfaces the worker was sent, or has opened.
    registrar: Mutex<Registrar<Surface>>,
    opened: Mutex<Opened<Surface>>,
    /// Milliseconds a read may take; zero: any time.
    read_limit: AtomicU64,
}

impl Control {
    fn new(read: OwnedFd, write: OwnedFd, side: Side) -> Self {
        let (handed, read_limit) = (AtomicU32::new(0), AtomicU64::new(0));
        let (ahead, registrar, opened) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { read, write, side, handed, ahead, registrar, opened, read_limit }
    }

    /// Two connected ends, both close-on-exec: the host's, and the worker's to be spawned with.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Self)> {
        let ((up, worker_write), (worker_read, down)) = (pipe()?, pipe()?);
        let meeting = Arc::new(Meeting::new(down.try_clone()?));
        let host = Self::new(up, down, Side::Host(meeting.clone()));
        Ok((host, Self::new(worker_read, worker_write, Side::Host(meeting))))
    }

    /// The worker's end, in the worker.
    pub(super) fn of_worker(read: OwnedFd, write: OwnedFd, link: WorkerLink<ThisTask>) -> Self {
        Self::new(read, write, Side::Worker(Box::new(link)))
    }

    /// The worker's end taken apart, to be given away: read, write, and where its host waits for it.
    pub(super) fn into_parts(self) -> io::Result<(OwnedFd, OwnedFd, Arc<Meeting>)> {
        match self.side {
            Side::Host(meeting) => Ok((self.read, self.write, meeting)),
            Side::Worker(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends all of `bytes`, the handles before the first of them. Blocks no longer than the peer takes to make room, and a
    /// few seconds at most.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read; `BrokenPipe` when it is gone; `InvalidInput` for too many handles, or for any
    /// from a worker.
    pub fn send(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<()> {
        let (mut sent, end) = (0, Instant::now() + ROOM);
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.send_some(rest, if sent == 0 { handles } else { &[] }) {
                Ok(some) => sent += some,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(error);
                    }
                    // For room in the pipe; and for the worker to come, or to take handles, which no descriptor tells of.
                    wait(&self.write, PollFlags::OUT, Some(left))?;
                    if let Side::Host(meeting) = &self.side {
                        meeting.await_change(left.min(STEP));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what there is room for and returns how much that was; the handles go before the first byte. To be called again
    /// with the same handles until some of the bytes were sent: those that went already don't go twice.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, or the worker has not come yet; `BrokenPipe` when it is gone; `InvalidInput` for too
    /// many handles, or for any from a worker.
    pub fn send_some(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<usize> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if !handles.is_empty() {
            let Side::Host(meeting) = &self.side else { return Err(io::ErrorKind::InvalidInput.into()) };
            if handles.len() > MAX_HANDLES {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            for handle in handles.iter().skip(ahead.handles) {
                let number = self.handed.load(Ordering::Relaxed);
                match &handle.0 {
                    Kind::Rights(rights) => {
                        meeting.with_link(|link| handover::give(link.peer(), number, rights, Duration::ZERO))?;
                    }
                    Kind::Surfaces(surfaces) => self.register(meeting, number, surfaces, &mut ahead.surfaces)?,
                }
                self.handed.fetch_add(1, Ordering::Relaxed);
                *ahead = Ahead { handles: ahead.handles + 1, surfaces: 0 };
            }
        }
        let sent = retry_on_intr(|| rustix::io::write(&self.write, bytes))?;
        *ahead = Ahead::default();
        Ok(sent)
    }

    /// Hands over those surfaces of a pool that were not before.
    fn register(&self, meeting: &Meeting, pool: u32, surfaces: &[Arc<Surface>], sent: &mut u32) -> io::Result<()> {
        let mut registrar = self.registrar.lock().unwrap_or_else(PoisonError::into_inner);
        let of = u32::try_from(surfaces.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        for (slot, surface) in (0..).zip(surfaces).skip(*sent as usize) {
            let key = Key { pool, slot, of };
            meeting.with_link(|link| registrar.register(link.peer(), key, surface, Duration::ZERO))?;
            *sent += 1;
        }
        Ok(())
    }

    /// Waits until there is room to send, or the peer is gone, `limit` at most.
    ///
    /// # Errors
    /// No memory.
    pub fn await_room(&self, limit: Duration) -> io::Result<()> {
        wait(&self.write, PollFlags::OUT, Some(limit)).map(drop)
    }

    /// Reads what is there. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there and `wait` is false, or the limit of reads is over.
    pub fn recv(&self, bytes: &mut [u8], wait_for_it: bool) -> io::Result<usize> {
        let limit = Some(self.read_limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0).map(Duration::from_millis);
        loop {
            match retry_on_intr(|| rustix::io::read(&self.read, &mut *bytes)) {
                Err(Errno::AGAIN) if wait_for_it => {
                    if !wait(&self.read, PollFlags::IN, limit)? {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
                answer => return Ok(answer?),
            }
        }
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
    /// `InvalidData` for a message that is not one of the host's.
    pub fn recv_with_handles(&self, bytes: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<usize> {
        let got = self.recv(bytes, true)?;
        let Side::Worker(link) = &self.side else { return Ok(got) };
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        while let Some(message) =
            Received::next(link.port(), Duration::ZERO).map_err(|error| wrong(error.to_string()))?
        {
            let number = self.handed.load(Ordering::Relaxed);
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            let handle = match message.id() {
                id::HAND_OVER if !opened.is_partial() => {
                    let taken = handover::take(message, link.host(), number);
                    Some(Kind::Rights(taken.map_err(|check| wrong(check.to_string()))?))
                }
                id::REGISTER => {
                    let surfaces = opened.open(&ThisTask, message, link.host(), number);
                    surfaces.map_err(|error| wrong(error.to_string()))?.map(Kind::Surfaces)
                }
                other => return Err(wrong(format!("a message {other:#x} came where handles were expected"))),
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
        self.read.as_fd()
    }

    fn to_write(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
