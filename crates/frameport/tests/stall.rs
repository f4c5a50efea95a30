//! A worker that lives and does not move: written off or killed, and its host goes on.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{Watched, is_picture, picture, role, small, worker};
use frameport::{Delivery, Error, Exit, Holder, Link, Restart, Stall, Stats, Worker, WorkerBuilder};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SIZE: usize = 63 * 41 * 3;
const LONG: Duration = Duration::from_secs(60);
const AFTER: Duration = Duration::from_millis(40);

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match role.as_str() {
            "in_place" => drop(link.send_back(frame)),
            "reply" => {
                let Ok(mut reply) = link.reply(&frame) else { return };
                reply.fill(&picture(frame.seq(), SIZE)).unwrap();
                drop(link.send(reply));
            }
            other => panic!("no role {other}"),
        }
    }
}

fn watched(role: &str, delivery: Delivery, what: Stall) -> WorkerBuilder {
    worker(role).input("in", small(), delivery).output("out", small(), Delivery::Lossless).stall(AFTER, what)
}

fn send(worker: &Worker, seq: u64) {
    let mut frame = worker.loan().unwrap();
    frame.fill(&picture(seq, SIZE)).unwrap();
    frame.set_seq(seq);
    worker.send(frame).unwrap();
}

fn exchange(worker: &Worker, seq: u64) {
    send(worker, seq);
    let back = worker.recv_timeout(LONG).unwrap();
    assert_eq!(back.seq(), seq);
    assert!(is_picture(&back, seq));
}

fn assert_closed(stats: &Stats) {
    let Stats { received, retracted, no_slot, refused, lost, in_flight, .. } = *stats;
    assert_eq!(stats.offered, received + retracted + no_slot + refused + lost + in_flight, "{stats:?}");
}

fn until(what: &str, found: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !found() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_stalled_worker_is_killed_and_says_what_it_had() {
    if role().is_some() {
        return;
    }
    for delivery in [Delivery::Lossless, Delivery::Latest] {
        let worker = watched("reply", delivery, Stall::Kill).spawn().unwrap();
        // However long it has nothing.
        std::thread::sleep(AFTER * 3);
        exchange(&worker, 0);
        let process = Watched::open(worker.pid()).unwrap();
        process.stop();
        let stopped = Instant::now();
        // Newer frames do not make it move.
        let error = loop {
            match worker.loan() {
                Ok(frame) => drop(worker.send(frame)),
                Err(Error::PoolExhausted(_)) => {}
                Err(error) => break error,
            }
            std::thread::yield_now();
        };
        assert!(stopped.elapsed() >= AFTER);
        let text = error.to_string();
        assert!(matches!(error, Error::Stalled { .. }) && text.contains("has had frame "), "{text}");
        assert!(matches!(worker.recv().unwrap_err(), Error::Stalled { .. }));
        assert!(process.dies_before(Instant::now() + LONG));
        until("it is reclaimed", || worker.stats().in_flight == 0);
        assert_closed(&worker.stats());
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
    }
}

#[test]
fn a_stalled_worker_that_is_restarted_costs_one_error() {
    if role().is_some() {
        return;
    }
    let quick = Restart::default().backoff(Duration::from_millis(1), Duration::from_millis(20));
    let worker = watched("reply", Delivery::Lossless, Stall::Kill).restart(quick).spawn().unwrap();
    for life in 0..3 {
        exchange(&worker, life);
        Watched::open(worker.pid()).unwrap().stop();
        send(&worker, 10);
        // The producer goes on: its loans wait for the next life.
        assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::Stalled { .. }));
        drop(worker.loan().unwrap());
        assert!(worker.try_recv().unwrap().is_none(), "once");
        assert_eq!(worker.stats().restarts, life + 1);
        assert_closed(&worker.stats());
    }
    assert_eq!((worker.stats().lost, worker.stats().received), (3, 3));
}

#[test]
fn slots_of_a_stalled_worker_are_written_off_and_come_back_when_it_moves_again() {
    if role().is_some() {
        return;
    }
    for role in ["reply", "in_place"] {
        let worker = watched(role, Delivery::Lossless, Stall::WriteOff).spawn().unwrap();
        exchange(&worker, 0);
        let process = Watched::open(worker.pid()).unwrap();
        process.stop();
        for seq in 1..4 {
            send(&worker, seq);
        }
        let kept = worker.loan().unwrap();
        // Waits, and is then told.
        let asked = Instant::now();
        let error = worker.loan().unwrap_err();
        let Error::PoolExhausted(exhausted) = &error else { panic!("{error}") };
        assert!(asked.elapsed() < Duration::from_secs(20), "not to its deadline");
        let off = |holder: &Holder| matches!(holder, Holder::WrittenOff(_));
        assert_eq!(exhausted.holders.iter().filter(|slot| off(&slot.holder)).count(), 3, "{error}");
        assert!(error.to_string().contains("has stalled and its slots are written off"), "{error}");
        let stats = worker.stats();
        assert_closed(&stats);
        assert_eq!((stats.lost, stats.in_flight), (3, 0), "{stats:?}");
        let asked = Instant::now();
        worker.loan().unwrap_err();
        assert!(asked.elapsed() < AFTER, "at once");
        // What it was given after all is whole, and its late answers are no violation.
        drop(kept);
        process.signal(Signal::CONT);
        for seq in 1..4 {
            let late = worker.recv_timeout(LONG).unwrap();
            assert_eq!(late.seq(), seq);
            assert!(is_picture(&late, seq), "{role}: frame {seq}");
        }
        until("all slots come back", || worker.holders().is_empty());
        for seq in 4..20 {
            exchange(&worker, seq);
        }
        let stats = worker.stats();
        assert_closed(&stats);
        assert_eq!((stats.sent, stats.received, stats.lost, stats.no_slot), (20, 17, 3, 2), "{stats:?}");
        assert_eq!(worker.stop().unwrap(), Exit::Code(0));
    }
}

#[test]
fn a_live_producer_goes_on_and_what_was_written_off_is_never_reused() {
    if role().is_some() {
        return;
    }
    let worker = watched("in_place", Delivery::Latest, Stall::WriteOff).spawn().unwrap();
    exchange(&worker, 0);
    let process = Watched::open(worker.pid()).unwrap();
    let mut seq = 1;
    for _ in 0..5 {
        process.stop();
        let deadline = Instant::now() + AFTER * 4;
        while Instant::now() < deadline {
            match worker.loan() {
                Ok(mut frame) => {
                    frame.fill(&picture(seq, SIZE)).unwrap();
                    frame.set_seq(seq);
                    worker.send(frame).unwrap();
                    seq += 1;
                }
                Err(Error::PoolExhausted(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert_closed(&worker.stats());
        }
        process.signal(Signal::CONT);
        // The newest arrives, and whatever it was stopped with is what it was.
        loop {
            let back = worker.recv_timeout(LONG).unwrap();
            assert!(is_picture(&back, back.seq()), "frame {}", back.seq());
            if back.seq() + 1 == seq {
                break;
            }
        }
    }
    assert_eq!(worker.stop().unwrap(), Exit::Code(0));
    assert_closed(&worker.stats());
}

#[test]
fn a_worker_that_waits_for_this_side_is_not_stalled() {
    if role().is_some() {
        return;
    }
    let worker = watched("reply", Delivery::Lossless, Stall::Kill).spawn().unwrap();
    // Its own pool is full of results nobody takes; then it has a frame for as long as this side likes.
    for seq in 0..8 {
        send(&worker, seq);
    }
    std::thread::sleep(AFTER * 10);
    for seq in 0..8 {
        assert_eq!(worker.recv_timeout(LONG).unwrap().seq(), seq);
    }
    assert_eq!(worker.stop().unwrap(), Exit::Code(0));
}
