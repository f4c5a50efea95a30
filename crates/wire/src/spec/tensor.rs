//! Arrays as frames.
//!
//! *What it is*: value types and the C-contiguous tensor spec. *Who calls it*: the spec; pixel formats for the type of
//! their samples. *Invariants*: none until [`TensorSpec::layout`] has checked. *A hostile peer* can state any shape and
//! gets an error for one that is empty, too deep or too large.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{by_name, in_range};
use super::{ImageView, Layout, MAX_PAYLOAD, SpecError};

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 8;

/// The type of one value; little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE 754 half precision.
    F16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// One byte, 0 or 1; the peer that wrote it may have written something else.
    Bool,
}

/// The type of one value in a plane. Pixel formats use `U8`, `U16` and `F16`, tensors any.
pub type Sample = DType;

impl DType {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bool,
    ];

    /// Bytes of one value.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Its name, such as `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        by_name("dtype", name, &Self::ALL)
    }
}

/// Arrays of one type and shape, C-contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The type of its values.
    pub dtype: DType,
    /// Its dimensions, slowest first; each at least 1, at most [`MAX_RANK`] of them, none for a single value.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Tensors of `shape`; checked in [`TensorSpec::layout`].
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// One plane of one row. Errors for a rank above [`MAX_RANK`], a dimension of 0, more than [`MAX_PAYLOAD`] bytes.
    pub fn layout(&self) -> Result<Layout, SpecError> {
        in_range("rank of shape", self.shape.len(), 0, MAX_RANK)?;
        let mut values = 1_usize;
        for (axis, &length) in self.shape.iter().enumerate() {
            in_range(format!("shape[{axis}]"), length, 1, MAX_PAYLOAD)?;
            values = values.checked_mul(length).ok_or_else(|| self.too_large())?;
        }
        let size = values.checked_mul(self.dtype.size()).filter(|&size| size <= MAX_PAYLOAD);
        let size = size.ok_or_else(|| self.too_large())?;
        Ok(Layout::single(self.dtype, values, size, ImageView::packed(self.dtype, &self.shape)))
    }

    fn too_large(&self) -> SpecError {
        SpecError::TooLarge { field: format!("shape {:?} of {}", self.shape, self.dtype) }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}
