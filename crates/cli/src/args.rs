//! The command line.
//!
//! *Who calls it*: `main`. *Invariants*: what can be checked without looking at a file is checked here, so that it
//! comes with usage and status 2.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};
use frameport::Delivery;
use frameport::spec::PixelFormat;
use frameport_wire::layout::MAX_SLOTS;

const EXAMPLES: &str = "\
Examples:
  frameport run --input clip.mp4 --output out.mp4 -- python worker.py
  frameport run --input pattern:1920x1080@60:600 --json -- ./worker
  ffmpeg -i clip.mkv -f yuv4mpegpipe - | frameport run --input - --output - -- python worker.py | ffplay -";

/// Exchange video frames with worker processes, zero-copy.
#[derive(Debug, Parser)]
#[command(name = "frameport", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a worker, feed it video, show how fast it is and keep what it makes
    #[command(after_help = EXAMPLES, override_usage = "frameport run [OPTIONS] -- CMD...")]
    Run(RunArgs),
    /// See it work in a few seconds: speed, proof that every byte arrives, a killed worker
    Demo,
    /// Check this machine, and say how to mend what is missing
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(hide = true, name = crate::program::BUNDLED_WORKER)]
    BundledWorker,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A video file, /dev/videoN, a URL, `-` for y4m on stdin, or pattern[:WIDTHxHEIGHT][@FPS][:FRAMES]
    #[arg(short, long, value_name = "SRC", default_value = "pattern:1280x720@30:300")]
    pub(crate) input: String,
    /// A video file, or `-` for y4m on stdout; without it the results are received and dropped
    #[arg(short, long, value_name = "DST")]
    pub(crate) output: Option<String>,
    /// Pixel format of the frames, FFmpeg's name [default: bgr24; for y4m its own]
    #[arg(short, long, value_name = "PIX_FMT")]
    pub(crate) format: Option<PixelFormat>,
    /// For a worker slower than the input: `lossless`, it gets every frame and the input waits for it; `latest` or `newest:N`,
    /// it gets the newest or the N newest and nothing waits for it, files and the pattern playing in real time, stdin as it
    /// comes [default: latest for /dev/videoN and for URLs without an end, lossless for all else]
    #[arg(long, value_name = "DELIVERY", value_parser = delivery)]
    pub(crate) delivery: Option<Delivery>,
    /// Frames that can be on their way in each direction [default: 4, for newest:N at least N + 3]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MAX_SLOTS.into()))]
    pub(crate) slots: Option<u32>,
    /// How many workers share the frames; results stay in order, a worker that dies is replaced and its frames are redone
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub(crate) workers: u32,
    /// Start a worker that dies again: what it had is lost, the rest goes on (several workers always do)
    #[arg(long)]
    pub(crate) restart: bool,
    /// How long the worker may take until it is ready for its first frame
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) ready_timeout: Duration,
    /// Print the summary as JSON: on stdout, or on stderr where stdout carries video
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress and no summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The worker: a program and its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

fn delivery(text: &str) -> Result<Delivery, String> {
    match (text, text.strip_prefix("newest:").map(str::parse)) {
        ("lossless", _) => Ok(Delivery::Lossless),
        ("latest", _) => Ok(Delivery::Latest),
        (_, Some(Ok(depth))) if (1..MAX_SLOTS).contains(&depth) => Ok(Delivery::Newest(depth)),
        (_, Some(_)) => Err(format!("newest:1 to newest:{} are possible", MAX_SLOTS - 1)),
        _ => Err("it is lossless, latest or newest:N".to_owned()),
    }
}

/// A delivery as one asks for it.
pub(crate) fn delivery_name(delivery: Delivery) -> String {
    match delivery {
        Delivery::Lossless => "lossless".to_owned(),
        Delivery::Latest => "latest".to_owned(),
        Delivery::Newest(depth) => format!("newest:{depth}"),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("more than 0 seconds are needed".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistyped_option_is_not_taken_for_the_worker() {
        for words in [&["frameport", "run", "--inptu", "a", "--", "w"][..], &["frameport", "run", "-x"]] {
            assert!(Cli::try_parse_from(words).unwrap_err().to_string().contains("unexpected argument"));
        }
    }

    #[test]
    fn a_delivery_is_read_as_it_is_named() {
        for name in ["lossless", "latest", "newest:1", "newest:3"] {
            assert_eq!(delivery(name).map(delivery_name).as_deref(), Ok(name));
        }
        for wrong in ["", "newest", "newest:", "newest:0", "newest:-1", "newest:99999999999", "Latest", "latest:2"] {
            assert!(delivery(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_workers_arguments_are_its_own() {
        for dashes in [&["--"][..], &[]] {
            let words = ["frameport", "run", "--input", "a"].iter().chain(dashes).chain(&["python", "w.py", "--json"]);
            let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else { panic!("run") };
            assert_eq!(args.command, ["python", "w.py", "--json"]);
            assert!(!args.json);
        }
    }
}
