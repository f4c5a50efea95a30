//! What workers report: from their control channels to the application, without holding up the service thread.
//!
//! *Invariants*: bounded for each worker; what does not fit is dropped, and counted in the next that does. The application's
//! code runs on the thread that passes on what workers write to stderr. *A hostile worker* can flood it and loses only its
//! own words; their length was cut before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use frameport_wire::event::{self, Level};
use serde_json::{Map, Value};

use super::forward;

/// Gets a worker's events.
pub(super) type EventSink = dyn Fn(Event) + Send + Sync;

/// Bytes of one worker's events that may wait to be delivered.
const WAITING: usize = 1 << 20;
/// What keeping an event costs beside its texts.
const OVERHEAD: usize = 256;

/// Something a worker reported: by [`Link::report`](crate::Link::report), or a record of its log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The worker's name.
    pub worker: String,
    /// The process this host started.
    pub pid: u32,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// What in the worker says so: a logger's name, or nothing.
    pub source: String,
    /// The rest, by name.
    pub fields: Map<String, Value>,
    /// Events of this worker lost since the last one that got through: it reports faster than this host listens.
    pub dropped: u64,
}

/// A line for a person: "warn worker 'detector' (db): 3 rows {…}".
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { worker, level, message, source, fields, dropped, .. } = self;
        write!(f, "{} worker '{worker}'", level.as_str())?;
        if !source.is_empty() {
            write!(f, " ({source})")?;
        }
        write!(f, ": {message}")?;
        if !fields.is_empty() {
            write!(f, " {}", Value::Object(fields.clone()))?;
        }
        if *dropped > 0 {
            write!(f, " [{dropped} lost before this]")?;
        }
        Ok(())
    }
}

/// One worker's way to the application.
pub(super) struct Events {
    sink: Arc<EventSink>,
    waiting: Arc<AtomicUsize>,
    lost: AtomicU64,
}

impl Events {
    /// To `sink`, or to `tracing`.
    pub(super) fn new(sink: Option<Arc<EventSink>>) -> Self {
        let sink = sink.unwrap_or_else(|| Arc::new(|event| trace(&event)));
        Self { sink, waiting: Arc::default(), lost: AtomicU64::new(0) }
    }

    /// Passes an event on, or counts it. Called by one thread at a time.
    pub(super) fn deliver(&self, worker: &str, pid: u32, event: event::Event) {
        let event::Event { level, message, source, fields, dropped } = event.cut();
        let event = Event { worker: worker.to_owned(), pid, level, message, source, fields, dropped };
        let fields = serde_json::to_vec(&event.fields).map_or(0, |json| json.len());
        let cost = OVERHEAD + event.message.len() + event.source.len() + fields;
        let lost = self.lost.load(Ordering::Relaxed).saturating_add(dropped);
        let fits = self.waiting.fetch_add(cost, Ordering::Relaxed) + cost <= WAITING;
        let (sink, waiting) = (Arc::clone(&self.sink), Arc::clone(&self.waiting));
        let job = move || {
            // Before the call, which may panic.
            waiting.fetch_sub(cost, Ordering::Relaxed);
            sink(Event { dropped: lost, ..event });
        };
        let passed = fits && forward::later(Box::new(job));
        if !passed {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
        }
        self.lost.store(if passed { 0 } else { lost.saturating_add(1) }, Ordering::Relaxed);
    }
}

/// A record of the application's log.
fn trace(event: &Event) {
    let Event { worker, pid, level, message, source, fields, dropped } = event;
    let fields = Value::Object(fields.clone());
    macro_rules! record {
        ($level:ident) => {
            tracing::event!(
                target: "frameport::worker", tracing::Level::$level, worker, pid, source, %fields, dropped, "{message}"
            )
        };
    }
    match level {
        Level::Error => record!(ERROR),
        Level::Warn => record!(WARN),
        Level::Info => record!(INFO),
        Level::Debug => record!(DEBUG),
        Level::Trace => record!(TRACE),
    }
}
