//! A worker over all its lives: what its host sees when it dies and is started again.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;
#[cfg(target_os = "linux")]
#[path = "restart/pools.rs"]
mod pools;
#[path = "common/rig.rs"]
#[expect(dead_code, reason = "one worker here speaks by hand, and does not lie")]
mod rig;

use common::{
    ROLE, Random, Watched, is_picture, mapped_regions, open_files, picture, resident, role, small, some_time, threads,
    worker,
};
use frameport::spec::{BytesSpec, PixelFormat, Spec, VideoSpec};
use frameport::{Audience, Delivery, Error, Exit, Frame, Link, Restart, Worker, WorkerBuilder, select};
use frameport::{SendStats, Until};
use rig::Rig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

fn assert_died(error: &Error, pid: u32) {
    let Error::WorkerDied(death) = error else { panic!("{error}") };
    assert_eq!((death.exit, death.pid), (Exit::Signal(9), pid));
}

#[test]
fn a_death_is_reported_once_and_the_next_life_goes_on() {
    if role().is_some() {
        return;
    }
    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    let (sender, receiver) = (worker.sender("in").unwrap(), worker.receiver("out").unwrap());
    let mut seq = 0;
    for life in 0..5 {
        for _ in 0..3 {
            send(&worker, seq);
            let back = worker.recv_timeout(LONG).unwrap();
            assert_eq!(back.seq(), seq);
            assert!(is_picture(&back, seq + 7));
            seq += 1;
        }
        let pid = kill(&worker);
        assert_died(&receiver.recv_timeout(LONG).unwrap_err(), pid);
        // Waits for the next life.
        let frame = sender.loan().unwrap();
        assert_ne!(worker.pid(), pid);
        drop(frame);
        assert!(receiver.try_recv().unwrap().is_none(), "once");
        assert_eq!(worker.stats().restarts, life + 1);
    }
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.received, stats.lost, stats.results), (15, 15, 0, 15));
    assert_eq!(worker.stop().unwrap(), Exit::Code(0));
    assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
    assert!(matches!(worker.recv().unwrap_err(), Error::LinkClosed { .. }));
}

/// What a thread that sends got.
#[derive(Debug, Default)]
struct Sent {
    offered: u64,
    sent: u64,
    no_slot: u64,
    refused: u64,
}

/// Sends pictures until told to stop.
fn send_all(worker: &Worker, stop: &AtomicBool) -> Sent {
    let mut counts = Sent::default();
    while !stop.load(Ordering::Relaxed) {
        counts.offered += 1;
        let mut frame = match worker.loan() {
            Ok(frame) => frame,
            Err(Error::PoolExhausted(_)) => {
                counts.no_slot += 1;
                std::thread::yield_now();
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        frame.fill(&picture(counts.sent, SIZE)).unwrap();
        frame.set_seq(counts.sent);
        match worker.send(frame) {
            Ok(_) => counts.sent += 1,
            Err(Error::Stale { .. }) => counts.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    counts
}

/// Receives whole frames with rising numbers until the link is closed; the processes whose deaths were reported.
fn receive_all(worker: &Worker, ahead: u64, results: &AtomicU64) -> Vec<u32> {
    let (mut dead, mut last) = (Vec::new(), None);
    loop {
        match worker.recv() {
            Ok(frame) => {
                assert!(last.is_none_or(|last| frame.seq() > last), "{last:?} then {}", frame.seq());
                last = Some(frame.seq());
                assert!(is_picture(&frame, frame.seq() + ahead), "frame {}", frame.seq());
                results.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::WorkerDied(death)) => {
                assert_eq!(death.exit, Exit::Signal(9));
                dead.push(death.pid);
            }
            Err(Error::LinkClosed { .. }) => return dead,
            Err(error) => panic!("{error}"),
        }
    }
}

fn assert_closed(stats: &frameport::Stats) {
    let frameport::Stats { received, retracted, no_slot, refused, lost, in_flight, .. } = *stats;
    assert_eq!(stats.offered, received + retracted + no_slot + refused + lost + in_flight, "{stats:?}");
}

/// A hundred kills in all.
#[test]
fn counters_close_and_every_death_is_told_once_while_workers_are_killed() {
    if role().is_some() {
        return;
    }
    let cases = [
        ("reply", Delivery::Lossless),
        ("in_place", Delivery::Lossless),
        ("reply", Delivery::Latest),
        ("in_place", Delivery::Newest(2)),
    ];
    for (index, (role, delivery)) in cases.into_iter().enumerate() {
        let mut random = Random(index as u64 + 11);
        let worker = lively(role, delivery).spawn().unwrap();
        let (stop, results) = (AtomicBool::new(false), AtomicU64::new(0));
        let ahead = if role == "reply" { 7 } else { 0 };
        let (sent, told, killed) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_all(&worker, &stop));
            // Two threads of one channel: whichever comes first is told.
            let receiving = [(); 2].map(|()| scope.spawn(|| receive_all(&worker, ahead, &results)));
            let mut killed = Vec::new();
            while killed.len() < 25 {
                // It works again.
                let (before, deadline) = (results.load(Ordering::Relaxed), Instant::now() + LONG);
                while results.load(Ordering::Relaxed) < before + 3 {
                    assert!(Instant::now() < deadline, "{role} {delivery:?}: {:?}", worker.stats());
                    assert_closed(&worker.stats());
                    std::thread::yield_now();
                }
                some_time(&mut random, Duration::from_millis(4));
                killed.push(kill(&worker));
                assert_closed(&worker.stats());
                await_restarts(&worker, killed.len() as u64);
            }
            stop.store(true, Ordering::Relaxed);
            let sent = sending.join().unwrap();
            assert_eq!(worker.stop().unwrap(), Exit::Code(0));
            let mut told = receiving.map(|thread| thread.join().unwrap()).concat();
            told.sort_unstable();
            killed.sort_unstable();
            (sent, told, killed)
        });
        assert_eq!(told, killed, "{role} {delivery:?}");
        let stats = worker.stats();
        assert_closed(&stats);
        let Sent { offered, sent, no_slot, refused } = sent;
        assert_eq!((stats.offered, stats.sent, stats.no_slot, stats.refused), (offered, sent, no_slot, refused));
        assert_eq!((stats.in_flight, stats.held, stats.restarts), (0, 0, 25), "{stats:?}");
        assert_eq!(stats.results, results.into_inner());
        assert!(worker.holders().is_empty(), "{:?}", worker.holders());
    }
}

#[test]
fn views_of_earlier_lives_never_change() {
    if role().is_some() {
        return;
    }
    for role in ["reply", "in_place"] {
        let ahead = if role == "reply" { 7 } else { 0 };
        let worker = lively(role, Delivery::Lossless).spawn().unwrap();
        let mut kept: Vec<Frame> = Vec::new();
        let mut pinned = Vec::new();
        for life in 0..10 {
            for turn in 0..6 {
                let seq = life * 6 + turn;
                let mut frame = worker.loan().unwrap();
                frame.fill(&picture(seq, SIZE)).unwrap();
                frame.set_seq(seq);
                pinned.extend((turn == 0).then(|| frame.pin()));
                worker.send(frame).unwrap();
                let back = worker.recv_timeout(LONG).unwrap();
                kept.extend((turn == 1).then_some(back));
            }
            // One is loaned when its worker dies, and is written to after it.
            let stale = worker.loan().unwrap();
            let pid = kill(&worker);
            assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
            await_restarts(&worker, life + 1);
            assert!(stale.payload().copy_from(0, &[0xee; SIZE]));
            let refused = worker.send(stale).unwrap_err();
            assert!(
                matches!(refused, Error::Stale { .. }) && refused.to_string().contains("loan another"),
                "{refused}"
            );
        }
        assert_eq!(kept.len(), 10);
        for frame in &kept {
            assert!(is_picture(frame, frame.seq() + ahead), "frame {}", frame.seq());
        }
        assert_eq!((worker.stats().held, worker.stats().refused), (10, 10));
        drop(kept);
        assert_eq!(worker.stats().held, 0);
    }
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

#[test]
fn it_is_given_up_after_so_many_starts_that_fail() {
    if role().is_some() {
        return;
    }
    let mark = mark("never_again");
    let worker = lively("never_again", Delivery::Lossless).env(MARK, &mark).restart(quick().starts(2)).spawn().unwrap();
    let receivers = [worker.receiver("out").unwrap(), worker.receiver("out").unwrap()];
    let pid = kill(&worker);
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    for error in [worker.loan().map(drop), receivers[0].recv().map(drop), receivers[1].try_recv().map(drop)] {
        let error = error.unwrap_err();
        let Error::GivenUp { starts: 2, cause, .. } = &error else { panic!("{error}") };
        assert!(matches!(&**cause, Error::WorkerDied(death) if death.exit == Exit::Code(4)), "{cause}");
    }
    assert!(matches!(worker.try_loan().unwrap_err(), Error::GivenUp { .. }));
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Signal(9)));
    assert_eq!((worker.stats().restarts, worker.stats().in_flight), (0, 0));
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
    std::fs::remove_file(mark).unwrap();
}

#[test]
fn loans_wait_for_the_next_life_or_say_at_once_that_there_is_none_yet() {
    if role().is_some() {
        return;
    }
    for (delivery, least) in [(Delivery::Lossless, Duration::from_millis(30)), (Delivery::Latest, Duration::ZERO)] {
        let mark = mark(&format!("slow_start-{delivery:?}"));
        let builder = lively("slow_start", delivery).env(MARK, &mark).send_deadline(Duration::from_millis(30));
        let worker = builder.spawn().unwrap();
        kill(&worker);
        worker.recv_timeout(LONG).unwrap_err();
        let asked = Instant::now();
        let error = worker.loan().unwrap_err();
        assert!(asked.elapsed() >= least);
        let Error::PoolExhausted(exhausted) = &error else { panic!("{error}") };
        let text = error.to_string();
        assert!(exhausted.waited >= least && text.contains("is being restarted (start 1 of 3"), "{text}");
        assert!(text.contains("SIGKILL") && !text.contains("last words"), "{text}");
        assert!(worker.sender("in").unwrap().loan_if_free().unwrap().is_none());
        let mut interrupt = || true;
        let until = Until::forever().or_when(Duration::from_millis(1), &mut interrupt);
        let expected = if delivery == Delivery::Lossless { "interrupted" } else { "restarted" };
        assert!(worker.loan_until(until).unwrap_err().to_string().contains(expected));
        let stats = worker.stats();
        assert_eq!((stats.offered, stats.no_slot), if least.is_zero() { (2, 2) } else { (1, 1) }, "{stats:?}");
        assert!(matches!(worker.recv_timeout(Duration::from_millis(1)), Err(Error::Timeout { .. })));
        // In the middle of a start.
        let stopping = Instant::now();
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
        assert!(stopping.elapsed() < Duration::from_secs(2));
        assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
        assert!(matches!(worker.recv().unwrap_err(), Error::LinkClosed { .. }));
        std::fs::remove_file(mark).unwrap();
    }
}

#[test]
fn a_stop_ends_it_in_the_middle_of_a_backoff_and_wakes_who_waits() {
    if role().is_some() {
        return;
    }
    let hour = Duration::from_secs(3600);
    let worker = lively("reply", Delivery::Lossless).restart(Restart::default().backoff(hour, hour)).spawn().unwrap();
    let pid = kill(&worker);
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| worker.loan_until(Until::forever()).map(drop)),
            scope.spawn(|| worker.recv().map(drop)),
            scope.spawn(|| select(&[&worker.receiver("out").unwrap()], Until::forever()).map(drop)),
        ];
        some_time(&mut Random(3), Duration::from_millis(20));
        let stopping = Instant::now();
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
        assert!(stopping.elapsed() < Duration::from_secs(2));
        let [loan, recv, selected] = waiting.map(|thread| thread.join().unwrap());
        assert!(matches!(loan, Err(Error::LinkClosed { .. })) && matches!(recv, Err(Error::LinkClosed { .. })));
        selected.unwrap();
    });
    assert!(worker.wait_exit(Duration::ZERO).is_some());
    drop(worker);
}

#[test]
fn a_worker_that_leaves_in_order_is_not_started_again() {
    if role().is_some() {
        return;
    }
    let worker = lively("leave", Delivery::Lossless).spawn().unwrap();
    send(&worker, 0);
    assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::LinkClosed { .. }));
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Code(0)));
    assert!(matches!(worker.recv().unwrap_err(), Error::LinkClosed { .. }));
    assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
    // After finish neither in order nor otherwise.
    for by_channel in [false, true] {
        let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
        send(&worker, 0);
        if by_channel {
            worker.sender("in").unwrap().finish()
        } else {
            worker.finish()
        }
        assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
        assert_eq!(worker.recv_timeout(LONG).unwrap().seq(), 0);
        assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::LinkClosed { .. }));
        assert_eq!((worker.wait_exit(LONG), worker.stats().restarts), (Some(Exit::Code(0)), 0));
    }
    // Finished while there is none.
    let hour = Duration::from_secs(3600);
    let worker = lively("reply", Delivery::Lossless).restart(Restart::default().backoff(hour, hour)).spawn().unwrap();
    let pid = kill(&worker);
    worker.finish();
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Signal(9)));
    assert!(worker.recv_timeout(LONG).is_err());
}

#[test]
fn parameters_and_a_new_output_reach_the_next_life() {
    if role().is_some() {
        return;
    }
    let mark = mark("another_output");
    let worker = lively("another_output", Delivery::Lossless).env(MARK, &mark).param("n", 1).spawn().unwrap();
    let receiver = worker.receiver("out").unwrap();
    let first_spec = receiver.spec();
    let exchange = || {
        send(&worker, 0);
        let frame = receiver.recv_timeout(LONG).unwrap();
        assert!(is_picture(&frame, 7));
        (frame.meta().unwrap().get("n").unwrap().as_u64().unwrap(), frame.packed_len(), frame.spec().clone())
    };
    assert_eq!(exchange(), (1, SIZE, small().into()));
    worker.params().set("n", 2).unwrap();
    kill(&worker);
    receiver.recv_timeout(LONG).unwrap_err();
    worker.params().set("n", 3).unwrap();
    let another = VideoSpec::new(PixelFormat::Gray, 5, 3);
    assert_eq!(exchange(), (3, 15, another.clone().into()));
    assert_eq!((first_spec, receiver.spec()), (small().into(), another.clone().into()));
    assert_eq!(worker.output_spec(), Some(another.into()));
    worker.params().set("n", 4).unwrap();
    assert_eq!(exchange().0, 4);
    std::fs::remove_file(mark).unwrap();
}

fn is_readable(worker: &Worker, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::new(&worker.event().unwrap(), PollFlags::IN)], Some(&limit)).unwrap() == 1
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

#[test]
fn one_descriptor_tells_of_deaths_and_of_the_next_lifes_frames() {
    if role().is_some() {
        return;
    }
    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    let receiver = worker.receiver("out").unwrap();
    let event = worker.event().unwrap().as_raw_fd();
    for life in 0..5 {
        drain(&worker);
        assert!(!is_readable(&worker, Duration::ZERO), "nothing is there");
        send(&worker, life);
        assert!(is_readable(&worker, LONG));
        assert!(matches!(drain(&worker)[..], [Ok(seq)] if seq == life));
        assert!(!is_readable(&worker, Duration::ZERO));
        let pid = kill(&worker);
        let mut deaths = Vec::new();
        while deaths.is_empty() {
            if life % 2 == 0 {
                assert_eq!(select(&[&receiver], Until::after(LONG)).unwrap(), [0]);
            } else {
                assert!(is_readable(&worker, LONG));
            }
            deaths = drain(&worker);
        }
        let [Err(death)] = &deaths[..] else { panic!("{deaths:?}") };
        assert_died(death, pid);
        // A new life is news, too; a look makes an end of it.
        await_restarts(&worker, life + 1);
        assert!(drain(&worker).is_empty() && !is_readable(&worker, Duration::ZERO));
    }
    assert_eq!(worker.event().unwrap().as_raw_fd(), event);
    // Who waits for a slot while there is no worker is told of the next one.
    kill(&worker);
    drain(&worker);
    let sender = worker.sender("in").unwrap();
    let deadline = Instant::now() + LONG;
    while sender.loan_if_free().unwrap().is_none() {
        assert!(Instant::now() < deadline && is_readable(&worker, LONG));
    }
    worker.stop().unwrap();
    assert!(is_readable(&worker, Duration::ZERO));
}

#[test]
fn a_descriptor_asked_for_between_two_lives_is_quiet_while_nothing_comes() {
    if role().is_some() {
        return;
    }
    let hour = Duration::from_secs(3600);
    let worker = lively("reply", Delivery::Lossless).restart(Restart::default().backoff(hour, hour)).spawn().unwrap();
    let pid = kill(&worker);
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    worker.event().unwrap();
    assert!(drain(&worker).is_empty() && !is_readable(&worker, Duration::ZERO));
}

#[test]
fn a_member_of_an_audience_keeps_its_seat() {
    if role().is_some() {
        return;
    }
    let audience = Audience::new(small(), 8).unwrap();
    let member = |role| {
        let worker = worker(role).share("in", &audience, Delivery::Newest(2), 3);
        worker.output("out", BytesSpec::new(SIZE), Delivery::Lossless).restart(quick()).spawn()
    };
    let (kept, other) = (member("reply").unwrap(), member("reply").unwrap());
    for life in 0..3 {
        let push = |seq: u64| {
            let mut frame = audience.loan().unwrap();
            frame.fill(&picture(seq, SIZE)).unwrap();
            frame.set_seq(seq);
            audience.send(frame).unwrap();
        };
        push(life);
        for worker in [&kept, &other] {
            let frame = worker.recv_timeout(LONG).unwrap();
            assert_eq!(frame.seq(), life);
            assert!(is_picture(&frame, life + 7));
        }
        let pid = kill(&kept);
        assert_died(&kept.recv_timeout(LONG).unwrap_err(), pid);
        assert!(member("reply").is_err(), "the seats are taken");
        await_restarts(&kept, life + 1);
        assert_eq!(audience.stats().members, 2);
    }
    let stats = kept.sender("in").unwrap().stats();
    assert_eq!((stats.sent, stats.received + stats.lost), (3, 3));
    assert!(stats.received <= 3 && SendStats::in_flight(&stats) == 0);
    drop(kept);
    drop(member("reply").unwrap());
}

#[test]
fn a_liar_is_cut_off_once_and_its_next_life_goes_on() {
    if role().is_some() {
        return;
    }
    let mark = mark("liar");
    let worker = lively("liar", Delivery::Lossless).env(MARK, &mark).spawn().unwrap();
    send(&worker, 0);
    assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::Violation { .. }));
    send(&worker, 1);
    let back = worker.recv_timeout(LONG).unwrap();
    assert!(back.seq() == 1 && is_picture(&back, 8));
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.received + stats.lost, stats.restarts), (2, 2, 1), "{stats:?}");
    std::fs::remove_file(mark).unwrap();
}

/// A host that receives on one channel only, and one that is late.
#[test]
fn who_does_not_receive_holds_up_no_life_but_the_third_with_results_left() {
    if role().is_some() {
        return;
    }
    let worker = lively("swallow", Delivery::Latest).spawn().unwrap();
    for life in 0..20 {
        send(&worker, life);
        kill(&worker);
        await_restarts(&worker, life + 1);
    }
    // The oldest deaths are forgotten.
    let deaths = drain(&worker);
    assert!((1..=20).contains(&deaths.len()) && deaths.iter().all(Result::is_err), "{deaths:?}");
    drop(worker);

    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    let receiver = worker.receiver("out").unwrap();
    let mut pids = Vec::new();
    for life in 0..2 {
        send(&worker, life);
        // Its result is there, unreceived: it lets go of the frame after that.
        let deadline = Instant::now() + LONG;
        while !worker.sender("in").unwrap().holders().is_empty() {
            assert!(Instant::now() < deadline, "{:?}", worker.holders());
            std::thread::yield_now();
        }
        pids.push(kill(&worker));
        if life == 0 {
            await_restarts(&worker, 1);
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(worker.stats().restarts, 1, "a third waits");
    for (seq, pid) in (0..).zip(pids) {
        assert_eq!(receiver.recv_timeout(LONG).unwrap().seq(), seq);
        assert_died(&receiver.recv_timeout(LONG).unwrap_err(), pid);
    }
    await_restarts(&worker, 2);
}

#[test]
fn a_change_of_spec_stays_over_lives() {
    if role().is_some() {
        return;
    }
    let wide: Spec = VideoSpec::new(PixelFormat::Bgr24, 70, 3).into();
    let worker = lively("in_place", Delivery::Lossless).spawn().unwrap();
    let turn = |seq: u64| {
        let mut frame = worker.loan().unwrap();
        assert_eq!(frame.spec(), &wide);
        let pixels = picture(seq, frame.packed_len());
        frame.fill(&pixels).unwrap();
        frame.set_seq(seq);
        worker.send(frame).unwrap();
        worker.recv_timeout(LONG).unwrap()
    };
    let mut kept = Vec::new();
    for life in 0..4 {
        // At once after a death it is the next life's, which is waited for.
        if life % 3 == 0 {
            worker.change_spec(wide.clone()).unwrap();
        }
        let back = turn(life);
        assert_eq!(
            (back.spec(), worker.input_spec(), worker.output_spec()),
            (&wide, Some(wide.clone()), Some(wide.clone()))
        );
        kept.push(back);
        let pid = kill(&worker);
        assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    }
    await_restarts(&worker, 4);
    drop(turn(9));
    for (seq, frame) in (0..).zip(&kept) {
        assert!(is_picture(frame, seq), "frame {seq}");
    }
    assert_eq!(worker.stats().held, 4);
}
