//! Events: what a worker reports arrives attributed and in order; a flood loses its own words only, and says how many.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{role, small_worker};
use frameport::{Event, Level, Link, Worker};
use serde_json::{Map, Value, json};
use std::fmt::Debug;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Metadata, Subscriber, span};

const MINUTE: Duration = Duration::from_secs(60);
/// Events of a flood with each frame.
const FLOOD: u64 = 300;

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    let mut reported = 0_u64;
    while let Ok(frame) = link.recv() {
        let meta = frame.meta().unwrap();
        if role == "flood" && !meta.contains_key("last") {
            for _ in 0..FLOOD {
                reported += 1;
                link.report(Level::Debug, "x".repeat(1000), [("n", reported)]);
            }
        } else if role == "in_pieces" {
            // Each piece is a write of its own.
            eprint!("{}", meta["piece"].as_str().unwrap());
        } else if role == "flood" {
            reported += 1;
            link.report(Level::Info, "last", [("reported", reported)]);
        } else {
            let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
            for level in levels {
                assert!(link.report(level, "loaded", [("model", json!("x")), ("layers", json!([1, 2]))]));
            }
            assert!(link.report_as("worker.db", Level::Info, "é".repeat(5000), Map::new()));
        }
        link.send_back(frame).unwrap();
    }
}

fn turn(worker: &Worker, meta: Value) {
    let mut frame = worker.loan().unwrap();
    frame.set_meta(meta.as_object().unwrap());
    worker.send(frame).unwrap();
    worker.recv_timeout(MINUTE).unwrap();
}

#[test]
fn what_workers_write_in_pieces_is_passed_on_in_whole_lines() {
    let (words, heard) = channel();
    let words = Mutex::new(words);
    let worker = small_worker("in_pieces").on_stderr(move |lines| {
        let _ = words.lock().unwrap().send(String::from_utf8(lines.to_vec()).unwrap());
    });
    let worker = worker.spawn().unwrap();
    for piece in ["one", " line\n2", "nd\nand 10 %\r", "a rest"] {
        turn(&worker, json!({ "piece": piece }));
    }
    worker.stop().unwrap();
    // The test program's own words come before and after.
    let all: Vec<String> = heard.try_iter().collect();
    assert!(all.concat().contains("one line\n2nd\nand 10 %\ra rest"), "{all:?}");
    let (_, lines) = all.split_last().unwrap();
    assert!(lines.iter().all(|lines| lines.ends_with(['\n', '\r'])), "{all:?}");
}

#[test]
fn events_arrive_in_order_and_say_who_reported_them() {
    let (events, got) = channel::<Event>();
    let events = Mutex::new(events);
    let worker = small_worker("report").on_event(move |event| events.lock().unwrap().send(event).unwrap());
    let worker = worker.spawn().unwrap();
    turn(&worker, json!({}));
    for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
        let Event { worker: name, pid, level: said, message, source, fields, dropped, .. } =
            got.recv_timeout(MINUTE).unwrap();
        assert_eq!((name.as_str(), pid, said, message.as_str()), ("report", worker.pid(), level, "loaded"));
        assert_eq!((source.as_str(), Value::Object(fields), dropped), ("", json!({"model": "x", "layers": [1, 2]}), 0));
    }
    let long = got.recv_timeout(MINUTE).unwrap();
    assert_eq!((long.source.as_str(), long.message.chars().count()), ("worker.db", 4096));
}

#[test]
fn a_flood_of_events_holds_up_no_frame_and_its_losses_are_told() {
    let (events, got) = channel::<Event>();
    let gate = Arc::new(Mutex::new(events));
    let sink = Arc::clone(&gate);
    let worker = small_worker("flood").on_event(move |event| sink.lock().unwrap().send(event).unwrap());
    let worker = worker.spawn().unwrap();
    // A host that does not get on with a single event.
    let shut = gate.lock().unwrap();
    for _ in 0..40 {
        turn(&worker, json!({}));
    }
    drop(shut);
    let mut counted = 0;
    // The last word may be lost too, until there is room again.
    let reported = loop {
        turn(&worker, json!({"last": true}));
        let mut events = std::iter::from_fn(|| got.recv_timeout(Duration::from_millis(100)).ok());
        let last = events.find_map(|event| {
            counted += 1 + event.dropped;
            event.fields.get("reported").cloned()
        });
        if let Some(reported) = last {
            break reported.as_u64().unwrap();
        }
    };
    assert!(reported > 40 * FLOOD);
    assert_eq!(counted, reported, "arrived and told as dropped");
}

#[test]
fn an_application_that_panics_over_an_event_gets_the_next() {
    let (events, got) = channel::<Event>();
    let events = Mutex::new(events);
    let worker = small_worker("report").on_event(move |event| {
        assert_ne!(event.level, Level::Error, "this panic is the application's own");
        let _ = events.lock().unwrap().send(event);
    });
    let worker = worker.spawn().unwrap();
    turn(&worker, json!({}));
    assert_eq!(got.recv_timeout(MINUTE).unwrap().level, Level::Warn);
}

/// What a record of `tracing` says: its target, level and fields.
type Record = (&'static str, tracing::Level, Map<String, Value>);

struct Recorder(Mutex<Sender<Record>>);

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "frameport::worker"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let _ = self.0.lock().unwrap().send((event.metadata().target(), *event.metadata().level(), fields.0));
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn without_a_callback_events_are_records_of_tracing() {
    let (records, got) = channel();
    tracing::subscriber::set_global_default(Recorder(Mutex::new(records))).unwrap();
    let worker = small_worker("report").spawn().unwrap();
    turn(&worker, json!({}));
    for level in [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG] {
        let (target, said, fields) = got.recv_timeout(MINUTE).unwrap();
        assert_eq!((target, said), ("frameport::worker", level));
        let expected = json!({"worker": "report", "pid": worker.pid(), "source": "", "dropped": 0, "message": "loaded",
            "fields": r#"{"layers":[1,2],"model":"x"}"#});
        assert_eq!(Value::Object(fields), expected);
    }
}
