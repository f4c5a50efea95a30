//! Worker processes: programs of the test, started as tasks of a process of their own.

use std::collections::VecDeque;
use std::io;
use std::process::Command;

use super::handle::check;
use super::isolation::Scope;
use super::kernel::Source;
use super::poll::Watched;
use super::sched::{self, Key};
use super::socket::Control;

pub use crate::exit::{Exit, signal_name};

/// Signals only this system has.
pub(crate) const OWN_SIGNALS: &[(i32, &str)] = &[];

/// A worker to start.
#[derive(Debug)]
pub struct Spawn {
    /// The program is one the world knows by this name; its arguments are handed on.
    pub command: Command,
    /// The worker's end of the control channel.
    pub link: Control,
    /// There are none here.
    pub scope: Option<Scope>,
    /// Where the worker's stderr goes.
    pub stderr: Stderr,
}

/// Where a worker's stderr goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// To the host.
    Piped,
    /// Nowhere.
    Inherit,
}

/// A signal to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// The end.
    pub const KILL: Self = Self(9);
    /// The end, for programs here.
    pub const TERM: Self = Self(15);
    /// A stop.
    pub const STOP: Self = Self(19);
    /// And its end.
    pub const CONT: Self = Self(18);
}

/// The running process's number.
#[must_use]
pub fn id() -> u32 {
    sched::with(|state| state.current_process()).unwrap_or_else(std::process::id)
}

/// Starts a worker.
///
/// # Errors
/// `NotFound` for a program the world does not know; as its faults say.
pub fn spawn(s: Spawn) -> io::Result<Child> {
    sched::point("spawn");
    check(|state| state.faults.spawns)?;
    let name = s.command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<String> = s.command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let program = sched::inside(|state| state.programs.get(&name).cloned()).ok_or(io::ErrorKind::NotFound)?;
    let link = s.link.into_id();
    let pid = sched::inside(|state| {
        let pid = state.new_process(&name, Some(link));
        let run = move || {
            let code = program(&arguments);
            exit(code);
        };
        state.spawn(pid, &name, Box::new(run));
        pid
    });
    let stderr = (s.stderr == Stderr::Piped).then_some(StderrPipe(pid));
    Ok(Child { pid, stderr, reaped: None })
}

/// Ends the running process.
pub fn exit(code: i32) -> ! {
    sched::point("exit");
    sched::inside(|state| state.end_process(state.current_process(), Exit::Code(code)));
    sched::never();
}

/// Ends this process. For a worker whose host is dead.
pub fn end_own_group(_group: u32) {
    sched::point("kill");
    let killed = sched::with(|state| {
        if !state.over {
            state.end_process(state.current_process(), Exit::Signal(9));
        }
        !state.over
    });
    if killed == Some(true) {
        sched::never();
    }
}

/// A started worker process. Dropping it before it was reaped kills it.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    stderr: Option<StderrPipe>,
    reaped: Option<Exit>,
}

impl Watched for Child {
    fn number(&self) -> (u8, u64) {
        (2, self.pid.into())
    }
}

impl Child {
    /// The worker's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What reads the worker's stderr, once.
    pub fn take_stderr(&mut self) -> Option<StderrPipe> {
        self.stderr.take()
    }

    fn look(&self) -> Option<Exit> {
        sched::with(|state| state.processes.get(&self.pid)?.exit).flatten()
    }

    /// How the worker ended, or `None` while it lives.
    ///
    /// # Errors
    /// Never.
    pub fn exit_without_reaping(&self) -> io::Result<Option<Exit>> {
        sched::point("wait");
        Ok(self.look())
    }

    /// Signals the worker.
    ///
    /// # Errors
    /// `NotFound` after [`Child::reap`].
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        sched::point("kill");
        if self.reaped.is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.send(signal);
        Ok(())
    }

    fn send(&self, signal: Signal) {
        sched::with(|state| match signal {
            _ if state.over => {}
            Signal::STOP => state.stop(self.pid, None),
            Signal::CONT => state.go_on(self.pid),
            // A stopped process does not die of it before it goes on.
            Signal::TERM if state.is_stopped(self.pid) => {}
            Signal(number) => state.end_process(self.pid, Exit::Signal(number)),
        });
    }

    /// Collects the dead worker, and waits for its death first.
    ///
    /// # Errors
    /// Never.
    pub fn reap(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.try_reap()? {
                return Ok(exit);
            }
            if !sched::block(vec![Key::Process(self.pid)], None, "waits for a death", false) {
                return Ok(Exit::Unknown);
            }
        }
    }

    /// Collects the dead worker without waiting.
    ///
    /// # Errors
    /// Never.
    pub fn try_reap(&mut self) -> io::Result<Option<Exit>> {
        sched::point("wait");
        self.reaped = self.look();
        Ok(self.reaped)
    }

    /// Whether nothing of the worker is alive.
    #[must_use]
    pub fn group_is_empty(&self) -> bool {
        sched::point("wait");
        self.look().is_some()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            self.send(Signal::KILL);
        }
        sched::with(|state| state.unwatch(Source::Child(self.pid)));
    }
}

/// The read end of what a worker writes to stderr.
#[derive(Debug)]
pub struct StderrPipe(u32);

impl Watched for StderrPipe {
    fn number(&self) -> (u8, u64) {
        (1, self.0.into())
    }
}

impl Drop for StderrPipe {
    fn drop(&mut self) {
        sched::with(|state| state.unwatch(Source::Stderr(self.0)));
    }
}

impl StderrPipe {
    /// Reads what is there. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        sched::point("stderr read");
        sched::inside(|state| {
            let Some(process) = state.processes.get_mut(&self.0) else { return Ok(0) };
            if process.stderr.is_empty() {
                return if process.exit.is_some() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            io::Read::read(&mut process.stderr, bytes)
        })
    }
}

/// Writes to the running process's stderr.
pub fn write_stderr(bytes: &[u8]) {
    sched::point("stderr write");
    sched::with(|state| {
        let pid = state.current_process();
        let stderr = |process: &mut super::kernel::Process| VecDeque::extend(&mut process.stderr, bytes);
        state.current().into_iter().for_each(stderr);
        state.tasks.wake(Key::Process(pid));
    });
}
