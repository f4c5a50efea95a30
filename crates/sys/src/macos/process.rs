//! Starting a worker process, signalling it and collecting it.
//!
//! Called by the host's worker and service code. Invariants:
//! - Workers are spawned, never forked: libSystem's fork is reported to wipe the registered ports, and nothing of this library
//!   survives one.
//! - A worker has its own process group and sees exactly five descriptors, or six: null, host's stderr twice (or one pipe), its
//!   link's two or three (`POSIX_SPAWN_CLOEXEC_DEFAULT`).
//! - kqueue decides about life and death. A bare pid is used only while this process has not yet reaped it.
//!
//! A hostile worker may stop, fork, leave its process group or close what it inherited: none of that makes a call here wait,
//! except [`Child::reap`] before death. The group is a means to clean up, not a fence. There is no "die with your parent": a
//! worker's watcher thread ends it when its pipe does.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use rustix::io::{fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, kill_process_group};

pub use super::child::{Child, StderrPipe};
pub use crate::exit::{Exit, signal_name};
pub use rustix::process::Signal;
pub use std::process::id;

use super::isolation::Scope;
use super::socket::{Control, Way};
use super::{inherit, meet, socket};

/// Signals only this system has.
pub(crate) const OWN_SIGNALS: &[(i32, &str)] = &[(libc::SIGEMT, "SIGEMT"), (libc::SIGINFO, "SIGINFO")];

/// The numbers of the link's descriptors in the worker, the last where it gets handles by a socket.
const LINK: [i32; 3] = [3, 4, 5];

/// A worker to start.
#[derive(Debug)]
pub struct Spawn {
    /// Program, arguments, environment beside this process's, and working directory. Its standard streams, process group and
    /// `FRAMEPORT_LINK` are set by [`spawn`].
    pub command: Command,
    /// The worker's end of the control channel.
    pub link: Control,
    /// There are none here.
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

/// Starts a worker. Returns when the program runs; it finds its host by what is in its pipe by then.
///
/// # Errors
/// What the system says about the spawn or about the program (`NotFound`, `PermissionDenied`, …); then nothing is left
/// running.
pub fn spawn(s: Spawn) -> io::Result<Child> {
    let Spawn { command, link, scope: _, stderr } = s;
    let (read, write, way) = link.into_parts()?;
    let (output, pipe) = match stderr {
        Stderr::Piped => {
            let (ours, theirs) = rustix::pipe::pipe()?;
            socket::make_ours(&ours)?;
            fcntl_setfd(&theirs, rustix::io::FdFlags::CLOEXEC)?;
            (Some(theirs), Some(StderrPipe::new(ours)))
        }
        // A host without a stderr gets workers without one.
        Stderr::Inherit => (fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0).ok(), None),
    };
    // Out of the way of the numbers they get, so that none overwrites another.
    let beyond = LINK[2] + 1;
    let mut ends = vec![fcntl_dupfd_cloexec(&read, beyond)?, fcntl_dupfd_cloexec(&write, beyond)?];
    if let Way::Socket(socket) = &way {
        ends.push(fcntl_dupfd_cloexec(socket, beyond)?);
    }
    let output = output.map(|output| fcntl_dupfd_cloexec(&output, beyond)).transpose()?;
    let program = Program::new(&command, ends.len())?;
    let spawn = || program.spawn(&ends, output.as_ref());
    let (pid, greeting) = match way {
        Way::Meeting(meeting) => {
            let (pid, hello) = meet::introduce(&meeting, spawn)?;
            (pid, Some((meeting, hello)))
        }
        Way::Socket(_) => (spawn()?, None),
    };
    // Closes our copies of the worker's ends: from here on, end-of-file means that no process has them.
    drop((read, write, ends, output));
    let child = Child::adopt(pid, pipe)?;
    // The pipe is new and has room for it. Refused only if the worker is dead already, which its kqueue tells.
    let _ = greeting.map(|(meeting, hello)| meeting.greet(&hello));
    Ok(child)
}

/// A program with its arguments and its whole environment, as C wants them.
struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    folder: Option<CString>,
}

impl Program {
    /// `ends`: descriptors of the link.
    fn new(command: &Command, ends: usize) -> io::Result<Self> {
        let text =
            |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let path = text(command.get_program())?;
        let arguments = std::iter::once(command.get_program()).chain(command.get_args()).map(text);
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => environment.insert(name.to_owned(), value.to_owned()),
                None => environment.remove(name),
            };
        }
        let numbers: Vec<String> = LINK.iter().take(ends).map(i32::to_string).collect();
        environment.insert(inherit::VARIABLE.into(), format!("fd:{}", numbers.join(",")).into());
        let environment = environment.into_iter().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(&name)
        });
        Ok(Self {
            arguments: arguments.collect::<io::Result<_>>()?,
            environment: environment.collect::<io::Result<_>>()?,
            folder: command.get_current_dir().map(|folder| text(folder.as_os_str())).transpose()?,
            path,
        })
    }

    /// `posix_spawnp`: the program is looked for in this process's PATH.
    fn spawn(&self, link: &[OwnedFd], output: Option<&OwnedFd>) -> io::Result<Pid> {
        let mut actions = Actions::new()?;
        actions.open_null(0, libc::O_RDONLY)?;
        for stream in [1, 2] {
            match output {
                Some(output) => actions.dup(output, stream)?,
                None => actions.open_null(stream, libc::O_WRONLY)?,
            }
        }
        for (end, number) in link.iter().zip(LINK) {
            actions.dup(end, number)?;
        }
        if let Some(folder) = &self.folder {
            actions.chdir(folder)?;
        }
        let attributes = Attributes::new()?;
        let pointers = |texts: &[CString]| {
            texts.iter().map(|text| text.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect::<Vec<_>>()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let (path, mut pid) = (self.path.as_ptr(), 0);
        // SAFETY: both structures are initialised, the lists end in null, and all they point to lives in `self`.
        let code = unsafe {
            libc::posix_spawnp(
                &raw mut pid,
                path,
                &raw const actions.0,
                &raw const attributes.0,
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        checked(code)?;
        Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The result of a call that returns its error number.
fn checked(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// What the child does before its program runs.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call, which initialises what it points to.
        checked(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions) })?;
        Ok(Self(actions))
    }

    fn open_null(&mut self, stream: i32, flags: i32) -> io::Result<()> {
        // SAFETY: the structure is initialised, and the path ends in zero.
        checked(unsafe {
            libc::posix_spawn_file_actions_addopen(&raw mut self.0, stream, c"/dev/null".as_ptr(), flags, 0)
        })
    }

    /// Not to its own number: only what is made anew is surely free of close-on-exec.
    fn dup(&mut self, fd: &OwnedFd, number: i32) -> io::Result<()> {
        // SAFETY: the structure is initialised; the descriptor stays open until after the spawn.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd.as_raw_fd(), number) })
    }

    fn chdir(&mut self, folder: &CString) -> io::Result<()> {
        // SAFETY: the structure is initialised, and the call copies the path.
        checked(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, folder.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and destroyed once.
        let _ = unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// How the child starts: a group of its own, the usual signals, no descriptor but those of [`Actions`].
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut attributes = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call, which initialises what it points to.
        checked(unsafe { libc::posix_spawnattr_init(&raw mut attributes) })?;
        let mut it = Self(attributes);
        let flags = libc::POSIX_SPAWN_CLOEXEC_DEFAULT
            | libc::POSIX_SPAWN_SETPGROUP
            | libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK;
        let flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the structure is initialised, here and below.
        checked(unsafe { libc::posix_spawnattr_setflags(&raw mut it.0, flags) })?;
        // SAFETY: as above.
        checked(unsafe { libc::posix_spawnattr_setpgroup(&raw mut it.0, 0) })?;
        // SIGCHLD too: a worker whose own children vanish unseen cannot use them.
        let defaults = signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGCHLD]);
        // SAFETY: as above, and the set is whole.
        checked(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut it.0, &raw const defaults) })?;
        let none = signals(&[]);
        // SAFETY: as above.
        checked(unsafe { libc::posix_spawnattr_setsigmask(&raw mut it.0, &raw const none) })?;
        Ok(it)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and destroyed once.
        let _ = unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn signals(numbers: &[i32]) -> libc::sigset_t {
    let mut set: libc::sigset_t = 0;
    for number in numbers {
        // SAFETY: the set is whole, and the numbers are signals'.
        unsafe { libc::sigaddset(&raw mut set, *number) };
    }
    set
}

/// Ends this process, and all of its group if the group is the one its host made for it. For a worker whose host is dead.
pub fn end_own_group(group: u32) {
    let own = rustix::process::getpgrp();
    if i32::try_from(group) == Ok(own.as_raw_nonzero().get()) {
        let _ = kill_process_group(own, Signal::KILL);
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}
