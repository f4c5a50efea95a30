//! Matroska, as ffmpeg reads it from a pipe: raw video frames with exact times.
//!
//! *What it is*: the bytes around raw frames. *Who calls it*: the encoder; Matroska is the container that carries raw
//! pixels, a time in nanoseconds and a duration for each, the rate and the pixel aspect. *Invariants*: one cluster a
//! frame; nothing needs seeking. *A hostile peer* does not reach it.

use frameport::spec::{PixelFormat, VideoSpec};

use crate::media::MediaError;

/// The code ffmpeg knows each format by.
fn fourcc(format: PixelFormat) -> Option<[u8; 4]> {
    Some(match format {
        PixelFormat::Gray => *b"Y800",
        PixelFormat::Gray16le => *b"Y1\0\x10",
        PixelFormat::Rgb24 => *b"RGB\x18",
        PixelFormat::Bgr24 => *b"BGR\x18",
        PixelFormat::Rgba => *b"RGBA",
        PixelFormat::Bgra => *b"BGRA",
        PixelFormat::Rgb48le => *b"RGB0",
        PixelFormat::Yuyv422 => *b"YUY2",
        PixelFormat::Uyvy422 => *b"UYVY",
        PixelFormat::Nv12 => *b"NV12",
        PixelFormat::P010le => *b"Y3\x0B\x0A",
        PixelFormat::Yuv420p => *b"I420",
        PixelFormat::Yuv422p => *b"Y42B",
        PixelFormat::Yuv444p => *b"444P",
        PixelFormat::Rgbaf16le => return None,
    })
}

/// An error for a format that cannot go through ffmpeg, either way.
pub(super) fn check_format(format: PixelFormat) -> Result<(), MediaError> {
    if fourcc(format).is_some() {
        return Ok(());
    }
    let supported: Vec<_> = PixelFormat::ALL.into_iter().filter(|&known| fourcc(known).is_some()).collect();
    let supported = supported.into_iter().map(PixelFormat::name).collect::<Vec<_>>().join(", ");
    Err(MediaError::FfmpegFormat { format, supported })
}

/// What comes before the first frame.
pub(super) fn header(spec: &VideoSpec, sample_aspect: Option<(u32, u32)>) -> Vec<u8> {
    let ebml = [text(0x4282, "matroska"), number(0x4287, 4), number(0x4285, 2)].concat();
    // Times count nanoseconds.
    let info = [number(0x2A_D7B1, 1), text(0x4D80, "frameport"), text(0x5741, "frameport")].concat();
    let (across, down) = sample_aspect.map_or((1, 1), |(across, down)| (u64::from(across), u64::from(down)));
    let video = [
        number(0xB0, spec.width.into()),
        number(0xBA, spec.height.into()),
        number(0x54B0, across * u64::from(spec.width)),
        number(0x54BA, down * u64::from(spec.height)),
        // Display size is only a ratio.
        number(0x54B2, 3),
        element(0x2E_B524, &fourcc(spec.format).unwrap_or_default()),
    ];
    let mut track = [
        number(0xD7, 1),
        number(0x73C5, 1),
        number(0x83, 1),
        number(0x9C, 0),
        text(0x86, "V_UNCOMPRESSED"),
        element(0xE0, &video.concat()),
    ]
    .concat();
    if let Some(fps) = spec.fps {
        let nanoseconds = (u64::from(fps.den) * 1_000_000_000 + u64::from(fps.num) / 2) / u64::from(fps.num.max(1));
        track.extend(number(0x23_E383, nanoseconds));
    }
    [
        element(0x1A45_DFA3, &ebml),
        // A segment of unknown size.
        vec![0x18, 0x53, 0x80, 0x67, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        element(0x1549_A966, &info),
        element(0x1654_AE6B, &element(0xAE, &track)),
    ]
    .concat()
}

/// What comes before a frame of `bytes` bytes.
pub(super) fn frame_header(nanoseconds: u64, duration: Option<u64>, bytes: usize) -> Vec<u8> {
    // Track 1, no offset from the cluster's time, no flags.
    let block = [0x81, 0, 0, 0];
    let time = number(0xE7, nanoseconds);
    let duration = duration.map(|duration| number(0x9B, duration)).unwrap_or_default();
    let block_start = [id(0xA1), size(bytes + block.len()), block.to_vec()].concat();
    let group_bytes = duration.len() + block_start.len() + bytes;
    let group_start = [id(0xA0), size(group_bytes)].concat();
    let cluster = [id(0x1F43_B675), size(time.len() + group_start.len() + group_bytes), time].concat();
    [cluster, group_start, duration, block_start].concat()
}

fn id(id: u32) -> Vec<u8> {
    id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect()
}

/// A length, in the eight-byte form.
fn size(bytes: usize) -> Vec<u8> {
    (u64::try_from(bytes).unwrap_or(u64::MAX) & 0x00FF_FFFF_FFFF_FFFF | 1 << 56).to_be_bytes().to_vec()
}

fn element(name: u32, body: &[u8]) -> Vec<u8> {
    [&id(name), &size(body.len()), body].concat()
}

fn number(name: u32, value: u64) -> Vec<u8> {
    element(name, &value.to_be_bytes())
}

fn text(name: u32, value: &str) -> Vec<u8> {
    element(name, value.as_bytes())
}

/// p010le as the planar 10-bit format, which ffmpeg can be told of.
pub(super) fn planar_from_p010(pixels: &[u8], luma_bytes: usize) -> Vec<u8> {
    let (luma, chroma) = pixels.split_at(luma_bytes.min(pixels.len()));
    let value = |pair: &[u8]| (u16::from_le_bytes([pair[0], pair[1]]) >> 6).to_le_bytes();
    let plane = |bytes: &[u8], start: usize, every: usize| {
        bytes.chunks_exact(2).skip(start).step_by(every).flat_map(value).collect::<Vec<u8>>()
    };
    [plane(luma, 0, 1), plane(chroma, 0, 2), plane(chroma, 1, 2)].concat()
}
