//! Parameters: what a host sets is there with the next frame.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{role, small_worker};
use frameport::{Error, Link, Worker};
use serde_json::{Map, Value, json};

/// The worker of this file: says with each frame what it saw, at its first look and at a later one.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    let early = link.params().unwrap();
    while let Ok(mut frame) = link.recv() {
        let long = frame.params().unwrap().get("big").and_then(Value::as_str);
        if let Some(big) = long {
            let end = big.trim_start_matches('0').to_owned();
            frame.set_meta(json!({"end": end}).as_object().unwrap());
            link.send_back(frame).unwrap();
            continue;
        }
        let seen = Value::Object(frame.params().unwrap().as_ref().clone());
        let newest = Value::Object(link.params().unwrap().as_ref().clone());
        let again = Value::Object(frame.params().unwrap().as_ref().clone());
        let meta = json!({"early": *early, "seen": seen, "newest": newest, "again": again});
        frame.set_meta(meta.as_object().unwrap());
        link.send_back(frame).unwrap();
    }
}

fn turn(worker: &Worker) -> Map<String, Value> {
    worker.send(worker.loan().unwrap()).unwrap();
    worker.recv().unwrap().meta().unwrap()
}

#[test]
fn a_frame_comes_with_what_was_set_before_it_was_sent() {
    let worker = small_worker("tell").param("n", -1).param("name", "x").spawn().unwrap();
    let meta = turn(&worker);
    assert_eq!((&meta["early"], &meta["seen"]), (&json!({"n": -1, "name": "x"}), &json!({"n": -1, "name": "x"})));
    let params = worker.params();
    for n in 0..3000 {
        params.set("n", n).unwrap();
        let meta = turn(&worker);
        assert_eq!((&meta["seen"]["n"], &meta["newest"]["n"]), (&json!(n), &json!(n)));
    }
    assert_eq!(params.get("name").unwrap(), Some("x".into()));
    assert_eq!(params.remove("name").unwrap(), Some("x".into()));
    params.extend([("a", 1), ("b", 2)]).unwrap();
    assert_eq!(turn(&worker)["seen"], json!({"n": 2999, "a": 1, "b": 2}));
    assert_eq!(Value::Object(params.all().unwrap()), json!({"n": 2999, "a": 1, "b": 2}));
}

#[test]
fn what_a_frame_shows_stays_while_others_set_and_is_never_torn() {
    let worker = small_worker("tell").spawn().unwrap();
    let at_least = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..20_000_u64 {
                worker.params().extend([("a", n), ("b", n)]).unwrap();
                at_least.store(n, std::sync::atomic::Ordering::Release);
            }
        });
        while at_least.load(std::sync::atomic::Ordering::Acquire) < 19_999 {
            let before = at_least.load(std::sync::atomic::Ordering::Acquire);
            let meta = turn(&worker);
            let seen = meta["seen"]["a"].as_u64().unwrap_or(0);
            assert!(seen >= before, "{seen} where {before} was set before the frame");
            assert!(meta["newest"]["a"].as_u64().unwrap_or(0) >= seen);
            assert_eq!(meta["seen"]["a"], meta["seen"]["b"]);
            assert_eq!(meta["seen"], meta["again"]);
        }
    });
}

#[test]
fn parameters_that_are_no_message_are_refused_and_change_nothing() {
    let worker = small_worker("tell").param("keep", 1).spawn().unwrap();
    let refused = worker.params().set("big", "x".repeat(65_536)).unwrap_err();
    assert!(matches!(refused, Error::Params { .. }) && refused.to_string().contains("65536"), "{refused}");
    let deep = (0..40).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    assert!(worker.params().set("deep", deep.clone()).unwrap_err().to_string().contains("deeper"));
    assert_eq!(turn(&worker)["seen"], json!({"keep": 1}));
    // As much as there is room for, several times over: a message larger than the socket takes at once.
    for n in 1..50 {
        worker.params().set("big", format!("{n:065000}")).unwrap();
        assert_eq!(turn(&worker)["end"], json!(n.to_string()));
    }
    assert!(matches!(small_worker("tell").param("deep", deep).spawn(), Err(Error::Params { .. })));
}
