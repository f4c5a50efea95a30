//! Live channels between two processes: the newest frame after any pause, a producer that never waits, pixels that are whole
//! while they are held, and counters that close.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;

use std::time::Duration;

use common::{Random, is_picture, picture, role, some_time, worker};
use frameport::spec::{BytesSpec, PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Link, Stats, Worker, WorkerBuilder};
use serde_json::json;

fn tiny() -> VideoSpec {
    VideoSpec::new(PixelFormat::Gray, 31, 7)
}

const SIZE: usize = 31 * 7;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    match run(&link, &role) {
        Ok(()) | Err(Error::LinkClosed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn run(link: &Link, role: &str) -> Result<(), Error> {
    match role {
        // Receives as many frames as each message on the gate says, keeps the last, and tells what it got.
        "gated" => {
            let (gate, told) = (link.receiver("gate")?, link.sender("told")?);
            let mut kept = None;
            loop {
                let count = gate.recv()?.payload().len();
                for _ in 0..count {
                    let frame = link.recv()?;
                    assert!(is_picture(&frame, frame.seq()), "frame {}", frame.seq());
                    let mut answer = told.loan()?;
                    answer.set_seq(frame.seq());
                    let skipped = link.receiver("in")?.stats().skipped;
                    answer.set_meta(json!({"skipped": skipped}).as_object().unwrap());
                    told.send(answer)?;
                    kept = Some(frame);
                }
                assert!(kept.as_ref().is_none_or(|frame| is_picture(frame, frame.seq())), "while it is held");
            }
        }
        // Receives what it can and looks at every byte, twice.
        "check" => {
            let (mut held, mut count) = (None, 0_u64);
            let ended = loop {
                match link.recv() {
                    Ok(frame) => {
                        assert!(is_picture(&frame, frame.seq()), "frame {}", frame.seq());
                        count += 1;
                        if let Some(before) = held.replace(frame) {
                            let before: frameport::Frame = before;
                            assert!(is_picture(&before, before.seq()), "frame {} later", before.seq());
                        }
                    }
                    Err(error) => break error,
                }
            };
            let mut answer = link.loan()?;
            answer.set_seq(count);
            link.send(answer)?;
            Err(ended)
        }
        "in_place" => loop {
            let mut frame = link.recv()?;
            frame.fill(&picture(frame.seq() + 1, SIZE)).unwrap();
            link.send_back(frame)?;
        },
        // Fills the host's live channel, as often as the gate says, then says on the lossless one that it has.
        "flood" => {
            let (gate, done) = (link.receiver("gate")?, link.sender("done")?);
            let out = link.sender("out")?;
            loop {
                for _ in 0..gate.recv()?.payload().len() {
                    let mut frame = out.loan()?;
                    let seq = out.stats().sent;
                    frame.fill(&picture(seq, SIZE))?;
                    assert_eq!(out.send(frame)?, seq);
                }
                done.send(done.loan()?)?;
            }
        }
        other => panic!("no role {other}"),
    }
}

fn push(worker: &Worker, seq: u64) {
    let mut frame = worker.loan().unwrap();
    frame.fill(&picture(seq, SIZE)).unwrap();
    assert_eq!(worker.send(frame).unwrap(), seq);
}

fn open_gate(worker: &Worker, count: usize) {
    let gate = worker.sender("gate").unwrap();
    let mut message = gate.loan().unwrap();
    message.set_len(count).unwrap();
    gate.send(message).unwrap();
}

fn gated(role: &str, delivery: Delivery) -> WorkerBuilder {
    worker(role).input("in", tiny(), delivery).input("gate", BytesSpec::new(100), Delivery::Lossless)
}

fn assert_closed(stats: &Stats) {
    let Stats { offered, received, retracted, no_slot, refused, lost, in_flight, .. } = *stats;
    assert_eq!(offered, received + retracted + no_slot + refused + lost + in_flight, "{stats:?}");
}

#[test]
fn after_any_pause_the_newest_frames_are_received() {
    for (delivery, slots) in [(Delivery::Latest, 4), (Delivery::Newest(3), 6)] {
        let builder = gated("gated", delivery).output("told", BytesSpec::new(1), Delivery::Lossless);
        let worker = builder.slots(slots).spawn().unwrap();
        let told = worker.receiver("told").unwrap();
        let depth = u64::from(delivery.depth().unwrap());
        let mut random = Random(11);
        let (mut sent, mut received) = (0, 0);
        for _ in 0..200 {
            for _ in 0..depth + random.below(40) {
                // Never waits, never fails, whatever the worker does.
                push(&worker, sent);
                sent += 1;
            }
            open_gate(&worker, depth as usize);
            for seq in sent - depth..sent {
                let answer = told.recv().unwrap();
                received += 1;
                assert_eq!(answer.seq(), seq, "{delivery:?} after {sent}");
                assert_eq!(answer.meta().unwrap()["skipped"], json!(seq + 1 - received), "a gap is told");
            }
            let stats = worker.sender("in").unwrap().stats();
            assert_eq!(
                (stats.sent, stats.received, stats.retracted, stats.no_slot),
                (sent, received, sent - received, 0)
            );
        }
        worker.finish();
        assert_eq!(worker.wait_exit(Duration::from_secs(30)), Some(Exit::Code(0)));
        assert_closed(&worker.stats());
    }
}

#[test]
fn every_frame_a_fast_producer_and_a_fast_worker_share_is_whole() {
    let worker = worker("check")
        .input("in", tiny(), Delivery::Latest)
        .output("out", BytesSpec::new(1), Delivery::Lossless)
        .slots(5)
        .spawn()
        .unwrap();
    for seq in 0..30_000 {
        push(&worker, seq);
        if seq % 1000 == 0 {
            assert_closed(&worker.stats());
        }
    }
    worker.finish();
    let counted = worker.recv().unwrap().seq();
    assert_eq!(worker.wait_exit(Duration::from_secs(30)), Some(Exit::Code(0)));
    let stats = worker.stats();
    assert_closed(&stats);
    assert_eq!((stats.sent, stats.no_slot, stats.received), (30_000, 0, counted), "{stats:?}");
}

#[test]
fn a_live_frame_goes_back_in_place_on_a_lossless_channel() {
    let worker = worker("in_place")
        .input("in", tiny(), Delivery::Latest)
        .output("out", tiny(), Delivery::Lossless)
        .spawn()
        .unwrap();
    for seq in 0..500 {
        push(&worker, seq);
        let back = worker.recv().unwrap();
        assert_eq!(back.seq(), seq);
        assert!(is_picture(&back, seq + 1));
    }
    let stats = worker.stats();
    assert_eq!((stats.received, stats.results, stats.retracted), (500, 500, 0), "{stats:?}");
}

#[test]
fn a_live_channel_back_keeps_the_newest_results() {
    let worker = gated("flood", Delivery::Lossless)
        .output("out", tiny(), Delivery::Latest)
        .output("done", BytesSpec::new(1), Delivery::Lossless)
        .spawn()
        .unwrap();
    let done = worker.receiver("done").unwrap();
    let mut sent = 0;
    for count in [1, 2, 7, 100, 3] {
        open_gate(&worker, count);
        done.recv().unwrap();
        sent += count as u64;
        let newest = worker.recv().unwrap();
        assert_eq!(newest.seq(), sent - 1);
        assert!(is_picture(&newest, sent - 1));
        assert!(worker.try_recv().unwrap().is_none());
    }
    let stats = worker.receiver("out").unwrap().stats();
    assert_eq!((stats.received, stats.skipped, stats.held), (5, sent - 5, 0));
}

#[test]
fn counters_close_when_a_worker_dies_at_any_moment() {
    let mut random = Random(5);
    for _ in 0..20 {
        let worker = worker("check")
            .input("in", tiny(), Delivery::Newest(2))
            .output("out", BytesSpec::new(1), Delivery::Lossless)
            .spawn()
            .unwrap();
        let death = std::thread::scope(|scope| {
            let worker = &worker;
            let killer_wait = random.below(1 << 32);
            scope.spawn(move || {
                some_time(&mut Random(killer_wait), Duration::from_millis(5));
                worker.kill();
            });
            let mut seq = 0;
            loop {
                match worker
                    .loan()
                    .and_then(|mut frame| frame.fill(&picture(seq, SIZE)).and_then(|()| worker.send(frame)))
                {
                    Ok(_) => seq += 1,
                    Err(Error::PoolExhausted(_)) => {}
                    Err(error) => break error,
                }
            }
        });
        assert!(matches!(death, Error::WorkerDied(_)), "{death}");
        let stats = worker.stats();
        assert_closed(&stats);
        assert_eq!(stats.in_flight, 0, "{stats:?}");
    }
}
