//! Metadata: Python dictionaries as the JSON objects that travel with frames.
//!
//! *Who calls it*: frames and loans. *Invariants*: decoded only when looked at; Python's own `json` does the work, so no
//! lock may be held around it. *A hostile worker* can send any bytes: what is no object is an exception.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::exception;

/// The dictionary that `bytes` say; an empty one for none.
pub(crate) fn decode(py: Python<'_>, seq: u64, bytes: &[u8]) -> PyResult<Py<PyDict>> {
    if bytes.is_empty() {
        return Ok(PyDict::new(py).unbind());
    }
    let decoded = py.import("json")?.call_method1("loads", (PyBytes::new(py, bytes),));
    let why = match decoded {
        Ok(decoded) => match decoded.cast_into::<PyDict>() {
            Ok(dict) => return Ok(dict.unbind()),
            Err(other) => other.to_string(),
        },
        Err(error) => error.to_string(),
    };
    Err(exception(py, "MetaError", &format!("the metadata of frame {seq} is not a JSON object: {why}")))
}

/// The bytes of a dictionary; none for an empty one.
pub(crate) fn encode(meta: &Bound<'_, PyDict>) -> PyResult<Vec<u8>> {
    if meta.is_empty() {
        return Ok(Vec::new());
    }
    let text: String = meta.py().import("frameport._meta")?.call_method1("dumps", (meta,))?.extract()?;
    Ok(text.into_bytes())
}

/// What a user assigns.
pub(crate) fn assigned(value: &Bound<'_, PyAny>) -> PyResult<Py<PyDict>> {
    value
        .cast::<PyDict>()
        .map(|dict| dict.clone().unbind())
        .map_err(|_| PyTypeError::new_err(format!("meta is a dict of what JSON can say, not {}", value.get_type())))
}
