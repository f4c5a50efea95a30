//! Video frames: format, size, rate, colour and planes.
//!
//! *What it is*: the video spec and its layout, byte for byte FFmpeg's rawvideo (`av_image_copy_to_buffer`, align 1)
//! unless planes are given. *Who calls it*: the spec. *Invariants*: none until [`VideoSpec::layout`] has checked.
//! *A hostile peer* can state any numbers and gets an error that names the wrong one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::in_range;
use super::format::PlaneShape;
use super::{Colour, ImageView, Layout, MAX_PAYLOAD, PixelFormat, PlaneLayout, SpecError};

/// The largest width and height, in pixels.
pub const MAX_SIDE: usize = 65_535;

/// A fraction, such as 30000/1001 frames a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rational {
    /// Above the line.
    pub num: u32,
    /// Below the line.
    pub den: u32,
}

/// Where a plane lies, when that is not the tight default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlaneGeometry {
    /// Where it starts, in bytes from the start of the slot.
    pub offset: usize,
    /// From one row's start to the next one's, in bytes.
    pub stride: usize,
}

/// Pictures of one pixel format and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoSpec {
    /// How pixels are stored.
    pub format: PixelFormat,
    /// Pixels across, 1 to [`MAX_SIDE`].
    pub width: u32,
    /// Pixels down, 1 to [`MAX_SIDE`].
    pub height: u32,
    /// Nominal frames a second, if there is such a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<Rational>,
    /// Seconds per unit of a frame's `pts`, if frames have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_base: Option<Rational>,
    /// How the numbers are to be seen.
    #[serde(default, skip_serializing_if = "Colour::is_unspecified")]
    pub colour: Colour,
    /// The planes' places, all of them, when they are not FFmpeg's tight ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planes: Option<Vec<PlaneGeometry>>,
}

impl VideoSpec {
    /// Tightly packed pictures of `width` x `height` pixels, with nothing else stated; checked in [`VideoSpec::layout`].
    pub fn new(format: PixelFormat, width: u32, height: u32) -> Self {
        Self { format, width, height, fps: None, time_base: None, colour: Colour::UNSPECIFIED, planes: None }
    }

    /// States `num / den` frames a second.
    #[must_use]
    pub fn fps(mut self, num: u32, den: u32) -> Self {
        self.fps = Some(Rational { num, den });
        self
    }

    /// States that a frame's `pts` counts units of `num / den` seconds.
    #[must_use]
    pub fn time_base(mut self, num: u32, den: u32) -> Self {
        self.time_base = Some(Rational { num, den });
        self
    }

    /// States the colour.
    #[must_use]
    pub fn colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    /// Places the planes, one entry for each the format has.
    #[must_use]
    pub fn planes(mut self, planes: impl Into<Vec<PlaneGeometry>>) -> Self {
        self.planes = Some(planes.into());
        self
    }

    /// Checks everything and says where the planes lie; the error names the field, its value and what is allowed.
    pub fn layout(&self) -> Result<Layout, SpecError> {
        nonzero("fps", self.fps)?;
        nonzero("time_base", self.time_base)?;
        self.memory()
    }

    /// Whether a slot of one can carry a frame of the other: all equal but rate, time base and colour.
    pub(super) fn same_memory(&self, other: &Self) -> bool {
        self.same_values(other)
            && (self.planes == other.planes || self.memory().is_ok_and(|ours| Ok(ours) == other.memory()))
    }

    /// Whether frames of both have the same values, wherever they lie.
    pub(super) fn same_values(&self, other: &Self) -> bool {
        (self.format, self.width, self.height) == (other.format, other.width, other.height)
    }

    fn memory(&self) -> Result<Layout, SpecError> {
        let width = in_range("width", side(self.width), 1, MAX_SIDE)?;
        let height = in_range("height", side(self.height), 1, MAX_SIDE)?;
        let shapes = self.format.planes();
        if let Some(given) = self.planes.as_deref().map(<[_]>::len).filter(|&given| given != shapes.len()) {
            return Err(SpecError::PlaneCount { format: self.format, given, needed: shapes.len() });
        }

        let mut planes = Vec::with_capacity(shapes.len());
        let mut tight_offset = 0;
        let mut size = 0;
        for (index, shape) in shapes.iter().enumerate() {
            let place = self.planes.as_deref().and_then(|places| places.get(index).copied());
            let (plane, end) = self.place(index, shape, shape.size(width, height), place, tight_offset)?;
            planes.push(plane);
            tight_offset = end;
            size = size.max(end);
        }
        disjoint(&planes)?;
        let view = ImageView::of_picture(self.format, width, height, &planes);
        Ok(Layout::new(planes, view, size))
    }

    /// One plane and where it ends.
    fn place(
        &self,
        index: usize,
        shape: &PlaneShape,
        (width, rows): (usize, usize),
        place: Option<PlaneGeometry>,
        tight_offset: usize,
    ) -> Result<(PlaneLayout, usize), SpecError> {
        let (sample, components) = (shape.sample, shape.components);
        // At most 65536 pixels of 8 bytes: cannot overflow, and the saturated value would be refused below.
        let row_bytes = width.saturating_mul(components).saturating_mul(sample.size());
        let PlaneGeometry { offset, stride } =
            place.unwrap_or(PlaneGeometry { offset: tight_offset, stride: row_bytes });
        for (field, value) in [("offset", offset), ("stride", stride)] {
            if !value.is_multiple_of(sample.size()) {
                return Err(SpecError::Misaligned { plane: index, field, value, sample_bytes: sample.size() });
            }
        }
        if stride < row_bytes {
            return Err(SpecError::StrideTooSmall { plane: index, stride, row_bytes });
        }
        let plane = PlaneLayout { offset, stride, rows, row_bytes, width, components, sample };
        match plane.end().filter(|&end| end <= MAX_PAYLOAD) {
            Some(end) => Ok((plane, end)),
            None => Err(SpecError::TooLarge {
                field: format!("planes[{index}] of offset {offset} and stride {stride} with {rows} rows"),
            }),
        }
    }
}

/// Dimensions are compared as `usize`, which is never narrower than `u32` where frameport runs.
fn side(pixels: u32) -> usize {
    usize::try_from(pixels).unwrap_or(usize::MAX)
}

fn nonzero(field: &'static str, value: Option<Rational>) -> Result<(), SpecError> {
    match value {
        Some(Rational { num, den }) if num == 0 || den == 0 => Err(SpecError::ZeroRational { field, num, den }),
        _ => Ok(()),
    }
}

/// Every pair of planes, as byte ranges: planes whose rows interleave count as overlapping.
fn disjoint(planes: &[PlaneLayout]) -> Result<(), SpecError> {
    let mut ranges: Vec<_> =
        planes.iter().enumerate().map(|(i, p)| (p.offset, p.end().unwrap_or(usize::MAX), i)).collect();
    ranges.sort_unstable();
    for (&(_, end, first), &(start, _, second)) in ranges.iter().zip(ranges.iter().skip(1)) {
        if start < end {
            return Err(SpecError::PlaneOverlap { first, second, end, start });
        }
    }
    Ok(())
}

impl fmt::Display for VideoSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.format, self.width, self.height)?;
        self.fps.map_or(Ok(()), |fps| write!(f, " {fps} fps"))
    }
}

/// `30` for 30/1, `29.97` for 30000/1001, `0/0` as it is.
impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { num, den } = *self;
        match num.checked_div(den) {
            None => write!(f, "{num}/{den}"),
            Some(whole) if num.is_multiple_of(den) => write!(f, "{whole}"),
            Some(_) => write!(f, "{:.2}", f64::from(num) / f64::from(den)),
        }
    }
}
