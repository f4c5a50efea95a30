//! Parameters in a worker: what its host has set, as a read-only mapping.
//!
//! *Who calls it*: links and frames. *Invariants*: a mapping is made once for each change, and nothing in it can be
//! changed; no lock is held while Python code runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use serde_json::{Map, Value};

/// The values shown last, and what they are shown as.
type Shown = Option<(Arc<Map<String, Value>>, Py<PyAny>)>;

fn last() -> MutexGuard<'static, Shown> {
    static LAST: Mutex<Shown> = Mutex::new(None);
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The values as Python sees them.
pub(crate) fn show(py: Python<'_>, values: Arc<Map<String, Value>>) -> PyResult<Py<PyAny>> {
    if let Some((_, shown)) = last().as_ref().filter(|(of, _)| Arc::ptr_eq(of, &values)) {
        return Ok(shown.clone_ref(py));
    }
    let text = Value::Object(values.as_ref().clone()).to_string();
    let shown = py.import("frameport._params")?.call_method1("frozen", (text,))?.unbind();
    let before = last().replace((values, shown.clone_ref(py)));
    drop(before);
    Ok(shown)
}
