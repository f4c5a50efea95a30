//! What frames, loans and planes have in common: they are arrays.
//!
//! *Who calls it*: users, through NumPy, `memoryview`, DLPack and the methods here. *Invariants*: the object itself
//! exports its memory, and each export has a hold of its own, so a slot comes back exactly when the last view of it is
//! gone, whatever becomes of this object; the lock is held for core calls only.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use frameport::spec::{ImageView, PlaneLayout};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyModuleNotFoundError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyTuple};

use crate::array;
use crate::error::exception;
use crate::export::Export;
use crate::holders::place;
use crate::raw;
use crate::source::{Refused, Source};
use crate::spec::{Spec, dtype_name};

/// An array in a slot of a pool: a received frame, a loan, or one plane of either.
///
/// `numpy.asarray(frame)`, `memoryview(frame)` and `from_dlpack(frame)` are views that keep the slot for as long as they
/// live. `numpy.ndarray(shape, buffer=frame)` is the one that does not, since NumPy lets go of its buffer at once: it
/// holds the frame itself instead, and after a `release()` it may see newer pixels.
#[pyclass(frozen, subclass, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Pixels {
    source: Mutex<Source>,
    spec: Py<Spec>,
}

impl Pixels {
    pub(crate) fn new(source: Source, spec: Py<Spec>) -> Self {
        Self { source: Mutex::new(source), spec }
    }

    pub(crate) fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spec(&self) -> &Spec {
        self.spec.get()
    }

    /// The whole as one array, or one plane of it; `None` where that is no array.
    fn part(&self, py: Python<'_>, plane: Option<usize>) -> PyResult<Option<Box<Export>>> {
        // The lock is not held while Python code runs: in asking for the place, in making an exception.
        let made_at = place(py);
        let part = self.source().export(plane, made_at);
        part.map_err(|refused| refused.raise(py))
    }

    /// The one array, or what to use instead.
    fn export(&self, py: Python<'_>) -> PyResult<Box<Export>> {
        self.part(py, None)?.ok_or_else(|| PyBufferError::new_err(self.no_array()))
    }

    fn no_array(&self) -> String {
        format!(
            "{} is not one array in memory: use frame.planes for a view of each plane, or frame.to_ndarray() for a copy",
            self.spec().core
        )
    }

    /// Copies an array or bytes in, all of it.
    pub(crate) fn fill_with(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let from = buffer_of(value)?;
        let Some(to) = self.part(py, None)? else {
            return self.fill_planes(py, value, &from);
        };
        let (from_type, to_type) = (type_of(&from), Some(to.item()));
        let given = from.shape().iter().map(|&length| length.cast_signed());
        // A buffer without an axis is one that PyO3 does not show.
        let same_shape = given.eq(to.shape().iter().copied()) || (to.shape().is_empty() && from.item_count() == 1);
        if from_type != to_type || !same_shape {
            return Err(exception(
                py,
                "FormatError",
                &format!(
                    "the array is {} {:?}, a frame of {} is {} {:?}",
                    from_type
                        .map_or_else(|| format!("of format {:?}", from.format()), |known| dtype_name(known).to_owned()),
                    from.shape(),
                    self.spec().core,
                    dtype_name(to.item()),
                    to.shape(),
                ),
            ));
        }
        raw::copy_in(py, &from, &to);
        Ok(())
    }

    /// Copies in the one array that the frame would be without the gaps that its slot has, as IOSurfaces have them.
    fn fill_planes(&self, py: Python<'_>, value: &Bound<'_, PyAny>, from: &PyUntypedBuffer) -> PyResult<()> {
        let mut packed = self.spec().core.clone();
        if let frameport::spec::Spec::Video(video) = &mut packed {
            video.planes = None;
        }
        let view = packed.layout().ok().and_then(|layout| layout.image_view());
        let fits = |view: ImageView| type_of(from) == Some(view.sample) && from.shape() == view.shape;
        if !view.is_some_and(fits) {
            return Err(exception(py, "FormatError", &self.no_array()));
        }
        let view = py.import("builtins")?.call_method1("memoryview", (value,))?;
        let bytes = view.call_method0("tobytes")?.cast_into::<PyBytes>()?;
        // The lock is not held while an exception is made.
        let filled = match &mut *self.source() {
            Source::Loaned(loan) => loan.fill(bytes.as_bytes()).map_err(Refused::from),
            other => other.export(None, None).map(drop),
        };
        filled.map_err(|refused| refused.raise(py))
    }
}

/// The buffer of an array, by way of NumPy for arrays that have none of their own.
pub(crate) fn buffer_of(value: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    let py = value.py();
    let refused = match PyUntypedBuffer::get(value) {
        Ok(buffer) if buffer.suboffsets().is_none() => return Ok(buffer),
        Ok(_) => PyTypeError::new_err("an array of pointers is not one piece of memory: copy it first"),
        Err(error) => error,
    };
    if value.hasattr("__array__")? || value.hasattr("__dlpack__")? {
        return PyUntypedBuffer::get(&numpy(py, "this array")?.call_method1("atleast_1d", (value,))?);
    }
    let kind = value.get_type();
    let error = PyTypeError::new_err(format!("an array or bytes are wanted, not {kind}"));
    error.set_cause(py, Some(refused));
    Err(error)
}

/// What a buffer's values are, if frames can have such.
fn type_of(buffer: &PyUntypedBuffer) -> Option<frameport::spec::DType> {
    use frameport::spec::DType::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    let format = buffer.format().to_str().ok()?;
    let code = match format.as_bytes() {
        [code] | [b'@' | b'=' | b'<', code] => *code,
        _ => return None,
    };
    match (code, buffer.item_size()) {
        (b'?', 1) => Some(Bool),
        (b'B' | b'H' | b'I' | b'L' | b'Q' | b'N', size) => [U8, U16, U32, U64].into_iter().find(|t| t.size() == size),
        (b'b' | b'h' | b'i' | b'l' | b'q' | b'n', size) => [I8, I16, I32, I64].into_iter().find(|t| t.size() == size),
        (b'e' | b'f' | b'd', size) => [F16, F32, F64].into_iter().find(|t| t.size() == size),
        _ => None,
    }
}

pub(crate) fn numpy<'py>(py: Python<'py>, what: &str) -> PyResult<Bound<'py, PyModule>> {
    py.import("numpy").map_err(|error| {
        if error.is_instance_of::<PyModuleNotFoundError>(py) {
            let hint = format!("{what} needs NumPy (pip install numpy); memoryview(frame) is the same view without it");
            return PyModuleNotFoundError::new_err(hint);
        }
        error
    })
}

#[pymethods]
impl Pixels {
    /// What the frame is.
    #[getter(spec)]
    fn py_spec(&self, py: Python<'_>) -> Py<Spec> {
        self.spec.clone_ref(py)
    }

    /// The planes, in the format's order: each an array of its own with its true strides.
    #[getter]
    fn planes<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let this = slf.get();
        let plane = |(index, layout)| {
            let source = Source::Plane(slf.clone().unbind(), index);
            let base = PyClassInitializer::from(Self::new(source, this.spec.clone_ref(py)));
            Bound::new(py, base.add_subclass(Plane { index, layout }))
        };
        let planes: Vec<_> =
            this.spec().layout.planes().iter().copied().enumerate().map(plane).collect::<PyResult<_>>()?;
        PyTuple::new(py, planes)
    }

    /// The frame as a NumPy array: a view that keeps the slot for as long as it lives.
    #[getter]
    fn array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        array::of(py, self.part(py, None)?.ok_or_else(|| PyTypeError::new_err(self.no_array()))?)
    }

    /// A copy of the pixels of its own: an array where NumPy is there, else bytes.
    fn copy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("frameport._arrays")?.call_method1("copy", (slf,))
    }

    /// A copy as one NumPy array, also where the frame is none in memory: the planes below each other.
    fn to_ndarray<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        numpy(slf.py(), "frame.to_ndarray()")?;
        slf.py().import("frameport._arrays")?.call_method1("to_ndarray", (slf,))
    }

    /// A copy of all values, planes one after the other without gaps: FFmpeg's rawvideo.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let planes = match self.part(py, None)? {
            Some(whole) => vec![whole],
            None => (0..self.spec().layout.planes().len())
                .filter_map(|index| self.part(py, Some(index)).transpose())
                .collect::<PyResult<_>>()?,
        };
        let total = planes.iter().map(|plane| plane.len()).fold(0, usize::saturating_add);
        PyBytes::new_with(py, total, |mut bytes| {
            for plane in &planes {
                let Some((part, rest)) = bytes.split_at_mut_checked(plane.len()) else { break };
                raw::copy_out(plane, part.as_mut_ptr());
                bytes = rest;
            }
            Ok(())
        })
    }

    #[pyo3(signature = (dtype=None, *, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        // NumPy comes here when the buffer was refused, and hides why.
        slf.get().export(py).map_err(|error| {
            if error.is_instance_of::<PyBufferError>(py) { PyTypeError::new_err(slf.get().no_array()) } else { error }
        })?;
        let view = py.import("builtins")?.call_method1("memoryview", (slf,))?;
        let keywords = PyDict::new(py);
        keywords.set_item("dtype", dtype)?;
        let make = if copy == Some(true) { "array" } else { "asarray" };
        numpy(py, "an array")?.call_method(make, (view,), Some(&keywords))
    }

    /// The frame as a DLPack capsule, for `from_dlpack` of NumPy, torch, JAX and others.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        if stream.is_some() {
            return Err(PyBufferError::new_err("frames are in main memory, which has no streams: leave stream out"));
        }
        if let Some(device) = dl_device.filter(|&device| device != raw::CPU) {
            return Err(PyBufferError::new_err(format!("frames are in main memory, not on device {device:?}")));
        }
        let (mut export, copied) = (self.export(py)?, copy == Some(true));
        if copied {
            export = export.copied(|to| raw::copy_out(&export, to));
        }
        raw::capsule(py, export, max_version.is_some_and(|version| version >= raw::DLPACK), copied)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        raw::CPU
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a frame cannot be pickled: send it through a link, or .copy() it"))
    }

    #[expect(unsafe_code, reason = "the buffer protocol's signature")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let export = slf.get().export(slf.py());
        // SAFETY: Python's own call of the slot.
        unsafe { raw::fill_buffer(view, flags, slf.into_any(), export) }
    }

    #[expect(unsafe_code, reason = "the buffer protocol's signature")]
    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: Python's own call of the slot, for a buffer of the one above.
        unsafe { raw::release_buffer(view) };
    }
}

/// One plane of a frame. It keeps nothing by itself: its views do.
#[pyclass(frozen, extends = Pixels, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Plane {
    index: usize,
    layout: PlaneLayout,
}

#[pymethods]
impl Plane {
    /// Its place in `frame.planes`.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// Pixels across, of this plane.
    #[getter]
    fn width(&self) -> usize {
        self.layout.width
    }

    /// Rows of this plane.
    #[getter]
    fn height(&self) -> usize {
        self.layout.rows
    }

    /// Values per pixel.
    #[getter]
    fn components(&self) -> usize {
        self.layout.components
    }

    /// From one row's start to the next one's, in bytes.
    #[getter]
    fn stride(&self) -> usize {
        self.layout.stride
    }

    /// The one plane that it is.
    #[getter]
    fn planes<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(slf.py(), [slf])
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let PlaneLayout { width, rows, components, sample, stride, .. } = slf.get().layout;
        let spec = &slf.as_super().get().spec().core;
        format!(
            "<frameport.Plane {} of {spec}: {width}x{rows}, {components} {} a pixel, stride {stride}>",
            slf.get().index,
            dtype_name(sample)
        )
    }
}
