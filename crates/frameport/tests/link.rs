//! One link between two processes: frames there and back, to the last byte.

mod common;

use common::{byte, is_picture, picture, role, small_worker, worker};
use frameport::spec::{BytesSpec, PixelFormat, PlaneGeometry, VideoSpec};
use frameport::{Delivery, Error, Exit, Link, WaitStrategy};
use std::time::Duration;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let mut link = Link::builder();
    if role == "upscale" {
        link = link.output(VideoSpec::new(PixelFormat::Gray, 640, 480));
    }
    let link = link.connect().unwrap();
    let mut kept = Vec::new();
    loop {
        let mut frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match role.as_str() {
            // Every byte goes up by one, in the same slot.
            "in_place" | "viewed" => {
                assert!(is_picture(&frame, frame.seq()), "frame {}", frame.seq());
                let hold = (role == "viewed").then(|| frame.hold());
                let up: Vec<u8> = frame.snapshot().iter().map(|byte| byte.wrapping_add(1)).collect();
                frame.fill(&up).unwrap();
                let mut meta = frame.meta().unwrap();
                meta.insert("seen".into(), frame.seq().into());
                frame.set_meta(&meta);
                link.send_back(frame).unwrap();
                drop(hold);
            }
            "long_meta" => {
                let reply = link.reply(&frame).unwrap();
                frame.set_meta_bytes(vec![b' '; 4097]);
                assert!(matches!(link.send_back(frame), Err(Error::MetaTooLong { len: 4097, .. })));
                link.send(reply).unwrap();
            }
            "reply" | "upscale" => {
                let mut reply = link.reply(&frame).unwrap();
                let len = reply.packed_len();
                reply.fill(&picture(frame.seq() + 7, len)).unwrap();
                link.send(reply).unwrap();
            }
            "echo_bytes" => {
                let mut reply = link.reply(&frame).unwrap();
                reply.set_len(frame.payload().len()).unwrap();
                assert!(reply.payload().copy_from_bytes(frame.payload()));
                link.send(reply).unwrap();
            }
            "hoard" => kept.push(frame),
            other => panic!("no role {other}"),
        }
    }
}

#[test]
fn frames_edited_in_place_come_back_in_order_and_whole() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Park] {
        let worker = small_worker("in_place").wait(strategy).spawn().unwrap();
        let size = 63 * 41 * 3;
        for seq in 0..500 {
            let mut frame = worker.loan().unwrap();
            frame.fill(&picture(seq, size)).unwrap();
            frame.set_pts(Some(-5));
            frame.set_duration(Some(3));
            frame.set_timestamp_ns(seq + 1);
            let meta = serde_json::json!({"n": seq});
            frame.set_meta(meta.as_object().unwrap());
            assert_eq!(worker.send(frame).unwrap(), seq);
            let back = worker.recv().unwrap();
            assert_eq!(
                (back.seq(), back.pts(), back.duration(), back.timestamp_ns()),
                (seq, Some(-5), Some(3), seq + 1)
            );
            assert_eq!(serde_json::Value::Object(back.meta().unwrap()), serde_json::json!({"n": seq, "seen": seq}));
            for (index, found) in back.snapshot().into_iter().enumerate() {
                assert_eq!(found, byte(seq, index).wrapping_add(1), "frame {seq} byte {index}");
            }
        }
        worker.finish();
        assert!(matches!(worker.recv(), Err(Error::LinkClosed { .. })));
        assert_eq!(worker.wait_exit(Duration::from_secs(30)), Some(Exit::Code(0)));
        let stats = worker.stats();
        assert_eq!((stats.sent, stats.received, stats.lost, stats.in_flight, stats.results), (500, 500, 0, 0, 500));
    }
}

#[test]
fn a_frame_that_is_still_viewed_is_copied_instead_of_changing_hands() {
    let worker = small_worker("viewed").spawn().unwrap();
    for seq in 0..20 {
        let mut frame = worker.loan().unwrap();
        frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
        worker.send(frame).unwrap();
        let back = worker.recv().unwrap();
        assert_eq!(back.meta().unwrap().get("seen").and_then(serde_json::Value::as_u64), Some(seq));
        assert!(back.snapshot().iter().enumerate().all(|(index, &found)| found == byte(seq, index).wrapping_add(1)));
    }
}

#[test]
fn values_are_the_same_whatever_gaps_their_slots_have() {
    let plain = VideoSpec::new(PixelFormat::Nv12, 13, 6);
    let place = |offset, stride| PlaneGeometry { offset, stride };
    let spread = plain.clone().planes([place(64, 32), place(512, 16)]);
    let swapped = plain.clone().planes([place(42, 13), place(0, 14)]);
    let specs = [&plain, &spread, &swapped];
    for (input, output) in specs.into_iter().flat_map(|input| specs.map(|output| (input, output))) {
        let worker = worker("in_place").input("in", input.clone(), Delivery::Lossless);
        let worker = worker.output("out", output.clone(), Delivery::Lossless).spawn().unwrap();
        let size = plain.layout().unwrap().size;
        for seq in 0..3 {
            let mut frame = worker.loan().unwrap();
            let short = frame.fill(&picture(seq, size - 1)).unwrap_err().to_string();
            assert!(short.contains("119 bytes") && short.contains("nv12 13x6, which has 120"), "{short}");
            frame.fill(&picture(seq, size)).unwrap();
            worker.send(frame).unwrap();
            let back = worker.recv().unwrap();
            let up: Vec<u8> = picture(seq, size).iter().map(|byte| byte.wrapping_add(1)).collect();
            assert_eq!((back.snapshot(), back.packed_len()), (up, size), "{input:?} to {output:?}");
            assert_eq!(back.planes().map(|plane| plane.to_vec().len()).sum::<usize>(), size);
        }
    }
}

#[test]
fn frames_in_flight_arrive_while_the_host_fills_the_next() {
    let worker = small_worker("reply").slots(3).spawn().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 0..1000 {
                let mut frame = worker.loan().unwrap();
                frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
                worker.send(frame).unwrap();
            }
            worker.finish();
        });
        for seq in 0..1000 {
            let back = worker.recv().unwrap();
            assert_eq!(back.seq(), seq);
            assert!(is_picture(&back, seq + 7));
        }
        assert!(matches!(worker.recv(), Err(Error::LinkClosed { .. })));
    });
}

#[test]
fn a_reply_that_cannot_be_sent_gives_its_slot_back() {
    let worker = small_worker("long_meta").slots(2).spawn().unwrap();
    for seq in 0..10 {
        worker.send(worker.loan().unwrap()).unwrap();
        assert_eq!(worker.recv().unwrap().seq(), seq);
    }
}

#[test]
fn a_worker_that_states_another_output_gets_it() {
    let worker = small_worker("upscale").spawn().unwrap();
    let spec = VideoSpec::new(PixelFormat::Gray, 640, 480).into();
    assert_eq!(worker.output_spec().as_ref(), Some(&spec));
    worker.send(worker.loan().unwrap()).unwrap();
    let back = worker.recv().unwrap();
    assert_eq!(back.spec(), &spec);
    assert!(is_picture(&back, 7));
    let refused = small_worker("upscale").output_limit(640 * 480).spawn().unwrap_err().to_string();
    assert!(refused.contains("gray 640x480") && refused.contains("output limit"), "{refused}");
}

#[test]
fn bytes_have_a_length_per_frame() {
    let spec = BytesSpec::new(5000);
    let worker = worker("echo_bytes").input("in", spec, Delivery::Lossless).output("out", spec, Delivery::Lossless);
    let worker = worker.spawn().unwrap();
    for len in [0, 1, 4999, 5000] {
        let mut frame = worker.loan().unwrap();
        frame.set_len(len).unwrap();
        frame.fill(&picture(len as u64, len)).unwrap();
        worker.send(frame).unwrap();
        assert_eq!(worker.recv().unwrap().snapshot(), picture(len as u64, len));
    }
    assert!(worker.loan().unwrap().set_len(5001).is_err());
}

#[test]
fn a_full_pool_names_its_holders() {
    let worker = small_worker("hoard").slots(2).send_deadline(Duration::from_millis(100)).spawn().unwrap();
    for _ in 0..2 {
        worker.send(worker.loan().unwrap()).unwrap();
    }
    let text = worker.loan().unwrap_err().to_string();
    let holder = format!("held by worker 'hoard' (pid {})", worker.pid());
    assert!(text.contains(&holder) && text.contains("slot 0") && text.contains("frame 1"), "{text}");
    assert!(matches!(worker.try_loan(), Err(Error::PoolExhausted(_))));
    assert_eq!(worker.stats().no_slot, 2);
}

#[test]
fn a_received_frame_never_changes_while_it_is_held() {
    let worker = small_worker("reply").slots(4).spawn().unwrap();
    let turn = |seq: u64| {
        worker.send(worker.loan().unwrap()).unwrap();
        let back = worker.recv().unwrap();
        assert!(is_picture(&back, seq + 7));
        back
    };
    let kept = turn(0);
    let hold = kept.hold();
    for seq in 1..40 {
        turn(seq);
        assert!(is_picture(&kept, 7), "after {seq} further frames");
    }
    assert_eq!(worker.stats().held, 1);
    drop(kept);
    assert_eq!(worker.stats().held, 1, "the hold keeps it");
    drop(hold);
    assert_eq!(worker.stats().held, 0);
}

#[test]
fn large_frames_arrive_whole() {
    let spec = VideoSpec::new(PixelFormat::Rgba, 1920, 1080);
    let worker = worker("reply").input("in", &spec, Delivery::Lossless).output("out", spec, Delivery::Lossless);
    let worker = worker.slots(2).spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    assert!(is_picture(&worker.recv().unwrap(), 7));
}
