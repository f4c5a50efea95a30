//! `Link`: a worker's side.
//!
//! *Who calls it*: worker programs, by `frameport.connect()`, the decorator and `frameport.main()`. *Invariants*: every
//! wait looks once before it lets go of the interpreter lock.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use frameport::Level;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::channel::Channel;
use crate::error::{exception, is_link_closed, to_py};
use crate::frame::{Frame, Frames};
use crate::holders::SlotHolder;
use crate::loan::Loan;
use crate::params;
use crate::port::{Owned, Port, aiter, fileno};
use crate::spec::Spec;

/// A worker's link with the host that started it; may be used from any thread.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Link {
    /// Never dropped: that would tell the host that all went well, which only the exit status of this process can.
    core: ManuallyDrop<frameport::Link>,
    ports: Vec<Arc<Port>>,
}

/// Connects to the host that started this process: once, at start-up.
#[pyfunction]
#[pyo3(signature = (output=None))]
pub(crate) fn connect(py: Python<'_>, output: Option<Py<Spec>>) -> PyResult<Link> {
    let library = format!("frameport {} for Python", env!("CARGO_PKG_VERSION"));
    let mut builder = frameport::Link::builder().library(library);
    if let Some(output) = &output {
        builder = builder.output(&output.get().core);
    }
    let core = ManuallyDrop::new(py.detach(|| builder.connect()).map_err(|error| to_py(py, &error))?);
    let received = core.receivers().map(|receiver| Port::receiving(receiver, true));
    let sent = core.senders().map(|sender| Port::sending(sender, true));
    let ports = received.chain(sent).collect();
    Ok(Link { core, ports })
}

impl Link {
    fn port(slf: &Bound<'_, Self>, sends: bool) -> PyResult<Owned> {
        let port = slf.get().first(slf.py(), sends)?;
        Ok(Owned { port: Arc::clone(port), owner: slf.clone().into_any().unbind() })
    }

    fn first(&self, py: Python<'_>, sends: bool) -> PyResult<&Arc<Port>> {
        self.ports.iter().find(|port| port.sends() == sends).ok_or_else(|| {
            let what = if sends {
                "the host wants nothing back from this worker"
            } else {
                "the host sends nothing to this worker"
            };
            exception(py, "ConfigError", what)
        })
    }
}

#[pymethods]
impl Link {
    /// The next frame. `timeout` in seconds, None for ever; LinkClosed when the host has closed.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        self.first(py, false)?.receive(py, timeout)
    }

    /// The next frame, or None if none is there now.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        self.first(py, false)?.try_receive(py)
    }

    /// A loop over the frames that ends when the host closes.
    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<Frames> {
        Self::port(slf, false).map(Frames::new)
    }

    /// A slot of the return pool, waiting for one: `with link.loan() as out: ...` sends it.
    #[pyo3(signature = (timeout=None))]
    fn loan(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::port(slf, true)?.lend(slf.py(), timeout, None)
    }

    /// A slot of the return pool that carries the number and times of `frame`: `with link.reply(frame) as out: ...`
    /// sends it.
    #[pyo3(signature = (frame, timeout=None))]
    fn reply(slf: &Bound<'_, Self>, frame: &Bound<'_, Frame>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::port(slf, true)?.lend(slf.py(), timeout, Some(frame.get().stamp))
    }

    /// Sends a loan, or an array by way of one, and returns the frame's number.
    fn send(slf: &Bound<'_, Self>, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        Self::port(slf, true)?.send(frame)
    }

    /// Sends the very slot of a received frame back, edited in place. While a view of it is alive it is copied instead.
    fn send_back(&self, py: Python<'_>, frame: &Bound<'_, Frame>) -> PyResult<()> {
        self.first(py, true)?.send_back(frame)
    }

    /// The descriptor for event loops, level-triggered: readable while a `try_recv()` may find something or raise. Call that
    /// until it finds nothing. Only poll it: it is not to be read or closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        fileno(py, self.core.event())
    }

    /// Frames in an event loop: `async for frame in link`.
    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        aiter(slf.as_any())
    }

    /// One channel by its name, where there are more than one in a direction.
    fn channel(slf: &Bound<'_, Self>, name: &str) -> PyResult<Channel> {
        Channel::named(&slf.get().ports, name, slf.as_any())
    }

    /// The names of the channels.
    #[getter]
    fn channels(&self) -> Vec<&str> {
        self.ports.iter().map(|port| port.name()).collect()
    }

    /// What the host has set for this worker, as it is now: a read-only mapping that does not change. `frame.params` is the
    /// one to use with a frame.
    #[getter]
    fn params(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let here = self.core.params_if_here().map_err(|error| to_py(py, &error))?;
        let values = match here {
            Some(values) => values,
            None => py.detach(|| self.core.params()).map_err(|error| to_py(py, &error))?,
        };
        params::show(py, values)
    }

    /// Reports something to the host, for its log: `link.report("loaded", model="x")`. `level` is "error", "warn", "info" (unless
    /// given), "debug", "trace" or a number of `logging`. Never waits: False when the host does not keep up; the number of those
    /// dropped is told with the next report that gets through.
    #[pyo3(signature = (message, /, level=None, **fields))]
    fn report(
        slf: &Bound<'_, Self>,
        message: &str,
        level: Option<Bound<'_, PyAny>>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<bool> {
        let py = slf.py();
        let fields = fields.cloned().unwrap_or_else(|| PyDict::new(py));
        py.import("frameport._events")?.call_method1("report", (slf, message, level, fields))?.extract()
    }

    #[pyo3(name = "_report")]
    fn report_as(&self, py: Python<'_>, level: &str, source: &str, message: &str, fields: &str) -> PyResult<bool> {
        let Some(level) = Level::ALL.into_iter().find(|known| known.as_str() == level) else {
            return Err(exception(py, "ConfigError", &format!("there is no level {level:?}")));
        };
        let fields = serde_json::from_str(fields).unwrap_or_else(|error| {
            serde_json::Map::from_iter([("cut".to_owned(), format!("the fields make no sense: {error}").into())])
        });
        Ok(self.core.report_as(source, level, message, fields))
    }

    /// Who has which slot now, of all channels: those this side fills, then the received frames not released here.
    fn holders(&self) -> Vec<SlotHolder> {
        SlotHolder::all(self.core.holders())
    }

    /// Tells the host in one line why this worker is about to exit.
    fn fail(&self, message: &str) {
        self.core.fail(message);
    }

    /// Says goodbye: the host's `recv` ends after the last frame sent.
    fn close(&self) {
        self.core.close();
    }

    /// Says goodbye without saying that all went well: the exit status of this process decides.
    #[pyo3(name = "_leave")]
    fn leave(&self) {
        self.core.leave();
    }

    /// This worker's name at its host.
    #[getter]
    fn name(&self) -> &str {
        self.core.name()
    }

    /// What comes in; None if nothing does.
    #[getter]
    fn input_spec(&self, py: Python<'_>) -> Option<Spec> {
        self.first(py, false).ok()?.spec(py).ok()
    }

    /// What goes out; None if nothing does.
    #[getter]
    fn output_spec(&self, py: Python<'_>) -> Option<Spec> {
        self.first(py, true).ok()?.spec(py).ok()
    }

    /// Another spec for what this worker sends from now on (on its first channel): its host makes a new pool, or refuses
    /// (ConfigError). Answers to frames sent before a change by the host are of the spec that went with them.
    #[pyo3(signature = (spec, timeout=None))]
    fn change_spec(&self, py: Python<'_>, spec: &Spec, timeout: Option<f64>) -> PyResult<()> {
        self.first(py, true)?.change_spec(py, spec, timeout)
    }

    /// Replies in place that had to be copied because a view of the frame was alive.
    #[getter]
    fn copied(&self) -> u64 {
        self.core.copied()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Closes the link. An exception that leaves the block is told to the host, and the process is to exit; but for the one
    /// that says the host has closed, which ends here.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let ended = self.core.has_ended() && !kind.is_none() && is_link_closed(py, &PyErr::from_value(value.clone()));
        let told = match kind.is_none() {
            true => None,
            false => py.import("frameport._worker")?.call_method1("failure", (value,))?.extract::<Option<String>>()?,
        };
        if let Some(message) = told {
            self.core.fail(&message);
        }
        self.core.close();
        Ok(ended)
    }

    fn __repr__(&self) -> String {
        format!("<frameport.Link {:?}>", self.core.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a link cannot be pickled: it belongs to this process"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.core.leave();
    }
}
