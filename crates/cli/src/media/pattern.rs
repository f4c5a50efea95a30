//! The built-in test picture: colour bars, a moving disc and the frame number.
//!
//! *What it is*: a source that needs no ffmpeg and no file. *Who calls it*: `open_source` for `pattern`. *Invariants*:
//! frame `n` looks the same in every run; nothing is allocated per frame. *A hostile peer* does not reach it; the sizes
//! a person asks for go through the spec's layout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frameport::spec::{Colour, Layout, PixelFormat, Rational, VideoSpec};

use super::{FrameInfo, Incoming, MediaError, Origin, Source, Stopper, font};

/// The formats it is drawn in.
const FORMATS: [PixelFormat; 7] = [
    PixelFormat::Bgr24,
    PixelFormat::Rgb24,
    PixelFormat::Bgra,
    PixelFormat::Rgba,
    PixelFormat::Gray,
    PixelFormat::Yuv420p,
    PixelFormat::Nv12,
];

const BARS: [[u8; 3]; 8] = [
    [235, 235, 235],
    [235, 219, 16],
    [16, 219, 219],
    [16, 200, 60],
    [200, 40, 200],
    [219, 40, 40],
    [40, 60, 219],
    [24, 24, 28],
];
const WHITE: [u8; 3] = [250, 250, 250];
const ORANGE: [u8; 3] = [255, 128, 16];
const DARK: [u8; 3] = [16, 18, 24];

pub(super) struct Pattern {
    spec: VideoSpec,
    origin: Origin,
    background: Vec<u8>,
    canvas: Canvas,
    frames: Option<u64>,
    next: u64,
    stopped: Arc<AtomicBool>,
}

impl Pattern {
    /// Reads `pattern[:WIDTHxHEIGHT][@FPS][:FRAMES]`; 1280x720@30 without end where nothing is said.
    pub(super) fn parse(text: &str, format: Option<PixelFormat>) -> Result<Self, MediaError> {
        let wrong = |detail: String| MediaError::Pattern { text: text.to_owned(), detail };
        let (mut size, mut rate, mut frames) = ((1280, 720), Rational { num: 30, den: 1 }, None);
        for part in text.split(':').skip(1) {
            let (front, fps) = part.split_once('@').map_or((part, None), |(front, fps)| (front, Some(fps)));
            if let Some(fps) = fps {
                rate = parse_rate(fps).ok_or_else(|| wrong(format!("{fps:?} is no frame rate")))?;
            }
            if let Some((width, height)) = front.split_once('x') {
                let number = |side: &str| side.parse().map_err(|_| wrong(format!("{front:?} is no size")));
                size = (number(width)?, number(height)?);
            } else if !front.is_empty() {
                frames = Some(front.parse().map_err(|_| wrong(format!("{front:?} is no number of frames")))?);
            }
        }

        let format = format.unwrap_or(PixelFormat::Bgr24);
        if !FORMATS.contains(&format) {
            let supported = FORMATS.map(PixelFormat::name).join(", ");
            return Err(MediaError::PatternFormat { format, supported });
        }
        let is_yuv = matches!(format, PixelFormat::Yuv420p | PixelFormat::Nv12);
        let colour = if is_yuv {
            Colour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) }
        } else {
            Colour { primaries: 1, transfer: 13, matrix: 0, full_range: Some(true) }
        };
        let spec = VideoSpec::new(format, size.0, size.1).fps(rate.num, rate.den).time_base(rate.den, rate.num);
        let spec = spec.colour(colour);
        let mut canvas = Canvas::new(format, spec.layout()?);
        draw_background(&mut canvas);
        // What an encoder should make of it.
        let coded = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) };
        Ok(Self {
            spec,
            origin: Origin { colour: coded, ..Origin::default() },
            background: canvas.bytes.clone(),
            canvas,
            frames,
            next: 0,
            stopped: Arc::default(),
        })
    }
}

/// `30`, `30000/1001` or `29.97`.
fn parse_rate(text: &str) -> Option<Rational> {
    let (num, den) = match (text.split_once('/'), text.split_once('.')) {
        (Some((num, den)), _) => (num.parse().ok()?, den.parse().ok()?),
        (None, Some((whole, part))) if part.len() <= 4 => {
            (format!("{whole}{part}").parse().ok()?, 10_u32.pow(u32::try_from(part.len()).ok()?))
        }
        _ => (text.parse().ok()?, 1),
    };
    (num > 0 && den > 0).then_some(Rational { num, den })
}

impl Source for Pattern {
    fn spec(&self) -> &VideoSpec {
        &self.spec
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn next(&mut self) -> Result<Option<Incoming<'_>>, MediaError> {
        let number = self.next;
        if self.frames.is_some_and(|frames| number >= frames) || self.stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.next = number.saturating_add(1);
        self.canvas.bytes.copy_from_slice(&self.background);
        draw_frame(&mut self.canvas, number);
        let info = FrameInfo { pts: i64::try_from(number).ok(), duration: Some(1), tag: None };
        Ok(Some(Incoming { info, bytes: self.canvas.bytes.len(), payload: Box::new(self.canvas.bytes.as_slice()) }))
    }

    fn frames_hint(&self) -> Option<u64> {
        self.frames
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn is_live(&self) -> bool {
        false
    }

    fn stopper(&self) -> Stopper {
        let stopped = Arc::clone(&self.stopped);
        Stopper::new(move || stopped.store(true, Ordering::Relaxed))
    }
}

fn draw_background(canvas: &mut Canvas) {
    let (width, height) = (canvas.width, canvas.height);
    let bars_end = height * 3 / 4;
    for (index, &colour) in BARS.iter().enumerate() {
        let (from, to) = (width * index / BARS.len(), width * (index + 1) / BARS.len());
        canvas.rectangle(from..to, 0..bars_end, colour);
    }
    // A ramp of 64 greys below them.
    for step in 0..64 {
        let grey = u8::try_from(step * 4).unwrap_or(u8::MAX);
        canvas.rectangle(width * step / 64..width * (step + 1) / 64, bars_end..height, [grey; 3]);
    }
}

fn draw_frame(canvas: &mut Canvas, number: u64) {
    let (width, height) = (canvas.width, canvas.height);
    let radius = (height.min(width) / 8).max(1);
    let centre_x = radius + bounce(number, width / 96, width.saturating_sub(2 * radius));
    let centre_y = radius + bounce(number, height / 64, (height * 3 / 4).saturating_sub(2 * radius));
    canvas.disc(centre_x, centre_y, radius, DARK);
    canvas.disc(centre_x, centre_y, radius * 7 / 8, ORANGE);
    canvas.disc(centre_x, centre_y, radius * 3 / 8, WHITE);

    let digits: Vec<usize> = format!("{number:05}").bytes().map(|digit| usize::from(digit - b'0')).collect();
    let cells = digits.len() * (font::WIDTH + 1) + 1;
    let scale = (height / 4 / (font::HEIGHT + 4)).min(width / cells).max(1);
    let left = width.saturating_sub(cells * scale) / 2;
    let top = (height * 7 / 8).saturating_sub((font::HEIGHT + 2) * scale / 2);
    canvas.rectangle(left..left + cells * scale, top..top + (font::HEIGHT + 2) * scale, DARK);
    for (place, &digit) in digits.iter().enumerate() {
        for (row, bits) in font::DIGITS[digit].iter().enumerate() {
            for column in (0..font::WIDTH).filter(|column| bits >> (font::WIDTH - 1 - column) & 1 == 1) {
                let x = left + (1 + place * (font::WIDTH + 1) + column) * scale;
                let y = top + (1 + row) * scale;
                canvas.rectangle(x..x + scale, y..y + scale, WHITE);
            }
        }
    }
}

/// Where a point is after `number` frames that goes `speed` a frame, to and fro between 0 and `span`.
fn bounce(number: u64, speed: usize, span: usize) -> usize {
    let period = u64::try_from(span.max(1)).unwrap_or(1) * 2;
    let speed = u64::try_from(speed.max(1)).unwrap_or(1);
    let place = (number % period) * (speed % period) % period;
    usize::try_from(place.min(period - place)).unwrap_or(0)
}

/// A frame one can draw filled shapes on; what lies outside is cut off.
struct Canvas {
    bytes: Vec<u8>,
    layout: Layout,
    format: PixelFormat,
    width: usize,
    height: usize,
}

impl Canvas {
    fn new(format: PixelFormat, layout: Layout) -> Self {
        let (width, height) = layout.planes().first().map_or((0, 0), |plane| (plane.width, plane.rows));
        Self { bytes: vec![0; layout.size], layout, format, width, height }
    }

    fn disc(&mut self, centre_x: usize, centre_y: usize, radius: usize, colour: [u8; 3]) {
        for y in centre_y.saturating_sub(radius)..=centre_y + radius {
            let half = (radius * radius - centre_y.abs_diff(y).pow(2)).isqrt();
            self.rectangle(centre_x.saturating_sub(half)..centre_x + half, y..y + 1, colour);
        }
    }

    fn rectangle(&mut self, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>, [r, g, b]: [u8; 3]) {
        let [y, u, v] = bt709([r, g, b]);
        match self.format {
            PixelFormat::Rgb24 => self.fill(0, 1, &columns, &rows, &[r, g, b]),
            PixelFormat::Rgba => self.fill(0, 1, &columns, &rows, &[r, g, b, 255]),
            PixelFormat::Bgra => self.fill(0, 1, &columns, &rows, &[b, g, r, 255]),
            PixelFormat::Gray => self.fill(0, 1, &columns, &rows, &[y]),
            PixelFormat::Nv12 => {
                self.fill(0, 1, &columns, &rows, &[y]);
                self.fill(1, 2, &columns, &rows, &[u, v]);
            }
            PixelFormat::Yuv420p => {
                self.fill(0, 1, &columns, &rows, &[y]);
                self.fill(1, 2, &columns, &rows, &[u]);
                self.fill(2, 2, &columns, &rows, &[v]);
            }
            _ => self.fill(0, 1, &columns, &rows, &[b, g, r]),
        }
    }

    /// Fills a part of one plane, whose pixels stand for `step` by `step` of the frame's.
    fn fill(
        &mut self,
        plane: usize,
        step: usize,
        columns: &std::ops::Range<usize>,
        rows: &std::ops::Range<usize>,
        pixel: &[u8],
    ) {
        let plane = &self.layout.planes()[plane];
        let from = columns.start.div_ceil(step).min(plane.width) * pixel.len();
        let to = columns.end.div_ceil(step).min(plane.width) * pixel.len();
        for row in rows.start.div_ceil(step)..rows.end.div_ceil(step).min(plane.rows) {
            let start = plane.offset + row * plane.stride;
            for place in self.bytes[start + from..start + to.max(from)].chunks_exact_mut(pixel.len()) {
                place.copy_from_slice(pixel);
            }
        }
    }
}

/// Limited-range BT.709.
fn bt709(rgb: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = rgb.map(f32::from);
    let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    let limited = |value: f32, scale: f32, zero: f32| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "16 to 240 by construction")]
        let byte = (value * scale / 255.0 + zero).round() as u8;
        byte
    };
    [limited(luma, 219.0, 16.0), limited((b - luma) / 1.8556, 224.0, 128.0), limited((r - luma) / 1.5748, 224.0, 128.0)]
}
