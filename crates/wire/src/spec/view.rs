//! A frame as one array.
//!
//! *What it is*: shape and strides of a frame where a single strided array shows all of it and nothing else.
//! *Who calls it*: [`Layout`](super::Layout) when it is built, the Python package for NumPy and DLPack. *Invariants*:
//! made from checked planes only, so every element lies inside the payload and is aligned to its size relative to the
//! start of the slot. *A hostile peer* has no influence beyond the spec that was checked.

use super::{PixelFormat, PlaneLayout, Sample};

/// A strided array inside a frame's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageView {
    /// Where the first element lies, in bytes from the start of the slot.
    pub offset: usize,
    /// Length of each axis, in elements, slowest first.
    pub shape: Vec<usize>,
    /// From one element to the next along each axis, in bytes.
    pub strides: Vec<usize>,
    /// The type of an element.
    pub sample: Sample,
}

impl ImageView {
    /// A C-contiguous array at the start of the slot; `None` if its size overflows.
    pub(super) fn packed(sample: Sample, shape: &[usize]) -> Option<Self> {
        let mut strides = Vec::with_capacity(shape.len());
        let mut step = sample.size();
        for &length in shape.iter().rev() {
            strides.push(step);
            step = step.checked_mul(length)?;
        }
        strides.reverse();
        Some(Self { offset: 0, shape: shape.to_vec(), strides, sample })
    }

    /// The picture as PyAV and OpenCV show it, if checked `planes` allow it without a copy.
    pub(super) fn of_picture(format: PixelFormat, width: usize, height: usize, planes: &[PlaneLayout]) -> Option<Self> {
        let even = width.is_multiple_of(2) && height.is_multiple_of(2);
        match (format, planes) {
            // The last pair of an odd width has a value no (H, W, 2) array would show.
            (PixelFormat::Yuyv422 | PixelFormat::Uyvy422, [plane]) => (plane.width == width).then(|| rows_of(plane)),
            (_, [plane]) => Some(rows_of(plane)),
            (PixelFormat::Nv12 | PixelFormat::P010le, [y, uv]) => {
                (even && follows(y, uv) && uv.stride == y.stride).then(|| half_more_rows(y))
            }
            // Two chroma rows make one row of the array, which leaves no room for a gap anywhere.
            (PixelFormat::Yuv420p, [y, u, v]) => {
                let tight = [y, u, v].iter().all(|plane| plane.is_tight());
                (even && tight && follows(y, u) && follows(u, v)).then(|| half_more_rows(y))
            }
            (PixelFormat::Yuv444p, [y, u, v]) => {
                let step = u.offset.checked_sub(y.offset)?;
                let regular = v.offset.checked_sub(u.offset)? == step && y.stride == u.stride && u.stride == v.stride;
                regular.then(|| {
                    let Self { offset, shape, strides, sample } = rows_of(y);
                    Self { offset, shape: [vec![3], shape].concat(), strides: [vec![step], strides].concat(), sample }
                })
            }
            _ => None,
        }
    }
}

/// (H, W) or (H, W, C).
fn rows_of(plane: &PlaneLayout) -> ImageView {
    let &PlaneLayout { offset, stride, rows, width, components, sample, .. } = plane;
    let pixel = components.saturating_mul(sample.size());
    let (shape, strides) = match components {
        1 => (vec![rows, width], vec![stride, pixel]),
        _ => (vec![rows, width, components], vec![stride, pixel, sample.size()]),
    };
    ImageView { offset, shape, strides, sample }
}

/// (H * 3/2, W): luma with the chroma rows below it.
fn half_more_rows(luma: &PlaneLayout) -> ImageView {
    let rows = luma.rows.saturating_add(luma.rows / 2);
    rows_of(&PlaneLayout { rows, ..*luma })
}

/// Whether `next` starts where one more row of `plane` would.
fn follows(plane: &PlaneLayout, next: &PlaneLayout) -> bool {
    let one_more = PlaneLayout { rows: plane.rows.saturating_add(1), row_bytes: 0, ..*plane };
    one_more.end() == Some(next.offset)
}
