//! Frames out of whatever ffmpeg opens.
//!
//! *What it is*: a source over one ffmpeg that writes NUT to a pipe. *Who calls it*: `open_source`. *Invariants*: every
//! frame has the size of the spec and the input's own time; the spec's time base is the input's where ffmpeg tells it.
//! *A hostile input* is parsed by ffmpeg; sizes come through the NUT reader and the spec's layout.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frameport::spec::{Colour, PixelFormat, Rational, VideoSpec};

use super::child::Ffmpeg;
use super::nut::{NutReader, NutStream};
use super::probe::{Probe, Stream};
use crate::media::{FrameInfo, Incoming, MediaError, Origin, Source, Stopper};

/// A file whose times start later than this is moved to its start when it is written again, in microseconds.
const LATE_START_US: i64 = 10_000_000;

pub(in crate::media) struct Decoder {
    input: String,
    ffmpeg: Ffmpeg,
    reader: NutReader<BufReader<ChildStdout>>,
    spec: VideoSpec,
    origin: Origin,
    bytes: usize,
    /// Units of the pipe's time base in one of the spec's.
    ticks: i64,
    frame: u64,
    unread: u64,
    hint: Option<u64>,
    notes: Vec<String>,
    is_live: bool,
    has_ended: bool,
    stopped: Arc<AtomicBool>,
}

impl Decoder {
    /// Starts ffmpeg on a file, camera or URL and waits for its first frame.
    pub(in crate::media) fn open(text: &str, format: PixelFormat) -> Result<Self, MediaError> {
        let is_file = !super::is_camera(text) && !super::is_url(text) && Path::new(text).is_file();
        let mut arguments = super::input_arguments(text);
        if is_file {
            // Times as they are in the file, and not relative to its first.
            arguments.insert(0, "-copyts".to_owned());
        }
        let mut decoder = Self::start(text, &arguments, format, Stdio::null())?;
        decoder.origin.file = is_file.then(|| text.into());
        Ok(decoder)
    }

    /// As `open` for y4m whose header line has been read already.
    pub(in crate::media) fn open_y4m(
        name: &str,
        path: Option<&Path>,
        header: Vec<u8>,
        mut rest: BufReader<File>,
        format: PixelFormat,
    ) -> Result<Self, MediaError> {
        if let Some(path) = path.and_then(Path::to_str) {
            return Self::open(path, format);
        }
        let arguments = ["-f", "yuv4mpegpipe", "-i", "pipe:0"].map(str::to_owned);
        let (theirs, mut ours) = io::pipe().map_err(MediaError::io("pipe"))?;
        // Ends with the input or, by the broken pipe, with ffmpeg.
        let pump = move || {
            use io::Write;
            ours.write_all(&header)?;
            ours.write_all(b"\n")?;
            io::copy(&mut rest, &mut ours)
        };
        let thread = std::thread::Builder::new().name("y4m-to-ffmpeg".to_owned());
        thread.spawn(pump).map_err(MediaError::io("thread"))?;
        Self::start(name, &arguments, format, Stdio::from(theirs))
    }

    fn start(text: &str, input: &[String], format: PixelFormat, stdin: Stdio) -> Result<Self, MediaError> {
        super::mkv::check_format(format)?;
        let path = super::find()?;
        let times = ["-map", "0:V:0", "-fps_mode", "passthrough", "-enc_time_base", super::input_time_base(path)];
        let range = scaler_range(format).map(|range| format!("scale=out_range={range}"));
        let filter = range.as_ref().map_or(Vec::new(), |range| vec!["-vf", range]);
        let output = ["-pix_fmt", format.name(), "-c:v", "rawvideo", "-f", "nut", "pipe:1"];
        let mut arguments = input.to_vec();
        arguments.extend(times.iter().chain(&filter).chain(&output).map(|&word| word.to_owned()));
        let mut ffmpeg = Ffmpeg::start(path, &arguments, stdin, Stdio::piped())?;

        let stdout = ffmpeg.stdout.take().ok_or_else(|| MediaError::io(text)(io::ErrorKind::BrokenPipe.into()))?;
        let (reader, stream) = match NutReader::open(BufReader::with_capacity(1 << 16, stdout)) {
            Ok(opened) => opened,
            Err(error) => {
                let detail = if error.kind() == io::ErrorKind::UnexpectedEof {
                    let status = ffmpeg.wait();
                    ffmpeg.failure(status)
                } else {
                    error.to_string()
                };
                return Err(MediaError::NotVideo { input: text.to_owned(), detail });
            }
        };
        let probe = Probe::read(&ffmpeg.head());
        let video = probe.video().cloned().unwrap_or_default();
        let (time_base, ticks) = own_time_base(stream, &video);
        let mut spec = VideoSpec::new(format, stream.width, stream.height).time_base(time_base.num, time_base.den);
        spec.fps = video.fps;
        spec.colour = output_colour(format, video.colour);
        let hint = probe.duration_ms.zip(spec.fps).map(|(ms, fps)| {
            ms.saturating_mul(u64::from(fps.num)).saturating_add(u64::from(fps.den) * 500) / (u64::from(fps.den) * 1000)
        });
        let origin = Origin {
            audio: probe.streams.iter().filter(|stream| stream.kind == "Audio").map(|s| s.codec.clone()).collect(),
            late_start_us: if probe.start_us > LATE_START_US { probe.start_us } else { 0 },
            sample_aspect: stream.sample_aspect,
            colour: video.colour,
            chroma: [PixelFormat::Yuv422p, PixelFormat::Yuv444p]
                .into_iter()
                .find(|chroma| video.pixel_format.replace("yuvj", "yuv").starts_with(chroma.name())),
            ..Origin::default()
        };
        Ok(Self {
            input: text.to_owned(),
            ffmpeg,
            reader,
            bytes: spec.layout()?.size,
            notes: notes(&probe, &video, format),
            spec,
            origin,
            ticks,
            frame: 0,
            unread: 0,
            hint,
            is_live: super::is_camera(text) || (super::is_url(text) && probe.duration_ms.is_none()),
            has_ended: false,
            stopped: Arc::default(),
        })
    }

    fn wrong(&self, detail: impl Into<String>) -> MediaError {
        MediaError::Decode { input: self.input.clone(), frames: self.frame, detail: detail.into() }
    }

    /// Ends well or with ffmpeg's reason; errors it survived become a note.
    fn end(&mut self) -> Result<(), MediaError> {
        self.has_ended = true;
        let status = self.ffmpeg.wait();
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !status.is_some_and(|status| status.success()) {
            return Err(self.wrong(self.ffmpeg.failure(status)));
        }
        if let Some(sizes) = self.ffmpeg.other_sizes() {
            let VideoSpec { width, height, .. } = self.spec;
            self.notes.push(format!(
                "the input changes its size (to {sizes}): ffmpeg has scaled it to the {width}x{height} it began with"
            ));
        }
        if let Some(errors) = self.ffmpeg.errors() {
            self.notes.push(format!("the input is damaged or incomplete, {} frames were read: {errors}", self.frame));
        }
        Ok(())
    }
}

/// The input's time base, and how many units of the pipe's are one of it: ffmpeg's NUT makes coarse ones finer.
fn own_time_base(stream: NutStream, video: &Stream) -> (Rational, i64) {
    let pipe = stream.time_base;
    match video.ticks {
        Some(ticks) if ticks > 0 && pipe.num == 1 && pipe.den.is_multiple_of(ticks) => {
            (Rational { num: 1, den: ticks }, i64::from(pipe.den / ticks))
        }
        _ => (pipe, 1),
    }
}

/// The range ffmpeg is told to convert to, as versions differ in what they do untold.
fn scaler_range(format: PixelFormat) -> Option<&'static str> {
    match format {
        PixelFormat::Gray | PixelFormat::Gray16le => Some("pc"),
        _ if super::is_rgb(format) => None,
        _ => Some("tv"),
    }
}

fn output_colour(format: PixelFormat, video: Colour) -> Colour {
    match scaler_range(format) {
        None => Colour { matrix: 0, full_range: Some(true), ..video },
        Some("pc") => Colour { full_range: Some(true), ..video },
        _ => Colour { full_range: video.full_range.and(Some(false)), ..video },
    }
}

/// What the conversion to `format` and the choice of one stream lose.
fn notes(probe: &Probe, video: &Stream, format: PixelFormat) -> Vec<String> {
    let mut notes = Vec::new();
    let mut say = |condition: bool, note: String| condition.then(|| notes.push(note));
    let name = video.pixel_format.as_str();
    let is_deep = ["10le", "12le", "14le", "16le", "10be", "12be", "16be"].iter().any(|depth| name.ends_with(depth));
    let keeps_depth = matches!(format, PixelFormat::P010le | PixelFormat::Gray16le | PixelFormat::Rgb48le);
    let has_alpha =
        name.starts_with("yuva") || ["rgba", "bgra", "argb", "abgr", "ya8"].iter().any(|a| name.starts_with(a));
    let keeps_alpha = matches!(format, PixelFormat::Rgba | PixelFormat::Bgra);
    say(
        video.rotation != 0,
        format!("the input says to turn its picture by {} degrees: done, frames are upright", video.rotation),
    );
    say(is_deep && !keeps_depth, format!("the input has {name} pixels, {format} keeps 8 bits of each value"));
    say(has_alpha && !keeps_alpha, format!("the input has transparency, {format} does not"));
    say(
        matches!(video.colour.transfer, 16 | 18),
        "the input is HDR: its colour tags are kept, its light metadata is not".to_owned(),
    );
    say(video.is_interlaced, "the input is interlaced: its frames are passed on whole, without the mark".to_owned());
    let videos = probe.count("Video");
    say(videos > 1, format!("only the first of {videos} video streams is used"));
    let subtitles = probe.count("Subtitle");
    say(subtitles > 0, format!("{subtitles} subtitle stream(s) are not kept"));
    notes
}

impl Source for Decoder {
    fn spec(&self) -> &VideoSpec {
        &self.spec
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn next(&mut self) -> Result<Option<Incoming<'_>>, MediaError> {
        if self.has_ended {
            return Ok(None);
        }
        let skipped = io::copy(&mut self.reader.input().take(self.unread), &mut io::sink());
        skipped.map_err(MediaError::io(&self.input))?;
        let frame = match self.reader.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.end().map(|()| None),
            Err(error) => {
                self.end()?;
                return if self.stopped.load(Ordering::Relaxed) {
                    Ok(None)
                } else {
                    Err(self.wrong(error.to_string()))
                };
            }
        };
        let size = frame.rest.saturating_add(u64::try_from(frame.front.len()).unwrap_or(0));
        if u64::try_from(self.bytes) != Ok(size) {
            return Err(self.wrong("the picture changes its size; only inputs of one size can be used"));
        }
        self.unread = frame.rest;
        // How long it is shown follows from the next one's time. For the last, ffmpeg has only its packet's duration,
        // which in files with B-frames is another frame's, or the file's, which may be that of the sound.
        let info = FrameInfo { pts: Some(frame.pts.div_euclid(self.ticks)), duration: None, tag: None };
        let number = self.frame;
        self.frame += 1;
        let payload = Body {
            front: io::Cursor::new(frame.front),
            pipe: self.reader.input(),
            unread: &mut self.unread,
            input: &self.input,
            frames: number,
        };
        Ok(Some(Incoming { info, bytes: self.bytes, payload: Box::new(payload) }))
    }

    fn frames_hint(&self) -> Option<u64> {
        self.hint
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn is_live(&self) -> bool {
        self.is_live
    }

    fn stopper(&self) -> Stopper {
        let (stopped, kill) = (Arc::clone(&self.stopped), self.ffmpeg.killer());
        Stopper::new(move || {
            stopped.store(true, Ordering::Relaxed);
            kill();
        })
    }
}

/// The pixels of one frame.
struct Body<'a> {
    front: io::Cursor<Vec<u8>>,
    pipe: &'a mut BufReader<ChildStdout>,
    unread: &'a mut u64,
    input: &'a str,
    frames: u64,
}

impl Read for Body<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.front.read(bytes)?;
        if read > 0 {
            return Ok(read);
        }
        let read = self.pipe.by_ref().take(*self.unread).read(bytes)?;
        if read == 0 && *self.unread > 0 && !bytes.is_empty() {
            let detail = "ffmpeg ended in the middle of a frame".to_owned();
            let input = self.input.to_owned();
            return Err(io::Error::other(MediaError::Decode { input, frames: self.frames, detail }));
        }
        *self.unread -= u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}
