//! What a pool's memory is to be: said by the host when it makes one, and by the worker when it takes one over.

use crate::writers::Writers;

/// The memory of a pool.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Places for frames.
    pub slots: u32,
    /// Bytes from one slot to the next, at least; a worker's: what the host found.
    pub stride: usize,
    /// Bytes of all slots.
    pub len: usize,
    /// Who may write.
    pub writers: Writers,
    /// The pictures in it. None for other frames, and for planes whose places were asked for.
    pub picture: Option<Picture>,
}

/// A picture, for systems with a memory of their own for some.
#[derive(Clone, Debug)]
pub struct Picture {
    /// FFmpeg's name of the pixel format.
    pub format: &'static str,
    /// Whether values use their full range.
    pub full_range: bool,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// In the format's order.
    pub planes: Vec<Plane>,
}

/// One plane of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Plane {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes of a pixel.
    pub element: usize,
    /// Where it lies. A system that lays out planes itself looks at it in a worker only.
    pub place: Place,
}

/// Where a plane lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the slot's first to the plane's first.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// What a slot is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// To read it.
    Read,
    /// To change it, or to read and change it.
    Write,
}
