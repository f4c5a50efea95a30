//! `Spec`: what is agreed once about a channel's frames.
//!
//! *Who calls it*: users, and every frame, link and worker that shows its own. *Invariants*: a `Spec` in hand has a
//! layout: a wrong number is an error of the constructor.

use frameport::PoolNote;
use frameport::spec::{BytesSpec, Colour, DType, PixelFormat, PlaneGeometry, TensorSpec, VideoSpec};
use frameport::spec::{Layout, Spec as CoreSpec};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::error::{exception, to_py};

/// Names of value types as NumPy has them, and a buffer's format for them.
const DTYPES: [(DType, &str, &std::ffi::CStr); 12] = [
    (DType::U8, "uint8", c"B"),
    (DType::I8, "int8", c"b"),
    (DType::U16, "uint16", c"H"),
    (DType::I16, "int16", c"h"),
    (DType::U32, "uint32", c"I"),
    (DType::I32, "int32", c"i"),
    (DType::U64, "uint64", c"Q"),
    (DType::I64, "int64", c"q"),
    (DType::F16, "float16", c"e"),
    (DType::F32, "float32", c"f"),
    (DType::F64, "float64", c"d"),
    (DType::Bool, "bool", c"?"),
];

/// NumPy's name of a type.
pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    DTYPES.iter().find(|(known, ..)| *known == dtype).map_or("", |(_, name, _)| name)
}

/// A buffer's format for a type. Native codes: a memoryview indexes no other.
pub(crate) fn dtype_code(dtype: DType) -> &'static std::ffi::CStr {
    DTYPES.iter().find(|(known, ..)| *known == dtype).map_or(c"", |(.., code)| code)
}

/// What every frame of a channel looks like.
///
/// `Spec("bgr24", 1920, 1080, fps=(30, 1))` is video under FFmpeg's names; `Spec.tensor("float32", (3, 4))` an array;
/// `Spec.bytes(65536)` up to so many bytes. Colour is given as the code points of H.273, 2 being "unspecified".
#[pyclass(frozen, eq, hash, module = "frameport")]
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) core: CoreSpec,
    /// A frame's own, where it is one's: the system may have laid out its planes.
    pub(crate) layout: Layout,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.core == other.core
    }
}

impl std::hash::Hash for Spec {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.core.to_string().hash(state);
    }
}

impl Spec {
    pub(crate) fn of(py: Python<'_>, core: impl Into<CoreSpec>) -> PyResult<Self> {
        let core = core.into();
        let layout = core.layout().map_err(|error| to_py(py, &error.into()))?;
        Ok(Self { core, layout })
    }

    /// The spec of the frames of a pool: one object for all of them.
    pub(crate) fn of_pool(py: Python<'_>, note: &PoolNote, core: &CoreSpec, layout: &Layout) -> PyResult<Py<Self>> {
        let known = || note.get().and_then(|known| known.downcast_ref::<Py<Self>>()).map(|known| known.clone_ref(py));
        if let Some(known) = known() {
            return Ok(known);
        }
        let new = Py::new(py, Self { core: core.clone(), layout: layout.clone() })?;
        // Made beforehand: nothing of Python's runs while another thread waits for it. Whoever was first is everybody's.
        let _ = note.set(Box::new(new.clone_ref(py)));
        Ok(known().unwrap_or(new))
    }

    fn video(&self) -> Option<&VideoSpec> {
        self.core.video()
    }

    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.core, CoreSpec::Bytes(_))
    }

    fn json(&self) -> PyResult<String> {
        serde_json::to_string(&self.core).map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

#[pymethods]
impl Spec {
    #[new]
    #[pyo3(signature = (format, width, height, *, fps=None, time_base=None, primaries=2, transfer=2, matrix=2,
        full_range=None, planes=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of a Python constructor")]
    fn new(
        py: Python<'_>,
        format: &str,
        width: u32,
        height: u32,
        fps: Option<Bound<'_, PyAny>>,
        time_base: Option<Bound<'_, PyAny>>,
        primaries: u8,
        transfer: u8,
        matrix: u8,
        full_range: Option<bool>,
        planes: Option<Vec<(usize, usize)>>,
    ) -> PyResult<Self> {
        let format: PixelFormat =
            format.parse().map_err(|error: frameport::spec::SpecError| to_py(py, &error.into()))?;
        let mut spec = VideoSpec::new(format, width, height).colour(Colour { primaries, transfer, matrix, full_range });
        if let Some(fps) = fps {
            let (num, den) = fraction("fps", &fps)?;
            spec = spec.fps(num, den);
        }
        if let Some(time_base) = time_base {
            let (num, den) = fraction("time_base", &time_base)?;
            spec = spec.time_base(num, den);
        }
        if let Some(planes) = planes {
            let places = planes.into_iter().map(|(offset, stride)| PlaneGeometry { offset, stride });
            spec = spec.planes(places.collect::<Vec<_>>());
        }
        Self::of(py, spec)
    }

    /// Arrays of one type and shape, C-contiguous. `dtype` is a name such as "float32", or a NumPy or torch dtype.
    #[staticmethod]
    fn tensor(py: Python<'_>, dtype: Bound<'_, PyAny>, shape: Vec<usize>) -> PyResult<Self> {
        Self::of(py, TensorSpec::new(dtype_of(py, &dtype)?, shape))
    }

    /// Up to `capacity` bytes, with a length of its own in every frame.
    #[staticmethod]
    fn bytes(py: Python<'_>, capacity: usize) -> PyResult<Self> {
        Self::of(py, BytesSpec::new(capacity))
    }

    /// The spec that `to_json` gave.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Self> {
        let core: CoreSpec = serde_json::from_str(text)
            .map_err(|error| exception(py, "FormatError", &format!("not a spec: {error}")))?;
        Self::of(py, core)
    }

    /// The spec as JSON, in the protocol's own words.
    fn to_json(&self) -> PyResult<String> {
        self.json()
    }

    /// "video", "tensor" or "bytes".
    #[getter]
    fn kind(&self) -> &'static str {
        match self.core {
            CoreSpec::Video(_) => "video",
            CoreSpec::Tensor(_) => "tensor",
            CoreSpec::Bytes(_) => "bytes",
        }
    }

    /// FFmpeg's name of the pixel format; None where it is no video.
    #[getter]
    fn format(&self) -> Option<&'static str> {
        self.video().map(|video| video.format.name())
    }

    /// Pixels across; None where it is no video.
    #[getter]
    fn width(&self) -> Option<u32> {
        self.video().map(|video| video.width)
    }

    /// Pixels down; None where it is no video.
    #[getter]
    fn height(&self) -> Option<u32> {
        self.video().map(|video| video.height)
    }

    /// Nominal frames a second as (numerator, denominator).
    #[getter]
    fn fps(&self) -> Option<(u32, u32)> {
        self.video()?.fps.map(|fps| (fps.num, fps.den))
    }

    /// Seconds per unit of `pts` as (numerator, denominator).
    #[getter]
    fn time_base(&self) -> Option<(u32, u32)> {
        self.video()?.time_base.map(|base| (base.num, base.den))
    }

    /// H.273 ColourPrimaries, 2 if unspecified; None where it is no video.
    #[getter]
    fn primaries(&self) -> Option<u8> {
        self.video().map(|video| video.colour.primaries)
    }

    /// H.273 TransferCharacteristics, 2 if unspecified; None where it is no video.
    #[getter]
    fn transfer(&self) -> Option<u8> {
        self.video().map(|video| video.colour.transfer)
    }

    /// H.273 MatrixCoefficients, 2 if unspecified; None where it is no video.
    #[getter]
    fn matrix(&self) -> Option<u8> {
        self.video().map(|video| video.colour.matrix)
    }

    /// Whether values use their full range; None if unspecified.
    #[getter]
    fn full_range(&self) -> Option<bool> {
        self.video()?.colour.full_range
    }

    /// NumPy's name of the values' type.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.layout.planes().first().map_or("", |plane| dtype_name(plane.sample))
    }

    /// Shape of the one array a frame is; None where only its planes are arrays.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.layout.image_view().map(|view| PyTuple::new(py, view.shape)).transpose()
    }

    /// Bytes of a slot.
    #[getter]
    fn size(&self) -> usize {
        self.layout.size
    }

    fn __str__(&self) -> String {
        self.core.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<frameport.Spec {}>", self.core)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((slf.getattr("from_json")?, (slf.get().json()?,)))
    }
}

/// A pair, a `Fraction` or a whole number.
fn fraction(what: &str, value: &Bound<'_, PyAny>) -> PyResult<(u32, u32)> {
    if let Ok(pair) = value.extract() {
        return Ok(pair);
    }
    let part = |name| value.getattr(name).and_then(|part| part.extract::<u32>());
    match (part("numerator"), part("denominator")) {
        (Ok(num), Ok(den)) => Ok((num, den)),
        _ => Err(PyTypeError::new_err(format!(
            "{what} is {}, must be a whole number, a pair such as (30000, 1001), or a Fraction",
            value.repr()?
        ))),
    }
}

fn dtype_of(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<DType> {
    let name = match value.cast::<PyString>() {
        Ok(name) => name.to_string(),
        // numpy.dtype has a name, numpy.float32 and bool a __name__, torch.float32 a text.
        Err(_) => match value.getattr("name").or_else(|_| value.getattr("__name__")) {
            Ok(name) => name.to_string(),
            Err(_) => value.str()?.to_string(),
        },
    };
    let swapped = value.getattr("byteorder").is_ok_and(|order| order.eq(">").unwrap_or(false));
    let short = name.rsplit('.').next().unwrap_or(&name);
    let known = DTYPES.iter().find(|(dtype, numpy, _)| short == *numpy || short == dtype.name());
    match known {
        Some((dtype, ..)) if !swapped => Ok(*dtype),
        _ => {
            let order = if swapped { "big-endian " } else { "" };
            let names = DTYPES.map(|(_, name, _)| name).join(", ");
            Err(exception(py, "FormatError", &format!("unknown dtype {order}{name:?}, supported are {names}")))
        }
    }
}
