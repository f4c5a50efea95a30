//! What the cross-process tests share: the ground truth of frames, and workers that are this test program itself.
#![allow(dead_code, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Bytes, Delivery, Worker, WorkerBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

pub(crate) const ROLE: &str = "FRAMEPORT_TEST_ROLE";

/// A small picture.
pub(crate) fn small() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 63, 41)
}

/// Byte `index` of frame `seq`: computed, never stored.
pub(crate) fn byte(seq: u64, index: usize) -> u8 {
    let mixed = (seq ^ (index as u64) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// A whole frame of it.
pub(crate) fn picture(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| byte(seq, index)).collect()
}

/// Whether every byte of `payload` is that of frame `seq`.
pub(crate) fn is_picture(payload: Bytes<'_>, seq: u64) -> bool {
    payload.to_vec().iter().enumerate().all(|(index, &found)| found == byte(seq, index))
}

/// A worker that is this test program in the part `role`: its test `worker_process` runs it.
pub(crate) fn worker(role: &str) -> WorkerBuilder {
    Worker::command(std::env::current_exe().unwrap())
        .args(["worker_process", "--exact", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .name(role)
        .on_stderr(|_| {})
}

/// [`worker`] with a small picture in and out.
pub(crate) fn small_worker(role: &str) -> WorkerBuilder {
    worker(role).input("in", small(), Delivery::Lossless).output("out", small(), Delivery::Lossless)
}

/// The part this process plays, if it is a worker.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

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

/// Which of the descriptors are readable, waiting for one.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Vec<usize> {
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() });
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut fds, limit.as_ref()).unwrap();
    (0..).zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(place, _)| place).collect()
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

/// Random enough to pick moments and words; the seed is printed by whoever fails.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Lets some time pass, so that what follows happens at a random moment.
pub(crate) fn some_time(random: &mut Random, at_most: Duration) {
    std::thread::sleep(at_most * random.below(1000) as u32 / 1000);
}
