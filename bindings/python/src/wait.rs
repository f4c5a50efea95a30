//! Waits that let other Python threads run and answer Ctrl-C.
//!
//! *Who calls it*: everything that may block, after a look that kept the interpreter lock: giving it up costs more than
//! a frame that is already there or about to be, and a busy thread may keep it for milliseconds. *Invariants*: that look
//! is over within about a microsecond, however often a hostile peer makes it worth while.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use frameport::{Error, Until};
use pyo3::prelude::*;

use crate::error::to_py;

/// How long Ctrl-C may go unnoticed while nothing else happens.
const TICK: Duration = Duration::from_millis(50);

/// How often to look again before letting go of the interpreter lock: for about as long as that takes.
const LOOKS: u32 = 16;
/// After this many looks in vain only each so many'th one is repeated, to notice when that would pay off again.
const VAIN: u32 = 32;

/// How many looks were in vain since the last that was not.
#[derive(Debug, Default)]
pub(crate) struct Patience(AtomicU32);

impl Patience {
    /// Looks with the interpreter lock held, a few times where that has paid off lately.
    pub(crate) fn look<T>(
        &self,
        py: Python<'_>,
        mut look: impl FnMut() -> Result<Option<T>, Error>,
    ) -> PyResult<Option<T>> {
        let mut found = look();
        if matches!(found, Ok(None)) {
            let vain = self.0.load(Ordering::Relaxed);
            let more = if vain < VAIN || vain.is_multiple_of(VAIN) { LOOKS } else { 0 };
            self.0.store(vain.wrapping_add(1), Ordering::Relaxed);
            for _ in 0..more {
                std::hint::spin_loop();
                found = look();
                if !matches!(found, Ok(None)) {
                    self.0.store(0, Ordering::Relaxed);
                    break;
                }
            }
        }
        found.map_err(|error| to_py(py, &error))
    }
}

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
