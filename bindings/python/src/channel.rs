//! `Channel`: one channel of a link by its name, where it has more than one in a direction.
//!
//! *Who calls it*: users, from `worker.channel("mask")` and `link.channel("mask")`. *Invariants*: it keeps the worker or link
//! it is of. *A hostile worker* meets the crate's checks.

use std::sync::Arc;

use frameport::{RecvStats, SendStats};
use pyo3::prelude::*;

use crate::error::exception;
use crate::frame::{Frame, Frames};
use crate::holders::SlotHolder;
use crate::loan::Loan;
use crate::port::{Owned, Port, aiter, fileno};
use crate::spec::Spec;

/// One end of one channel; may be used from any thread.
#[pyclass(frozen, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) owned: Owned,
}

impl Channel {
    /// The one of `ports` that has this name.
    pub(crate) fn named(ports: &[Arc<Port>], name: &str, owner: &Bound<'_, PyAny>) -> PyResult<Self> {
        let found = ports.iter().find(|port| port.name() == name).map(Arc::clone).ok_or_else(|| {
            let names: Vec<&str> = ports.iter().map(|port| port.name()).collect();
            let what = format!("there is no channel {name:?}: this link has {}", names.join(", "));
            exception(owner.py(), "ConfigError", &what)
        });
        Ok(Self { owned: Owned { port: found?, owner: owner.clone().unbind() } })
    }
}

#[pymethods]
impl Channel {
    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        self.owned.port.name()
    }

    /// Whether this side sends on it.
    #[getter]
    fn sends(&self) -> bool {
        self.owned.port.sends()
    }

    /// What travels now; a frame's own `spec` tells what it is.
    #[getter]
    fn spec(&self, py: Python<'_>) -> PyResult<Spec> {
        self.owned.port.spec(py)
    }

    /// Another spec for what travels from now on: a new pool; what was sent before stays what it is. A worker asks its host
    /// for it, which may refuse (ConfigError).
    #[pyo3(signature = (spec, timeout=None))]
    fn change_spec(&self, py: Python<'_>, spec: &Spec, timeout: Option<f64>) -> PyResult<()> {
        self.owned.port.change_spec(py, spec, timeout)
    }

    /// "lossless", "latest" or `frameport.newest(n)`.
    #[getter]
    fn delivery(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.owned.port.delivery(py)
    }

    /// The next frame. `timeout` in seconds, None for ever.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        self.owned.port.receive(py, timeout)
    }

    /// The next frame, or None if none is there now.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        self.owned.port.try_receive(py)
    }

    /// A loop over the frames that ends when the other side has finished.
    fn __iter__(&self, py: Python<'_>) -> PyResult<Frames> {
        self.owned.port.receiver(py)?;
        Ok(Frames::new(self.owned.clone_ref(py)))
    }

    /// The link's descriptor for event loops, level-triggered: readable while a `try_recv()` may find something or raise, or
    /// a slot may be free after a `try_loan()` that found none. Only poll it: it is not to be read or closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        fileno(py, self.owned.port.event())
    }

    /// Frames in an event loop: `async for frame in channel`.
    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        aiter(slf.as_any())
    }

    /// A slot to fill, or None if none is free now; a live channel has one or raises PoolExhausted.
    fn try_loan(&self, py: Python<'_>) -> PyResult<Option<Py<Loan>>> {
        self.owned.try_lend(py)
    }

    /// A slot to fill: `with channel.loan() as frame: ...` sends it.
    #[pyo3(signature = (timeout=None))]
    fn loan(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        self.owned.lend(py, timeout, None)
    }

    /// A slot to fill that carries the number and times of `frame`.
    #[pyo3(signature = (frame, timeout=None))]
    fn reply(&self, frame: &Bound<'_, Frame>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        self.owned.lend(frame.py(), timeout, Some(frame.get().stamp))
    }

    /// Sends a loan, or an array by way of one, and returns the frame's number.
    fn send(&self, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.owned.send(frame)
    }

    /// Sends the very slot of a received frame back, edited in place. While a view of it is alive it is copied instead.
    fn send_back(&self, frame: &Bound<'_, Frame>) -> PyResult<()> {
        self.owned.port.send_back(frame)
    }

    /// Says that no frame will follow.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.owned.port.sender(py)?.finish();
        Ok(())
    }

    /// Who has which slot of the pool now; of a receiving end, the received frames not released here.
    fn holders(&self) -> Vec<SlotHolder> {
        SlotHolder::all(self.owned.port.holders())
    }

    /// This end's counters.
    fn stats(&self, py: Python<'_>) -> PyResult<ChannelStats> {
        if self.owned.port.sends() {
            let stats = self.owned.port.sender(py)?.stats();
            let SendStats { sent, received, retracted, lost, no_slot, refused, copied, .. } = stats;
            let (offered, in_flight) = (stats.offered(), stats.in_flight());
            let (skipped, held) = (0, 0);
            return Ok(ChannelStats {
                offered,
                sent,
                received,
                retracted,
                lost,
                in_flight,
                no_slot,
                refused,
                copied,
                skipped,
                held,
            });
        }
        let RecvStats { received, skipped, held, .. } = self.owned.port.receiver(py)?.stats();
        Ok(ChannelStats { received, skipped, held, ..ChannelStats::default() })
    }

    fn __repr__(&self) -> String {
        let direction = if self.owned.port.sends() { "sending" } else { "receiving" };
        format!("<frameport.Channel {:?}, {direction}>", self.owned.port.name())
    }
}

/// Counters of one end of a channel. Of a sending one,
/// `offered == received + retracted + no_slot + refused + lost + in_flight` at every moment.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug, Default)]
pub(crate) struct ChannelStats {
    /// Frames that were to be sent.
    offered: u64,
    /// Of those, the ones sent.
    sent: u64,
    /// Frames received, by the other side of a sending end, by this one of a receiving end.
    received: u64,
    /// Of the sent ones, those taken back before they were received.
    retracted: u64,
    /// Of the sent ones, those the other side died before receiving.
    lost: u64,
    /// Of the sent ones, those on their way.
    in_flight: u64,
    /// Loans that found no slot in time.
    no_slot: u64,
    /// Filled slots that were not sent.
    refused: u64,
    /// Replies in place that had to be copied.
    copied: u64,
    /// Frames that the sender took back before this side came to them.
    skipped: u64,
    /// Frames in this side's hands.
    held: u64,
}

#[pymethods]
impl ChannelStats {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}
