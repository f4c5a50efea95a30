//! The crate's errors as the exceptions of `frameport.exceptions`.
//!
//! *Who calls it*: every method that can fail. *Invariants*: the message is the crate's; what a program may want to act
//! on is an attribute. Exceptions are rare, so nothing is cached.

use frameport::{Error, Exit};
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;

use crate::holders::SlotHolder;

/// An exception of the package, by name.
pub(crate) fn exception(py: Python<'_>, name: &str, message: &str) -> PyErr {
    raise(py, name, message, |_| Ok(()))
}

/// The exception of one of the crate's errors.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    let message = error.to_string();
    let name = match error {
        Error::WorkerDied(death) => {
            let (returncode, signal) = codes(death.exit);
            return raise(py, "WorkerDied", &message, |raised| {
                raised.setattr("name", &death.link)?;
                raised.setattr("pid", death.pid)?;
                raised.setattr("returncode", returncode)?;
                raised.setattr("signal", signal)?;
                raised.setattr("reason", &death.message)?;
                raised.setattr("stderr_tail", &death.stderr_tail)
            });
        }
        Error::PoolExhausted(exhausted) => {
            return raise(py, "PoolExhausted", &message, |raised| {
                raised.setattr("holders", SlotHolder::all(exhausted.holders.clone()))?;
                raised.setattr("received", SlotHolder::all(exhausted.received.clone()))
            });
        }
        Error::NotReady { pid, stderr_tail, .. } => {
            return raise(py, "NotReady", &message, |raised| {
                raised.setattr("pid", pid)?;
                raised.setattr("stderr_tail", stderr_tail)
            });
        }
        Error::Denied { operation, profile_line, .. } => {
            return raise(py, "Denied", &message, |raised| {
                raised.setattr("operation", operation)?;
                raised.setattr("profile_line", profile_line)
            });
        }
        Error::Group { cause, .. } => return to_py(py, cause),
        Error::GivenUp { cause, .. } => {
            let raised = to_py(py, cause);
            // The cause's kind, and the whole story.
            let _ = raised.value(py).setattr("args", (message,));
            return raised;
        }
        Error::Spec(_) | Error::Format { .. } => "FormatError",
        Error::MetaTooLong { .. } => "MetaTooLong",
        Error::Meta { .. } => "MetaError",
        Error::Params { .. } => "ParamsError",
        Error::Config { .. } => "ConfigError",
        Error::TooLarge { .. } | Error::Memory { .. } => "MemoryLimit",
        Error::Spawn { .. } => "SpawnError",
        Error::Version { .. } | Error::LayoutMismatch { .. } => "VersionError",
        Error::LinkClosed { .. } => "LinkClosed",
        Error::Timeout { .. } => "Timeout",
        Error::Violation { .. } => "Violation",
        Error::CutOff { .. } => "CutOff",
        Error::Stalled { .. } => "Stalled",
        Error::Untold { .. } => "Untold",
        Error::Stale { .. } => "StaleLoan",
        Error::Protocol { .. } => "ProtocolError",
        Error::Inherit(_) => "NotAWorker",
        Error::Forked => "ForkedError",
        Error::Isolation { .. } => "IsolationError",
        Error::Refused { .. } => "Refused",
        _ => "FrameportError",
    };
    exception(py, name, &message)
}

/// Whether an exception of Python is the one that says a link has ended in order.
pub(crate) fn is_link_closed(py: Python<'_>, error: &PyErr) -> bool {
    let class = py.import("frameport.exceptions").and_then(|exceptions| exceptions.getattr("LinkClosed"));
    class.is_ok_and(|class| error.matches(py, class).unwrap_or(false))
}

/// An exit status as `subprocess` says it, and the signal that caused it.
pub(crate) fn codes(exit: Exit) -> (Option<i32>, Option<i32>) {
    match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (Some(signal.saturating_neg()), Some(signal)),
        Exit::Unknown => (None, None),
    }
}

/// Seconds as Python passes them; `None` and infinity are for ever.
pub(crate) fn seconds(what: &str, value: Option<f64>) -> PyResult<Option<std::time::Duration>> {
    match value {
        None => Ok(None),
        Some(forever) if forever == f64::INFINITY => Ok(None),
        Some(value) => std::time::Duration::try_from_secs_f64(value)
            .map(Some)
            .map_err(|_| PyValueError::new_err(format!("{what} is {value}, must be a number of seconds, 0 or more"))),
    }
}

fn raise(
    py: Python<'_>,
    name: &str,
    message: &str,
    attributes: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>,
) -> PyErr {
    let make = || {
        let class = py.import("frameport.exceptions")?.getattr(name)?;
        let raised = class.call1((message,))?;
        attributes(&raised)?;
        Ok(PyErr::from_value(raised))
    };
    // Only at the interpreter's exit are the package's modules gone.
    make().unwrap_or_else(|_: PyErr| PyAttributeError::new_err(message.to_owned()))
}
