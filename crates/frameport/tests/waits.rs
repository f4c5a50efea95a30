//! Waits end when they promised to, from whichever thread, whatever the worker does.

mod common;

use common::{ROLE, Watched, is_picture, picture, role, small, small_worker};
use frameport::{Delivery, Error, Exit, Link, Until, WaitStrategy, Worker};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 63 * 41 * 3;
const LIMIT: Duration = Duration::from_millis(100);
/// What a promised deadline may be late by on a machine that does other things.
const LATE: Duration = Duration::from_secs(1);

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    let mut kept = Vec::new();
    loop {
        match (link.recv(), role.as_str()) {
            (Ok(frame), "echo") => link.send_back(frame).unwrap(),
            (Ok(frame), _) => kept.push(frame),
            (Err(_), "stubborn") => std::thread::park(),
            (Err(_), _) => return,
        }
    }
}

/// Runs `wait`, which must take `LIMIT` and not much longer.
fn timed<T>(wait: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let answer = wait();
    let took = started.elapsed();
    assert!(took >= LIMIT && took < LIMIT + LATE, "it took {took:?}");
    answer
}

#[test]
fn deadlines_are_kept() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Park, WaitStrategy::Spin] {
        let worker = small_worker("hoard").slots(2).send_deadline(LIMIT).wait(strategy).spawn().unwrap();
        let error = timed(|| worker.recv_timeout(LIMIT)).unwrap_err();
        assert!(
            matches!(&error, Error::Timeout { channel, after, .. } if channel == "out" && *after >= LIMIT),
            "{error}"
        );
        for _ in 0..2 {
            worker.send(worker.loan().unwrap()).unwrap();
        }
        let error = timed(|| worker.loan()).unwrap_err();
        assert!(
            matches!(&error, Error::PoolExhausted(what) if what.waited >= LIMIT && what.holders.len() == 2),
            "{error}"
        );
        let start = Instant::now();
        let mut pressed = || start.elapsed() >= LIMIT;
        let until = Until::forever().or_when(Duration::from_millis(10), &mut pressed);
        assert!(matches!(timed(|| worker.recv_until(until)), Err(Error::Interrupted)));
        assert_eq!(worker.wait_exit(Duration::ZERO), None);
    }
}

#[test]
fn a_worker_that_ignores_close_and_sigterm_is_killed() {
    let program = std::env::current_exe().unwrap();
    let script = format!("trap '' TERM; exec '{}' worker_process --exact --nocapture --quiet", program.display());
    let builder = Worker::command("/bin/sh").args(["-c", &script]).env(ROLE, "stubborn").on_stderr(|_| {});
    let builder = builder.input("in", small(), Delivery::Lossless).output("out", small(), Delivery::Lossless);
    let worker = builder.grace(LIMIT).spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    let process = Watched::open(worker.pid()).unwrap();
    let started = Instant::now();
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
    // The grace once for its loop, and half a second for SIGTERM.
    assert!(started.elapsed() < LIMIT + Duration::from_millis(500) + LATE, "{:?}", started.elapsed());
    assert!(process.dies_before(Instant::now()));
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9), "again: the same answer");
}

#[test]
fn a_stop_ends_the_waits_of_other_threads() {
    let worker = small_worker("hoard").slots(1).spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| worker.recv().map(drop)),
            scope.spawn(|| worker.recv().map(drop)),
            scope.spawn(|| worker.loan().map(drop)),
        ];
        assert_eq!(worker.stop().unwrap(), Exit::Code(0));
        for wait in waits {
            let error = wait.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::LinkClosed { .. }), "{error}");
        }
    });
    assert!(matches!(worker.try_recv(), Err(Error::LinkClosed { .. })));
    assert!(matches!(worker.try_loan(), Err(Error::LinkClosed { .. })));
}

#[test]
fn a_worker_serves_four_threads_at_once() {
    const FRAMES: u64 = 4_000;
    let worker = small_worker("echo").slots(4).spawn().unwrap();
    let (next, sum, count) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seq = next.fetch_add(1, Ordering::Relaxed);
                    if seq >= FRAMES {
                        return;
                    }
                    let mut frame = worker.loan().unwrap();
                    frame.fill(&picture(seq, SIZE)).unwrap();
                    frame.set_seq(seq);
                    worker.send(frame).unwrap();
                }
            });
            scope.spawn(|| {
                while count.fetch_add(1, Ordering::Relaxed) < FRAMES as usize {
                    let frame = worker.recv_timeout(Duration::from_secs(30)).unwrap();
                    assert!(is_picture(&frame, frame.seq()), "frame {}", frame.seq());
                    sum.fetch_add(frame.seq(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), FRAMES * (FRAMES - 1) / 2, "each frame once");
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.results, stats.in_flight, stats.held), (FRAMES, FRAMES, 0, 0));
}
