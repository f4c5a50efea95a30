//! Each death is told once, and nothing of a frame is lost or changed by it.

use frameport::{Delivery, Error, Exit, Frame, Worker};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::common::{Random, is_picture, picture, role, some_time};
use super::{LONG, SIZE, assert_died, await_restarts, drain, kill, lively, send};

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
    // The oldest deaths are forgotten, but for eight; two lives may have ended and not be counted among the dead yet.
    let deaths = drain(&worker);
    assert!((8..=10).contains(&deaths.len()) && deaths.iter().all(Result::is_err), "{deaths:?}");
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
