//! What the cross-process tests share: the ground truth of frames, and workers that are this test program itself.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Frame, Worker, WorkerBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;
pub(crate) use system::*;

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

/// Whether every byte of `frame` is that of frame `seq`.
pub(crate) fn is_picture(frame: &Frame, seq: u64) -> bool {
    frame.snapshot().iter().enumerate().all(|(index, &found)| found == byte(seq, index))
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

/// Which of the descriptors are readable, waiting for one.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Vec<usize> {
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() });
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut fds, limit.as_ref()).unwrap();
    (0..).zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(place, _)| place).collect()
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
