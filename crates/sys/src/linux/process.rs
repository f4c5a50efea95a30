//! Starting a worker process, signalling it and collecting it.
//!
//! Called by the host's worker and service code. Invariants:
//! - Every worker is forked by one thread that lives as long as the process, because the kernel ties "die with your parent"
//!   to the thread that forked, not to its process.
//! - A worker has its own process group and sees exactly four descriptors: null, host's stderr twice (or one pipe), its link.
//! - The pidfd decides about life and death. A bare pid is used only while this process has not yet reaped it.
//!
//! A hostile worker may stop, fork, leave its process group or close what it inherited: none of that makes a call here wait,
//! except [`Child::reap`] before death. The group is a means to clean up, not a fence.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

pub use crate::exit::{Exit, signal_name};
pub use rustix::process::Signal;
pub use std::process::id;

use super::inherit;
use super::isolation::Scope;
use super::socket::Control;

/// Signals only this system has.
pub(crate) const OWN_SIGNALS: &[(i32, &str)] = &[(libc::SIGSTKFLT, "SIGSTKFLT"), (libc::SIGPWR, "SIGPWR")];

/// A worker to start.
#[derive(Debug)]
pub struct Spawn {
    /// Program, arguments, environment and working directory. Its standard streams, process group and `FRAMEPORT_LINK` are
    /// set by [`spawn`].
    pub command: Command,
    /// The worker's end of the control channel, close-on-exec here; the worker inherits it under the same number.
    pub link: Control,
    /// The domain to start the worker in; it also gives up gaining privileges by `exec`. None: no isolation.
    pub scope: Option<Scope>,
    /// Where the worker's stderr and stdout go.
    pub stderr: Stderr,
}

/// Where a worker's stderr goes, and its stdout with it: what a worker prints never reaches the host's stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// Into one pipe, in the order written; the host reads it with [`Child::take_stderr`].
    Piped,
    /// To the host's own stderr.
    Inherit,
}

/// Starts a worker. Returns when the program runs.
///
/// # Errors
/// What the system says about the fork, about isolation or about the program (`NotFound`, `PermissionDenied`, …); then
/// nothing is left running.
pub fn spawn(s: Spawn) -> io::Result<Child> {
    let (reply, answer) = sync_channel(1);
    spawner()?.send((s, reply)).map_err(|_| spawner_is_gone())?;
    answer.recv().map_err(|_| spawner_is_gone())?
}

type Request = (Spawn, SyncSender<io::Result<Child>>);

/// The requests of the one thread that forks, which is started by the first.
fn spawner() -> io::Result<Sender<Request>> {
    /// The process the thread runs in, and its requests.
    static SPAWNER: Mutex<Option<(u32, Sender<Request>)>> = Mutex::new(None);

    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let this_process = std::process::id();
    if let Some((process, requests)) = &*spawner
        && *process == this_process
    {
        return Ok(requests.clone());
    }
    let (requests, queue) = channel::<Request>();
    std::thread::Builder::new().name("frameport-spawn".to_owned()).spawn(move || {
        for (request, reply) in queue {
            // A caller that is gone drops the child, which ends it.
            let _ =
                reply.send(catch_unwind(AssertUnwindSafe(|| start(request))).unwrap_or_else(|_| Err(reason_is_lost())));
        }
    })?;
    // A thread does not survive a fork of the host; what it left in the copy may be locked for ever, so it is not dropped.
    std::mem::forget(spawner.replace((this_process, requests.clone())));
    Ok(requests)
}

fn spawner_is_gone() -> io::Error {
    io::Error::other("the thread that starts workers is gone")
}

/// The standard library panics where a program cannot be started and the failed child's status is taken by somebody else.
fn reason_is_lost() -> io::Error {
    io::Error::other(
        "the program could not be started, and why is lost because this process ignores SIGCHLD or waits for any child",
    )
}

/// Forks and executes; runs on the spawner thread only.
fn start(s: Spawn) -> io::Result<Child> {
    let Spawn { mut command, link, scope, stderr } = s;
    let link = OwnedFd::from(link);
    // Below 3 the standard streams would overwrite it in the child.
    let link = if link.as_raw_fd() < 3 { fcntl_dupfd_cloexec(&link, 3)? } else { link };
    let (output, pipe) = match stderr {
        Stderr::Piped => {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            (Some(theirs), Some(StderrPipe(ours)))
        }
        // A host without a stderr gets workers without one.
        Stderr::Inherit => (fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).ok(), None),
    };
    let streams = match output {
        Some(output) => (Stdio::from(output.try_clone()?), Stdio::from(output)),
        None => (Stdio::null(), Stdio::null()),
    };
    command.stdin(Stdio::null()).stdout(streams.0).stderr(streams.1);
    command.env(inherit::VARIABLE, format!("fd:{}", link.as_raw_fd())).process_group(0);
    let host = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe code may run, because another thread may have held any lock at
    // the fork: `prepare` and what it calls are bare system calls that neither allocate nor lock. It owns the descriptors it
    // uses, so they are open.
    unsafe { command.pre_exec(move || prepare(host, &link, scope.as_ref())) };
    let child = command.spawn()?;
    // Closes our copies of the worker's link and stderr: from here on, end-of-file means that no process has them.
    drop(command);
    adopt(&child, host, pipe)
}

/// Takes charge of a child that has just been started.
fn adopt(child: &std::process::Child, host: Pid, stderr: Option<StderrPipe>) -> io::Result<Child> {
    let pid = Pid::from_child(child);
    let mut adopted = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Child { pid, pidfd, host, stderr, reaped: None },
        // Dead, and collected by somebody else already: an eventfd that is always readable stands in for the pidfd.
        Err(Errno::SRCH) => {
            let pidfd = eventfd(1, EventfdFlags::CLOEXEC)?;
            return Ok(Child { pid, pidfd, host, stderr, reaped: Some(Exit::Unknown) });
        }
        Err(error) => {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            return Err(error.into());
        }
    };
    // The number may have passed to a stranger by now: only a child of ours can be waited for.
    if adopted.exit_without_reaping()? == Some(Exit::Unknown) {
        adopted.reaped = Some(Exit::Unknown);
    }
    Ok(adopted)
}

/// Makes the forked child what [`Spawn`] promises. Async-signal-safe.
fn prepare(host: Pid, link: &OwnedFd, scope: Option<&Scope>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A host that died before the line above sends no signal.
    if rustix::process::getppid() != Some(host) {
        return Err(Errno::SRCH.into());
    }
    reset_signals()?;
    close_on_exec_from_3()?;
    fcntl_setfd(link, FdFlags::empty())?;
    scope.map_or(Ok(()), Scope::enter)
}

/// Undoes what would outlive `exec`: ignored signals and the signal mask. Async-signal-safe.
fn reset_signals() -> io::Result<()> {
    // SIGCHLD too: a worker whose own children vanish unseen cannot use them.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGCHLD] {
        // SAFETY: SIG_DFL is a valid disposition for each of these signals, and installs no code.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a whole set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was written above, and a null pointer asks for no old mask.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Makes every descriptor but the standard streams close at `exec`. None is closed now: the standard library still needs its
/// own to report a failing `exec`. Async-signal-safe.
fn close_on_exec_from_3() -> io::Result<()> {
    // SAFETY: with this flag close_range touches only descriptor flags, of this process alone. By number, because the C
    // libraries' wrappers are younger than the call.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // Before Linux 5.11, or under an old system call filter.
    if result == 0 { Ok(()) } else { close_on_exec_one_by_one() }
}

/// [`close_on_exec_from_3`] without `close_range`, up to the limit of open files or a million. Async-signal-safe.
fn close_on_exec_one_by_one() -> io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    for fd in 3..limit.unwrap_or(u64::MAX).min(1 << 20) as i32 {
        // SAFETY: F_SETFD takes an integer; on a number that is not open it fails with EBADF, which is as good.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// A started worker process and the group it leads. Dropping it before it was reaped kills the group. Its descriptor polls
/// readable as soon as the worker is dead.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// The process that started it; a fork of that process has a copy of this value, but no child.
    host: Pid,
    stderr: Option<StderrPipe>,
    reaped: Option<Exit>,
}

impl Child {
    /// The worker's process id, which is also its group's. For display: it says nothing about who is alive.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The read end of the worker's stderr and stdout, once, if they are [`Stderr::Piped`]. End-of-file comes
    /// when the last process that inherited them is gone, which may be later than the worker's death.
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
        self.check_host()?;
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("worker process {} has been reaped", self.pid()));
        if self.reaped.is_some() {
            return Err(gone());
        }
        match signal_group(self.pidfd(), signal.as_raw()) {
            Err(Errno::SRCH) => Err(gone()),
            // A kernel that needs the number: safe only while the leader, dead or alive, still has it.
            Err(Errno::INVAL) if self.exit_without_reaping()? == Some(Exit::Unknown) => Err(gone()),
            Err(Errno::INVAL) => Ok(kill_process_group(self.pid, signal)?),
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

    /// Collects the dead worker without waiting; None while it lives, or while a debugger keeps it from being collected:
    /// its pidfd says dead by then, and so does [`Child::exit_without_reaping`] later.
    ///
    /// # Errors
    /// As [`Child::reap`].
    pub fn try_reap(&mut self) -> io::Result<Option<Exit>> {
        if self.reaped.is_none() {
            self.reaped = self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        }
        Ok(self.reaped)
    }

    /// Whether no process of the worker's group is alive any more; meaningful after [`Child::reap`]. Dead processes that
    /// nobody collects don't count: in a container without an init they stay for ever.
    pub fn group_is_empty(&self) -> bool {
        let answer = match signal_group(self.pidfd(), 0) {
            Err(Errno::INVAL | Errno::BADF) => rustix::process::test_kill_process_group(self.pid),
            answer => answer,
        };
        answer == Err(Errno::SRCH) || only_zombies(self.pid)
    }

    fn wait(&self, how: WaitIdOptions) -> io::Result<Option<Exit>> {
        self.check_host()?;
        match retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd()), how)) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            })),
            Err(Errno::CHILD) => Ok(Some(Exit::Unknown)),
            Err(error) => Err(error.into()),
        }
    }

    fn check_host(&self) -> io::Result<()> {
        if rustix::process::getpid() == self.host {
            return Ok(());
        }
        let host = self.host.as_raw_nonzero();
        Err(io::Error::other(format!(
            "worker process {} belongs to process {host}, of which this is a fork",
            self.pid()
        )))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.is_some() || self.signal_group(Signal::KILL).is_err() {
            return;
        }
        // Death by SIGKILL takes a moment, unless the worker hangs in a driver: then its zombie is left to be.
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&second));
        let _ = self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// The read end of what a worker writes to stderr and stdout.
#[derive(Debug)]
pub struct StderrPipe(OwnedFd);

impl StderrPipe {
    /// Reads what is there, at most `bytes.len()`. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::read(&self.0, &mut *bytes))?)
    }
}

impl AsFd for StderrPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<StderrPipe> for OwnedFd {
    fn from(pipe: StderrPipe) -> Self {
        pipe.0
    }
}

/// Signals the group whose leader the pidfd stands for, dead or alive; `EINVAL` before Linux 6.9.
fn signal_group(pidfd: BorrowedFd<'_>, signal: i32) -> rustix::io::Result<()> {
    const PROCESS_GROUP: libc::c_uint = 1 << 2;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let call = libc::SYS_pidfd_send_signal;
    // SAFETY: a null siginfo asks the kernel to make its own, so no memory of this process is touched.
    let result = unsafe { libc::syscall(call, pidfd.as_raw_fd(), signal, no_info, PROCESS_GROUP) };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}

/// Whether the group has members, all of them dead and not collected.
fn only_zombies(group: Pid) -> bool {
    let group = group.as_raw_nonzero().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    // "pid (name) state parent group …"; a name may hold anything, parentheses too.
    let mut states = stats.filter_map(|stat| {
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.to_owned();
        (fields.nth(1)? == group).then_some(state)
    });
    let dead = |state: &str| matches!(state, "Z" | "X");
    states.next().is_some_and(|first| dead(&first)) && states.all(|state| dead(&state))
}

/// Ends this process, and all of its group if the group is the one its host made for it. For a worker whose host is dead.
pub fn end_own_group(group: u32) {
    let own = rustix::process::getpgrp();
    if i32::try_from(group) == Ok(own.as_raw_nonzero().get()) {
        let _ = kill_process_group(own, Signal::KILL);
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallback_of_close_range_marks_an_inheritable_descriptor() {
        let file = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
        close_on_exec_one_by_one().unwrap();
        assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    }
}
