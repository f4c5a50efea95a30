//! What can go wrong with inputs and outputs.
//!
//! *What it is*: the one error type of the media modules. *Who calls it*: they do; the command prints it. *Invariants*:
//! every message names the input or output and, where there is one, the remedy. *A hostile input* can choose file
//! names and, through ffmpeg's messages, the details shown; control characters are removed from those.

use std::io;

use frameport::spec::{PixelFormat, SpecError};

/// An input or output that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The input file cannot be opened.
    #[error("cannot open input {path:?}: {source}")]
    OpenInput {
        /// As given.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The output file cannot be created.
    #[error("cannot create output {path:?}: {source}")]
    OpenOutput {
        /// As given.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No video file is called like that.
    #[error("cannot write video to {path:?}: {} ({detail}); use one of {supported}", unusable(extension))]
    OutputExtension {
        /// As given.
        path: String,
        /// What follows the name's last dot; empty without one.
        extension: String,
        /// ffmpeg's reason.
        detail: String,
        /// Extensions that work, separated by commas.
        supported: String,
    },
    /// Input and output are one file.
    #[error("output {path:?} is the input itself; name another file")]
    SameFile {
        /// As given.
        path: String,
    },
    /// The text after `pattern:` makes no sense.
    #[error(
        "cannot read {text:?}: {detail}; a test picture is pattern:WIDTHxHEIGHT@FPS:FRAMES, such as pattern:1280x720@30:300"
    )]
    Pattern {
        /// As given.
        text: String,
        /// Which part.
        detail: String,
    },
    /// The test picture is not drawn in this format.
    #[error("the test picture has no {format} form; use one of {supported}")]
    PatternFormat {
        /// The format asked for.
        format: PixelFormat,
        /// The formats there are, separated by commas.
        supported: String,
    },
    /// No usable ffmpeg anywhere.
    #[error(
        "this needs ffmpeg 5.1 or newer, and {found}: `apt install ffmpeg` or `pip install imageio-ffmpeg`, or set FRAMEPORT_FFMPEG to its path"
    )]
    FfmpegMissing {
        /// What there is instead.
        found: String,
    },
    /// The ffmpeg found does not start.
    #[error("cannot start ffmpeg at {path:?}: {source}")]
    FfmpegStart {
        /// Where it was found.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// ffmpeg finds no video in the input.
    #[error("no video can be read from {input:?}: {detail}")]
    NotVideo {
        /// As given.
        input: String,
        /// ffmpeg's reason.
        detail: String,
    },
    /// Decoding ended with an error.
    #[error("reading {input:?} failed after {frames} frames: {detail}")]
    Decode {
        /// As given.
        input: String,
        /// Frames that came before.
        frames: u64,
        /// ffmpeg's last words.
        detail: String,
    },
    /// Encoding ended with an error.
    #[error("writing {output:?} failed: {detail}")]
    Encode {
        /// As given.
        output: String,
        /// ffmpeg's last words.
        detail: String,
    },
    /// ffmpeg has no use for this format.
    #[error("ffmpeg cannot convert {format} frames; use one of {supported}")]
    FfmpegFormat {
        /// The format asked for.
        format: PixelFormat,
        /// Formats that work, separated by commas.
        supported: String,
    },
    /// Not a y4m header, or one that cannot be used.
    #[error("{input} is not usable y4m: {detail}")]
    Y4mHeader {
        /// The input's name.
        input: String,
        /// What is wrong.
        detail: String,
    },
    /// A colourspace no pixel format stands for exactly.
    #[error(
        "y4m colourspace {found:?} of {input} is not supported, only {supported}; convert it with ffmpeg first, or give --format to a file"
    )]
    Y4mColourspace {
        /// The input's name.
        input: String,
        /// Its C parameter.
        found: String,
        /// The C parameters there are, separated by commas.
        supported: String,
    },
    /// y4m that ends or goes wrong in the middle.
    #[error("{input}: {detail} at frame {frame}")]
    Y4mFrame {
        /// The input's name.
        input: String,
        /// Counted from 0.
        frame: u64,
        /// What is wrong.
        detail: String,
    },
    /// The spec itself is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// The file or stream.
        what: String,
        /// Why.
        source: io::Error,
    },
}

fn unusable(extension: &str) -> String {
    if extension.is_empty() {
        "its name has no extension".to_owned()
    } else {
        format!("ffmpeg makes no video file with the extension .{extension}")
    }
}

impl MediaError {
    /// For `map_err`: names the file or stream an operating system error belongs to.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

/// Takes out the error a payload reader put in.
impl From<io::Error> for MediaError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(source) => Self::Io { what: "frame".to_owned(), source },
        }
    }
}
