//! Where frames come from and go to: a test picture, y4m, and whatever ffmpeg reads or writes.
//!
//! *What it is*: [`Source`] and [`Sink`], plain blocking objects, and the two functions that open them by the text of
//! `--input` and `--output`. *Who calls it*: the run loop, one thread for each of the two. *Invariants*: payloads are
//! tight (the layout of a spec without `planes`); what cannot be kept is said in notes, never dropped silently; no
//! ffmpeg process outlives the object that started it. *A hostile input file* is decoded in ffmpeg's own process; what
//! ffmpeg says about it is checked before it is used, and the worst it gets is an error.

mod error;
mod ffmpeg;
mod font;
mod paced;
mod pattern;
mod y4m;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frameport::spec::{Colour, PixelFormat, VideoSpec};

pub use self::error::MediaError;
pub use self::ffmpeg::find as find_ffmpeg;
pub(crate) use self::ffmpeg::set_own_python;

/// What travels with one frame's pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// When it is shown, in the spec's `time_base`.
    pub pts: Option<i64>,
    /// How long it is shown, in the spec's `time_base`.
    pub duration: Option<u32>,
    /// The parameters of a y4m FRAME line, as they are, from the first space to the line's end.
    pub tag: Option<Vec<u8>>,
}

/// One frame on its way in. Bytes left unread are skipped by the next [`Source::next`].
pub struct Incoming<'a> {
    /// Its time and tags.
    pub info: FrameInfo,
    /// How many bytes `payload` gives.
    pub bytes: usize,
    /// Its pixels. An error of it may hold a [`MediaError`]; `MediaError::from` takes it out.
    pub payload: Box<dyn Read + 'a>,
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("info", &self.info).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Where frames come from.
pub trait Source: Send {
    /// What its frames look like: format, size, rate, time base and colour.
    fn spec(&self) -> &VideoSpec;
    /// What a sink needs to keep the input's properties.
    fn origin(&self) -> &Origin;
    /// The next frame, `None` at the end.
    fn next(&mut self) -> Result<Option<Incoming<'_>>, MediaError>;
    /// About how many frames there will be, if that is known.
    fn frames_hint(&self) -> Option<u64>;
    /// What to tell the person; more may be there after the end.
    fn notes(&self) -> &[String];
    /// Whether frames come in their own time (a camera), so that a slow worker cannot have them all.
    fn is_live(&self) -> bool;
    /// A handle that ends the input from any thread: a blocked [`Source::next`] then ends soon. Reading standard input is
    /// the exception, nothing can interrupt that.
    fn stopper(&self) -> Stopper;
}

/// Ends a [`Source`] from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<dyn Fn() + Send + Sync>);

impl Stopper {
    fn new(stop: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(stop))
    }

    /// Ends the source; again is harmless.
    pub fn stop(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopper")
    }
}

/// Writes one payload into the sink's writer; must write exactly the spec's tight size.
pub type Payload<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// Where frames go. Dropping it without [`Sink::finish`] leaves the output incomplete.
pub trait Sink: Send {
    /// Takes one frame; blocks while the output is busy.
    fn put(&mut self, info: &FrameInfo, payload: &mut Payload<'_>) -> Result<(), MediaError>;
    /// Says, before [`Sink::finish`], that the input goes on after the last frame: what is copied from it must not.
    fn cut_short(&mut self) {}
    /// Completes the output; says what could not be kept.
    fn finish(self: Box<Self>) -> Result<Vec<String>, MediaError>;
}

/// What is known about an input beside its pixels.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The file that audio, chapters and metadata can be copied from.
    pub file: Option<PathBuf>,
    /// Codecs of its audio streams, ffmpeg's names.
    pub audio: Vec<String>,
    /// When the file's first timestamp lies late, in microseconds: the part of it a new file should not begin with.
    pub late_start_us: i64,
    /// Width to height of a pixel.
    pub sample_aspect: Option<(u32, u32)>,
    /// Colour of the coded picture, which differs from the spec's where the input was converted to RGB.
    pub colour: Colour,
    /// Its layout of colour, when that is finer than 4:2:0: yuv422p or yuv444p, whatever its depth.
    pub chroma: Option<PixelFormat>,
    /// The y4m header line without its newline.
    pub y4m_header: Option<Vec<u8>>,
}

/// Opens `text`: `pattern[:WIDTHxHEIGHT][@FPS][:FRAMES]`, `-` (y4m on standard input), `/dev/videoN`, a URL or a file.
///
/// `format` asks for a pixel format; without it, it is bgr24, for y4m the input's own. Blocks until the format and size
/// are known. Fails when there is no such input, no ffmpeg, or no video in it.
pub fn open_source(text: &str, format: Option<PixelFormat>) -> Result<Box<dyn Source>, MediaError> {
    if text == "pattern" || text.starts_with("pattern:") {
        return Ok(Box::new(pattern::Pattern::parse(text, format)?));
    }
    if text == "-" {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(MediaError::io("standard input"))?);
        return open_y4m(input, "standard input", format, None);
    }
    if !ffmpeg::is_url(text) && !ffmpeg::is_camera(text) {
        let path = Path::new(text);
        let wrong = |source| MediaError::OpenInput { path: text.to_owned(), source };
        let metadata = path.metadata().map_err(wrong)?;
        if metadata.is_dir() {
            return Err(wrong(io::ErrorKind::IsADirectory.into()));
        }
        // A pipe with a name is ffmpeg's to open: what has been read of it is gone.
        if metadata.is_file() {
            let mut file = File::open(path).map_err(wrong)?;
            if y4m::is_y4m(&mut file).map_err(MediaError::io(text))? {
                return open_y4m(file, text, format, Some(path));
            }
        }
    }
    Ok(Box::new(ffmpeg::Decoder::open(text, format.unwrap_or(PixelFormat::Bgr24))?))
}

/// `source` in real time: each frame when its time has come, by the first one's, and none early.
#[must_use]
pub fn in_real_time(source: Box<dyn Source>) -> Box<dyn Source> {
    Box::new(paced::Paced::new(source))
}

fn open_y4m(
    input: File,
    name: &str,
    format: Option<PixelFormat>,
    path: Option<&Path>,
) -> Result<Box<dyn Source>, MediaError> {
    let reader = y4m::Y4mSource::open(input, name, path)?;
    match format {
        Some(wanted) if wanted != reader.spec().format => {
            let header = reader.origin().y4m_header.clone().unwrap_or_default();
            Ok(Box::new(ffmpeg::Decoder::open_y4m(name, path, header, reader.into_inner(), wanted)?))
        }
        _ => Ok(Box::new(reader)),
    }
}

/// Opens `text` for frames of `spec`: `null`, `-` (y4m on standard output), a `.y4m` file, or a video file by ffmpeg.
///
/// `origin` is the source's: its audio, colour, aspect and y4m header are kept where the output can hold them. An
/// existing file is replaced when the first frame comes. Fails for a format the output cannot take, no ffmpeg, or an
/// output that is the input.
pub fn open_sink(text: &str, origin: &Origin, spec: &VideoSpec) -> Result<Box<dyn Sink>, MediaError> {
    let bytes = VideoSpec { planes: None, ..spec.clone() }.layout()?.size;
    let path = Path::new(text);
    if text == "null" {
        return Ok(Box::new(Null { bytes }));
    }
    if text != "-" && origin.file.as_deref().is_some_and(|input| same_file(input, path)) {
        return Err(MediaError::SameFile { path: text.to_owned() });
    }
    if (text == "-" || has_y4m_name(path)) && y4m::can_carry(spec.format) {
        return Ok(Box::new(y4m::Y4mSink::open((text != "-").then_some(path), origin, spec)?));
    }
    Ok(Box::new(ffmpeg::Encoder::open(text, origin, spec)?))
}

/// Fails for an output that [`open_sink`] or its first frame would fail for, as far as its name alone tells: a folder
/// that is missing or not to be written, an extension of no video file, no ffmpeg. What is there is not touched.
pub fn check_output(text: &str) -> Result<(), MediaError> {
    let path = Path::new(text);
    if matches!(text, "-" | "null") {
        return Ok(());
    }
    check_writable(path).map_err(|source| MediaError::OpenOutput { path: text.to_owned(), source })?;
    if has_y4m_name(path) { Ok(()) } else { ffmpeg::check_name(text) }
}

/// Creating is the one answer that holds for every file system; what it creates is gone again.
fn check_writable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => File::options().write(true).open(path).map(drop),
        // Opening a pipe with a name waits for its reader.
        Ok(_) => Ok(()),
        Err(_) if path.is_symlink() => Ok(()),
        Err(_) => File::create_new(path).and_then(|_| fs::remove_file(path)),
    }
}

fn has_y4m_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("y4m"))
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Takes everything, keeps nothing.
struct Null {
    bytes: usize,
}

impl Sink for Null {
    fn put(&mut self, _: &FrameInfo, payload: &mut Payload<'_>) -> Result<(), MediaError> {
        write_exactly(&mut io::sink(), self.bytes, payload).map_err(MediaError::from)
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>, MediaError> {
        Ok(Vec::new())
    }
}

/// Runs `payload` on `out` and checks that it wrote `bytes` bytes.
fn write_exactly(out: &mut dyn Write, bytes: usize, payload: &mut Payload<'_>) -> io::Result<()> {
    let mut counted = Counted { out, left: bytes };
    payload(&mut counted)?;
    match counted.left {
        0 => Ok(()),
        left => Err(io::Error::other(format!("a frame has {bytes} bytes, {left} of them were not written"))),
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    left: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            return Err(io::Error::other("more bytes than the frame has"));
        }
        let written = self.out.write(bytes)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
