//! A worker's death at any moment: a typed error within a second, every slot back, nothing left of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;

use common::{Random, children, is_picture, mapped_regions, open_files, picture, role, small_worker, some_time};
use frameport::{Error, Exit, Frame, Link, Worker};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 63 * 41 * 3;
const ROUNDS: usize = 200;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    writeln!(std::io::stderr(), "last words of {role}").unwrap();
    let mut kept = std::collections::VecDeque::new();
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match role.as_str() {
            "in_place" => link.send_back(frame).unwrap(),
            "reply" | "hold" => {
                let mut reply = link.reply(&frame).unwrap();
                reply.fill(&picture(frame.seq() + 7, SIZE)).unwrap();
                link.send(reply).unwrap();
                kept.extend((role == "hold").then_some(frame));
                if kept.len() > 2 {
                    kept.pop_front();
                }
            }
            // Half of the results are still on the ring when the worker leaves.
            "leave" => {
                let last = frame.seq() == 3;
                link.send_back(frame).unwrap();
                if last {
                    return;
                }
            }
            "die" => {
                let last = frame.seq() == 3;
                link.send_back(frame).unwrap();
                if last {
                    std::process::exit(3);
                }
            }
            other => panic!("no role {other}"),
        }
    }
}

/// Sends pictures until the link ends, and says how.
fn send_all(worker: &Worker) -> Error {
    for seq in 0.. {
        let sent = worker.loan().and_then(|mut frame| {
            frame.fill(&picture(seq, SIZE))?;
            worker.send(frame)
        });
        if let Err(error) = sent {
            return error;
        }
    }
    unreachable!("the numbers do not end")
}

/// Receives until the link ends, keeping some frames, and says how it ended.
fn receive_all(worker: &Worker, first: &AtomicBool, kept: &mut Vec<Frame>, ahead: u64) -> Error {
    for seq in 0.. {
        match worker.recv() {
            Ok(frame) => {
                assert_eq!(frame.seq(), seq);
                assert!(is_picture(&frame, seq + ahead), "frame {seq}");
                first.store(true, Ordering::Release);
                kept.extend((kept.len() < 2).then_some(frame));
            }
            Err(error) => return error,
        }
    }
    unreachable!("the numbers do not end")
}

fn assert_killed(error: &Error, worker: &Worker, role: &str) {
    let Error::WorkerDied(death) = error else { panic!("{error}") };
    assert_eq!((death.exit, death.pid, death.connected), (Exit::Signal(9), worker.pid(), true));
    assert!(death.stderr_tail.contains(&format!("last words of {role}")), "{}", death.stderr_tail);
    let text = error.to_string();
    assert!(text.contains("killed by SIGKILL (9)") && text.contains("last words"), "{text}");
}

fn kill_at_a_random_moment(round: usize, random: &mut Random) {
    let role = ["in_place", "reply", "hold"][round % 3];
    let ahead = if role == "in_place" { 0 } else { 7 };
    let worker = small_worker(role).spawn().unwrap();
    let first = AtomicBool::new(false);
    let mut kept = Vec::new();
    let (sender_saw, receiver_saw, late) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_all(&worker));
        let receiving = scope.spawn(|| receive_all(&worker, &first, &mut kept, ahead));
        while !first.load(Ordering::Acquire) && !receiving.is_finished() {
            std::thread::yield_now();
        }
        some_time(random, Duration::from_millis(3));
        let killed = Instant::now();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(worker.pid().cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        (sending.join().unwrap(), receiving.join().unwrap(), killed.elapsed())
    });
    assert!(late < Duration::from_secs(1), "{role}: the host knew after {late:?}");
    assert_killed(&sender_saw, &worker, role);
    assert_killed(&receiver_saw, &worker, role);
    assert_killed(&worker.loan().unwrap_err(), &worker, role);

    let stats = worker.stats();
    assert_eq!(stats.sent, stats.received + stats.lost, "{role}: {stats:?}");
    assert_eq!((stats.in_flight, stats.held), (0, kept.len() as u64), "{role}: {stats:?}");
    for frame in &kept {
        assert!(is_picture(frame, frame.seq() + ahead), "a frame outlives its worker");
    }
    kept.clear();
    assert_eq!(worker.stats().held, 0);
    assert!(worker.holders().is_empty(), "{role}: {:?}", worker.holders());
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
}

#[test]
fn a_worker_killed_at_any_moment_costs_its_host_one_error() {
    if role().is_some() {
        return;
    }
    drop(small_worker("reply").spawn().unwrap());
    let before = (open_files(), mapped_regions(), children());
    let mut random = Random(7);
    for round in 0..ROUNDS {
        kill_at_a_random_moment(round, &mut random);
        assert_eq!((open_files(), mapped_regions(), children()), before, "after round {round}");
    }
    // Here because the descriptors above are counted: nothing may run beside them.
    results_sent_before_the_end_still_arrive();
}

fn results_sent_before_the_end_still_arrive() {
    for role in ["leave", "die"] {
        let worker = small_worker(role).spawn().unwrap();
        for seq in 0..4 {
            let mut frame = worker.loan().unwrap();
            frame.fill(&picture(seq, SIZE)).unwrap();
            worker.send(frame).unwrap();
        }
        let exit = worker.wait_exit(Duration::from_secs(30));
        for seq in 0..4 {
            let back = worker.recv().unwrap();
            assert_eq!(back.seq(), seq);
            assert!(is_picture(&back, seq), "{role}: frame {seq}");
        }
        let end = worker.recv().unwrap_err();
        match role {
            "leave" => assert!(matches!(end, Error::LinkClosed { .. }) && exit == Some(Exit::Code(0)), "{end}"),
            _ => assert!(matches!(end, Error::WorkerDied(_)) && exit == Some(Exit::Code(3)), "{end}"),
        }
        let stats = worker.stats();
        assert_eq!((stats.sent, stats.received, stats.lost, stats.results, stats.held), (4, 4, 0, 4, 0));
    }
}
