//! Another spec while a link runs: frames stay what they were sent as, in order and whole; old ones stay valid; memory is
//! given back; whoever is in the way is named.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{Thread, Watched, byte, is_picture, picture, role, small, small_worker, worker};
use frameport::spec::{BytesSpec, PixelFormat, Spec, VideoSpec};
use frameport::{Delivery, Error, Frame, Link, Until, WaitStrategy, Worker};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn sized(width: u32, height: u32) -> Spec {
    VideoSpec::new(PixelFormat::Bgr24, width, height).into()
}

/// The sizes that the frames of these tests take in turn; the first is that of `small`.
fn size(turn: u64) -> Spec {
    [sized(63, 41), sized(160, 90), sized(1, 1), sized(200, 97)][(turn % 4) as usize].clone()
}

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    let mut kept = Vec::new();
    loop {
        let mut frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => panic!("{error}"),
        };
        assert!(role == "late" || is_picture(&frame, frame.seq()));
        match role.as_str() {
            "in_place" => {
                frame.set_meta(&serde_json::from_str(&format!(r#"{{"spec":"{}"}}"#, frame.spec())).unwrap());
                link.send_back(frame).unwrap();
            }
            "copies" => {
                let mut reply = link.reply(&frame).unwrap();
                assert_eq!(reply.spec(), frame.spec());
                reply.fill(&frame.snapshot()).unwrap();
                link.send(reply).unwrap();
            }
            // The answer to each frame follows the next one's arrival.
            "late" => {
                kept.push(frame);
                if kept.len() == 3 {
                    let frame = kept.remove(0);
                    let mut reply = link.reply(&frame).unwrap();
                    assert_eq!(reply.spec(), frame.spec());
                    reply.fill(&frame.snapshot()).unwrap();
                    link.send(reply).unwrap();
                }
            }
            // Twice as large as what comes in.
            "upscales" => {
                let Spec::Video(input) = frame.spec() else { panic!() };
                let output: Spec = VideoSpec::new(PixelFormat::Gray, input.width * 2, input.height * 2).into();
                let sender = link.sender("out").unwrap();
                if sender.spec() != output {
                    sender.change_spec(output).unwrap();
                }
                let mut reply = link.reply(&frame).unwrap();
                let pixels: Vec<u8> = (0..reply.packed_len()).map(|index| byte(frame.seq() + 1, index)).collect();
                reply.fill(&pixels).unwrap();
                link.send(reply).unwrap();
            }
            "asks_too_much" => {
                let sender = link.sender("out").unwrap();
                let error = sender.change_spec(sized(20_000, 20_000)).unwrap_err().to_string();
                let mut reply = link.reply(&frame).unwrap();
                reply.set_meta(serde_json::json!({ "error": error }).as_object().unwrap());
                link.send(reply).unwrap();
            }
            "keeps" => kept.push(frame),
            "looks" => {}
            other => panic!("no role {other}"),
        }
    }
}

fn send(worker: &Worker, seq: u64) {
    let mut frame = worker.loan().unwrap();
    let pixels = picture(seq, frame.packed_len());
    frame.fill(&pixels).unwrap();
    assert_eq!(worker.send(frame).unwrap(), seq);
}

fn receive(worker: &Worker, seq: u64) -> Frame {
    let frame = worker.recv_timeout(MINUTE).unwrap();
    assert_eq!(frame.seq(), seq);
    assert!(is_picture(&frame, seq), "frame {seq}");
    frame
}

/// Every frame is of another size than the one before, and two are on their way.
fn change_with_every_frame(role: &str, frames: u64) {
    let worker = small_worker(role).spawn().unwrap();
    for seq in 0..frames {
        worker.change_spec(size(seq)).unwrap();
        assert_eq!((worker.input_spec().unwrap(), worker.output_spec().unwrap()), (size(seq), size(seq)));
        send(&worker, seq);
        if seq > 0 {
            let frame = receive(&worker, seq - 1);
            assert_eq!(frame.spec(), &size(seq - 1));
            if role == "in_place" {
                assert_eq!(frame.meta().unwrap()["spec"], size(seq - 1).to_string());
            }
        }
    }
    drop(receive(&worker, frames - 1));
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.received, stats.in_flight, stats.lost), (frames, frames, 0, 0));
    worker.stop().unwrap();
}

#[test]
fn frames_sent_back_in_place_are_what_they_were_sent_as() {
    change_with_every_frame("in_place", 200);
}

#[test]
fn replies_are_of_the_size_of_what_they_answer() {
    change_with_every_frame("copies", 200);
}

#[test]
fn a_worker_that_answers_old_frames_after_newer_ones_answers_in_kind() {
    let worker = small_worker("late").slots(4).spawn().unwrap();
    let mut answered = 0;
    for seq in 0..8 {
        if seq == 4 {
            worker.change_spec(size(1)).unwrap();
        }
        send(&worker, seq);
        if seq >= 2 {
            let frame = receive(&worker, answered);
            assert_eq!(frame.spec(), &size(u64::from(answered >= 4)));
            answered += 1;
        }
    }
    worker.stop().unwrap();
}

#[test]
fn frames_of_older_specs_stay_what_they_are() {
    let worker = small_worker("in_place").slots(2).spawn().unwrap();
    send(&worker, 0);
    let first = receive(&worker, 0);
    worker.change_spec(size(1)).unwrap();
    for seq in 1..20 {
        send(&worker, seq);
        receive(&worker, seq);
    }
    assert_eq!(first.spec(), &size(0));
    assert!(is_picture(&first, 0));
    // Its pool is the one before the last: another change has to wait for it, and says whom for.
    let error = worker.change_spec_until(size(2), Until::after(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(error, Error::PoolExhausted(_)), "{error}");
    assert!(error.to_string().contains("sent back in place"), "{error}");
    drop(first);
    worker.change_spec(size(2)).unwrap();
    send(&worker, 20);
    assert_eq!(receive(&worker, 20).spec(), &size(2));
    let kept = {
        send(&worker, 21);
        receive(&worker, 21)
    };
    worker.stop().unwrap();
    assert!(is_picture(&kept, 21), "also beyond the worker");
}

#[test]
fn a_result_that_is_kept_is_named_where_a_change_waits_for_it() {
    let worker = small_worker("copies").spawn().unwrap();
    send(&worker, 0);
    let kept = receive(&worker, 0);
    worker.change_spec(size(1)).unwrap();
    send(&worker, 1);
    drop(receive(&worker, 1));
    let error = worker.change_spec_until(size(2), Until::after(Duration::from_millis(50))).unwrap_err().to_string();
    assert!(error.contains("'out'") && error.contains("frame 0") && error.contains("release the frames"), "{error}");
    assert!(is_picture(&kept, 0));
    drop(kept);
    worker.change_spec(size(2)).unwrap();
    send(&worker, 2);
    receive(&worker, 2);
}

#[test]
fn a_loan_of_the_older_spec_may_still_be_sent() {
    let worker = small_worker("in_place").spawn().unwrap();
    let mut old = worker.loan().unwrap();
    worker.change_spec(size(1)).unwrap();
    let pixels = picture(0, old.packed_len());
    old.fill(&pixels).unwrap();
    worker.send(old).unwrap();
    send(&worker, 1);
    assert_eq!(receive(&worker, 0).spec(), &size(0));
    assert_eq!(receive(&worker, 1).spec(), &size(1));
}

#[test]
fn a_worker_asks_for_another_spec_of_what_it_sends() {
    let worker = worker("upscales").input("in", small(), Delivery::Lossless);
    let worker = worker.output("out", small(), Delivery::Lossless).spawn().unwrap();
    for seq in 0..20 {
        if seq % 3 == 0 {
            worker.sender("in").unwrap().change_spec(size(seq / 3)).unwrap();
        }
        send(&worker, seq);
        let frame = worker.recv_timeout(MINUTE).unwrap();
        let Spec::Video(input) = size(seq / 3) else { panic!() };
        assert_eq!(frame.spec(), &VideoSpec::new(PixelFormat::Gray, input.width * 2, input.height * 2).into());
        assert!(is_picture(&frame, seq + 1));
    }
}

#[test]
fn a_worker_that_asks_for_too_much_is_told_and_goes_on() {
    let worker = small_worker("asks_too_much").output_limit(1 << 20).spawn().unwrap();
    send(&worker, 0);
    let meta = worker.recv_timeout(MINUTE).unwrap().meta().unwrap();
    let error = meta["error"].as_str().unwrap();
    assert!(error.contains("over the output limit"), "{error}");
}

#[test]
fn a_live_channel_changes_too_and_never_waits() {
    for delivery in [Delivery::Latest, Delivery::Newest(2)] {
        let worker = worker("looks").input("in", small(), delivery).slots(5).spawn().unwrap();
        let (mut sent, mut refused) = (0, 0);
        while sent < 2000 {
            if sent % 50 == 0 {
                worker.change_spec(size(sent / 50)).unwrap();
            }
            match worker.loan() {
                Ok(mut frame) => {
                    let pixels = picture(sent, frame.packed_len());
                    frame.fill(&pixels).unwrap();
                    worker.send(frame).unwrap();
                    sent += 1;
                }
                // The worker does not have the new pool yet.
                Err(Error::PoolExhausted(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            let stats = worker.stats();
            let settled = stats.received + stats.retracted + stats.no_slot + stats.lost + stats.in_flight;
            assert_eq!((stats.offered, stats.sent, stats.no_slot), (settled, sent, refused));
        }
        worker.finish();
        assert_eq!(worker.wait_exit(MINUTE), Some(frameport::Exit::Code(0)));
    }
}

#[test]
fn a_worker_that_keeps_frames_is_named_where_a_change_waits_for_it() {
    let worker = worker("keeps").input("in", small(), Delivery::Lossless).slots(3);
    let worker = worker.spawn().unwrap();
    send(&worker, 0);
    worker.change_spec(size(1)).unwrap();
    let error = worker.change_spec_until(size(2), Until::after(Duration::from_millis(200))).unwrap_err().to_string();
    assert!(error.contains("slot 0 held by worker 'keeps'") && error.contains("frame 0"), "{error}");
    send(&worker, 1);
}

#[test]
fn a_change_ends_with_its_worker() {
    let worker = worker("keeps").input("in", small(), Delivery::Lossless).slots(3).spawn().unwrap();
    send(&worker, 0);
    worker.change_spec(size(1)).unwrap();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| worker.change_spec_until(size(2), Until::after(MINUTE)));
        worker.kill();
        assert!(matches!(change.join().unwrap(), Err(Error::WorkerDied(_))));
    });
    assert!(matches!(worker.change_spec(size(2)), Err(Error::WorkerDied(_))));
    let stats = worker.stats();
    assert_eq!((stats.sent, stats.received + stats.lost, stats.in_flight), (1, 1, 0));
}

#[test]
fn what_cannot_be_is_an_error_and_changes_nothing() {
    let worker = small_worker("in_place").spawn().unwrap();
    assert!(matches!(worker.change_spec(sized(0, 4)), Err(Error::Spec(_))));
    let error = worker.change_spec(BytesSpec { capacity: 1 << 39 }).unwrap_err();
    assert!(matches!(error, Error::Memory { .. } | Error::TooLarge { .. }), "{error:?}");
    worker.change_spec(small()).unwrap();
    send(&worker, 0);
    assert_eq!(receive(&worker, 0).pool_id(), 0, "the same spec is no change");
}

#[test]
fn a_loan_waits_for_a_stopped_worker_to_map_the_new_pool() {
    let worker = small_worker("in_place").wait(WaitStrategy::Park).spawn().unwrap();
    let process = Watched::open(worker.pid()).unwrap();
    process.stop();
    worker.change_spec(size(1)).unwrap();
    let error = worker.loan_until(Until::after(Duration::from_millis(20))).unwrap_err().to_string();
    assert!(error.contains("has not mapped the pool of the new spec"), "{error}");
    let start = Instant::now();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let loan = scope.spawn(move || {
            tell.send(Thread::current()).unwrap();
            worker.loan_until(Until::after(MINUTE)).map(|frame| frame.spec().clone())
        });
        told.recv().unwrap().await_sleep();
        process.signal(Signal::CONT);
        assert_eq!(loan.join().unwrap().unwrap(), size(1));
    });
    assert!(start.elapsed() < MINUTE / 2, "it was woken");
}
