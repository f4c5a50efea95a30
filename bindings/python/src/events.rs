//! `Events`: what workers report, on its way to the Python thread that hands it out.
//!
//! *Who calls it*: the crate's forwarding thread puts events in, `frameport._events` takes them out. *Invariants*: bounded;
//! what does not fit is dropped, and counted in the worker's next; the lock is held for a push or a pop and never while
//! Python is waited for, so that a thread that reports cannot meet the interpreter's lock or its end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use frameport::Event;
use pyo3::prelude::*;
use serde_json::Value;

/// Bytes of one worker's events that may wait.
const WAITING: usize = 1 << 20;
/// What keeping an event costs beside its texts.
const OVERHEAD: usize = 256;

/// The queue; one for a process.
#[pyclass(frozen, module = "frameport")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whose, by the number it was given; nothing when that worker is gone.
    items: VecDeque<(u64, Option<Parts>)>,
    /// For each number the bytes that wait, and the events lost since the last that did not.
    of: HashMap<u64, (usize, u64)>,
    closed: bool,
}

/// An event as `frameport._events` takes it: worker, pid, level, message, source, fields as JSON, dropped.
type Parts = (String, u32, &'static str, String, String, String, u64);

fn cost((worker, _, _, message, source, fields, _): &Parts) -> usize {
    OVERHEAD + worker.len() + message.len() + source.len() + fields.len()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, of: u64, mut event: Parts) {
        let (waiting, lost) = self.of.entry(of).or_default();
        event.6 = event.6.saturating_add(*lost);
        if *waiting + cost(&event) > WAITING {
            *lost = event.6.saturating_add(1);
            return;
        }
        (*waiting, *lost) = (*waiting + cost(&event), 0);
        self.items.push_back((of, Some(event)));
    }

    fn pop(&mut self) -> Option<(u64, Option<Parts>)> {
        let (of, event) = self.items.pop_front()?;
        match (&event, self.of.get_mut(&of)) {
            (Some(event), Some((waiting, _))) => *waiting = waiting.saturating_sub(cost(event)),
            _ => drop(self.of.remove(&of)),
        }
        Some((of, event))
    }
}

/// One worker's way into the queue.
#[derive(Debug)]
pub(crate) struct Inlet {
    shared: Arc<Shared>,
    of: u64,
}

impl Inlet {
    pub(crate) fn new(events: &Events, of: u64) -> Self {
        Self { shared: Arc::clone(&events.0), of }
    }

    pub(crate) fn put(&self, event: Event) {
        let Event { worker, pid, level, message, source, fields, dropped, .. } = event;
        let fields = Value::Object(fields).to_string();
        self.shared.lock().push(self.of, (worker, pid, level.as_str(), message, source, fields, dropped));
        self.shared.changed.notify_one();
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.shared.lock().items.push_back((self.of, None));
        self.shared.changed.notify_one();
    }
}

#[pymethods]
impl Events {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The next event and the number of whose it is, waiting for it; without an event when that worker is gone. None when
    /// the queue is closed and empty.
    fn next(&self, py: Python<'_>) -> Option<(u64, Option<Parts>)> {
        py.detach(|| {
            let mut queue = self.0.lock();
            loop {
                match queue.pop() {
                    Some(item) => return Some(item),
                    None if queue.closed => return None,
                    None => queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            }
        })
    }

    /// Ends the wait for more.
    fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}
