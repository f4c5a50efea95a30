//! One pool, many workers: each gets the frames at its own pace, nobody can change them, and nobody is anybody's brake.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use std::time::{Duration, Instant};

use common::{Watched, is_picture, picture, role, worker};
use frameport::spec::{BytesSpec, PixelFormat, VideoSpec};
use frameport::{Audience, Delivery, Error, Exit, Link, Worker};
use rustix::process::Signal;

fn tiny() -> VideoSpec {
    VideoSpec::new(PixelFormat::Gray, 31, 7)
}

const FRAMES: u64 = 500;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    let run = || -> Result<(), Error> {
        let mut held = Vec::new();
        loop {
            let frame = link.recv()?;
            assert!(is_picture(&frame, frame.seq()), "frame {}", frame.seq());
            assert_eq!(frame.meta()?["spec"], frame.spec().to_string());
            match role.as_str() {
                // Tells the number of every frame.
                "tell" => {
                    let mut told = link.loan()?;
                    told.set_seq(frame.seq());
                    told.set_meta(&frame.meta()?);
                    link.send(told)?;
                }
                "write" => {
                    assert!(!frame.payload().is_writable() && !frame.payload().copy_from(0, &[1, 2, 3]));
                    // The same pixels go back as a copy.
                    link.send_back(frame)?;
                }
                "hoard" => held.push(frame),
                other => panic!("no role {other}"),
            }
        }
    };
    match run() {
        Ok(()) | Err(Error::LinkClosed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn join(audience: &Audience, role: &str, delivery: Delivery) -> Worker {
    let told = BytesSpec::new(1);
    worker(role).share("in", audience, delivery, 3).output("told", told, Delivery::Lossless).slots(600).spawn().unwrap()
}

fn push(audience: &Audience, seq: u64) {
    let mut frame = audience.loan().unwrap();
    let pixels = picture(seq, frame.packed_len());
    frame.fill(&pixels).unwrap();
    let meta = serde_json::json!({"n": seq, "spec": frame.spec().to_string()});
    frame.set_meta(meta.as_object().unwrap());
    assert_eq!(audience.send(frame).unwrap(), seq);
}

fn assert_told(worker: &Worker, seqs: impl IntoIterator<Item = u64>) {
    for seq in seqs {
        let told = worker.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((told.seq(), told.meta().unwrap()["n"].as_u64()), (seq, Some(seq)), "{}", worker.name());
    }
}

#[test]
fn a_stopped_a_killed_and_a_hoarding_member_slow_nobody_down() {
    let audience = Audience::new(tiny(), 25).unwrap();
    let good: Vec<_> = (0..5).map(|_| join(&audience, "tell", Delivery::Lossless)).collect();
    let stopped = join(&audience, "tell", Delivery::Latest);
    let killed = join(&audience, "tell", Delivery::Newest(2));
    let hoarder = join(&audience, "hoard", Delivery::Latest);
    Watched::open(stopped.pid()).unwrap().stop();
    for seq in 0..FRAMES {
        if seq == FRAMES / 2 {
            killed.kill();
        }
        push(&audience, seq);
        // Which then has all it may have, however slow it is.
        while hoarder.stats().received < 3.min(seq + 1) {
            assert_eq!(hoarder.wait_exit(Duration::from_millis(1)), None);
        }
    }
    for worker in &good {
        assert_told(worker, 0..FRAMES);
        let stats = worker.stats();
        assert_eq!((stats.received, stats.no_slot, stats.retracted), (FRAMES, 0, 0), "{stats:?}");
    }
    assert_eq!(killed.wait_exit(Duration::from_secs(60)), Some(Exit::Signal(9)));
    for worker in [&stopped, &killed, &hoarder] {
        let stats = worker.stats();
        let sum = stats.received + stats.retracted + stats.no_slot + stats.refused + stats.lost + stats.in_flight;
        assert_eq!(stats.offered, sum, "{} {stats:?}", worker.name());
    }
    assert_eq!(hoarder.stats().received, 3, "its quota");
    Watched::open(stopped.pid()).unwrap().signal(Signal::CONT);
    assert_told(&stopped, [FRAMES - 1]);
    let stats = audience.stats();
    assert_eq!((stats.sent, stats.no_slot, stats.members, stats.copied), (FRAMES, 0, 7, 0), "{stats:?}");
}

#[test]
fn a_member_joins_and_leaves_while_frames_flow() {
    let audience = Audience::new(tiny(), 7).unwrap();
    let first = join(&audience, "tell", Delivery::Lossless);
    (0..10).for_each(|seq| push(&audience, seq));
    let second = join(&audience, "tell", Delivery::Lossless);
    let full = worker("tell").share("in", &audience, Delivery::Latest, 3).spawn().unwrap_err();
    assert!(full.to_string().contains("7 slots, of which others have 6"), "{full}");
    (10..20).for_each(|seq| push(&audience, seq));
    assert_told(&first, 0..20);
    assert_told(&second, 10..20);
    drop(first);
    let third = join(&audience, "tell", Delivery::Lossless);
    (20..30).for_each(|seq| push(&audience, seq));
    assert_told(&second, 20..30);
    assert_told(&third, 20..30);
    assert!(matches!(second.loan(), Err(Error::Config { .. })), "its frames are the audience's");
    drop((second, third));
    assert_eq!((audience.stats().members, audience.stats().free), (0, 7));
}

#[test]
fn a_lossless_member_past_its_deadline_is_cut_off_and_says_so() {
    let audience = Audience::new(tiny(), 7).unwrap();
    let builder =
        worker("hoard").share("in", &audience, Delivery::Lossless, 3).send_deadline(Duration::from_millis(50));
    let slow = builder.output("told", BytesSpec::new(1), Delivery::Lossless).spawn().unwrap();
    let good = join(&audience, "tell", Delivery::Lossless);
    let start = Instant::now();
    (0..20).for_each(|seq| push(&audience, seq));
    assert!(start.elapsed() < Duration::from_secs(30), "one deadline at most");
    assert_told(&good, 0..20);
    let end = slow.recv().unwrap_err();
    assert!(matches!(&end, Error::CutOff { .. }), "{end}");
    assert!(end.to_string().contains("no room for frame 3"), "{end}");
    assert_eq!(audience.stats().members, 1);
}

#[test]
fn nobody_but_the_host_can_write_an_audiences_frames() {
    let audience = Audience::new(tiny(), 5).unwrap();
    let writer =
        worker("write").share("in", &audience, Delivery::Lossless, 2).output("out", tiny(), Delivery::Lossless);
    let writer = writer.spawn().unwrap();
    for seq in 0..20 {
        push(&audience, seq);
        let back = writer.recv().unwrap();
        assert!(is_picture(&back, seq) && back.payload().is_writable());
    }
}

#[test]
fn each_member_goes_over_to_another_spec_at_its_own_pace() {
    let sizes = [(31, 7), (64, 48), (3, 200)].map(|(width, height)| VideoSpec::new(PixelFormat::Gray, width, height));
    let audience = Audience::new(sizes[0].clone(), 16).unwrap();
    let good: Vec<_> = (0..2).map(|_| join(&audience, "tell", Delivery::Lossless)).collect();
    let live = join(&audience, "tell", Delivery::Latest);
    let hoarder = join(&audience, "hoard", Delivery::Latest);
    push(&audience, 0);
    let kept = {
        let frame = audience.loan().unwrap();
        frame.pin()
    };
    for seq in 1..FRAMES {
        if seq % 10 == 0 {
            let spec = &sizes[(seq / 10 % 3) as usize];
            audience.change_spec(spec.clone()).unwrap();
            assert_eq!(audience.spec(), spec.clone().into());
        }
        push(&audience, seq);
    }
    let late = join(&audience, "tell", Delivery::Lossless);
    // One that was loaned before a change is sent after it.
    let mut frame = audience.loan().unwrap();
    audience.change_spec(sizes[2].clone()).unwrap();
    let pixels = picture(FRAMES, frame.packed_len());
    frame.fill(&pixels).unwrap();
    let meta = serde_json::json!({"n": FRAMES, "spec": frame.spec().to_string()});
    frame.set_meta(meta.as_object().unwrap());
    audience.send(frame).unwrap();
    push(&audience, FRAMES + 1);
    for worker in &good {
        assert_told(worker, 0..FRAMES + 2);
    }
    assert_told(&late, FRAMES..FRAMES + 2);
    for worker in [&live, &hoarder] {
        let stats = worker.stats();
        let sum = stats.received + stats.retracted + stats.no_slot + stats.refused + stats.lost + stats.in_flight;
        assert_eq!(stats.offered, sum, "{} {stats:?}", worker.name());
    }
    assert_eq!(audience.stats().copied, 0);
    drop(kept);
    drop((good, live, hoarder, late));
    assert_eq!((audience.stats().members, audience.stats().free), (0, 16));
}
