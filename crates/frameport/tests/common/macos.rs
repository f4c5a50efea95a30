//! What the tests ask of macOS, without a line of unsafe code: by `ps`, and by process number, which macOS gives out in turn
//! and not again for long. Not run: no Mac was at hand. linux.rs is its counterpart, and tells what each is.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use frameport_sys::limits;
use frameport_sys::memory::Region;
use frameport_sys::socket::Control;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// A file that is there and no program.
pub(crate) const NO_PROGRAM: &str = "/etc/hosts";

/// What `ps` says, a line for each process or thread.
fn ps(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("/bin/ps").args(arguments).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

/// Open descriptors of this process.
pub(crate) fn open_files() -> usize {
    limits::open_files().used as usize
}

/// None is told apart: memory entries have no name. crates/sys/tests/macos.rs counts rights.
pub(crate) fn mapped_regions() -> usize {
    0
}

/// Processes of which this one is the parent, zombies included, but not the `ps` that is asked.
pub(crate) fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let lines = ps(&["-axo", "pid=,ppid=,comm="]);
    let children = lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (pid, parent, program) = (words.next()?, words.next()?, words.next());
        (parent == own && program.is_none_or(|program| !program.ends_with("ps"))).then(|| pid.parse().ok())?
    });
    children.collect()
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> u64 {
    let kilobytes = ps(&["-o", "rss=", "-p", &std::process::id().to_string()]);
    kilobytes[0].parse::<u64>().unwrap() * 1024
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    // A line for each, after a heading.
    ps(&["-M", "-p", &std::process::id().to_string()]).len() - 1
}

/// Not said.
pub(crate) fn sleeps(_pid: u32) -> Option<u64> {
    None
}

/// One thread of this process.
#[derive(Debug)]
pub(crate) struct Thread;

impl Thread {
    pub(crate) fn current() -> Self {
        Self
    }

    /// `ps` does not tell which thread is which, so that it may not sleep yet.
    pub(crate) fn await_sleep(&self) {
        std::thread::yield_now();
    }
}

fn state(pid: impl ToString) -> Option<String> {
    ps(&["-o", "state=", "-p", &pid.to_string()]).into_iter().next().filter(|state| !state.is_empty())
}

/// Whether no thread of a process runs any more.
pub(crate) fn all_threads_are_stopped(pid: u64) -> bool {
    state(pid).is_some_and(|state| state.starts_with('T'))
}

/// Processes that run this program in a part, this one and hosts that were waited for aside.
pub(crate) fn workers_of_this_program() -> Vec<u32> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let lines = ps(&["-axwwo", "pid=,command="]);
    let workers = lines.iter().filter_map(|line| {
        let (pid, command) = line.split_once(' ')?;
        (command.contains(&program) && command.contains("worker_process")).then(|| pid.parse().ok())?
    });
    workers.filter(|&pid| pid != std::process::id()).collect()
}

/// A program in a group of its own: there is no setsid(1).
pub(crate) fn apart(program: &str) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.process_group(0);
    command
}

/// A pipe cannot be shut but by closing it, which `closed` does: nothing is said any more.
pub(crate) fn shut(_link: &Control) {}

/// Sends all of a message.
pub(crate) fn send_all(link: &Control, message: &[u8]) {
    link.send(message, &[]).unwrap();
}

/// A memory entry cannot lose a page.
pub(crate) fn take_pages_out(_region: &Region) {}

/// Tries to map a region writable that only the host may write.
pub(crate) fn attack(region: &Region, sealed: bool) {
    assert_eq!(region.map(true).is_err(), sealed);
}

/// A process that can be waited for though it is no child.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) u32);

impl Watched {
    /// `None` when there is no such process.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        state(pid).map(|_| Self(pid))
    }

    /// Whether it dies before `deadline`, or has.
    pub(crate) fn dies_before(&self, deadline: Instant) -> bool {
        loop {
            let late = Instant::now() > deadline;
            if state(self.0).is_none_or(|state| state.starts_with('Z')) {
                return true;
            }
            if late {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops it, a child of this process, and returns when no thread of it runs any more.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        waitid(WaitId::Pid(self.raw()), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.raw(), signal).unwrap();
    }

    fn raw(&self) -> Pid {
        Pid::from_raw(self.0.cast_signed()).unwrap()
    }
}
