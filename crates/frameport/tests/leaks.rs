//! What is left behind: nothing. One test, because it counts what belongs to the whole process.
//! Linux only: it counts descriptors, mappings and page faults as /proc has them, and sends descriptors, which macOS has no way for.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{
    ROLE, children, is_picture, mapped_regions, memory, open_files, picture, role, small_worker, stat, worker,
};
use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Link, Worker};
use frameport_sys::{inherit, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    if role == "flood_descriptors" {
        return flood_descriptors();
    }
    if role == "host_with_few_files" {
        return every_limit_of_open_files();
    }
    let link = Link::from_env().unwrap();
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match role.as_str() {
            "echo" => link.send_back(frame).unwrap(),
            "reply" => {
                let mut reply = link.reply(&frame).unwrap();
                reply.fill(&picture(frame.seq() + 7, reply.packed_len())).unwrap();
                link.send(reply).unwrap();
            }
            other => panic!("no role {other}"),
        }
    }
}

/// Sends its host descriptors instead of a hello, then nonsense.
fn flood_descriptors() {
    let link = inherit::take_link().unwrap();
    let file = || OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    let files: Vec<_> = (0..socket::MAX_HANDLES).map(|_| file()).collect();
    let message = frameport_wire::control::encode(&serde_json::json!({"type": "a later version's"})).unwrap();
    let mut sent = 0;
    while sent < 2_000 {
        match link.send(&message, &files) {
            Ok(()) => sent += 1,
            // The host is still reading; so many descriptors on their way are refused, too (ETOOMANYREFS).
            Err(_) => std::thread::yield_now(),
        }
    }
    while link.send(&[0xff; 8], &[]).is_err() {
        std::thread::yield_now();
    }
    std::thread::park();
}

#[test]
fn nothing_is_left_behind() {
    if role().is_some() {
        return;
    }
    // The threads that serve all workers, and their descriptors, stay.
    drop(small_worker("reply").spawn().unwrap());
    let before = (open_files(), mapped_regions(), children());
    let check = |after: &str| assert_eq!((open_files(), mapped_regions(), children()), before, "after {after}");
    assert_eq!((before.1, before.2.len()), (0, 0));

    links_that_come_and_go();
    check("links that came and went");
    descriptors_sent_to_the_host(before.0);
    check("a flood of descriptors");
    starts_that_fail();
    check("starts that failed");
    let mut host = std::process::Command::new(std::env::current_exe().unwrap());
    host.args(["worker_process", "--exact", "--nocapture", "--quiet"]).env(ROLE, "host_with_few_files");
    assert!(host.status().unwrap().success());
    check("hosts with few descriptors");
    changes_of_spec();
    check("changes of spec");
    frames_on_other_threads();
    check("frames that outlived their worker on other threads");
    many_frames();
    check("many frames");
}

fn links_that_come_and_go() {
    for _ in 0..20 {
        let worker = small_worker("reply").spawn().unwrap();
        let pid = worker.pid();
        worker.send(worker.loan().unwrap()).unwrap();
        let kept = worker.recv().unwrap();
        assert_eq!(worker.stop().unwrap(), Exit::Code(0));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(is_picture(&kept, 7), "a frame outlives its worker");
    }
}

/// Neither side keeps more than two pools of a channel, nor descriptors of any.
fn changes_of_spec() {
    let worker = small_worker("reply").spawn().unwrap();
    let of_worker = format!("/proc/{}", worker.pid());
    let worker_has = || {
        let maps = std::fs::read_to_string(format!("{of_worker}/maps")).unwrap();
        (std::fs::read_dir(format!("{of_worker}/fd")).unwrap().count(), maps.matches("memfd:frameport").count())
    };
    // Two control regions, and three of each pool.
    let (files, first) = (worker_has().0, (open_files(), mapped_regions()));
    assert_eq!((first.1, worker_has().1), (8, 8));
    for turn in 0..300 {
        worker.change_spec(VideoSpec::new(PixelFormat::Gray, 50 + turn % 7, 40)).unwrap();
        worker.send(worker.loan().unwrap()).unwrap();
        let answer = worker.recv().unwrap();
        assert!(is_picture(&answer, u64::from(turn) + 7));
        drop(answer);
        assert!(mapped_regions() <= 14 && open_files() == first.0, "{} and {}", mapped_regions(), open_files());
        let (open, maps) = worker_has();
        assert!(maps <= 14 && open <= files, "the worker has {maps} and {open}");
    }
}

/// 32,000 of them; `before` were open when there was no worker.
fn descriptors_sent_to_the_host(before: usize) {
    let error = std::thread::scope(|scope| {
        let spawning = scope.spawn(|| small_worker("flood_descriptors").spawn().unwrap_err());
        let mut most = 0;
        while !spawning.is_finished() {
            most = most.max(open_files());
        }
        // The worker's own: link, stderr, pidfd, two pools of three regions, and what the spawn itself needs in passing.
        assert!(most < before + 32, "{most} descriptors at a time, {before} before");
        spawning.join().unwrap()
    });
    assert!(matches!(error, Error::Violation { .. }), "{error}");
}

fn starts_that_fail() {
    let spec = VideoSpec::new(PixelFormat::Gray, 16, 16);
    for command in ["/nowhere/at/all", "/proc/self/maps", "/bin/false"] {
        let builder = Worker::command(command).input("in", &spec, Delivery::Lossless).on_stderr(|_| {});
        builder.spawn().unwrap_err();
    }
}

/// In a process of its own: starts a worker under each limit of open files, from none free to enough.
fn every_limit_of_open_files() {
    drop(small_worker("reply").spawn().unwrap());
    let before = (open_files(), mapped_regions(), children());
    let unlimited = getrlimit(Resource::Nofile);
    let mut failures = 0;
    for free in 0..64 {
        // Listing them takes one itself.
        let current = Some(before.0 as u64 - 1 + free);
        setrlimit(Resource::Nofile, Rlimit { current, ..unlimited }).unwrap();
        let started = small_worker("reply").ready_timeout(Duration::from_secs(10)).spawn();
        setrlimit(Resource::Nofile, unlimited).unwrap();
        match started {
            Ok(worker) => {
                worker.send(worker.loan().unwrap()).unwrap();
                drop(worker.recv().unwrap());
                drop(worker);
                assert!(failures > 4, "{failures} starts failed");
                assert_eq!((open_files(), mapped_regions(), children()), before, "with {free} free");
                return;
            }
            Err(error) => {
                assert!(matches!(error, Error::System { .. } | Error::Spawn { .. } | Error::WorkerDied(_)), "{error}");
                assert!(error.to_string().contains("ulimit -n"), "{error}");
                failures += 1;
            }
        }
        assert_eq!((open_files(), mapped_regions(), children()), before, "with {free} free");
    }
    unreachable!("64 descriptors are enough");
}

fn frames_on_other_threads() {
    let worker = small_worker("reply").spawn().unwrap();
    for _ in 0..3 {
        worker.send(worker.loan().unwrap()).unwrap();
    }
    let received = [(); 3].map(|()| worker.recv().unwrap());
    let (loan, pin) = (worker.loan().unwrap(), worker.loan().unwrap().pin());
    drop(worker);
    let threads = received.map(|frame| {
        std::thread::spawn(move || {
            assert!(is_picture(&frame, frame.seq() + 7));
            let hold = frame.hold();
            drop(frame);
            drop(hold);
        })
    });
    drop(std::thread::spawn(move || drop((loan, pin))).join());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// 100,000 frames there and back: no descriptor, no memory, no page fault per frame, every byte right.
fn many_frames() {
    const WARM_UP: u64 = 5_000;
    const FRAMES: u64 = 100_000;
    /// `minflt` of proc(5).
    const FAULTS: usize = 10;
    let spec = VideoSpec::new(PixelFormat::Gray, 16, 4);
    let worker = worker("echo").input("in", &spec, Delivery::Lossless).output("out", &spec, Delivery::Lossless);
    let worker = worker.spawn().unwrap();
    let faults = || [std::process::id(), worker.pid()].map(|pid| stat(pid, FAULTS).unwrap());
    let exchange = |from: u64, to: u64| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in from..to {
                    let mut frame = worker.loan().unwrap();
                    frame.fill(&picture(seq, 64)).unwrap();
                    assert_eq!(worker.send(frame).unwrap(), seq);
                }
            });
            for seq in from..to {
                let back = worker.recv_timeout(Duration::from_secs(30)).unwrap();
                assert_eq!(back.seq(), seq);
                assert!(is_picture(&back, seq), "frame {seq}");
            }
        });
    };
    exchange(0, WARM_UP);
    let (files, resident, fault_counts) = (open_files(), memory(std::process::id(), "Rss:"), faults());
    exchange(WARM_UP, WARM_UP + FRAMES);
    assert_eq!(open_files(), files);
    let grown = memory(std::process::id(), "Rss:").saturating_sub(resident);
    assert!(grown < 1024, "{grown} kB more after {FRAMES} frames");
    let [host, theirs] = faults();
    let (host, theirs) = (host - fault_counts[0], theirs - fault_counts[1]);
    // A new thread's stack and the like; one fault in each thousand frames would be far more.
    assert!(host < 100 && theirs < 100, "{host} page faults of the host, {theirs} of the worker in {FRAMES} frames");
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.received, stats.results), (WARM_UP + FRAMES, WARM_UP + FRAMES, WARM_UP + FRAMES));
    assert_eq!((stats.lost, stats.in_flight, stats.held), (0, 0, 0));
}
