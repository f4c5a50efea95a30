//! ffmpeg as a separate program: finding it, running it, ending it.
//!
//! *What it is*: what the decoder and the encoder share. *Who calls it*: `open_source` and `open_sink`. *Invariants*: a
//! child runs in its own process group, so that the terminal's Ctrl-C does not reach it, and is killed when its owner
//! is dropped; its stderr is always drained. *A hostile input* is parsed in the child; of its messages a bounded
//! number of bounded lines is kept, without control characters.

mod child;
mod cut;
mod decode;
mod encode;
mod mkv;
mod nut;
mod probe;
mod target;
mod trial;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(super) use self::decode::Decoder;
pub(super) use self::encode::Encoder;
pub(super) use self::trial::check_name;
use frameport::spec::PixelFormat;

use super::MediaError;

/// Prints where PyPI's imageio-ffmpeg has its binary.
const ASK_PYTHON: &str = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";

/// The oldest version that keeps times as this needs it.
const OLDEST: (u32, u32) = (5, 1);

static OWN_PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Says which Python this command is part of: an environment's command also runs where that is not activated.
pub(crate) fn set_own_python(python: &OsStr) {
    OWN_PYTHON.get_or_init(|| python.into());
}

/// The ffmpeg to use: `$FRAMEPORT_FFMPEG`, the one on PATH, or the one inside the Python package imageio-ffmpeg, asked
/// for in the Python this command is part of, in `$VIRTUAL_ENV` and then by `python3`; too old ones are passed over. [`MediaError::FfmpegMissing`] says how to
/// get one.
pub fn find() -> Result<&'static Path, MediaError> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let missing = |found: &String| MediaError::FfmpegMissing { found: found.clone() };
    FOUND.get_or_init(search).as_deref().map_err(missing)
}

/// The path, or what there is instead.
fn search() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("FRAMEPORT_FFMPEG").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let mut found = "there is none on PATH".to_owned();
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&directories).map(|directory| directory.join("ffmpeg"));
    for path in on_path.filter(|path| path.is_file()) {
        match version(&path) {
            Some(version) if version >= OLDEST => return Ok(path),
            Some((major, minor)) => found = format!("{} is {major}.{minor}", path.display()),
            None => {}
        }
    }
    let venv = std::env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin/python"));
    let own = OWN_PYTHON.get().cloned();
    own.into_iter()
        .chain(venv)
        .chain(["python3".into(), "python".into()])
        .find_map(|python| in_package(&python))
        .ok_or(found)
}

fn in_package(python: &Path) -> Option<PathBuf> {
    let output = Command::new(python).args(["-c", ASK_PYTHON]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    version(&path).filter(|&version| version >= OLDEST).map(|_| path)
}

/// Its major and minor version, `None` when it does not run. A build without a number is a new one.
fn version(ffmpeg: &Path) -> Option<(u32, u32)> {
    let output = Command::new(ffmpeg).arg("-version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.strip_prefix("ffmpeg version ")?.trim_start_matches('n');
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    Some(numbers.next().map_or((u32::MAX, 0), |major| (major, numbers.next().unwrap_or(0))))
}

/// The value of `-enc_time_base` that keeps the input's.
fn input_time_base(ffmpeg: &Path) -> &'static str {
    if version(ffmpeg).is_some_and(|version| version < (7, 0)) { "-1" } else { "demux" }
}

/// Whether ffmpeg should take it as a camera.
pub(super) fn is_camera(text: &str) -> bool {
    text.strip_prefix("/dev/video").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether it has a scheme, as in `rtsp://`.
pub(super) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `-i` and what ffmpeg should open for it; files by scheme, so that no name is taken for an option or a URL.
fn input_arguments(text: &str) -> Vec<String> {
    if is_camera(text) {
        ["-f", "v4l2", "-i", text].map(str::to_owned).into()
    } else if is_url(text) {
        ["-i", text].map(str::to_owned).into()
    } else {
        vec!["-i".to_owned(), format!("file:{text}")]
    }
}

fn is_rgb(format: PixelFormat) -> bool {
    use PixelFormat::{Bgr24, Bgra, Rgb24, Rgb48le, Rgba, Rgbaf16le};
    matches!(format, Rgb24 | Bgr24 | Rgba | Bgra | Rgb48le | Rgbaf16le)
}
