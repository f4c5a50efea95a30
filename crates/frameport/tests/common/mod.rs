//! What the cross-process tests share: the ground truth of frames, and workers that are this test program itself.
#![allow(dead_code, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Bytes, Delivery, Worker, WorkerBuilder};

const ROLE: &str = "FRAMEPORT_TEST_ROLE";

/// A small picture.
pub fn small() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 63, 41)
}

/// Byte `index` of frame `seq`: computed, never stored.
pub fn byte(seq: u64, index: usize) -> u8 {
    let mixed = (seq ^ (index as u64) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// A whole frame of it.
pub fn picture(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| byte(seq, index)).collect()
}

/// Whether every byte of `payload` is that of frame `seq`.
pub fn is_picture(payload: Bytes<'_>, seq: u64) -> bool {
    payload.to_vec().iter().enumerate().all(|(index, &found)| found == byte(seq, index))
}

/// A worker that is this test program in the part `role`: its test `worker_process` runs it.
pub fn worker(role: &str) -> WorkerBuilder {
    Worker::command(std::env::current_exe().unwrap())
        .args(["worker_process", "--exact", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .name(role)
        .on_stderr(|_| {})
}

/// [`worker`] with a small picture in and out.
pub fn small_worker(role: &str) -> WorkerBuilder {
    worker(role).input("in", small(), Delivery::Lossless).output("out", small(), Delivery::Lossless)
}

/// The part this process plays, if it is a worker.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Open descriptors of this process.
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
