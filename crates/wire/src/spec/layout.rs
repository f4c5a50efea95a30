//! Where a frame's values lie in its slot.
//!
//! *What it is*: the checked result of a spec. *Who calls it*: pools for the size, frames for planes and arrays.
//! *Invariants*: only this crate builds a [`Layout`]; every plane lies inside `size`, none overlap, offsets and strides
//! are multiples of the sample size, `size` is 1 to [`MAX_PAYLOAD`]. *A hostile peer* never gets one made from a bad spec.

use super::{ImageView, Sample};

/// The largest payload, in bytes: a descriptor has 40 bits for its length.
pub const MAX_PAYLOAD: usize = (1 << 40) - 1;

/// The memory of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    planes: Vec<PlaneLayout>,
    view: Option<ImageView>,
    /// Bytes from the start of the slot to the end of the last plane.
    pub size: usize,
}

/// One plane: `rows` rows of `row_bytes` bytes, `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLayout {
    /// Where it starts, in bytes from the start of the slot.
    pub offset: usize,
    /// From one row's start to the next one's, in bytes.
    pub stride: usize,
    /// How many rows.
    pub rows: usize,
    /// Bytes of a row that hold values; `width * components * sample.size()`.
    pub row_bytes: usize,
    /// Pixels across, of this plane: half the frame's for 4:2:0 chroma, the next even number for packed 4:2:2.
    pub width: usize,
    /// Values per pixel of this plane: 3 for bgr24, 2 for the second plane of nv12 and for yuyv422.
    pub components: usize,
    /// The type of one value.
    pub sample: Sample,
}

impl PlaneLayout {
    /// Where its last row ends, in bytes from the start of the slot; `None` on overflow.
    pub(super) fn end(&self) -> Option<usize> {
        let last_row = self.stride.checked_mul(self.rows.checked_sub(1)?)?;
        self.offset.checked_add(last_row)?.checked_add(self.row_bytes)
    }

    /// Whether rows follow one another without a gap.
    pub fn is_tight(&self) -> bool {
        self.stride == self.row_bytes
    }
}

impl Layout {
    /// Planes already checked by the caller.
    pub(super) fn new(planes: Vec<PlaneLayout>, view: Option<ImageView>, size: usize) -> Self {
        Self { planes, view, size }
    }

    /// One row of `values` values, `size` bytes together: tensors and bytes.
    pub(super) fn single(sample: Sample, values: usize, size: usize, view: Option<ImageView>) -> Self {
        let plane =
            PlaneLayout { offset: 0, stride: size, rows: 1, row_bytes: size, width: values, components: 1, sample };
        Self::new(vec![plane], view, size)
    }

    /// The planes, in the format's order; one for packed formats, tensors and bytes, never more than four.
    pub fn planes(&self) -> &[PlaneLayout] {
        &self.planes
    }

    /// Whether every byte holds a value, in the order of files and pipes: rows and planes follow one another without a gap.
    pub fn is_packed(&self) -> bool {
        let mut end = Some(0_usize);
        self.planes.iter().all(|plane| {
            let follows = end == Some(plane.offset) && plane.is_tight();
            end = plane.end();
            follows
        })
    }

    /// The whole frame as one strided array, where it is one: (H, W, C) for packed formats, (H, W) for gray,
    /// (H * 3/2, W) for 4:2:0 of even size without gaps, (3, H, W) for yuv444p, a tensor's shape, (capacity,) for bytes.
    /// `None` where only the planes are arrays. A frame of bytes uses the first `len` of them, `len` its payload length.
    pub fn image_view(&self) -> Option<ImageView> {
        self.view.clone()
    }
}
