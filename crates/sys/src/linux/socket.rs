//! The control channel: a socket pair, one end inherited by the worker.
//!
//! *Who calls it*: the host's service thread and the worker's watcher thread. *Invariants*: descriptors travel from
//! the host to the worker only. The host reads without room for them, so the kernel discards any that a worker sends;
//! the worker owns at once what it receives and takes exactly the number it was promised. *A hostile peer* can send
//! any bytes, close its end, or never read ([unix(7)]).
//!
//! [unix(7)]: https://man7.org/linux/man-pages/man7/unix.7.html

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::handle::{Handle, Means};

/// Most handles one message carries.
pub const MAX_HANDLES: usize = 128;

/// One end of a control channel.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Two connected ends, both close-on-exec.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// [`pair`](Self::pair), over which handles travel by these means: there is but one.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    pub fn pair_by(_: Means) -> io::Result<(Self, Self)> {
        Self::pair()
    }

    /// By which means handles travel.
    #[must_use]
    pub fn means(&self) -> Means {
        Means
    }

    /// Whether this worker has come to its host: it has, with its end of the channel.
    ///
    /// # Errors
    /// None here.
    pub fn met(&self) -> io::Result<()> {
        Ok(())
    }

    /// Sends all of `bytes`, the handles with the first of them. Blocks no longer than the peer takes to make room, and
    /// not at all for an amount the socket's buffer holds.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read; `BrokenPipe` when it is gone; `InvalidInput` for too many handles.
    pub fn send(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += self.send_some(rest, if sent == 0 { handles } else { &[] })?;
        }
        Ok(())
    }

    /// Sends what there is room for and returns how much that was; the handles go with the first byte.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; `BrokenPipe` when the peer is gone; `InvalidInput` for too many handles.
    pub fn send_some(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if handles.is_empty() {
            return Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.0, bytes, flags))?);
        }
        let handles: Vec<BorrowedFd<'_>> = handles.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if handles.len() > MAX_HANDLES || !control.push(SendAncillaryMessage::ScmRights(&handles)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = [IoSlice::new(bytes)];
        Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &bytes, &mut control, flags))?)
    }

    /// Waits until there is room to send, or the peer is gone, `limit` at most.
    ///
    /// # Errors
    /// No memory.
    pub fn await_room(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there, without room for descriptors. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there and `wait` is false; `ConnectionReset` and the like.
    pub fn recv(&self, bytes: &mut [u8], wait: bool) -> io::Result<usize> {
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        Ok(rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut *bytes, flags))?.1)
    }

    /// After the end: whether no process has the other end any more. That is what the end of a socket means.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        true
    }

    /// Ends reads that wait longer than `limit` with `WouldBlock`; zero: never.
    ///
    /// # Errors
    /// A limit beyond what the system can count.
    pub fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        let limit = (!limit.is_zero()).then_some(limit);
        Ok(rustix::net::sockopt::set_socket_timeout(&self.0, rustix::net::sockopt::Timeout::Recv, limit)?)
    }

    /// Reads what is there, waiting for it, with the descriptors that came along. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `InvalidData` when descriptors were lost on the way, as happens at the limit of open files; those that arrived are
    /// closed.
    pub fn recv_with_handles(&self, bytes: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                handles.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            handles.clear();
            let why = "file descriptors were lost on their way: raise the limit of open files (ulimit -n)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(got.bytes)
    }
}

impl From<OwnedFd> for Control {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.0
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    #[test]
    fn handles_reach_the_worker_and_never_the_host() {
        let (host, worker) = Control::pair().unwrap();
        let (file, _writer) = std::io::pipe().unwrap();
        let file = Handle::from(file);
        // Not all descriptors: other tests of this program open and close some meanwhile.
        let copies = || {
            let target = |fd: PathBuf| std::fs::read_link(fd).ok();
            let own = target(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter(|fd| target(fd.as_ref().unwrap().path()) == own).count()
        };
        let mut bytes = [0; 8];
        host.send(b"hi", &[file.try_clone().unwrap(), file.try_clone().unwrap()]).unwrap();
        let mut handles = Vec::new();
        assert_eq!(worker.recv_with_handles(&mut bytes, &mut handles).unwrap(), 2);
        assert_eq!((handles.len(), copies()), (2, 3 + 1), "with the writer");

        worker.send(b"yo", &[file.try_clone().unwrap()]).unwrap();
        assert_eq!(host.recv(&mut bytes, false).unwrap(), 2);
        assert_eq!(copies(), 3 + 1);
    }

    #[test]
    fn a_peer_that_never_reads_blocks_nobody() {
        let (host, _worker) = Control::pair().unwrap();
        let lots = vec![0; 64 * 1024];
        let end = (0..1000).find_map(|_| host.send(&lots, &[]).err()).unwrap();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn room_is_told_and_awaited() {
        let (host, worker) = Control::pair().unwrap();
        let lots = vec![7; 64 * 1024];
        let mut sent = 0;
        while let Ok(some) = host.send_some(&lots, &[]) {
            sent += some;
        }
        let reader = std::thread::spawn(move || {
            let (mut got, mut bytes) = (0, [0; 4096]);
            while got < sent + 1 {
                got += worker.recv(&mut bytes, true).unwrap();
            }
            worker
        });
        host.await_room(Duration::from_secs(60)).unwrap();
        assert_eq!(host.send_some(b"x", &[]).unwrap(), 1);
        drop(reader.join().unwrap());
        host.await_room(Duration::from_secs(60)).unwrap();
        assert_eq!(host.send_some(b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_closed_peer_is_an_end_and_a_broken_pipe() {
        let (host, worker) = Control::pair().unwrap();
        drop(worker);
        assert_eq!(host.recv(&mut [0; 8], true).unwrap(), 0);
        assert_eq!(host.send(b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
