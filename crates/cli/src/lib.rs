//! The `frameport` command: run a worker on video, see it work, see what the machine lacks.
//!
//! *What it is*: [`main`], behind the `frameport` program and `python -m frameport` alike. *Who calls it*: those two.
//! *Invariants*: stdout carries only what was asked for (y4m, JSON, help, the doctor's and the demo's words), everything
//! else goes to stderr; one message per failure, with the remedy; nothing started outlives it.
//! *A hostile worker* reaches the terminal with what it writes to stderr, as any program started there does.
#![forbid(unsafe_code)]

mod args;
mod bundled;
mod demo;
mod doctor;
pub mod media;
mod program;
mod run;
mod words;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

use self::args::{Cli, Command};
use self::program::Program;

/// It went well.
const OK: i32 = 0;
/// It did not.
const FAILED: i32 = 1;

/// Runs the command and returns its exit status: 0 success, 1 failure, 2 wrong usage, 128 + signal after a signal.
///
/// `args` is the whole command line. Python passes `[sys.executable, "-m", "frameport", ...]`, so that the bundled
/// worker of `demo` and `doctor` is started the same way; otherwise the first argument is only a name and the worker is
/// this very executable. While `run` runs it handles SIGINT, SIGTERM and SIGHUP, after which handlers installed before
/// run as well: a Python caller sets SIGINT to `SIG_DFL` first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let (program, args) = Program::split(args.into_iter().collect());
    if let Some(python) = program.python() {
        media::set_own_python(python);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) { OK } else { 2 };
        }
    };
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Demo => demo::demo(&program),
        Command::Doctor { json } => doctor::doctor(&program, json),
        Command::BundledWorker => bundled::work(),
    }
}

/// The one message of a failure.
fn complain(error: &dyn Display) {
    let mark = console::style("error:").for_stderr().red().bold();
    let _ = writeln!(std::io::stderr(), "{mark} {error}");
}
