//! `Frame`: what was received. `Frames`: the loop over them.
//!
//! *Who calls it*: users. *Invariants*: `release()`, leaving `with` and the loop's next step give up only the frame's
//! own hold and never raise; numbers, times and metadata stay readable after it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use frameport::Hold;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::error::{is_link_closed, to_py};
use crate::pixels::Pixels;
use crate::port::Owned;
use crate::source::{Refused, Source};
use crate::spec::Spec;
use crate::{meta, params};

/// A received frame: its pixels stay as they are for as long as it or a view of it lives.
#[pyclass(frozen, extends = Pixels, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) stamp: Stamp,
    /// Nothing while it is in the slot only, or if there is none.
    meta: OnceLock<Mutex<Meta>>,
    /// The parameters, once somebody has looked.
    params: OnceLock<Py<PyAny>>,
}

/// What a reply copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// The pool it lay in: an answer is of the spec that goes with that.
    pub(crate) pool: u32,
    pub(crate) seq: u64,
    pub(crate) timestamp_ns: u64,
    pub(crate) pts: Option<i64>,
    pub(crate) duration: Option<u32>,
}

#[derive(Debug)]
enum Meta {
    /// Saved from the slot when it was given up.
    Saved(Vec<u8>),
    /// Looked at: the dictionary, and the bytes it came from.
    Read(Py<PyDict>, Vec<u8>),
    /// Assigned here.
    Own(Py<PyDict>),
}

impl Frame {
    pub(crate) fn make(py: Python<'_>, frame: frameport::Frame) -> PyResult<Py<Self>> {
        let spec = Spec::of_pool(py, frame.pool_note(), frame.spec(), frame.layout())?;
        let stamp = Stamp {
            pool: frame.pool_id(),
            seq: frame.seq(),
            timestamp_ns: frame.timestamp_ns(),
            pts: frame.pts(),
            duration: frame.duration(),
        };
        let base = PyClassInitializer::from(Pixels::new(Source::Received(frame), spec));
        Py::new(py, base.add_subclass(Self { stamp, meta: OnceLock::new(), params: OnceLock::new() }))
    }

    fn known_meta(&self) -> Option<MutexGuard<'_, Meta>> {
        Some(self.meta.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn meta(&self) -> MutexGuard<'_, Meta> {
        let meta = self.meta.get_or_init(|| Mutex::new(Meta::Saved(Vec::new())));
        meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up the frame's own hold.
    pub(crate) fn give_up(slf: &Bound<'_, Self>) {
        let mut source = slf.as_super().get().source();
        // Most often it was sent back, and there is nothing to give up.
        let taken = if source.is_gone() { return } else { source.take_received("was released") };
        drop(source);
        if let Ok(frame) = taken {
            slf.get().save_meta(&frame);
        }
    }

    fn save_meta(&self, frame: &frameport::Frame) {
        // A forked child has no slot to read from.
        if frame.has_meta() && self.meta.get().is_none() && frame.check_fork().is_ok() {
            self.meta.get_or_init(|| Mutex::new(Meta::Saved(frame.meta_bytes())));
        }
    }

    /// The dictionary as it is now, decoded if nobody has looked yet.
    fn dict(slf: &Bound<'_, Self>) -> PyResult<Py<PyDict>> {
        let py = slf.py();
        let this = slf.get();
        let bytes = match this.known_meta().as_deref() {
            Some(Meta::Read(dict, _) | Meta::Own(dict)) => return Ok(dict.clone_ref(py)),
            Some(Meta::Saved(bytes)) => bytes.clone(),
            None => match &*slf.as_super().get().source() {
                Source::Received(frame) if frame.check_fork().is_ok() => frame.meta_bytes(),
                _ => Vec::new(),
            },
        };
        let dict = meta::decode(py, this.stamp.seq, &bytes)?;
        let mut meta = this.meta();
        // Another thread may have been quicker.
        if let Meta::Read(dict, _) | Meta::Own(dict) = &*meta {
            return Ok(dict.clone_ref(py));
        }
        *meta = Meta::Read(dict.clone_ref(py), bytes);
        Ok(dict)
    }

    /// The parameters, or where they are still on their way what to wait for them with when the frame is not locked.
    fn params_or_hold(slf: &Bound<'_, Self>) -> Result<Result<Arc<Map<String, Value>>, Hold>, Refused> {
        match &*slf.as_super().get().source() {
            Source::Received(frame) => Ok(frame.params_if_here()?.cloned().ok_or_else(|| frame.hold())),
            Source::Gone(since) => Err(Refused::Gone(since)),
            _ => Err(Refused::Gone("is no received frame")),
        }
    }

    /// Takes the frame for a reply in place, with the metadata it goes back with: what was assigned or changed here.
    pub(crate) fn take(slf: &Bound<'_, Self>) -> PyResult<frameport::Frame> {
        let py = slf.py();
        let (dict, before) = match slf.get().known_meta().as_deref() {
            None | Some(Meta::Saved(_)) => (None, None),
            Some(Meta::Read(dict, before)) => (Some(dict.clone_ref(py)), Some(before.clone())),
            Some(Meta::Own(dict)) => (Some(dict.clone_ref(py)), None),
        };
        let mut own = None;
        if let Some(dict) = dict {
            let untouched = match before {
                Some(before) => meta::decode(py, slf.get().stamp.seq, &before)?.bind(py).eq(&dict)?,
                None => false,
            };
            if !untouched {
                own = Some(meta::encode(dict.bind(py))?);
            }
        }
        let taken = slf.as_super().get().source().take_received("was sent back");
        let mut frame = taken.map_err(|refused| refused.raise(py))?;
        slf.get().save_meta(&frame);
        if let Some(own) = own {
            frame.set_meta_bytes(own);
        }
        Ok(frame)
    }
}

#[pymethods]
impl Frame {
    /// Number of the frame in its stream: a gap tells how many are missing.
    #[getter]
    fn seq(&self) -> u64 {
        self.stamp.seq
    }

    /// When its sender stamped it, in ns on the host's monotonic clock (`frameport.now()`).
    #[getter]
    fn timestamp_ns(&self) -> u64 {
        self.stamp.timestamp_ns
    }

    /// Presentation time in the spec's time base, if it has one.
    #[getter]
    fn pts(&self) -> Option<i64> {
        self.stamp.pts
    }

    /// Duration in the spec's time base, if it has one.
    #[getter]
    fn duration(&self) -> Option<u32> {
        self.stamp.duration
    }

    /// The metadata. What a worker changes or assigns here goes back with the frame, if it goes back in place.
    #[getter(meta)]
    fn py_meta(slf: &Bound<'_, Self>) -> PyResult<Py<PyDict>> {
        Self::dict(slf)
    }

    #[setter(meta)]
    fn set_meta(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let own = Meta::Own(meta::assigned(value)?);
        let before = std::mem::replace(&mut *self.meta(), own);
        drop(before);
        Ok(())
    }

    /// What the host has set for this worker, as it was when this was first asked for: all that was set before the frame was
    /// sent. A read-only mapping that stays the same; empty for a frame a host got.
    #[getter]
    fn params(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(shown) = this.params.get() {
            return Ok(shown.clone_ref(py));
        }
        let values = match Self::params_or_hold(slf).map_err(|refused| refused.raise(py))? {
            Ok(values) => values,
            Err(hold) => py.detach(|| hold.params()).map_err(|error| to_py(py, &error))?,
        };
        let shown = params::show(py, values)?;
        Ok(this.params.get_or_init(|| shown).clone_ref(py))
    }

    /// Whether the frame's own hold is gone.
    #[getter]
    fn released(slf: &Bound<'_, Self>) -> bool {
        slf.as_super().get().source().is_gone()
    }

    /// Gives up the frame's own hold. Views keep theirs: the slot comes back when the last one is gone.
    fn release(slf: &Bound<'_, Self>) {
        Self::give_up(slf);
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        Self::give_up(slf);
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let base = slf.as_super().get();
        format!("<frameport.Frame {} of {}, {}>", slf.get().stamp.seq, base.spec().core, base.source().state())
    }
}

/// A loop over received frames: each step gives up the loop's hold on the frame before.
#[pyclass(frozen, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Frames {
    origin: Owned,
    last: Mutex<Option<Py<Frame>>>,
}

impl Frames {
    pub(crate) fn new(origin: Owned) -> Self {
        Self { origin, last: Mutex::new(None) }
    }

    fn put(&self, frame: Option<Py<Frame>>) -> Option<Py<Frame>> {
        std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), frame)
    }
}

#[pymethods]
impl Frames {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<Frame>> {
        if let Some(before) = self.put(None) {
            Frame::give_up(before.bind(py));
        }
        match self.origin.port.receive(py, None) {
            Ok(frame) => {
                self.put(Some(frame.clone_ref(py)));
                Ok(frame)
            }
            Err(error) if is_link_closed(py, &error) => Err(PyStopIteration::new_err(())),
            Err(error) => Err(error),
        }
    }
}
