//! Programs beside frameport, and frameport itself.
//!
//! *Who calls it*: the doctor. *Invariants*: what is started is waited for. A Python on PATH is run as it is found.

use std::ffi::OsString;
use std::process::Command;
use std::time::Instant;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error};

use super::Finding;
use crate::media::{self, MediaError};
use crate::program::Program;
use crate::words;

/// A worker, a frame there and back: all of it together.
pub(super) fn link(program: &Program) -> Finding {
    match round_trip(program) {
        Ok(text) => Finding::ok("link", text),
        Err(error) => {
            Finding::fail("link", error.to_string(), "see the lines above; with FRAMEPORT_LINK unset, try again")
        }
    }
}

fn round_trip(program: &Program) -> Result<String, Error> {
    let spec = VideoSpec::new(PixelFormat::Bgr24, 640, 480);
    let started = Instant::now();
    let worker = program.bundled_worker();
    let worker = worker.input("in", &spec, Delivery::Lossless).output("out", &spec, Delivery::Lossless).spawn()?;
    let ready = started.elapsed();
    let mut best = u64::MAX;
    for _ in 0..100 {
        let sent = frameport::now();
        worker.send(worker.loan()?)?;
        drop(worker.recv()?);
        best = best.min(frameport::now().saturating_sub(sent));
    }
    worker.stop()?;
    let ready = u64::try_from(ready.as_nanos()).unwrap_or(u64::MAX);
    Ok(format!("a worker was ready in {}, a frame there and back in {}", words::time(ready), words::time(best)))
}

pub(super) fn ffmpeg() -> Finding {
    match media::find_ffmpeg() {
        Ok(path) => Finding::ok("ffmpeg", path.display().to_string()),
        Err(error) => {
            let found =
                if let MediaError::FfmpegMissing { found } = &error { found.clone() } else { error.to_string() };
            let fix = "apt install ffmpeg or pip install imageio-ffmpeg, for video files and cameras";
            Finding::warn("ffmpeg", found, fix)
        }
    }
}

/// Prints version, NumPy's and frameport's, each on a line; empty for none.
const ASK: &str = "
import sys
print('%d.%d.%d' % sys.version_info[:3])
for name in ('numpy', 'frameport'):
    try:
        print(__import__(name).__version__)
    except Exception:
        print()
";

pub(super) fn python(program: &Program) -> Vec<Finding> {
    const OLDEST: (u32, u32) = (3, 11);
    let python = program.python().cloned().unwrap_or_else(|| OsString::from("python3"));
    let shown = python.to_string_lossy().into_owned();
    let answer = Command::new(&python).args(["-c", ASK]).output();
    let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else {
        return vec![Finding::warn(
            "python",
            format!("no {shown}"),
            "only needed for workers in Python: 3.11 or newer",
        )];
    };
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut lines = text.lines().map(str::trim);
    let (version, numpy, package) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut numbers = version.split('.').filter_map(|number| number.parse().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let mut findings = vec![if found < OLDEST {
        Finding::warn("python", format!("{version} ({shown})"), "workers in Python need 3.11 or newer")
    } else {
        Finding::ok("python", format!("{version} ({shown})"))
    }];
    findings.push(if numpy.is_empty() {
        Finding::warn("numpy", format!("not there for {shown}"), "pip install numpy: frames are then arrays")
    } else {
        Finding::ok("numpy", numpy)
    });
    findings.push(if package.is_empty() {
        Finding::warn("package", format!("no frameport for {shown}"), "pip install frameport, for workers in Python")
    } else {
        Finding::ok("package", format!("frameport {package} for Python"))
    });
    findings
}
