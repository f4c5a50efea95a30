//! Who holds what, told on both sides of a link.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;

use common::{role, small, small_worker, worker};
use frameport::spec::BytesSpec;
use frameport::{Delivery, Holder, Link, Peer, SlotHolder};

/// Bytes of a small picture.
const SIZE: usize = 63 * 41 * 3;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    match role.as_str() {
        // Keeps the first frame and says so, then sends the others back in place.
        "keep" => {
            let kept = link.recv().unwrap();
            link.send(link.loan().unwrap()).unwrap();
            while let Ok(frame) = link.recv() {
                link.send_back(frame).unwrap();
            }
            drop(kept);
        }
        // Sends until its pool is full, and receives nothing.
        "deaf" => while link.loan().and_then(|loan| link.send(loan)).is_ok() {},
        "trace" | "no_trace" => report_views(&link, role == "trace"),
        other => panic!("no role {other}"),
    }
}

/// Holds one frame by two views and another by itself, fills the return pool, and sends the host what the error says.
fn report_views(link: &Link, traced: bool) {
    let (first, second) = (link.recv().unwrap(), link.recv().unwrap());
    let view = first.hold();
    let made_at = format!("{}:{}:", file!(), line!() - 1);
    let again = view.clone();
    drop(first);
    let loans: Vec<_> = std::iter::from_fn(|| link.loan_if_free().unwrap()).collect();
    let error = link.sender("out").unwrap().try_loan().unwrap_err();

    let holders = link.holders();
    let (own, received) = holders.split_at(loans.len());
    assert!(own.iter().all(|slot| (&slot.holder, slot.seq, &*slot.channel) == (&Holder::Loan, None, "out")));
    let told = |slot: &SlotHolder| (slot.seq, slot.views, slot.bytes, slot.made_at.len());
    let places = if traced { 2 } else { 0 };
    assert_eq!(received.iter().map(told).collect::<Vec<_>>(), [(Some(0), 2, SIZE, places), (Some(1), 0, SIZE, 0)]);
    assert!(received.iter().all(|slot| slot.holder == Holder::Received(Peer::Host) && slot.channel == "in"));
    assert!(!traced || received[0].made_at[0].starts_with(&made_at), "{:?}", received[0].made_at);

    drop(view);
    let [left, _] = &link.receiver("in").unwrap().holders()[..] else { panic!("two frames are held") };
    assert_eq!((left.views, left.made_at.len()), (1, places / 2), "a record goes with its view");
    drop((again, second, loans));
    assert!(link.holders().is_empty());

    let report = link.sender("report").unwrap();
    let mut text = report.loan().unwrap();
    let error = error.to_string();
    text.set_len(error.len()).unwrap();
    text.fill(error.as_bytes()).unwrap();
    report.send(text).unwrap();
    while link.recv().is_ok() {}
}

#[test]
fn a_host_knows_who_has_each_of_its_slots() {
    if role().is_some() {
        return;
    }
    let worker = small_worker("keep").slots(6).spawn().unwrap();
    let it = Peer::Worker { name: "keep".into(), pid: worker.pid() };
    let seen = || worker.holders().into_iter().map(|slot| (slot.holder, slot.seq, slot.views)).collect::<Vec<_>>();

    worker.send(worker.loan().unwrap()).unwrap();
    drop(worker.recv().unwrap());
    assert_eq!(seen(), [(Holder::Peer(it.clone()), Some(0), 0)]);

    // Sent and sent back, while a pin of this side's own keeps it: then it is a received frame, held by nothing but itself.
    let loan = worker.loan().unwrap();
    let pin = loan.pin();
    assert_eq!(seen()[1..], [(Holder::Loan, None, 1)]);
    worker.send(loan).unwrap();
    let back = worker.recv().unwrap();
    let views = [back.hold(), back.hold()];
    assert_eq!(seen()[1..], [(Holder::Returned(it.clone()), Some(1), 2)]);
    drop((back, views));
    assert_eq!(seen()[1..], [(Holder::Views, Some(1), 1)]);
    drop(pin);

    let loan = worker.loan().unwrap();
    let pins = [loan.pin(), loan.pin()];
    drop(loan);
    let text = worker.holders()[1].to_string();
    assert!(text.ends_with(&format!("kept here, by 2 live arrays of {SIZE} bytes")), "{text}");
    drop(pins);

    let text = worker.holders()[0].to_string();
    let (from, to) = (format!("slot 0 held by worker 'keep' (pid {}) for 0.", worker.pid()), " s, frame 0");
    assert!(text.starts_with(&from) && text.ends_with(to), "{text}");
}

#[test]
fn a_frame_nobody_received_waits_until_its_worker_dies() {
    if role().is_some() {
        return;
    }
    let worker = small_worker("deaf").slots(1).spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    let error = worker.try_loan().unwrap_err().to_string();
    let waiting = format!("slot 0 waiting to be received by worker 'deaf' (pid {}) for 0.", worker.pid());
    assert!(error.contains(&waiting) && error.ends_with("receive its results with recv()"), "{error}");
    worker.kill();
    while worker.recv().is_ok() {}
    assert!(worker.holders().is_empty(), "what a dead worker was to get is nobody's: {:?}", worker.holders());
}

#[test]
fn a_worker_tells_what_its_own_views_keep() {
    if role().is_some() {
        return;
    }
    for (name, trace) in [("trace", "1"), ("no_trace", "0")] {
        let worker = worker(name)
            .env("FRAMEPORT_TRACE_VIEWS", trace)
            .input("in", small(), Delivery::Lossless)
            .output("out", small(), Delivery::Lossless)
            .output("report", BytesSpec::new(4096), Delivery::Lossless)
            .slots(2)
            .spawn()
            .unwrap();
        for _ in 0..2 {
            worker.send(worker.loan().unwrap()).unwrap();
        }
        let text = String::from_utf8(worker.receiver("report").unwrap().recv().unwrap().snapshot()).unwrap();
        assert!(text.contains("of 'in' slot 0 received from the host and held here for"), "{text}");
        assert!(text.contains(&format!("frame 0, by 2 live arrays of {SIZE} bytes")), "{text}");
        assert!(text.contains("release the 2 frames received here"), "{text}");
        assert_eq!(
            text.matches(&format!("made at {}:", file!())).count(),
            if name == "trace" { 2 } else { 0 },
            "{text}"
        );
    }
}
