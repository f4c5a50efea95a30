//! What can be wrong with a spec.
//!
//! *What it is*: the one error type of the spec modules. *Who calls it*: everything under `spec`. *Invariants*: every
//! message names the field and the value. *A hostile peer* can choose the values shown; names are shown escaped.

use super::{MAX_PAYLOAD, PixelFormat};

/// A spec that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A number outside its limits.
    #[error("{field} is {value}, must be {min} to {max}")]
    OutOfRange {
        /// The field, such as `width` or `shape[2]`.
        field: String,
        /// What it was.
        value: usize,
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
    },
    /// A rate or time base with a zero in it.
    #[error("{field} is {num}/{den}, both parts must be at least 1; leave {field} out if it is not known")]
    ZeroRational {
        /// `fps` or `time_base`.
        field: &'static str,
        /// What its numerator was.
        num: u32,
        /// What its denominator was.
        den: u32,
    },
    /// A name that is not one of ours.
    #[error("unknown {field} {name:?}, supported are {supported}")]
    UnknownName {
        /// What was being named, such as `pixel format`.
        field: &'static str,
        /// The name given.
        name: String,
        /// The names there are, separated by commas.
        supported: String,
    },
    /// The frame would be larger than a descriptor can say.
    #[error("{field} makes a frame of more than {MAX_PAYLOAD} bytes")]
    TooLarge {
        /// The field with its value, such as `shape [65536, 65536, 256]`.
        field: String,
    },
    /// Explicit planes, but not as many as the format has.
    #[error("the number of planes is {given}, {format} has {needed}")]
    PlaneCount {
        /// The format they are for.
        format: PixelFormat,
        /// How many were given.
        given: usize,
        /// How many the format has.
        needed: usize,
    },
    /// A plane whose rows would overlap.
    #[error("planes[{plane}].stride is {stride}, a row takes {row_bytes} bytes")]
    StrideTooSmall {
        /// Index of the plane.
        plane: usize,
        /// Its stride, in bytes.
        stride: usize,
        /// The least stride.
        row_bytes: usize,
    },
    /// An offset or stride that splits a sample.
    #[error("planes[{plane}].{field} is {value}, must be a multiple of {sample_bytes}")]
    Misaligned {
        /// Index of the plane.
        plane: usize,
        /// `offset` or `stride`.
        field: &'static str,
        /// What it was, in bytes.
        value: usize,
        /// Size of a sample, in bytes.
        sample_bytes: usize,
    },
    /// Two planes that share bytes.
    #[error("planes[{first}] and planes[{second}] overlap: bytes up to {end} and from {start}")]
    PlaneOverlap {
        /// Index of the plane that starts first.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Where the first one ends, exclusive.
        end: usize,
        /// Where the second one starts.
        start: usize,
    },
}

/// `value` if it lies within `min..=max`.
pub(super) fn in_range(field: impl Into<String>, value: usize, min: usize, max: usize) -> Result<usize, SpecError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(SpecError::OutOfRange { field: field.into(), value, min, max })
    }
}

/// The entry of `all` that `Display`s as `name`, or an error that lists them.
pub(super) fn by_name<T: Copy + ToString>(field: &'static str, name: &str, all: &[T]) -> Result<T, SpecError> {
    all.iter().copied().find(|known| known.to_string() == name).ok_or_else(|| SpecError::UnknownName {
        field,
        name: name.to_owned(),
        supported: all.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    })
}
