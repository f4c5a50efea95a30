//! What the tests ask of Linux: counts of a process, a process without its number, attacks on memory. macos.rs is its
//! counterpart.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Instant;

use frameport_sys::memory::{Region, Writers};
use frameport_sys::socket::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// A file that is there and no program.
pub(crate) const NO_PROGRAM: &str = "/proc/self/maps";

/// Open descriptors of this process.
pub(crate) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Mappings of frameport's memory in this process.
pub(crate) fn mapped_regions() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:frameport").count()
}

/// Processes of which this one is the parent, zombies included.
pub(crate) fn children() -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid, 4) == Some(u64::from(std::process::id()))).collect()
}

/// Field `number` of `/proc/PID/stat`, or of its thread `PID/task/TID`, counted as its manual does.
pub(crate) fn stat(pid: impl Display, number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name that may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(number - 3)?.parse().ok()
}

/// Kilobytes of a process that are in memory, as `/proc/PID/smaps_rollup` counts them: "Rss:", or "Pss:" for its share.
pub(crate) fn memory(pid: u32, count: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix(count)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Of each of a process's threads, how often it has given up its core: to sleep, and because it had to.
pub(crate) fn switches(pid: u32) -> BTreeMap<u32, [u64; 2]> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let threads = threads.filter_map(|entry| {
        let entry = entry.ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let count = |name| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        let counts = [count("voluntary_ctxt_switches:")?, count("nonvoluntary_ctxt_switches:")?];
        Some((entry.file_name().to_str()?.parse().ok()?, counts))
    });
    threads.collect()
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> u64 {
    memory(std::process::id(), "Rss:") * 1024
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// How often the threads of a process have slept; None where the system does not say.
pub(crate) fn sleeps(pid: u32) -> Option<u64> {
    Some(switches(pid).values().map(|[sleeps, _]| sleeps).sum())
}

/// One thread of this process, to be looked at by another.
#[derive(Debug)]
pub(crate) struct Thread(i32);

impl Thread {
    pub(crate) fn current() -> Self {
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// Returns when it sleeps.
    pub(crate) fn await_sleep(&self) {
        let stat = format!("/proc/self/task/{}/stat", self.0);
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
    }
}

/// Whether no thread of a process runs any more.
pub(crate) fn all_threads_are_stopped(pid: u64) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap());
    stats.into_iter().all(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
}

/// Processes that run this program and were started by a host.
pub(crate) fn workers_of_this_program() -> Vec<u32> {
    let program = std::env::current_exe().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let same = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let linked = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(b"FRAMEPORT_LINK="))
    };
    pids.filter(same).filter(linked).collect()
}

/// A program in a session of its own.
pub(crate) fn apart(program: &str) -> Command {
    let mut command = Command::new("setsid");
    command.arg(program);
    command
}

/// Ends a worker's link without closing it.
pub(crate) fn shut(link: &Control) {
    rustix::net::shutdown(link, rustix::net::Shutdown::Both).unwrap();
}

/// A full socket cuts a message in two: the rest follows, or the host would have a reason to complain.
pub(crate) fn send_all(link: &Control, message: &[u8]) {
    let mut rest = message;
    while !rest.is_empty() {
        rest = &rest[rustix::net::send(link, rest, rustix::net::SendFlags::NOSIGNAL).unwrap()..];
    }
}

const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Takes the first pages out of a region that its user may write: they read as zeros.
pub(crate) fn take_pages_out(region: &Region) {
    fallocate(region, HOLE, 0, 1 << 14).unwrap();
}

/// Tries every way to change a region's size, and to write one that only the host may: each must fail.
pub(crate) fn attack(region: &Region, sealed: bool) {
    let len = region.len();
    let path = format!("/proc/self/fd/{}", region.as_fd().as_raw_fd());
    let reopened = std::fs::File::options().read(true).write(true).open(path);
    let files = [Some(region.as_fd().try_clone_to_owned().unwrap()), reopened.ok().map(Into::into)];
    for fd in files.into_iter().flatten() {
        ftruncate(&fd, 0).unwrap_err();
        ftruncate(&fd, 2 * len as u64).unwrap_err();
        fallocate(&fd, FallocateFlags::empty(), 0, 2 * len as u64).unwrap_err();
        fcntl_add_seals(&fd, SealFlags::WRITE).unwrap_err();
        if sealed {
            rustix::io::pwrite(&fd, &[1; 8], 0).unwrap_err();
            fallocate(&fd, HOLE, 0, 4096).unwrap_err();
            fallocate(&fd, FallocateFlags::ZERO_RANGE, 0, 4096).unwrap_err();
            Region::adopt(fd, len, Writers::Creator).unwrap().map(true).unwrap_err();
        }
    }
}

/// A process that can be waited for though it is no child, without its number passing to another meanwhile.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) u32, OwnedFd);

impl Watched {
    /// `None` when there is no such process.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(pid.cast_signed())?;
        Some(Self(pid, rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?))
    }

    /// Whether it dies before `deadline`.
    pub(crate) fn dies_before(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.1, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    /// Stops it, a child of this process, and returns when no thread of it runs any more.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::PidFd(self.1.as_fd()), options).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.1, signal).unwrap();
    }
}
