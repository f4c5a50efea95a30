//! The only unsafe code of the package: views handed to Python, and arrays copied from it.
//!
//! *Who calls it*: [`crate::pixels`]. *Invariants*: whatever address leaves here belongs to an [`Export`], which keeps
//! its memory mapped and its slot from reuse, and the export is dropped only by the release that the receiver owes:
//! the buffer protocol's, or the DLPack deleter. The module's code reads or writes pixels only in [`copy`].
//! *A hostile worker* can change pixels at any time: those who look at a view may see a mixture of old and new values,
//! and nothing else, since neither address nor shape is read from memory it can write.
#![expect(unsafe_code, reason = "the buffer protocol and DLPack are C structures with raw addresses")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use frameport::spec::{DType, MAX_RANK};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::export::Export;
use crate::spec::dtype_code;

// SAFETY: an export is an address and what keeps it valid, bound to no thread.
unsafe impl Send for Export {}
// SAFETY: nothing is read or written through a shared export here.
unsafe impl Sync for Export {}

/// Answers a request for a buffer.
///
/// # Safety
/// `view` is the structure of a `bf_getbuffer` call.
pub(crate) unsafe fn fill_buffer(
    view: *mut ffi::Py_buffer,
    flags: c_int,
    owner: Bound<'_, PyAny>,
    export: PyResult<Box<Export>>,
) -> PyResult<()> {
    let mut answer = ffi::Py_buffer::new();
    let filled = export.and_then(|mut export| {
        let wants = |flag: c_int| flags & flag == flag;
        let allowed = match () {
            () if !wants(ffi::PyBUF_STRIDES) || wants(ffi::PyBUF_C_CONTIGUOUS) => export.is_c_contiguous(),
            () if wants(ffi::PyBUF_F_CONTIGUOUS) => export.is_f_contiguous(),
            () if wants(ffi::PyBUF_ANY_CONTIGUOUS) => export.is_c_contiguous() || export.is_f_contiguous(),
            () => true,
        };
        if !allowed {
            return Err(PyBufferError::new_err("the rows of this frame have gaps: ask for a strided view, or copy it"));
        }
        let fits = (isize::try_from(export.len()), c_int::try_from(export.shape().len()));
        let (Ok(len), Ok(ndim)) = fits else {
            return Err(PyBufferError::new_err("this frame is too large for a buffer"));
        };
        answer.buf = export.data().cast();
        answer.len = len;
        answer.itemsize = export.itemsize();
        if wants(ffi::PyBUF_WRITABLE) && !export.is_writable() {
            return Err(PyBufferError::new_err(
                "this frame is an audience's: others read it too, copy it to change it",
            ));
        }
        // Both sides of a link map a frame of one receiver writable: it may be edited in place.
        answer.readonly = c_int::from(!export.is_writable());
        answer.ndim = ndim;
        if wants(ffi::PyBUF_FORMAT) {
            answer.format = dtype_code(export.item()).as_ptr().cast_mut();
        }
        if wants(ffi::PyBUF_ND) {
            answer.shape = export.axes().0;
        } else {
            answer.ndim = 1;
        }
        if wants(ffi::PyBUF_STRIDES) {
            answer.strides = export.axes().1;
        }
        answer.internal = Box::into_raw(export).cast();
        answer.obj = owner.into_ptr();
        Ok(())
    });
    // SAFETY: the caller's promise. On an error `obj` is null, as the protocol wants it.
    unsafe { view.write(answer) };
    filled
}

/// Ends what [`fill_buffer`] began.
///
/// # Safety
/// `view` is the structure of a `bf_releasebuffer` call for a buffer that [`fill_buffer`] answered.
pub(crate) unsafe fn release_buffer(view: *mut ffi::Py_buffer) {
    // SAFETY: the caller's promise.
    let internal = unsafe { (*view).internal };
    // SAFETY: `fill_buffer` made it from a box, and each buffer is released once.
    drop(unsafe { Box::from_raw(internal.cast::<Export>()) });
}

#[repr(C)]
struct DlDevice {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DlDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DlDataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Unversioned {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
    flags: u64,
    tensor: DlTensor,
}

/// The version of DLPack that [`Versioned`] is.
pub(crate) const DLPACK: (u32, u32) = (1, 0);
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;

/// What a capsule points to: the part the receiver knows comes first.
#[repr(C)]
struct Managed<H> {
    head: H,
    shape: [i64; MAX_RANK],
    strides: [i64; MAX_RANK],
    _export: Box<Export>,
}

/// One of the two structures that DLPack has.
trait Head: Sized {
    const NAME: &'static CStr;
    fn new(tensor: DlTensor, flags: u64) -> Self;
    fn tensor(&mut self) -> &mut DlTensor;
}

impl Head for Unversioned {
    const NAME: &'static CStr = c"dltensor";

    fn new(tensor: DlTensor, _flags: u64) -> Self {
        Self { tensor, context: std::ptr::null_mut(), deleter: Some(delete::<Self>) }
    }

    fn tensor(&mut self) -> &mut DlTensor {
        &mut self.tensor
    }
}

impl Head for Versioned {
    const NAME: &'static CStr = c"dltensor_versioned";

    fn new(tensor: DlTensor, flags: u64) -> Self {
        let (version, context) = (DLPACK.into(), std::ptr::null_mut());
        Self { version, context, deleter: Some(delete::<Self>), flags, tensor }
    }

    fn tensor(&mut self) -> &mut DlTensor {
        &mut self.tensor
    }
}

/// The export as a DLPack capsule.
pub(crate) fn capsule(
    py: Python<'_>,
    export: Box<Export>,
    versioned: bool,
    copied: bool,
) -> PyResult<Bound<'_, PyCapsule>> {
    let flags = if copied { IS_COPIED } else { 0 } | if export.is_writable() { 0 } else { READ_ONLY };
    if versioned {
        return make::<Versioned>(py, export, flags);
    }
    if flags & READ_ONLY != 0 {
        let what =
            "this frame may only be read, which DLPack before 1.0 cannot say: copy it, or ask for a newer version";
        return Err(PyBufferError::new_err(what));
    }
    make::<Unversioned>(py, export, flags)
}

fn make<H: Head>(py: Python<'_>, export: Box<Export>, flags: u64) -> PyResult<Bound<'_, PyCapsule>> {
    let values = export.itemsize();
    let axes = |axes: &[isize], unit: isize| {
        let mut wide = [0_i64; MAX_RANK];
        // Strides are multiples of the size of a value: the spec's layout is made so.
        wide.iter_mut().zip(axes).for_each(|(to, from)| *to = (from / unit) as i64);
        wide
    };
    let code = match export.item() {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => 1,
        DType::F16 | DType::F32 | DType::F64 => 2,
        DType::Bool => 6,
    };
    let null = std::ptr::null_mut();
    let tensor = DlTensor {
        data: export.data().cast(),
        device: DlDevice { kind: CPU.0, id: CPU.1 },
        ndim: export.shape().len() as i32,
        dtype: DlDataType { code, bits: (export.item().size() * 8) as u8, lanes: 1 },
        shape: null,
        strides: null,
        byte_offset: 0,
    };
    let (shape, strides) = (axes(export.shape(), 1), axes(export.strides(), values));
    let managed = Box::new(Managed { head: H::new(tensor, flags), shape, strides, _export: export });
    let managed = Box::leak(managed);
    let (shape, strides) = (managed.shape.as_mut_ptr(), managed.strides.as_mut_ptr());
    let tensor = managed.head.tensor();
    (tensor.shape, tensor.strides) = (shape, strides);
    let pointer = NonNull::from(managed).cast();
    // SAFETY: the capsule owns the box until somebody renames it, who then calls the deleter; its destructor calls it
    // otherwise.
    unsafe { PyCapsule::new_with_pointer_and_destructor(py, pointer, H::NAME, Some(discard::<H>)) }
}

/// DLPack's main memory.
pub(crate) const CPU: (i32, i32) = (1, 0);

/// The deleter: may run on any thread, with or without the interpreter.
///
/// # Safety
/// Called once, with the head of a box that [`make`] leaked.
unsafe extern "C" fn delete<H>(head: *mut H) {
    // SAFETY: the caller's promise; the head is the first field of the `repr(C)` box.
    drop(unsafe { Box::from_raw(head.cast::<Managed<H>>()) });
}

/// The capsule's destructor: nobody took the tensor if it still has its name.
///
/// # Safety
/// Called by Python with a capsule that [`make`] made.
unsafe extern "C" fn discard<H: Head>(capsule: *mut ffi::PyObject) {
    // SAFETY: a capsule, by the caller's promise.
    if unsafe { ffi::PyCapsule_IsValid(capsule, H::NAME.as_ptr()) } == 1 {
        // SAFETY: as above, and its name was just checked.
        let head = unsafe { ffi::PyCapsule_GetPointer(capsule, H::NAME.as_ptr()) };
        // SAFETY: it is the box of `make`, which nobody else has taken over.
        unsafe { delete::<H>(head.cast()) };
    }
}

/// Rows to copy from one strided array to another of the same shape.
struct Copy<'a> {
    from: *const u8,
    from_strides: &'a [isize],
    to: *mut u8,
    to_strides: &'a [isize],
    shape: &'a [isize],
    itemsize: isize,
}

// SAFETY: both arrays are kept alive by the caller's borrow, and bytes may be copied by any thread.
unsafe impl Send for Copy<'_> {}

/// From here on other Python threads may run while bytes are copied.
const LONG: usize = 1 << 18;

/// Copies `from`, of the same shape and size of value, into the export.
pub(crate) fn copy_in(py: Python<'_>, from: &PyUntypedBuffer, to: &Export) {
    let strides: Vec<isize> = from.strides().to_vec();
    let copy = Copy {
        from: from.buf_ptr().cast(),
        from_strides: &strides,
        to: to.data(),
        to_strides: to.strides(),
        shape: to.shape(),
        itemsize: to.itemsize(),
    };
    if to.len() < LONG { copy.run() } else { py.detach(move || copy.run()) }
}

/// Copies the export to `to`, which has room for all its values one after the other.
pub(crate) fn copy_out(from: &Export, to: *mut u8) {
    let mut strides = from.shape().to_vec();
    let mut step = from.itemsize();
    for stride in strides.iter_mut().rev() {
        step = step.saturating_mul(std::mem::replace(stride, step));
    }
    let (shape, itemsize) = (from.shape(), from.itemsize());
    let copy = Copy { from: from.data(), from_strides: from.strides(), to, to_strides: &strides, shape, itemsize };
    copy.run();
}

impl Copy<'_> {
    fn run(&self) {
        // What lies without a gap in both is copied in one piece.
        let (mut run, mut outer) = (self.itemsize, self.shape.len());
        while let Some(axis) = outer.checked_sub(1)
            && (self.from_strides.get(axis), self.to_strides.get(axis)) == (Some(&run), Some(&run))
        {
            run = run.saturating_mul(self.shape.get(axis).copied().unwrap_or(1));
            outer = axis;
        }
        self.rows(0, outer, self.from, self.to, run.unsigned_abs());
    }

    fn rows(&self, axis: usize, outer: usize, from: *const u8, to: *mut u8, run: usize) {
        if axis == outer {
            // SAFETY: `shape` and the strides are those of two live arrays, one of them an export, the other a buffer
            // or memory of the export's size; each address is one of an element of them, and `run` ends inside both.
            // They may overlap, and a peer may change one meanwhile, see the module.
            unsafe { std::ptr::copy(from, to, run) };
            return;
        }
        let at = |axes: &[isize]| axes.get(axis).copied().unwrap_or(0);
        for index in 0..at(self.shape) {
            let from = from.wrapping_offset(index.wrapping_mul(at(self.from_strides)));
            let to = to.wrapping_offset(index.wrapping_mul(at(self.to_strides)));
            self.rows(axis + 1, outer, from, to, run);
        }
    }
}
