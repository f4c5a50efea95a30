//! A worker over all its lives: what its host sees when it dies and is started again.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod carried;
#[path = "../common/mod.rs"]
mod common;
mod deaths;
mod policy;
#[cfg(target_os = "linux")]
mod pools;
#[path = "../common/rig.rs"]
#[expect(dead_code, reason = "one worker here speaks by hand, and does not lie")]
mod rig;

use common::{ROLE, Watched, mapped_regions, open_files, picture, resident, role, small, threads, worker};
use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Link, Restart, Worker, WorkerBuilder};
use rig::Rig;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SIZE: usize = 63 * 41 * 3;
const LONG: Duration = Duration::from_secs(60);
/// Names a file by which the lives of a worker know of each other.
const MARK: &str = "FRAMEPORT_TEST_MARK";

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let mark = std::env::var_os(MARK).map(PathBuf::from).unwrap_or_default();
    match role.as_str() {
        "host_of_many_lives" => return nothing_grows(),
        #[cfg(target_os = "linux")]
        "host_of_pools" => return pools::are_passed_on(),
        #[cfg(target_os = "linux")]
        "grandchild" | "childless" => return pools::keep_parked(&mark, role == "grandchild"),
        "liar" if !mark.exists() => return lie(&mark),
        // What follows is for its first life only.
        "never_again" if mark.exists() => std::process::exit(4),
        "slow_start" if mark.exists() => std::thread::park(),
        _ => {}
    }
    let mut builder = Link::builder();
    if role == "another_output" && mark.exists() {
        builder = builder.output(VideoSpec::new(PixelFormat::Gray, 5, 3));
    }
    if !mark.as_os_str().is_empty() {
        std::fs::write(&mark, b"").unwrap();
    }
    let link = builder.connect().unwrap();
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match role.as_str() {
            "in_place" => drop(link.send_back(frame)),
            "swallow" => {}
            "leave" => return,
            _ => {
                let mut reply = match link.reply(&frame) {
                    Ok(reply) => reply,
                    Err(Error::LinkClosed { .. }) => return,
                    Err(error) => panic!("{error}"),
                };
                let len = reply.packed_len();
                reply.fill(&picture(frame.seq() + 7, len)).unwrap();
                reply.set_meta(frame.params().unwrap());
                drop(link.send(reply));
            }
        }
    }
}

/// A worker that takes a frame and says nonsense.
fn lie(mark: &PathBuf) {
    std::fs::write(mark, b"").unwrap();
    let rig = Rig::connect();
    rig.await_frames(1);
    rig.say_json("nonsense");
    loop {
        std::thread::park();
    }
}

/// A file that is not there, of this test's own.
fn mark(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("frameport-restart-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn quick() -> Restart {
    Restart::default().backoff(Duration::from_millis(1), Duration::from_millis(20))
}

fn lively(role: &str, delivery: Delivery) -> WorkerBuilder {
    worker(role).input("in", small(), delivery).output("out", small(), Delivery::Lossless).restart(quick())
}

fn send(worker: &Worker, seq: u64) {
    let mut frame = worker.loan().unwrap();
    frame.fill(&picture(seq, SIZE)).unwrap();
    frame.set_seq(seq);
    worker.send(frame).unwrap();
}

/// Kills the process there is now, and waits for its death.
fn kill(worker: &Worker) -> u32 {
    let victim = Watched::open(worker.pid()).unwrap();
    victim.signal(rustix::process::Signal::KILL);
    assert!(victim.dies_before(Instant::now() + LONG));
    victim.0
}

fn await_restarts(worker: &Worker, count: u64) {
    let deadline = Instant::now() + LONG;
    while worker.stats().restarts < count {
        assert!(Instant::now() < deadline, "{:?}", worker.stats());
        std::thread::yield_now();
    }
}

/// Receives until nothing is found.
fn drain(worker: &Worker) -> Vec<Result<u64, Error>> {
    let mut found = Vec::new();
    loop {
        match worker.try_recv().transpose() {
            Some(one) => found.push(one.map(|frame| frame.seq())),
            None => return found,
        }
    }
}

fn assert_died(error: &Error, pid: u32) {
    let Error::WorkerDied(death) = error else { panic!("{error}") };
    assert_eq!((death.exit, death.pid), (Exit::Signal(9), pid));
}

#[test]
fn nothing_grows_over_two_hundred_restarts() {
    run_host("host_of_many_lives");
}

/// Runs a part of this file as a process of its own, for what belongs to a whole process.
fn run_host(part: &str) {
    if role().is_some() {
        return;
    }
    let mut host = std::process::Command::new(std::env::current_exe().unwrap());
    host.args(["worker_process", "--exact", "--nocapture", "--quiet"]).env(ROLE, part);
    assert!(host.status().unwrap().success());
}

fn nothing_grows() {
    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    // Also the descriptor for event loops.
    let event = worker.event().unwrap().as_raw_fd();
    let one_life = |life: u64| {
        send(&worker, life);
        drop(worker.recv_timeout(LONG).unwrap());
        let pid = kill(&worker);
        assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
        await_restarts(&worker, life + 1);
    };
    let sight = || (open_files(), mapped_regions(), threads());
    // The thread may still be letting go of the last life.
    let await_sight = |before: (usize, usize, usize)| {
        let deadline = Instant::now() + LONG;
        while sight() != before {
            assert!(Instant::now() < deadline, "{:?}, before {before:?}", sight());
            std::thread::yield_now();
        }
    };
    (0..20).for_each(one_life);
    // A life that has taken a frame has been there for a while.
    send(&worker, 20);
    drop(worker.recv_timeout(LONG).unwrap());
    let (before, memory) = (sight(), resident());
    for life in 20..220 {
        one_life(life);
        await_sight(before);
    }
    let grown = resident().saturating_sub(memory);
    assert!(grown < 1 << 20, "{grown} bytes more");
    assert_eq!(worker.event().unwrap().as_raw_fd(), event);
    drop(worker);
    assert_eq!((mapped_regions(), common::children().len()), (0, 0));
}
