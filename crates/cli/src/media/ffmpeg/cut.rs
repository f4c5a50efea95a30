//! The end of the sound where frames end before the input does.
//!
//! *What it is*: a copy of a finished file without the sound after its picture. Where that ends is known only now, and
//! ffmpeg copies sound for as long as the input has some. *Who calls it*: the encoder, at the end. *Invariants*: the
//! output is replaced by a complete copy or stays as it is; ffmpeg reads it from a pipe, so that it ends with this
//! process.
//! *A hostile worker* chooses where the picture ends.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;

use super::child::Ffmpeg;
use super::target;
use crate::media::MediaError;

/// Ends the sound of the file `text` at `nanoseconds`, without encoding anything anew; says so where it could not.
pub(super) fn sound(text: &str, nanoseconds: u64) -> Option<String> {
    let extension = target::extension(text);
    let done = if target::is_known(&extension) {
        replace(text, &extension, nanoseconds).map_err(|error| error.to_string())
    } else {
        // Its times may not be those that were written, as in MPEG's transport stream.
        Err(format!(".{extension} files are not cut, .mp4, .mkv and .mov are"))
    };
    done.err().map(|why| format!("the sound goes on after the picture: {why}"))
}

fn replace(text: &str, extension: &str, nanoseconds: u64) -> Result<(), MediaError> {
    // Replaced is what a link leads to.
    let whole = Path::new(text).canonicalize().map_err(MediaError::io(text))?;
    let name = format!(".{}.cut.{extension}", whole.file_stem().unwrap_or_default().to_string_lossy());
    let part = whole.with_file_name(name);
    let done = copy(&whole, &part, nanoseconds, target::muxing(extension))
        .and_then(|()| fs::rename(&part, &whole).map_err(MediaError::io(text)));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn copy(whole: &Path, part: &Path, nanoseconds: u64, muxing: &[&str]) -> Result<(), MediaError> {
    let name = whole.display().to_string();
    let mut input = File::open(whole).map_err(MediaError::io(&name))?;
    // Not `-t`, which would also drop a picture that the file has at a later time than it was given.
    let sound = format!("noise=drop=gte(pts*tb*1000000\\,{})", nanoseconds / 1000);
    let output = format!("file:{}", part.display());
    let streams = ["-copyts", "-i", "pipe:0", "-map", "0:v", "-map", "0:a?", "-c", "copy", "-bsf:a", &sound];
    let arguments = [&streams, muxing, &["-y", &output]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut ffmpeg = Ffmpeg::start(super::find()?, &arguments, Stdio::piped(), Stdio::null())?;
    if let Some(mut pipe) = ffmpeg.stdin.take() {
        // It reads no further than it needs; its own status tells the rest.
        drop(io::copy(&mut input, &mut pipe));
    }
    let status = ffmpeg.wait();
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    Err(MediaError::Encode { output: name, detail: ffmpeg.failure(status) })
}
