//! Waits that let other Python threads run and answer Ctrl-C.
//!
//! *Who calls it*: everything that may block, after a first look that kept the interpreter lock: giving it up costs
//! more than a frame that is already there, and a busy thread may keep it for milliseconds.

use std::time::Duration;

use frameport::{Error, Until};
use pyo3::prelude::*;

use crate::error::to_py;

/// How long Ctrl-C may go unnoticed while nothing else happens.
const TICK: Duration = Duration::from_millis(50);

/// Runs `wait` without the interpreter lock until it succeeds, fails, `limit` passes or a signal handler raises.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    limit: Option<Duration>,
    wait: impl FnOnce(Until<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let result = py.detach(|| {
        let mut interrupt = || match Python::try_attach(|py| py.check_signals()) {
            Some(Ok(())) => false,
            Some(Err(error)) => {
                raised = Some(error);
                true
            }
            // The interpreter is shutting down.
            None => true,
        };
        wait(limit.map_or_else(Until::forever, Until::after).or_when(TICK, &mut interrupt))
    });
    match raised {
        Some(raised) => Err(raised),
        None => result.map_err(|error| to_py(py, &error)),
    }
}
