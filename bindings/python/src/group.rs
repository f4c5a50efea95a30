//! `Group`: several workers behind one queue.
//!
//! *Who calls it*: `frameport.map()`, from the thread of whoever loops over it. *Invariants*: as for a worker: waits let
//! go of the interpreter lock, and so does the end. *A hostile worker* harms the frames it was given.

use std::ffi::OsString;

use frameport::{Outcome, Redeliver, Step};
use pyo3::prelude::*;

use crate::error::{exception, to_py};
use crate::frame::Frame;
use crate::loan::{Lender, Loan};
use crate::wait::wait;
use crate::worker::{Options, Wanted, describe};

/// Workers of one command; `frameport.map()` is the way to use them.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Group {
    core: frameport::Group,
}

/// What `frameport.map()` wants of a group.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Rules {
    workers: usize,
    ordered: bool,
    window: Option<usize>,
    redeliver: String,
    tries: u32,
}

/// Starts a group; `frameport.map()` is the way to call it.
#[pyfunction]
pub(crate) fn group(
    py: Python<'_>,
    command: Vec<OsString>,
    channels: Vec<Wanted>,
    options: Options,
    rules: Rules,
) -> PyResult<Group> {
    let redeliver = match rules.redeliver.as_str() {
        "at-least-once" => Redeliver::AtLeastOnce,
        "at-most-once" => Redeliver::AtMostOnce,
        other => {
            let message = format!("redeliver is {other:?}, must be one of at-least-once, at-most-once");
            return Err(exception(py, "ConfigError", &message));
        }
    };
    let mut builder = describe(py, &command, &channels, options)?
        .group(rules.workers)
        .ordered(rules.ordered)
        .redeliver(redeliver)
        .tries(rules.tries);
    if let Some(window) = rules.window {
        builder = builder.window(window);
    }
    let core = wait(py, None, |until| builder.spawn_until(until))?;
    Ok(Group { core })
}

impl Group {
    pub(crate) fn core(&self) -> &frameport::Group {
        &self.core
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Stopping takes up to its graces: other Python threads may run meanwhile.
        let stopped = Python::try_attach(|py| py.detach(|| self.core.stop()));
        // The crate's own drop stops it where the interpreter is gone, and is quick after a stop.
        drop(stopped);
    }
}

#[pymethods]
impl Group {
    /// Waits for the next outcome, or else for room: a Frame, the number of a lost frame with the exception that says
    /// why, or a Loan. LinkClosed after `finish()` when there are no more.
    fn step(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let ready = this.core.try_recv().map_err(|error| to_py(py, &error))?;
        let step = match ready {
            Some(outcome) => Step::Outcome(outcome),
            None => wait(py, None, |until| this.core.step_until(until))?,
        };
        match step {
            Step::Outcome(Outcome::Answer { frame, .. }) => Ok(Frame::make(py, frame)?.into_any()),
            Step::Outcome(Outcome::Lost { seq, why }) => {
                let why = to_py(py, &why).into_value(py);
                Ok((seq, why).into_pyobject(py)?.into_any().unbind())
            }
            Step::Room(loan) => {
                let lender = Lender::Group(slf.clone().unbind());
                Ok(Loan::make(py, loan, lender, None)?.into_any())
            }
            _ => Err(exception(py, "FrameportError", "an outcome this package does not know")),
        }
    }

    /// Says that no frame will follow.
    fn finish(&self) {
        self.core.finish();
    }

    /// Ends all workers.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.core.stop()).map_err(|error| to_py(py, &error))
    }

    fn __repr__(&self) -> String {
        format!("<frameport.Group {:?}>", self.core.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(pyo3::exceptions::PyTypeError::new_err("a group cannot be pickled: it belongs to this process"))
    }
}
