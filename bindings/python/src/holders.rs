//! `SlotHolder`: who has a slot; and where Python made the views that keep one.
//!
//! *Who calls it*: `holders()` of workers, links and channels, and the exception of an exhausted pool; [`place`] is asked
//! for each view. *Invariants*: without `FRAMEPORT_TRACE_VIEWS` a view costs one look at a flag; [`place`] runs Python
//! code, so no lock is held. *A hostile worker* has no part in it.

use frameport::{Holder, Peer};
use pyo3::prelude::*;

/// A slot that is not free, and why.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug)]
pub(crate) struct SlotHolder {
    /// Which channel.
    channel: String,
    /// Number in the pool.
    slot: u32,
    /// In whose hands it is: "loan", "views", "waiting", "peer", "in doubt", "written off", "returned" or "received".
    state: &'static str,
    /// The worker that has part in it by its name; None where that is the host, or nobody.
    worker: Option<String>,
    /// The process of that worker.
    pid: Option<u32>,
    /// Number of the frame in it; None before it is sent.
    seq: Option<u64>,
    /// How many seconds ago that was sent; of a received frame, how many ago this side received it.
    age: Option<f64>,
    /// Bytes of a frame.
    bytes: usize,
    /// Live arrays, buffers and capsules of this process that keep it.
    views: u32,
    /// Where those were made, with FRAMEPORT_TRACE_VIEWS=1 in the environment.
    made_at: Vec<String>,
    /// All of it in words.
    text: String,
}

impl SlotHolder {
    pub(crate) fn all(holders: Vec<frameport::SlotHolder>) -> Vec<Self> {
        holders.into_iter().map(Self::from).collect()
    }
}

impl From<frameport::SlotHolder> for SlotHolder {
    fn from(of: frameport::SlotHolder) -> Self {
        let text = of.to_string();
        let frameport::SlotHolder { channel, slot, holder, seq, age, bytes, views, made_at, .. } = of;
        let (worker, pid) = match holder.peer() {
            Some(Peer::Worker { name, pid }) => (Some(name.clone()), Some(*pid)),
            Some(Peer::Host) | None => (None, None),
        };
        let state = match holder {
            Holder::Loan => "loan",
            Holder::Views => "views",
            Holder::Waiting(_) => "waiting",
            Holder::Peer(_) => "peer",
            Holder::InDoubt(_) => "in doubt",
            Holder::WrittenOff(_) => "written off",
            Holder::Returned(_) => "returned",
            Holder::Received(_) => "received",
            _ => "other",
        };
        let age = age.map(|age| age.as_secs_f64());
        Self { channel, slot, state, worker, pid, seq, age, bytes, views, made_at, text }
    }
}

#[pymethods]
impl SlotHolder {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<frameport.SlotHolder of {:?}: {}>", self.channel, self.text)
    }
}

/// Where the Python code is that makes a view, if that is recorded.
pub(crate) fn place(py: Python<'_>) -> Option<String> {
    if !frameport::traces_views() {
        return None;
    }
    let place = py.import("frameport._trace").and_then(|trace| trace.call_method0("place")?.extract());
    Some(place.unwrap_or_else(|_: PyErr| "an unknown place".to_owned()))
}
