//! Several workers behind one queue: every frame has one outcome, whoever dies.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;

use common::{Random, byte, children, is_picture, picture, role, small_worker, some_time};
use frameport::{Error, Frame, Group, GroupBuilder, Link, Outcome, Redeliver, Step, Until};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 63 * 41 * 3;
/// Where a worker that gets stuck once says that it is.
const PLACE: &str = "FRAMEPORT_TEST_PLACE";
/// The frame that kills.
const POISON: u64 = 5;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    if role == "no_start" {
        eprintln!("the model is missing");
        std::process::exit(4);
    }
    let link = Link::from_env().unwrap();
    let mut kept = None;
    while let Ok(frame) = link.recv() {
        let seq = frame.seq();
        assert!(is_picture(&frame, seq), "frame {seq} came with other pixels");
        match role.as_str() {
            "invert" => invert(&link, frame),
            "poison" if seq == POISON => std::process::abort(),
            // It lets go of the frame as it goes down, as a Python exception does.
            "panic" if seq == POISON => panic!("frame {seq} makes no sense"),
            "pass" if seq % 3 == 1 => drop(frame),
            // As a Python loop does: the frame passed over is let go of when the next one is there.
            "pass_late" if seq % 3 == 1 => kept = Some(frame),
            "stuck_once" if seq == 0 && std::fs::create_dir(std::env::var(PLACE).unwrap()).is_ok() => {
                std::thread::sleep(Duration::from_secs(600));
            }
            "busy" => std::thread::sleep(Duration::from_secs(600)),
            "late" => {
                drop(frame);
                let mut reply = link.loan().unwrap();
                reply.set_seq(seq);
                link.send(reply).unwrap();
            }
            // A worker that makes room for another now and then.
            "recycle" if seq % 5 == 4 => return invert(&link, frame),
            "recycle" => invert(&link, frame),
            _ => answer(&link, &frame),
        }
        kept = kept.filter(|kept: &Frame| kept.seq() == seq);
    }
}

fn answer(link: &Link, frame: &Frame) {
    let mut reply = link.reply(frame).unwrap();
    reply.fill(&picture(frame.seq() + 7, SIZE)).unwrap();
    link.send(reply).unwrap();
}

/// Edits the frame itself, byte by byte: half of it is edited where a kill comes in between.
fn invert(link: &Link, frame: Frame) {
    let payload = frame.payload();
    for index in 0..payload.len() {
        assert!(payload.copy_from(index, &[255 - byte(frame.seq(), index)]));
    }
    link.send_back(frame).unwrap();
}

fn is_inverted(frame: &Frame) -> bool {
    frame.snapshot().iter().enumerate().all(|(index, &found)| found == 255 - byte(frame.seq(), index))
}

fn group(role: &str, workers: usize) -> GroupBuilder {
    small_worker(role).group(workers)
}

fn send_one(group: &Group, seq: u64) -> Result<(), Error> {
    let mut frame = group.loan()?;
    frame.fill(&picture(seq, SIZE))?;
    assert_eq!(group.send(frame)?, seq);
    Ok(())
}

/// What was received.
#[derive(Debug, Default)]
struct Got {
    answered: Vec<u64>,
    lost: Vec<(u64, String)>,
}

impl Got {
    fn note(&mut self, outcome: Outcome, check: impl Fn(&Frame) -> bool) {
        match outcome {
            Outcome::Answer { seq, frame } => {
                assert_eq!(frame.seq(), seq);
                assert!(check(&frame), "frame {seq} came back with other pixels");
                self.answered.push(seq);
            }
            Outcome::Lost { seq, why } => self.lost.push((seq, why.to_string())),
            other => panic!("{other:?}"),
        }
    }
}

fn receive_all(group: &Group, check: impl Fn(&Frame) -> bool) -> (Got, Error) {
    let mut got = Got::default();
    loop {
        match group.recv_timeout(Duration::from_secs(30)) {
            Ok(outcome) => got.note(outcome, &check),
            Err(error) => return (got, error),
        }
    }
}

/// Sends frames until `enough` says so of their number, receives all outcomes, and closes.
fn run(group: &Group, enough: impl Fn(u64) -> bool + Sync, check: impl Fn(&Frame) -> bool) -> (u64, Got) {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !enough(sent) {
                send_one(group, sent).unwrap();
                sent += 1;
            }
            group.finish();
            sent
        });
        let (got, end) = receive_all(group, check);
        assert!(matches!(end, Error::LinkClosed { .. }), "{end}");
        (sending.join().unwrap(), got)
    })
}

/// Closed counters, and every frame in one place.
fn assert_adds_up(group: &Group, sent: u64, got: &Got) {
    let stats = group.stats();
    assert_eq!(stats.sent, sent);
    assert_eq!((stats.in_flight, stats.waiting), (0, 0), "{stats:?}");
    assert_eq!(stats.sent, stats.answered + stats.dropped + stats.lost, "{stats:?}");
    assert_eq!((stats.answered, stats.lost), (got.answered.len() as u64, got.lost.len() as u64), "{stats:?}");
    let numbers: BTreeSet<u64> = got.answered.iter().copied().chain(got.lost.iter().map(|lost| lost.0)).collect();
    assert_eq!(numbers.len(), got.answered.len() + got.lost.len(), "no frame has two outcomes");
    assert!(numbers.last().is_none_or(|&last| last < sent));
}

fn is_rising(numbers: &[u64]) -> bool {
    numbers.is_sorted_by(|a, b| a < b)
}

#[test]
fn results_come_in_the_order_of_the_frames_or_as_they_are_ready() {
    if role().is_some() {
        return;
    }
    for (ordered, role) in [(true, "answer"), (false, "answer"), (true, "invert")] {
        let group = group(role, 3).ordered(ordered).spawn().unwrap();
        let check = |frame: &Frame| {
            if role == "invert" { is_inverted(frame) } else { is_picture(frame, frame.seq() + 7) }
        };
        let (sent, got) = run(&group, |sent| sent == 400, check);
        assert_adds_up(&group, sent, &got);
        assert_eq!((got.answered.len(), got.lost.len()), (400, 0));
        assert!(!ordered || is_rising(&got.answered));
        let stats = group.stats();
        assert_eq!((stats.copied, stats.redelivered, stats.extra), (400, 0, 0));
        assert!(group.wait_exit(Duration::from_secs(30)), "the workers leave by themselves");
    }
}

#[test]
fn the_window_bounds_what_is_under_way() {
    if role().is_some() {
        return;
    }
    let group = group("answer", 2).window(3).redeliver(Redeliver::AtMostOnce).spawn().unwrap();
    for seq in 0..3 {
        send_one(&group, seq).unwrap();
    }
    while group.stats().waiting < 3 {
        std::thread::yield_now();
    }
    assert!(group.loan_if_free().unwrap().is_none());
    let full = group.loan_until(Until::after(Duration::from_millis(20))).unwrap_err();
    assert!(full.to_string().contains("3 results wait to be taken with recv()"), "{full}");
    let Step::Outcome(first) = group.step_until(Until::forever()).unwrap() else { panic!("room before an outcome") };
    assert!(matches!(first, Outcome::Answer { seq: 0, .. }));
    send_one(&group, 3).unwrap();
    assert_eq!(group.stats().copied, 0);
    group.finish();
    for seq in 1..4 {
        let Step::Outcome(Outcome::Answer { seq: next, .. }) = group.step_until(Until::forever()).unwrap() else {
            panic!("no answer to {seq}");
        };
        assert_eq!(next, seq);
    }
    assert!(matches!(group.step_until(Until::forever()), Err(Error::LinkClosed { .. })));
}

/// How long workers are killed: `FRAMEPORT_KILLS_S` seconds, 5 unless set.
fn killing_time() -> Duration {
    let seconds = std::env::var("FRAMEPORT_KILLS_S").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Lets frames through a group whose workers are killed at random, one every 50 ms; how many were.
fn run_with_kills(group: &Group, check: impl Fn(&Frame) -> bool) -> (u64, Got, u64) {
    let (over, kills) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut random, end) = (Random(11), Instant::now() + killing_time());
            while Instant::now() < end {
                let pids: Vec<u32> = group.stats().members.iter().filter_map(|member| member.pid).collect();
                if let Some(&pid) = pids.get(random.below(4) as usize % pids.len().max(1)) {
                    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                    kills.fetch_add(
                        rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok().into(),
                        Ordering::Relaxed,
                    );
                }
                std::thread::sleep(Duration::from_millis(25));
                some_time(&mut random, Duration::from_millis(50));
            }
            over.store(true, Ordering::Release);
        });
        let (sent, got) = run(group, |_| over.load(Ordering::Acquire), check);
        (sent, got, kills.load(Ordering::Relaxed))
    })
}

#[test]
fn at_least_once_loses_nothing_and_keeps_order_while_workers_are_killed() {
    if role().is_some() {
        return;
    }
    let group = group("invert", 4).spawn().unwrap();
    let (sent, got, kills) = run_with_kills(&group, is_inverted);
    assert_adds_up(&group, sent, &got);
    let stats = group.stats();
    println!("{kills} kills, {stats:?}");
    assert_eq!(got.lost, []);
    assert!(got.answered.iter().copied().eq(0..sent), "each frame once, in order");
    assert!(kills > 10 && stats.redelivered > 0, "{kills} kills, {stats:?}");
    group.stop().unwrap();
}

#[test]
fn at_most_once_reports_exactly_what_it_lost_while_workers_are_killed() {
    if role().is_some() {
        return;
    }
    let group = group("invert", 4).redeliver(Redeliver::AtMostOnce).spawn().unwrap();
    let (sent, got, kills) = run_with_kills(&group, is_inverted);
    assert_adds_up(&group, sent, &got);
    let stats = group.stats();
    println!("{kills} kills, {stats:?}");
    assert_eq!(got.answered.len() + got.lost.len(), sent as usize, "none is passed over");
    assert!(kills > 10 && !got.lost.is_empty() && is_rising(&got.answered));
    assert_eq!(got.lost.iter().find(|(_, why)| !why.contains("SIGKILL")), None);
    assert_eq!((stats.copied, stats.redelivered), (0, 0));
    group.stop().unwrap();
}

#[test]
fn a_poisonous_frame_is_given_up_after_its_tries_and_the_rest_arrives() {
    if role().is_some() {
        return;
    }
    for (role, end) in [("poison", "SIGABRT"), ("panic", "exited with status 101")] {
        give_up(role, end);
    }
}

fn give_up(role: &str, end: &str) {
    let group = group(role, 2).tries(3).spawn().unwrap();
    let (sent, got) = run(&group, |sent| sent == 40, |frame| is_picture(frame, frame.seq() + 7));
    assert_adds_up(&group, sent, &got);
    let [(POISON, why)] = got.lost.as_slice() else { panic!("{:?}", got.lost) };
    assert!(why.contains(end), "{why}");
    assert!(is_rising(&got.answered) && got.answered.len() == 39);
    let deaths: u64 = group.stats().members.iter().map(|member| member.lives).sum::<u64>();
    assert!(
        (4..=5).contains(&deaths),
        "two first lives and a successor for each try, the last if it is needed: {deaths}"
    );
}

#[test]
fn a_dead_workers_frame_is_not_queued_behind_results_that_wait_for_it() {
    if role().is_some() {
        return;
    }
    let place = format!("{}/stuck-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let _ = std::fs::remove_dir(&place);
    let group = small_worker("stuck_once").slots(2).env(PLACE, &place).group(2).window(8).spawn().unwrap();
    let both = || group.stats().members.iter().filter_map(|member| member.pid).count() == 2;
    wait_for(both);
    send_one(&group, 0).unwrap();
    wait_for(|| std::path::Path::new(&place).exists());
    let stuck = group.stats().members.into_iter().find(|member| member.in_flight == 1).unwrap().pid.unwrap();
    // The other worker's results wait for the first frame, and have all the slots it could answer in.
    for seq in 1..3 {
        send_one(&group, seq).unwrap();
        wait_for(|| group.stats().waiting == seq);
    }
    send_one(&group, 3).unwrap();
    let pid = rustix::process::Pid::from_raw(stuck.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut got = Got::default();
    for _ in 0..4 {
        got.note(group.recv_timeout(Duration::from_secs(10)).unwrap(), |frame| is_picture(frame, frame.seq() + 7));
    }
    assert_eq!((got.answered, got.lost), (vec![0, 1, 2, 3], vec![]));
    std::fs::remove_dir(&place).unwrap();
}

fn wait_for(reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn frames_that_are_passed_over_hold_up_nothing() {
    if role().is_some() {
        return;
    }
    for (role, window) in [("pass", 2), ("pass", 16), ("pass_late", 2), ("pass_late", 16)] {
        for ordered in [true, false] {
            let group = group(role, 2).ordered(ordered).window(window).spawn().unwrap();
            let (sent, got) = run(&group, |sent| sent == 60, |frame| is_picture(frame, frame.seq() + 7));
            assert_adds_up(&group, sent, &got);
            let mut answered = got.answered;
            assert!(!ordered || is_rising(&answered));
            answered.sort_unstable();
            assert!(answered.into_iter().eq((0..60).filter(|seq| seq % 3 != 1)), "{role}");
            assert_eq!((group.stats().dropped, got.lost.len()), (20, 0));
        }
    }
}

#[test]
fn a_frame_may_be_let_go_of_before_it_is_answered() {
    if role().is_some() {
        return;
    }
    let group = group("late", 2).spawn().unwrap();
    let (sent, got) = run(&group, |sent| sent == 100, |_| true);
    assert_adds_up(&group, sent, &got);
    assert_eq!((got.answered.len(), group.stats().extra), (100, 0));
}

#[test]
fn workers_that_leave_in_order_are_replaced_and_lose_nothing() {
    if role().is_some() {
        return;
    }
    let group = group("recycle", 2).spawn().unwrap();
    let (sent, got) = run(&group, |sent| sent == 40, is_inverted);
    assert_adds_up(&group, sent, &got);
    assert_eq!((got.answered.len(), got.lost.len()), (40, 0));
    assert!(group.stats().members.iter().map(|member| member.lives).sum::<u64>() > 4);
}

#[test]
fn a_worker_that_cannot_start_fails_the_group_with_its_error() {
    if role().is_some() {
        return;
    }
    let error = group("no_start", 2).starts(2).spawn().unwrap_err();
    let Error::Group { cause, .. } = &error else { panic!("{error}") };
    assert!(matches!(cause.as_ref(), Error::WorkerDied(_)));
    let text = error.to_string();
    assert!(text.contains("exited with status 4") && text.contains("the model is missing"), "{text}");
    let missing = frameport::Worker::command("no-such-program")
        .input("in", common::small(), frameport::Delivery::Lossless)
        .output("out", common::small(), frameport::Delivery::Lossless);
    let error = missing.group(1).spawn().unwrap_err().to_string();
    assert!(error.contains("no-such-program") && error.contains("PATH"), "{error}");
}

#[test]
fn a_stop_while_busy_ends_every_wait_and_every_process() {
    if role().is_some() {
        return;
    }
    let builder = small_worker("busy").grace(Duration::from_millis(50));
    let group = builder.group(3).redeliver(Redeliver::AtMostOnce).spawn().unwrap();
    for seq in 0..12 {
        send_one(&group, seq).unwrap();
    }
    let pids: Vec<u32> = group.stats().members.iter().filter_map(|member| member.pid).collect();
    let (sender, receiver) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| group.loan_until(Until::forever()).unwrap_err());
        let receiving = scope.spawn(|| receive_all(&group, |_| true));
        group.stop().unwrap();
        (sending.join().unwrap(), receiving.join().unwrap())
    });
    assert!(matches!(sender, Error::LinkClosed { .. }) && matches!(receiver.1, Error::LinkClosed { .. }));
    assert_adds_up(&group, 12, &receiver.0);
    assert_eq!(receiver.0.lost.len(), 12);
    assert_eq!(pids.len(), 3);
    let mine = children();
    assert!(pids.iter().all(|pid| !mine.contains(pid)), "{pids:?} are gone, zombies included");
}

#[test]
fn arguments_that_make_no_sense_are_errors_before_anything_starts() {
    if role().is_some() {
        return;
    }
    for (builder, word) in [
        (group("answer", 0), "0 workers"),
        (group("answer", 1).window(0), "window"),
        (frameport::Worker::command("true").group(1), "one input and one output"),
    ] {
        let error = builder.spawn().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let (one, other) = (group("answer", 1).spawn().unwrap(), group("answer", 1).spawn().unwrap());
    let error = one.send(other.loan().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
}
