//! Descriptors on their way from a host to a worker, over a socket that the host alone writes and never reads.
//!
//! *Who calls it*: the control channel of systems whose pipes carry bytes alone; tests on every system. *Invariants*: the host
//! reads nothing, for XNU puts every descriptor sent to a socket into the table of whoever reads it (uipc_usrreq.c,
//! `unp_externalize`), and the worker's end cannot send: it is shut down for that before anybody has it; a message is one
//! handle, a byte that counts its descriptors and these; nothing waits without a limit. *A hostile peer*: a worker can leave everything
//! unread, and then its host finds no room; it trusts its host, but takes no more and no fewer descriptors than were counted.
//!
//! That a write to a worker that is gone raises no SIGPIPE is seen to by whoever makes the pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, retry_on_intr};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};

/// Most descriptors of a handle.
pub const MAX_DESCRIPTORS: usize = 2;
/// Bytes asked for the socket's buffers: the handles of all that the pipe beside it has room for, so that the pipe is full
/// first, whose room can be waited for.
const ROOM: usize = 256 << 10;

/// Whether a handle may have so many descriptors.
fn is_handle(count: usize) -> bool {
    (1..=MAX_DESCRIPTORS).contains(&count)
}

/// The host's end.
#[derive(Debug)]
pub struct Giver(OwnedFd);

/// The worker's end.
#[derive(Debug)]
pub struct Taker(OwnedFd);

/// Both ends, close-on-exec.
///
/// # Errors
/// Too many open files.
pub fn pair() -> io::Result<(Giver, Taker)> {
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    for end in [&ours, &theirs] {
        rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(end, true)?;
    }
    rustix::net::shutdown(&theirs, Shutdown::Write)?;
    // Less will do, only not as well.
    let _ = set_socket_send_buffer_size(&ours, ROOM);
    let _ = set_socket_recv_buffer_size(&theirs, ROOM);
    Ok((Giver(ours), Taker(theirs)))
}

impl Giver {
    /// Gives the descriptors of one handle. They are the worker's as soon as it takes them; this process keeps its own. Waits for
    /// room, `limit` at most.
    ///
    /// # Errors
    /// `TimedOut` when there is none; `BrokenPipe` when the worker is gone; `InvalidInput` for none, or too many.
    pub fn give(&self, descriptors: &[OwnedFd], limit: Duration) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let is_fit = is_handle(descriptors.len()) && control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let count = [u8::try_from(descriptors.len()).ok().filter(|_| is_fit).ok_or(io::ErrorKind::InvalidInput)?];
        // One byte goes whole or not at all.
        let count = [IoSlice::new(&count)];
        let end = Instant::now() + limit;
        loop {
            match rustix::net::sendmsg(&self.0, &count, &mut control, SendFlags::empty()) {
                Err(Errno::AGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
                    // Interrupted or over: the next round tells.
                    let _ = poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&left));
                }
                Err(Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}

impl Taker {
    /// The end a worker has inherited.
    ///
    /// # Errors
    /// It is no socket of that kind.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        match socket_type(&socket)? {
            SocketType::STREAM => Ok(Self(socket)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The descriptors of the next handle, close-on-exec, if one is there.
    ///
    /// # Errors
    /// `InvalidData` when they are not as many as were counted, as happens at the limit of open files; those that came are
    /// closed.
    pub fn take(&self) -> io::Result<Option<Vec<OwnedFd>>> {
        let lost = || {
            let why = "descriptors were lost on their way: raise the limit of open files (ulimit -n)";
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        // One more than may come is seen, not only cut off.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
        let (mut control, mut count) = (RecvAncillaryBuffer::new(&mut space), [0]);
        let came = retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut count)], &mut control, RecvFlags::empty())
        });
        let came = match came {
            Err(Errno::AGAIN) => return Ok(None),
            // No room in the table (uipc_usrreq.c): none of them came.
            Err(Errno::MSGSIZE) => return Err(lost()),
            came => came?,
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        for descriptor in &descriptors {
            rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
        }
        match came.bytes {
            // The host is gone, which the pipe tells.
            0 => Ok(None),
            _ if came.flags.contains(ReturnFlags::CTRUNC) => Err(lost()),
            _ if is_handle(descriptors.len()) && descriptors.len() == usize::from(count[0]) => Ok(Some(descriptors)),
            _ => Err(lost()),
        }
    }
}

impl AsFd for Giver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Taker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Taker> for OwnedFd {
    fn from(taker: Taker) -> Self {
        taker.0
    }
}
