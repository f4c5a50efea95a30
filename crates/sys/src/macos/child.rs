//! A worker that was started: whether it lives, how it ended, and the end of it.
//!
//! *Who calls it*: the host's service code, by way of [`process`](super::process). *Invariants*: the kqueue was asked about the
//! process before anybody could have reaped it; its pid is used only while this process has not; whoever was told of its death
//! can collect it. *A hostile worker* can do nothing here but live on after SIGTERM.
//!
//! A process is not to be found any more, and then NOTE_EXIT is posted, before it becomes a zombie (bsd/kern/kern_exit.c,
//! proc_exit, which sets SZOMB last): for that moment waitid says that it lives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::kqueue::{EventFilter, EventFlags, ProcessEvents};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, test_kill_process_group, waitid,
};

use super::poll::{Queue, Watched};
use super::socket;
use crate::exit::Exit;

/// How long a process may take from the news of its death until it can be collected: some microseconds, more where the machine
/// has no time for it, and any time where a debugger has it, which is not waited for.
const COLLECTABLE: Duration = Duration::from_secs(1);

/// A started worker process and the group it leads. Dropping it before it was reaped kills the group. Readable for a poller
/// as soon as the worker is dead.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Watches the process and nothing else.
    death: Queue,
    /// What is readable where the process was gone before it could be watched.
    gone: Option<OwnedFd>,
    /// The process that started it; a fork of that process has a copy of this value, but no child.
    host: Pid,
    stderr: Option<StderrPipe>,
    reaped: Option<Exit>,
}

impl Child {
    /// Takes charge of a child that has just been started.
    pub(super) fn adopt(pid: Pid, stderr: Option<StderrPipe>) -> io::Result<Self> {
        let watched = Queue::new().and_then(|death| {
            let exit = EventFilter::Proc { pid, flags: ProcessEvents::EXIT };
            match death.change(exit, EventFlags::ADD, 0) {
                Ok(()) => Ok((death, None)),
                // Dead already: the other end of this pipe is closed, so that it is readable.
                Err(Errno::SRCH) => {
                    let (read, write) = socket::pipe()?;
                    drop(write);
                    Ok((death, Some(read)))
                }
                Err(error) => Err(error.into()),
            }
        });
        match watched {
            Ok((death, gone)) => Ok(Self { pid, death, gone, host: getpid(), stderr, reaped: None }),
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
                Err(error)
            }
        }
    }

    /// The worker's process id, which is also its group's. For display: it says nothing about who is alive.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The read end of the worker's stderr and stdout, once, if they are piped. End-of-file comes when the last process that
    /// inherited them is gone, which may be later than the worker's death.
    pub fn take_stderr(&mut self) -> Option<StderrPipe> {
        self.stderr.take()
    }

    /// How the worker ended, or `None` while it lives. Until it is reaped, its pid cannot pass to another process.
    ///
    /// # Errors
    /// In a fork of the host: the worker is not this process's child.
    pub fn exit_without_reaping(&self) -> io::Result<Option<Exit>> {
        match self.reaped {
            Some(exit) => Ok(Some(exit)),
            None => self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG),
        }
    }

    /// Signals every process of the worker's group.
    ///
    /// # Errors
    /// After [`Child::reap`], or if no process is left in the group (`NotFound`); in a fork of the host; or what the system
    /// says.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("worker process {} has been reaped", self.pid()));
        // By number: safe only while the leader, dead or alive, still has it.
        if self.reaped.is_some() || self.exit_without_reaping()? == Some(Exit::Unknown) {
            return Err(gone());
        }
        match kill_process_group(self.pid, signal) {
            // A group of zombies may not be signalled.
            Err(Errno::SRCH | Errno::PERM) => Err(gone()),
            answer => Ok(answer?),
        }
    }

    /// Collects the dead worker, and waits for its death first if it lives. Again: the same answer.
    ///
    /// # Errors
    /// In a fork of the host: the worker is not this process's child.
    pub fn reap(&mut self) -> io::Result<Exit> {
        let exit = match self.reaped {
            Some(exit) => exit,
            None => self.wait(WaitIdOptions::EXITED)?.unwrap_or(Exit::Unknown),
        };
        self.reaped = Some(exit);
        Ok(exit)
    }

    /// Collects the dead worker; None while it lives, at once, or while a debugger keeps it from being collected, after a second.
    ///
    /// # Errors
    /// As [`Child::reap`].
    pub fn try_reap(&mut self) -> io::Result<Option<Exit>> {
        let start = Instant::now();
        while self.reaped.is_none() {
            self.reaped = self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
            let is_about_to_be = || start.elapsed() < COLLECTABLE && self.is_dead_within(Duration::ZERO);
            if self.reaped.is_some() || !is_about_to_be() {
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(self.reaped)
    }

    /// Whether its death was told, for which it waits `limit` at most. Not to be asked in a fork of the host.
    fn is_dead_within(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        poll(&mut [PollFd::from_borrowed_fd(self.to_read(), PollFlags::IN)], Some(&limit)).is_ok_and(|told| told > 0)
    }

    /// Whether no process of the worker's group is alive any more; meaningful after [`Child::reap`].
    #[must_use]
    pub fn group_is_empty(&self) -> bool {
        matches!(test_kill_process_group(self.pid), Err(Errno::SRCH | Errno::PERM))
    }

    fn wait(&self, options: WaitIdOptions) -> io::Result<Option<Exit>> {
        if getpid() != self.host {
            return Err(io::Error::other("the worker is the child of the process this one was forked from"));
        }
        match retry_on_intr(|| waitid(WaitId::Pid(self.pid), options)) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(Exit::Signal);
                Ok(Some(status.exit_status().map(Exit::Code).or(signal).unwrap_or(Exit::Unknown)))
            }
            // Somebody else has collected it.
            Err(Errno::CHILD) => Ok(Some(Exit::Unknown)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Watched for Child {
    fn to_read(&self) -> BorrowedFd<'_> {
        self.gone.as_ref().map_or_else(|| self.death.as_fd(), AsFd::as_fd)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.is_some() || getpid() != self.host {
            return;
        }
        // Refused where it is dead already, and still to be collected.
        let _ = self.signal_group(Signal::KILL);
        // Death by SIGKILL takes a moment, unless the worker hangs in a driver: then its zombie is left to be.
        self.is_dead_within(Duration::from_secs(1));
        let _ = self.try_reap();
    }
}

/// The read end of what a worker writes to stderr and stdout.
#[derive(Debug)]
pub struct StderrPipe(OwnedFd);

impl StderrPipe {
    pub(super) fn new(read: OwnedFd) -> Self {
        Self(read)
    }

    /// Reads what is there, at most `bytes.len()`. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::read(&self.0, &mut *bytes))?)
    }
}

impl Watched for StderrPipe {
    fn to_read(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<StderrPipe> for OwnedFd {
    fn from(pipe: StderrPipe) -> Self {
        pipe.0
    }
}
