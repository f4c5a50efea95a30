//! The pixel formats frames can have.
//!
//! *What it is*: a closed list under FFmpeg's names, with the shape of every plane. *Who calls it*: the video spec for
//! its layout, callers for names. *Invariants*: `Display`, `FromStr` and JSON use one name per format, FFmpeg's
//! `pix_fmt`. *A hostile peer* can name an unknown format and gets a decoding error.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::by_name;
use super::{Sample, SpecError};

/// How the pixels of a frame are stored; FFmpeg's `pix_fmt` names and memory orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// One byte of luma.
    Gray,
    /// Two bytes of luma, little endian.
    Gray16le,
    /// R, G, B bytes.
    Rgb24,
    /// B, G, R bytes: OpenCV's order.
    Bgr24,
    /// R, G, B, A bytes.
    Rgba,
    /// B, G, R, A bytes.
    Bgra,
    /// R, G, B as 16-bit little endian.
    Rgb48le,
    /// R, G, B, A as 16-bit floats, little endian.
    Rgbaf16le,
    /// Packed 4:2:2: Y0, U, Y1, V bytes for two pixels.
    Yuyv422,
    /// Packed 4:2:2: U, Y0, V, Y1 bytes for two pixels.
    Uyvy422,
    /// 4:2:0: a plane of Y, one of interleaved U, V.
    Nv12,
    /// As nv12 with 16-bit little endian values, 10 bits of them used, at the high end.
    P010le,
    /// 4:2:0: planes of Y, U, V.
    Yuv420p,
    /// 4:2:2: planes of Y, U, V.
    Yuv422p,
    /// 4:4:4: planes of Y, U, V.
    Yuv444p,
}

/// One plane of a format, relative to the frame's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaneShape {
    pub(super) sample: Sample,
    pub(super) components: usize,
    /// Frame pixels per plane pixel, across and down; an incomplete last one counts.
    subsampling: (usize, usize),
    /// The plane's width is rounded up to a multiple of this.
    unit: usize,
}

impl PlaneShape {
    /// Pixels across and rows of this plane in a frame of `width` x `height` pixels, at most 65535 each.
    pub(super) fn size(&self, width: usize, height: usize) -> (usize, usize) {
        let (across, down) = self.subsampling;
        (width.div_ceil(across).next_multiple_of(self.unit), height.div_ceil(down))
    }
}

const fn plane(sample: Sample, components: usize) -> PlaneShape {
    PlaneShape { sample, components, subsampling: (1, 1), unit: 1 }
}

const fn chroma(sample: Sample, components: usize, subsampling: (usize, usize)) -> PlaneShape {
    PlaneShape { sample, components, subsampling, unit: 1 }
}

const Y: PlaneShape = plane(Sample::U8, 1);

impl PixelFormat {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Gray,
        Self::Gray16le,
        Self::Rgb24,
        Self::Bgr24,
        Self::Rgba,
        Self::Bgra,
        Self::Rgb48le,
        Self::Rgbaf16le,
        Self::Yuyv422,
        Self::Uyvy422,
        Self::Nv12,
        Self::P010le,
        Self::Yuv420p,
        Self::Yuv422p,
        Self::Yuv444p,
    ];

    /// FFmpeg's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Gray16le => "gray16le",
            Self::Rgb24 => "rgb24",
            Self::Bgr24 => "bgr24",
            Self::Rgba => "rgba",
            Self::Bgra => "bgra",
            Self::Rgb48le => "rgb48le",
            Self::Rgbaf16le => "rgbaf16le",
            Self::Yuyv422 => "yuyv422",
            Self::Uyvy422 => "uyvy422",
            Self::Nv12 => "nv12",
            Self::P010le => "p010le",
            Self::Yuv420p => "yuv420p",
            Self::Yuv422p => "yuv422p",
            Self::Yuv444p => "yuv444p",
        }
    }

    /// The planes of this format, in memory order.
    pub(super) fn planes(self) -> &'static [PlaneShape] {
        match self {
            Self::Gray => const { &[Y] },
            Self::Gray16le => const { &[plane(Sample::U16, 1)] },
            Self::Rgb24 | Self::Bgr24 => const { &[plane(Sample::U8, 3)] },
            Self::Rgba | Self::Bgra => const { &[plane(Sample::U8, 4)] },
            Self::Rgb48le => const { &[plane(Sample::U16, 3)] },
            Self::Rgbaf16le => const { &[plane(Sample::F16, 4)] },
            Self::Yuyv422 | Self::Uyvy422 => {
                const { &[PlaneShape { sample: Sample::U8, components: 2, subsampling: (1, 1), unit: 2 }] }
            }
            Self::Nv12 => const { &[Y, chroma(Sample::U8, 2, (2, 2))] },
            Self::P010le => const { &[plane(Sample::U16, 1), chroma(Sample::U16, 2, (2, 2))] },
            Self::Yuv420p => const { &[Y, chroma(Sample::U8, 1, (2, 2)), chroma(Sample::U8, 1, (2, 2))] },
            Self::Yuv422p => const { &[Y, chroma(Sample::U8, 1, (2, 1)), chroma(Sample::U8, 1, (2, 1))] },
            Self::Yuv444p => const { &[Y, Y, Y] },
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PixelFormat {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        by_name("pixel format", name, &Self::ALL)
    }
}
