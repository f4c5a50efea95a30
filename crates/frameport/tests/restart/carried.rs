//! What goes from one life to the next.

use frameport::spec::{BytesSpec, PixelFormat, Spec, VideoSpec};
use frameport::{Audience, Delivery, Error, Restart, SendStats, Until, Worker, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::common::{is_picture, picture, role, small, worker};
use super::{LONG, MARK, SIZE, assert_died, await_restarts, drain, kill, lively, mark, quick, send};

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

#[test]
fn copies_are_counted_over_all_lives() {
    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    for life in 0..3 {
        send(&worker, 2 * life);
        let sender = worker.sender("in").unwrap();
        // A worker's own slot cannot go back to it as another's.
        sender.send_back(worker.recv_timeout(LONG).unwrap()).unwrap();
        drop(worker.recv_timeout(LONG).unwrap());
        assert_eq!(sender.stats().copied, life + 1);
        kill(&worker);
        assert!(matches!(worker.recv_timeout(LONG), Err(Error::WorkerDied(_))));
        await_restarts(&worker, life + 1);
    }
}
