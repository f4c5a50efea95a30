//! Round trips between two processes beside the floors of the same run.
//!
//! *Who calls it*: `make bench`. Everything that is compared is measured in turns, a few thousand round trips each, so
//! that whatever else the machine does hits all alike: trust the ratios. The peers are this program again (and Python),
//! stopped by SIGSTOP while it is not their turn, so that none of them burns a core beside another's measurement.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what this program is for")]

mod cores;
mod floor;
mod link;
mod machine;
mod measure;
mod report;
mod suite;

use std::process::ExitCode;
use std::time::Instant;

use measure::Outcome;

const USAGE: &str = "usage: frameport-bench [--quick] [--json FILE]

  --quick      fewer rounds: under 20 s instead of under 2 min
  --json FILE  writes every figure to FILE as well

The Python worker runs in $FRAMEPORT_PYTHON, or ./.venv/bin/python.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frameport-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    match arguments {
        ["floor", kind] => return floor::peer(kind),
        ["worker", part] => return link::worker(part),
        _ => {}
    }
    let (mut quick, mut json, mut rest) = (false, None, arguments.iter());
    while let Some(&argument) = rest.next() {
        match argument {
            "--quick" => quick = true,
            "--json" => json = Some(*rest.next().ok_or("--json needs a file name")?),
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(format!("unknown argument '{other}'\n{USAGE}").into()),
        }
    }
    let started = Instant::now();
    let results = suite::run(quick)?;
    print!("{}", report::text(&results, started.elapsed()));
    if let Some(path) = json {
        std::fs::write(path, report::json(&results)).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}
