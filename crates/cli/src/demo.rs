//! `frameport demo`: a few seconds that show what frameport does.
//!
//! *Who calls it*: `main`. *Invariants*: needs nothing but this command; every figure shown was just measured; a single
//! wrong byte is a failure. *A hostile worker* does not come into it: the worker is this program.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Worker};
use frameport_sys::limits;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Map;

use crate::bundled;
use crate::program::Program;
use crate::words;

const ROUND_TRIPS: Duration = Duration::from_millis(2000);
const CHECKS: Duration = Duration::from_millis(2500);
const REFRESH: Duration = Duration::from_millis(100);
/// Longest round trip told apart from longer ones.
const LONGEST_NS: u64 = 60_000_000_000;

/// Why it is not convincing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Link(#[from] Error),
    #[error("frame {seq}: {what}; please report this with the output of `frameport doctor`")]
    Wrong { seq: u64, what: &'static str },
    #[error("printing failed: {0}")]
    Print(#[from] io::Error),
}

/// Shows it and returns the exit status.
pub(crate) fn demo(program: &Program) -> i32 {
    let show = Show(ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()));
    let outcome = acts(program, &show);
    show.0.finish_and_clear();
    match outcome {
        // Whoever reads this has seen enough.
        Err(Failure::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => crate::OK,
        Err(failure) => {
            crate::complain(&failure);
            crate::FAILED
        }
        Ok(()) => crate::OK,
    }
}

fn acts(program: &Program, show: &Show) -> Result<(), Failure> {
    let spec = VideoSpec::new(PixelFormat::Bgr24, 1920, 1080).fps(60, 1);
    let size = spec.layout().map_err(Error::from)?.size;
    let title = console::style(format!("frameport {} demo", env!("CARGO_PKG_VERSION"))).bold();
    show.line(&format!("\n{title}  {spec}, {} a frame, to a worker and back\n", words::bytes(size as u64)))?;

    show.busy("starting the worker");
    let worker = start(program, &spec)?;
    let files = limits::open_files().used;
    round_trips(&worker, size, show)?;
    every_byte(&worker, size, show)?;
    let killed = sigkill(&worker, size, show)?;
    drop(worker);

    let next = start(program, &spec)?;
    next.send(next.loan()?)?;
    drop(next.recv()?);
    let after = words::time(nanos(killed.elapsed()));
    let left = limits::open_files().used.saturating_sub(files);
    let text = format!("{after} after the kill the next one had answered a frame; {left} files left open");
    show.done("restart", &text)?;
    next.stop()?;

    show.line(&format!("\n  {}  frameport run --output out.mp4 -- python worker.py   your own worker", dim("next")))?;
    show.line("        frameport doctor                                     what this machine offers\n")?;
    Ok(())
}

fn start(program: &Program, spec: &VideoSpec) -> Result<Worker, Error> {
    let worker = program.bundled_worker();
    worker.input("in", spec, Delivery::Lossless).output("out", spec, Delivery::Lossless).spawn()
}

/// One frame at a time there and back, nobody touching its pixels.
fn round_trips(worker: &Worker, size: usize, show: &Show) -> Result<(), Failure> {
    let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).ok();
    let (started, mut shown, mut frames) = (Instant::now(), Instant::now(), 0_u64);
    let mut now = started;
    while now - started < ROUND_TRIPS {
        worker.send(worker.loan()?)?;
        drop(worker.recv()?);
        let then = std::mem::replace(&mut now, Instant::now());
        if let Some(times) = &mut times {
            times.saturating_record(nanos(now - then));
        }
        frames += 1;
        if now - shown > REFRESH {
            shown = now;
            show.busy(&format!("round trip     {}", figures(times.as_ref(), frames)));
            // Drawing it is no part of the next round trip.
            now = Instant::now();
        }
    }
    let rate = frames as f64 * 2.0 * size as f64 / started.elapsed().as_secs_f64();
    show.done("round trip", &figures(times.as_ref(), frames))?;
    show.done("handed over", &format!("{}/s of pixels, by reference: 0 bytes copied", words::bytes(rate as u64)))?;
    Ok(())
}

fn figures(times: Option<&Histogram<u64>>, frames: u64) -> String {
    let at = |quantile| times.map_or("?".to_owned(), |times| words::time(times.value_at_quantile(quantile)));
    let frames = words::count(frames);
    format!("p50 {}  p99 {}  p99.9 {}   {}", at(0.5), at(0.99), at(0.999), dim(&format!("{frames} frames")))
}

/// Frames the worker reads and draws on; each byte compared with what it must be, on both sides.
fn every_byte(worker: &Worker, size: usize, show: &Show) -> Result<(), Failure> {
    let mut expected = vec![0; size];
    let (started, mut shown, mut frames, mut copied) = (Instant::now(), Instant::now(), 0_u64, 0);
    while started.elapsed() < CHECKS {
        let mut frame = worker.loan()?;
        paint(&mut expected, frames);
        frame.fill(&expected)?;
        frame.set_meta(&task(frames));
        let seq = worker.send(frame)?;
        let seen = bundled::sum(&expected);
        let back = worker.recv()?;
        let meta = back.meta()?;
        let wrong = |what| Err(Failure::Wrong { seq, what });
        if meta.get("sum").and_then(serde_json::Value::as_u64) != Some(seen) {
            return wrong("the worker read other bytes than were sent");
        }
        copied = meta.get("copied").and_then(serde_json::Value::as_u64).unwrap_or(u64::MAX);
        let rows = back.plane(0).map(|plane| (plane.layout().rows, plane.layout().row_bytes));
        if let Some((rows, row_bytes)) = rows {
            let bar = bundled::bar(seq, rows);
            bundled::invert(expected.get_mut(bar.start * row_bytes..bar.end * row_bytes).unwrap_or_default());
        }
        if back.snapshot() != expected {
            return wrong("the worker's picture came back with other bytes");
        }
        frames += 1;
        if shown.elapsed() > REFRESH {
            shown = Instant::now();
            show.busy(&format!("every byte     {frames} frames checked"));
        }
    }
    let checked = words::bytes(frames * size as u64 * 2);
    let text = format!("{frames} frames drawn on in place, {checked} compared: 0 wrong, {copied} copied");
    show.done("every byte", &text)?;
    Ok(())
}

/// Fills a picture with values that say where they are and of which frame.
fn paint(picture: &mut [u8], frame: u64) {
    let (words, rest) = picture.as_chunks_mut::<8>();
    for (index, word) in (0_u64..).zip(words) {
        *word = ((frame << 32) ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    rest.fill(frame as u8);
}

fn task(number: u64) -> Map<String, serde_json::Value> {
    Map::from_iter([("draw".to_owned(), number.into())])
}

/// Kills the worker in the middle of its work; returns when that was.
fn sigkill(worker: &Worker, size: usize, show: &Show) -> Result<Instant, Failure> {
    let mut picture = vec![0; size];
    for number in 0..3 {
        paint(&mut picture, number);
        let mut frame = worker.loan()?;
        frame.fill(&picture)?;
        frame.set_meta(&task(number));
        worker.send(frame)?;
    }
    drop(worker.recv()?);
    let killed = Instant::now();
    worker.kill();
    loop {
        match worker.recv() {
            Ok(_) => {}
            Err(Error::WorkerDied(death)) => {
                let after = words::time(nanos(killed.elapsed()));
                show.done("SIGKILL", &format!("noticed in {after}, mid-stream: {death}"))?;
                return Ok(killed);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn dim(text: &str) -> console::StyledObject<&str> {
    console::style(text).dim()
}

/// The terminal: a line that moves, above it lines that stay.
struct Show(ProgressBar);

impl Show {
    fn busy(&self, text: &str) {
        self.0.set_style(
            ProgressStyle::with_template("  {spinner:.cyan} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        self.0.set_message(text.to_owned());
        self.0.tick();
    }

    fn done(&self, name: &str, text: &str) -> io::Result<()> {
        self.line(&format!(
            "  {} {}  {text}",
            console::style("✓").green(),
            console::style(format!("{name:<12}")).bold()
        ))
    }

    fn line(&self, text: &str) -> io::Result<()> {
        self.0.suspend(|| writeln!(io::stdout(), "{text}"))
    }
}
