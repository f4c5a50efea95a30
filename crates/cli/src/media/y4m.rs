//! YUV4MPEG2, in and out, byte for byte.
//!
//! *What it is*: a reader and a writer that keep every header and FRAME parameter as it was. *Who calls it*:
//! `open_source` and `open_sink`, for pipes and `.y4m` files. *Invariants*: a stream that comes back with the same size
//! and format is written with the bytes it was read with. *A hostile input* gets an error: lines are at most
//! [`LONGEST_LINE`] bytes, sizes go through the spec's layout, and nothing is allocated by them here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frameport::spec::{Colour, PixelFormat, Rational, VideoSpec};

use super::{FrameInfo, Incoming, MediaError, Origin, Payload, Sink, Source, Stopper, write_exactly};

const MAGIC: &[u8] = b"YUV4MPEG2";
/// Bytes of a header or FRAME line.
const LONGEST_LINE: u64 = 4096;

/// C parameters and what they are exactly; the first of a format is what is written for it.
const COLOURSPACES: [(&str, PixelFormat); 8] = [
    ("420jpeg", PixelFormat::Yuv420p),
    ("420mpeg2", PixelFormat::Yuv420p),
    ("420paldv", PixelFormat::Yuv420p),
    ("420", PixelFormat::Yuv420p),
    ("422", PixelFormat::Yuv422p),
    ("444", PixelFormat::Yuv444p),
    ("mono", PixelFormat::Gray),
    ("mono16", PixelFormat::Gray16le),
];

/// Whether y4m has a colourspace that is exactly this format.
pub(super) fn can_carry(format: PixelFormat) -> bool {
    COLOURSPACES.iter().any(|(_, known)| *known == format)
}

/// Whether a file begins as y4m does. Leaves it at its start.
pub(super) fn is_y4m(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::with_capacity(MAGIC.len());
    file.take(9).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == MAGIC)
}

pub(super) struct Y4mSource {
    input: BufReader<File>,
    name: String,
    spec: VideoSpec,
    bytes: usize,
    origin: Origin,
    hint: Option<u64>,
    frame: u64,
    unread: u64,
    stopped: Arc<AtomicBool>,
}

impl Y4mSource {
    /// Reads the header. `name` is for messages.
    pub(super) fn open(input: File, name: &str, path: Option<&Path>) -> Result<Self, MediaError> {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let wrong = |detail: &str| MediaError::Y4mHeader { input: name.to_owned(), detail: detail.to_owned() };
        let line = read_line(&mut input).map_err(|error| wrong(&error.to_string()))?;
        let line = line.filter(|line| line.starts_with(MAGIC));
        let line = line.ok_or_else(|| wrong("it does not begin with YUV4MPEG2"))?;

        let header = Header::of(&line);
        let Header { width: Some(width), height: Some(height), fps, aspect, full_range, .. } = header else {
            return Err(wrong("its header has no width and height"));
        };
        let format = header.format().ok_or_else(|| MediaError::Y4mColourspace {
            input: name.to_owned(),
            found: header.colourspace,
            supported: COLOURSPACES.map(|(tag, _)| tag).join(", "),
        })?;
        let colour = Colour { full_range, ..Colour::UNSPECIFIED };
        let mut spec = VideoSpec::new(format, width, height).colour(colour);
        if let Some(fps) = fps {
            spec = spec.fps(fps.num, fps.den).time_base(fps.den, fps.num);
        }
        let bytes = spec.layout()?.size;
        let frame_bytes = u64::try_from(bytes + b"FRAME\n".len()).unwrap_or(u64::MAX);
        let length = path.and_then(|path| path.metadata().ok()).map(|metadata| metadata.len());
        let origin = Origin {
            file: path.map(Path::to_owned),
            sample_aspect: aspect,
            colour,
            y4m_header: Some(line),
            ..Origin::default()
        };
        let hint = length.map(|length| length / frame_bytes);
        let name = name.to_owned();
        Ok(Self { input, name, spec, bytes, origin, hint, frame: 0, unread: 0, stopped: Arc::default() })
    }

    /// What follows the header.
    pub(super) fn into_inner(self) -> BufReader<File> {
        self.input
    }

    fn wrong(&self, detail: impl Into<String>) -> MediaError {
        MediaError::Y4mFrame { input: self.name.clone(), frame: self.frame, detail: detail.into() }
    }
}

/// What a header line says; where it says something twice, the last counts.
struct Header {
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<Rational>,
    aspect: Option<(u32, u32)>,
    colourspace: String,
    full_range: Option<bool>,
}

impl Header {
    fn of(line: &[u8]) -> Self {
        let colourspace = "420jpeg".to_owned();
        let mut header = Self { width: None, height: None, fps: None, aspect: None, colourspace, full_range: None };
        for parameter in String::from_utf8_lossy(line).split(' ').skip(1) {
            let mut letters = parameter.chars();
            let (key, value) = (letters.next(), letters.as_str());
            match key {
                Some('W') => header.width = value.parse().ok(),
                Some('H') => header.height = value.parse().ok(),
                Some('F') => header.fps = ratio(value).map(|(num, den)| Rational { num, den }),
                Some('A') => header.aspect = ratio(value),
                Some('C') => value.clone_into(&mut header.colourspace),
                Some('X') if value == "COLORRANGE=FULL" => header.full_range = Some(true),
                Some('X') if value == "COLORRANGE=LIMITED" => header.full_range = Some(false),
                _ => {}
            }
        }
        header
    }

    fn format(&self) -> Option<PixelFormat> {
        COLOURSPACES.iter().find(|(tag, _)| *tag == self.colourspace).map(|(_, format)| *format)
    }
}

/// `30:1`; `None` when not known, which is written `0:0`.
fn ratio(text: &str) -> Option<(u32, u32)> {
    let (num, den) = text.split_once(':')?;
    let (num, den) = (num.parse().ok()?, den.parse().ok()?);
    (num > 0 && den > 0).then_some((num, den))
}

/// One line without its newline, `None` at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a header line has no end")),
    }
}

impl Source for Y4mSource {
    fn spec(&self) -> &VideoSpec {
        &self.spec
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn next(&mut self) -> Result<Option<Incoming<'_>>, MediaError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let skipped = io::copy(&mut self.input.by_ref().take(self.unread), &mut io::sink());
        let skipped = skipped.map_err(MediaError::io(&self.name))?;
        self.unread -= skipped;
        if self.unread > 0 {
            return Err(self.wrong("the input ends"));
        }
        let Some(line) = read_line(&mut self.input).map_err(|error| self.wrong(error.to_string()))? else {
            return Ok(None);
        };
        let tag = line.strip_prefix(b"FRAME").filter(|tag| tag.first().is_none_or(|&byte| byte == b' '));
        let tag = tag.ok_or_else(|| self.wrong("there is no FRAME line"))?;
        let info = FrameInfo {
            pts: self.spec.time_base.and_then(|_| i64::try_from(self.frame).ok()),
            duration: self.spec.time_base.map(|_| 1),
            tag: (!tag.is_empty()).then(|| tag.to_vec()),
        };
        let frame = self.frame;
        self.frame += 1;
        self.unread = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        let payload = Body { input: &mut self.input, unread: &mut self.unread, name: &self.name, frame };
        Ok(Some(Incoming { info, bytes: self.bytes, payload: Box::new(payload) }))
    }

    fn frames_hint(&self) -> Option<u64> {
        self.hint
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

/// The pixels of one frame; an early end of the input is an error that says where.
struct Body<'a> {
    input: &'a mut BufReader<File>,
    unread: &'a mut u64,
    name: &'a str,
    frame: u64,
}

impl Read for Body<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.input.by_ref().take(*self.unread).read(bytes)?;
        if read == 0 && *self.unread > 0 && !bytes.is_empty() {
            let detail = format!("the input ends {} bytes early", self.unread);
            return Err(io::Error::other(MediaError::Y4mFrame { input: self.name.into(), frame: self.frame, detail }));
        }
        *self.unread -= u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

pub(super) struct Y4mSink {
    out: BufWriter<File>,
    name: String,
    bytes: usize,
    spec: VideoSpec,
    frame: u64,
    first_pts: Option<i64>,
    uneven: bool,
}

impl Y4mSink {
    /// Creates the file, or takes standard output, and writes the header.
    pub(super) fn open(path: Option<&Path>, origin: &Origin, spec: &VideoSpec) -> Result<Self, MediaError> {
        let name = path.map_or("standard output".to_owned(), |path| path.display().to_string());
        let file = match path {
            Some(path) => File::create(path).map_err(|source| MediaError::OpenOutput { path: name.clone(), source })?,
            None => File::from(io::stdout().as_fd().try_clone_to_owned().map_err(MediaError::io(&name))?),
        };
        let mut out = BufWriter::with_capacity(1 << 16, file);
        out.write_all(&header(origin, spec)).map_err(MediaError::io(&name))?;
        let bytes = VideoSpec { planes: None, ..spec.clone() }.layout()?.size;
        Ok(Self { out, name, bytes, spec: spec.clone(), frame: 0, first_pts: None, uneven: false })
    }

    /// Whether a frame's time is half a frame or more away from where a constant rate puts it.
    fn is_uneven(&mut self, pts: i64) -> bool {
        let (Some(fps), Some(base)) = (self.spec.fps, self.spec.time_base) else { return false };
        let passed = i128::from(pts) - i128::from(*self.first_pts.get_or_insert(pts));
        // Both sides in units of 1 / (fps.num * base.den) seconds; a frame lasts `fps.den * base.den` of them.
        let time = passed * i128::from(base.num) * i128::from(fps.num);
        let frame = i128::from(fps.den) * i128::from(base.den);
        (time - i128::from(self.frame) * frame).abs() * 2 >= frame
    }
}

/// The input's own header where it still says the truth, with the parts replaced that do not.
fn header(origin: &Origin, spec: &VideoSpec) -> Vec<u8> {
    let tag = COLOURSPACES.iter().find(|(_, format)| *format == spec.format).map_or("", |(tag, _)| *tag);
    let fps = spec.fps.unwrap_or(Rational { num: 0, den: 0 });
    let (across, down) = origin.sample_aspect.unwrap_or((0, 0));
    let mut line = origin.y4m_header.clone().unwrap_or_else(|| {
        let range = match spec.colour.full_range {
            Some(true) => " XCOLORRANGE=FULL",
            Some(false) => " XCOLORRANGE=LIMITED",
            None => "",
        };
        format!("YUV4MPEG2 W0 H0 F{}:{} Ip A{across}:{down} C{range}", fps.num, fps.den).into_bytes()
    });
    let said = Header::of(&line);
    if (said.width, said.height, said.format()) == (Some(spec.width), Some(spec.height), Some(spec.format)) {
        line.push(b'\n');
        return line;
    }
    let replaced = |part: &[u8], key: char, value: u32| {
        let same = String::from_utf8_lossy(&part[1..]).parse() == Ok(value);
        (!same).then(|| format!("{key}{value}").into_bytes())
    };
    let mut has_colourspace = false;
    let mut parts: Vec<Vec<u8>> = line.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect();
    for part in parts.iter_mut().skip(1) {
        match part.first() {
            Some(b'W') => *part = replaced(part, 'W', spec.width).unwrap_or_else(|| part.clone()),
            Some(b'H') => *part = replaced(part, 'H', spec.height).unwrap_or_else(|| part.clone()),
            Some(b'C') => {
                has_colourspace = true;
                let same =
                    COLOURSPACES.iter().any(|(tag, format)| part[1..] == *tag.as_bytes() && *format == spec.format);
                if !same {
                    *part = format!("C{tag}").into_bytes();
                }
            }
            _ => {}
        }
    }
    if !has_colourspace && spec.format != PixelFormat::Yuv420p {
        parts.push(format!("C{tag}").into_bytes());
    }
    line = parts.join(&b' ');
    line.push(b'\n');
    line
}

impl Sink for Y4mSink {
    fn put(&mut self, info: &FrameInfo, payload: &mut Payload<'_>) -> Result<(), MediaError> {
        self.uneven |= info.pts.is_some_and(|pts| self.is_uneven(pts));
        self.frame += 1;
        let mut write = || {
            self.out.write_all(b"FRAME")?;
            self.out.write_all(info.tag.as_deref().unwrap_or_default())?;
            self.out.write_all(b"\n")?;
            write_exactly(&mut self.out, self.bytes, payload)
        };
        write().map_err(MediaError::io(&self.name))
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, MediaError> {
        self.out.flush().map_err(MediaError::io(&self.name))?;
        let note = "y4m has no timestamps: frames at uneven times, or missing ones, are written at a constant rate";
        Ok(self.uneven.then(|| note.to_owned()).into_iter().collect())
    }
}
