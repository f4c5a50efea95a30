//! `frame.array`: a view made by NumPy's own C interface, at half the price of `numpy.asarray(frame)`, which has to ask
//! the frame what it is first.
//!
//! *Who calls it*: [`crate::pixels`]. *Invariants*: NumPy is loaded before its interface is touched; the array's base owns
//! the [`Export`], so the slot is kept for as long as the array or any array made from it lives. *A hostile worker* can
//! change the values of the array, never its geometry.
#![expect(unsafe_code, reason = "NumPy's interface is a table of C functions")]

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use frameport::spec::DType;
use numpy::npyffi::{NPY_ARRAY_WRITEABLE, NPY_TYPES, NpyTypes, PY_ARRAY_API, get_type_object};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyCapsule;

use crate::export::Export;
use crate::pixels::numpy;

/// Of the capsule an array is based on.
const NAME: &CStr = c"frameport.view";

/// The export as an array, which owns it.
pub(crate) fn of(py: Python<'_>, export: Box<Export>) -> PyResult<Bound<'_, PyAny>> {
    static LOADED: PyOnceLock<()> = PyOnceLock::new();
    // The interface's own way of finding NumPy panics without it.
    LOADED.get_or_try_init(py, || numpy(py, "frame.array").map(drop))?;
    // Stays where it is: the capsule below owns it, and is let go of on every way out.
    let export = NonNull::from(Box::leak(export));
    // SAFETY: the capsule's destructor is the only one to free the box.
    let base = unsafe { PyCapsule::new_with_pointer_and_destructor(py, export.cast(), NAME, Some(discard)) }?;
    // SAFETY: just leaked, and `base` lives longer than this borrow.
    let export = unsafe { export.as_ref() };
    // SAFETY: NumPy is loaded; the number is one of its types'.
    let descr = unsafe { PY_ARRAY_API.PyArray_DescrFromType(py, number(export.item()) as c_int) };
    // SAFETY: as above.
    let class = unsafe { get_type_object(py, NpyTypes::PyArray_Type) };
    let (ndim, shape, strides) = (export.shape().len() as c_int, export.shape().as_ptr(), export.strides().as_ptr());
    // SAFETY: shape and strides have `ndim` values and are copied; every element they reach lies in memory that the
    // export keeps (its invariant), and the export is kept by the base, set below. The descriptor is given away.
    let array = unsafe {
        PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            class,
            descr,
            ndim,
            shape.cast_mut(),
            strides.cast_mut(),
            export.data().cast(),
            if export.is_writable() { NPY_ARRAY_WRITEABLE } else { 0 },
            std::ptr::null_mut(),
        )
    };
    // SAFETY: a new reference, or null with an exception set.
    let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
    // SAFETY: an array, just made without a base; the reference to the base is given away, also on an error.
    let failed = unsafe { PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), base.into_any().into_ptr()) };
    if failed != 0 { Err(PyErr::fetch(py)) } else { Ok(array) }
}

/// The capsule's destructor.
///
/// # Safety
/// Called by Python with a capsule that [`of`] made.
unsafe extern "C" fn discard(capsule: *mut ffi::PyObject) {
    // SAFETY: a capsule of that name, by the caller's promise.
    let export = unsafe { ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()) };
    // SAFETY: the box that `of` leaked, which nobody else frees.
    drop(unsafe { Box::from_raw(export.cast::<Export>()) });
}

/// A long has 64 bits on every system frameport runs on, and is what NumPy calls int64 there.
fn number(item: DType) -> NPY_TYPES {
    match item {
        DType::Bool => NPY_TYPES::NPY_BOOL,
        DType::I8 => NPY_TYPES::NPY_BYTE,
        DType::I16 => NPY_TYPES::NPY_SHORT,
        DType::I32 => NPY_TYPES::NPY_INT,
        DType::I64 => NPY_TYPES::NPY_LONG,
        DType::U8 => NPY_TYPES::NPY_UBYTE,
        DType::U16 => NPY_TYPES::NPY_USHORT,
        DType::U32 => NPY_TYPES::NPY_UINT,
        DType::U64 => NPY_TYPES::NPY_ULONG,
        DType::F16 => NPY_TYPES::NPY_HALF,
        DType::F32 => NPY_TYPES::NPY_FLOAT,
        DType::F64 => NPY_TYPES::NPY_DOUBLE,
    }
}
