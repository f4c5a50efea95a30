//! Frames into whatever ffmpeg writes.
//!
//! *What it is*: a sink over one ffmpeg that reads Matroska from a pipe and takes audio from the input file. *Who calls
//! it*: `open_sink`. *Invariants*: ffmpeg starts with the first frame, so that an output is touched only when there is
//! something to write; times given to it strictly increase. *A hostile worker* chooses pixels and times: times are
//! checked arithmetic, and those that do not increase are moved and counted.

use std::io::{self, BufWriter, Write};
use std::process::{ChildStdin, Stdio};

use frameport::spec::{PixelFormat, Rational, VideoSpec};

use super::child::Ffmpeg;
use super::{cut, mkv, target};
use crate::media::{FrameInfo, MediaError, Origin, Payload, Sink, write_exactly};

pub(in crate::media) struct Encoder {
    output: String,
    spec: VideoSpec,
    origin: Origin,
    arguments: Vec<String>,
    notes: Vec<String>,
    bytes: usize,
    time_base: Rational,
    running: Option<(Ffmpeg, BufWriter<ChildStdin>)>,
    frame: u64,
    last: Option<u64>,
    /// Where the picture ends, in nanoseconds.
    end: u64,
    is_cut_short: bool,
    moved: u64,
}

impl Encoder {
    /// Chooses codecs for `text`, a file name or `-`; starts nothing yet.
    pub(in crate::media) fn open(text: &str, origin: &Origin, spec: &VideoSpec) -> Result<Self, MediaError> {
        mkv::check_format(spec.format)?;
        let frame_time = spec.fps.map(|fps| Rational { num: fps.den, den: fps.num });
        let time_base = spec.time_base.or(frame_time).unwrap_or(Rational { num: 1, den: 25 });
        let spec = VideoSpec { planes: None, ..spec.clone() };
        let (arguments, notes) = target::arguments(super::find()?, text, origin, &spec, time_base);
        Ok(Self {
            output: text.to_owned(),
            bytes: spec.layout()?.size,
            spec,
            origin: origin.clone(),
            arguments,
            notes,
            time_base,
            running: None,
            frame: 0,
            last: None,
            end: 0,
            is_cut_short: false,
            moved: 0,
        })
    }

    fn start(&self) -> Result<(Ffmpeg, BufWriter<ChildStdin>), MediaError> {
        let stdout = if self.output == "-" { Stdio::inherit() } else { Stdio::null() };
        let mut ffmpeg = Ffmpeg::start(super::find()?, &self.arguments, Stdio::piped(), stdout)?;
        let stdin =
            ffmpeg.stdin.take().ok_or_else(|| MediaError::io(&self.output)(io::ErrorKind::BrokenPipe.into()))?;
        let mut pipe = BufWriter::with_capacity(1 << 16, stdin);
        // A pipe that breaks here breaks again at the frame, where the reason is asked for.
        drop(pipe.write_all(&mkv::header(&self.spec, self.origin.sample_aspect)));
        Ok((ffmpeg, pipe))
    }

    /// A frame's time in nanoseconds, later than the one before.
    fn time(&mut self, info: &FrameInfo) -> u64 {
        let counted = || scale(i128::from(self.frame), self.frame_time());
        let wanted = info.pts.map_or_else(counted, |pts| scale(i128::from(pts), self.time_base));
        let tick = scale(1, self.time_base).max(1);
        let earliest = self.last.map_or(0, |last| last.saturating_add(tick));
        // Half a tick is how far rounding reaches.
        let time = if wanted.saturating_add(tick / 2) < earliest {
            self.moved += 1;
            earliest
        } else {
            wanted
        };
        self.last = Some(time);
        time
    }

    /// How long a frame is shown that says nothing of it.
    fn frame_time(&self) -> Rational {
        self.spec.fps.map_or(self.time_base, |fps| Rational { num: fps.den, den: fps.num })
    }

    fn write(&mut self, info: &FrameInfo, payload: &mut Payload<'_>) -> io::Result<()> {
        let time = self.time(info);
        let duration = info.duration.map(|duration| scale(i128::from(duration), self.time_base));
        self.end = time.saturating_add(duration.unwrap_or_else(|| scale(1, self.frame_time())));
        let Some((_, pipe)) = &mut self.running else { return Err(io::ErrorKind::BrokenPipe.into()) };
        pipe.write_all(&mkv::frame_header(time, duration, self.bytes))?;
        if self.spec.format == PixelFormat::P010le {
            let mut pixels = Vec::with_capacity(self.bytes);
            write_exactly(&mut pixels, self.bytes, payload)?;
            let luma = usize::try_from(u64::from(self.spec.width) * u64::from(self.spec.height) * 2);
            return pipe.write_all(&mkv::planar_from_p010(&pixels, luma.unwrap_or(usize::MAX)));
        }
        write_exactly(pipe, self.bytes, payload)
    }

    /// Why ffmpeg no longer reads.
    fn failure(&mut self) -> MediaError {
        let detail = self.running.take().map_or("ffmpeg has ended".to_owned(), |(mut ffmpeg, pipe)| {
            drop(pipe.into_parts());
            let status = ffmpeg.wait();
            ffmpeg.failure(status)
        });
        MediaError::Encode { output: self.output.clone(), detail }
    }
}

/// `value` units of `base` seconds in nanoseconds; the nearest, and not below 0.
fn scale(value: i128, base: Rational) -> u64 {
    let (num, den) = (i128::from(base.num), i128::from(base.den.max(1)));
    let nanoseconds = value.saturating_mul(num * 1_000_000_000).saturating_add(den / 2).div_euclid(den);
    u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX >> 8).min(u64::MAX >> 8)
}

impl Sink for Encoder {
    fn put(&mut self, info: &FrameInfo, payload: &mut Payload<'_>) -> Result<(), MediaError> {
        if self.running.is_none() {
            if self.frame > 0 {
                return Err(self.failure());
            }
            self.running = Some(self.start()?);
        }
        let written = self.write(info, payload);
        self.frame += 1;
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe { self.failure() } else { MediaError::from(error) }
        })
    }

    fn cut_short(&mut self) {
        self.is_cut_short = true;
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, MediaError> {
        let Some((mut ffmpeg, pipe)) = self.running.take() else {
            return Ok(vec![format!("no frames came, {:?} was not written", self.output)]);
        };
        // ffmpeg's own status tells more than a pipe that broke.
        drop(pipe.into_inner());
        let status = ffmpeg.wait();
        if !status.is_some_and(|status| status.success()) {
            return Err(MediaError::Encode { output: self.output.clone(), detail: ffmpeg.failure(status) });
        }
        let mut notes = std::mem::take(&mut self.notes);
        if self.moved > 0 {
            notes.push(format!("{} frames came with a time not after the one before and were moved to it", self.moved));
        }
        if self.is_cut_short && target::has_sound(&self.arguments) {
            let late = u64::try_from(self.origin.late_start_us).unwrap_or(0).saturating_mul(1000);
            notes.extend(cut::sound(&self.output, self.end.saturating_sub(late)));
        }
        notes.extend(ffmpeg.errors().map(|errors| format!("while writing {:?}: {errors}", self.output)));
        Ok(notes)
    }
}
