//! `Link`: a worker's side.
//!
//! *Who calls it*: worker programs, by `frameport.connect()`, the decorator and `frameport.main()`. *Invariants*: every
//! wait looks once before it lets go of the interpreter lock.

use std::mem::ManuallyDrop;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::{exception, is_link_closed, seconds, to_py};
use crate::frame::{Frame, Frames, Origin};
use crate::loan::{Lender, Loan, send};
use crate::spec::Spec;
use crate::wait::{Patience, wait};

/// A worker's link with the host that started it; may be used from any thread.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Link {
    /// Never dropped: that would tell the host that all went well, which only the exit status of this process can.
    core: ManuallyDrop<frameport::Link>,
    input: Option<Py<Spec>>,
    output: Option<Py<Spec>>,
    patience: Patience,
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
    let core = py.detach(|| builder.connect()).map_err(|error| to_py(py, &error))?;
    let shown = |spec: Option<&frameport::spec::Spec>| spec.map(|spec| Py::new(py, Spec::of(py, spec)?)).transpose();
    let (input, output) = (shown(core.input_spec())?, shown(core.output_spec())?);
    Ok(Link { core: ManuallyDrop::new(core), input, output, patience: Patience::default() })
}

impl Link {
    pub(crate) fn core(&self) -> &frameport::Link {
        &self.core
    }

    /// The next frame, waiting for it.
    pub(crate) fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let frame = match self.patience.look(py, || self.core.try_recv())? {
            Some(frame) => frame,
            None => {
                let limit = seconds("timeout", timeout)?;
                wait(py, limit, |until| self.core.recv_until(until))?
            }
        };
        self.show(py, frame)
    }

    fn show(&self, py: Python<'_>, frame: frameport::Frame) -> PyResult<Py<Frame>> {
        match &self.input {
            Some(spec) => Frame::make(py, frame, spec.clone_ref(py)),
            None => Err(exception(py, "ConfigError", "the host sends nothing to this worker")),
        }
    }

    fn lend(slf: &Bound<'_, Self>, timeout: Option<f64>, stamp: Option<crate::frame::Stamp>) -> PyResult<Py<Loan>> {
        let (py, this) = (slf.py(), slf.get());
        let loan = match this.core.loan_if_free() {
            Ok(Some(loan)) => loan,
            Ok(None) => {
                let limit = seconds("timeout", timeout)?;
                wait(py, limit, |until| this.core.loan_until(until))?
            }
            Err(error) => return Err(to_py(py, &error)),
        };
        let Some(spec) = &this.output else {
            return Err(exception(py, "ConfigError", "the host wants nothing back from this worker"));
        };
        Loan::make(py, loan, spec.clone_ref(py), Lender::Link(slf.clone().unbind()), stamp)
    }
}

#[pymethods]
impl Link {
    /// The next frame. `timeout` in seconds, None for ever; LinkClosed when the host has closed.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        self.receive(py, timeout)
    }

    /// The next frame, or None if none is there now.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        let frame = self.core.try_recv().map_err(|error| to_py(py, &error))?;
        frame.map(|frame| self.show(py, frame)).transpose()
    }

    /// A loop over the frames that ends when the host closes.
    fn __iter__(slf: Bound<'_, Self>) -> Frames {
        Frames::new(Origin::Link(slf.unbind()))
    }

    /// A slot of the return pool, waiting for one: `with link.loan() as out: ...` sends it.
    #[pyo3(signature = (timeout=None))]
    fn loan(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::lend(slf, timeout, None)
    }

    /// A slot of the return pool that carries the number and times of `frame`: `with link.reply(frame) as out: ...`
    /// sends it.
    #[pyo3(signature = (frame, timeout=None))]
    fn reply(slf: &Bound<'_, Self>, frame: &Bound<'_, Frame>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::lend(slf, timeout, Some(frame.get().stamp))
    }

    /// Sends a loan, or an array by way of one, and returns the frame's number.
    fn send(slf: &Bound<'_, Self>, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        send(slf.as_any(), frame, || Self::lend(slf, None, None))
    }

    /// Sends the very slot of a received frame back, edited in place. While a view of it is alive it is copied instead.
    fn send_back(&self, py: Python<'_>, frame: &Bound<'_, Frame>) -> PyResult<()> {
        let core = Frame::take(frame)?;
        if core.is_viewed() {
            return wait(py, None, |until| self.core.send_back_until(core, until));
        }
        self.core.send_back(core).map_err(|error| to_py(py, &error))
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
    fn input_spec(&self, py: Python<'_>) -> Option<Py<Spec>> {
        self.input.as_ref().map(|spec| spec.clone_ref(py))
    }

    /// What goes out; None if nothing does.
    #[getter]
    fn output_spec(&self, py: Python<'_>) -> Option<Py<Spec>> {
        self.output.as_ref().map(|spec| spec.clone_ref(py))
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
