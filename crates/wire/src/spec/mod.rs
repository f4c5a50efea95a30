//! What is agreed once about a channel's frames, and where in memory that puts every value.
//!
//! *What it is*: [`Spec`] (video, tensor or bytes) and the [`Layout`] that follows from it. *Who calls it*: the host when
//! it creates a pool, both sides when they show a frame as planes or as an array, the control messages for the JSON.
//! *Invariants*: building and decoding a spec never fails on its values; [`Spec::layout`] is the one gate that checks
//! them all, so a [`Layout`] in hand is always consistent: planes inside `size`, disjoint and aligned.
//! *A hostile peer* can state any spec in its hello; the worst it gets is a [`SpecError`]. The host still has to hold
//! the size against its own limit before it allocates.

mod colour;
mod error;
mod format;
mod layout;
mod tensor;
mod video;
mod view;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::colour::Colour;
pub use self::error::SpecError;
pub use self::format::PixelFormat;
pub use self::layout::{Layout, MAX_PAYLOAD, PlaneLayout};
pub use self::tensor::{DType, MAX_RANK, Sample, TensorSpec};
pub use self::video::{MAX_SIDE, PlaneGeometry, Rational, VideoSpec};
pub use self::view::ImageView;

/// What every frame of a channel looks like. In JSON an object whose `kind` is `video`, `tensor` or `bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Spec {
    /// Pictures of one pixel format and size.
    Video(VideoSpec),
    /// Arrays of one type and shape.
    Tensor(TensorSpec),
    /// Up to so many bytes, with a length of its own in every frame.
    Bytes(BytesSpec),
}

/// Opaque frames of varying length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesSpec {
    /// The most bytes one frame can hold, 1 to [`MAX_PAYLOAD`].
    pub capacity: usize,
}

impl BytesSpec {
    /// Frames of up to `capacity` bytes; checked in [`BytesSpec::layout`].
    pub fn new(capacity: usize) -> Self {
        Self { capacity }
    }

    /// One plane of `capacity` bytes. [`SpecError::OutOfRange`] for a capacity of 0 or above [`MAX_PAYLOAD`].
    pub fn layout(&self) -> Result<Layout, SpecError> {
        error::in_range("capacity", self.capacity, 1, MAX_PAYLOAD)?;
        Ok(Layout::single(DType::U8, self.capacity, self.capacity, ImageView::packed(DType::U8, &[self.capacity])))
    }
}

impl Spec {
    /// Checks the whole spec and says where its planes lie. The error names the field, its value and what is allowed.
    pub fn layout(&self) -> Result<Layout, SpecError> {
        match self {
            Self::Video(video) => video.layout(),
            Self::Tensor(tensor) => tensor.layout(),
            Self::Bytes(bytes) => bytes.layout(),
        }
    }

    /// Bytes a slot must offer to carry one frame; same errors as [`Spec::layout`].
    pub fn payload_capacity(&self) -> Result<usize, SpecError> {
        self.layout().map(|layout| layout.size)
    }

    /// The video spec, if it is one.
    pub fn video(&self) -> Option<&VideoSpec> {
        match self {
            Self::Video(video) => Some(video),
            _ => None,
        }
    }

    /// Whether a slot of one can carry a frame of the other: all equal but rate, time base and colour.
    pub fn same_memory(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Video(ours), Self::Video(theirs)) => ours.same_memory(theirs),
            _ => self == other,
        }
    }

    /// Whether frames of both have the same values, which may lie in other places of their slots.
    pub fn same_values(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Video(ours), Self::Video(theirs)) => ours.same_values(theirs),
            _ => self == other,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video(video) => video.fmt(f),
            Self::Tensor(tensor) => tensor.fmt(f),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

impl fmt::Display for BytesSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {} bytes", self.capacity)
    }
}

/// Lets every function that wants a spec take `impl Into<Spec>`: any of the kinds, by value or by reference.
macro_rules! into_spec {
    ($($kind:ident($inner:ty)),*) => {$(
        impl From<$inner> for Spec {
            fn from(inner: $inner) -> Self {
                Self::$kind(inner)
            }
        }
        impl From<&$inner> for Spec {
            fn from(inner: &$inner) -> Self {
                Self::$kind(inner.clone())
            }
        }
    )*};
}
into_spec!(Video(VideoSpec), Tensor(TensorSpec), Bytes(BytesSpec));

impl From<&Spec> for Spec {
    fn from(spec: &Spec) -> Self {
        spec.clone()
    }
}
