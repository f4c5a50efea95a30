//! `frameport doctor`: what this machine offers, and what to do about the rest.
//!
//! *Who calls it*: `main`. [`system`] looks at the kernel and its limits, [`tools`] at programs and at frameport itself.
//! *Invariants*: nothing is changed; every finding that is not fine comes with what to do; the JSON's fields stay.
//! No worker but the bundled one takes part.

mod system;
mod tools;

use std::io::{self, Write};

use serde::Serialize;

use crate::program::Program;

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It works, with less speed, safety or comfort.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    status: Status,
    detail: String,
    /// What to do, unless all is well.
    fix: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), fix: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Everything found, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    ok: bool,
    checks: Vec<Finding>,
}

/// Looks, reports and returns the exit status: 1 if something does not work.
pub(crate) fn doctor(program: &Program, json: bool) -> i32 {
    let mut checks = Vec::new();
    for check in system::CHECKS {
        checks.push(check());
    }
    checks.push(tools::link(program));
    checks.push(tools::ffmpeg());
    checks.extend(tools::python(program));
    let ok = checks.iter().all(|check| check.status != Status::Fail);
    let report = Report { version: env!("CARGO_PKG_VERSION"), ok, checks };
    let printed = if json { print_json(&report) } else { print(&report) };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            crate::complain(&format_args!("printing failed: {error}"));
            crate::FAILED
        }
        _ if ok => crate::OK,
        _ => crate::FAILED,
    }
}

fn print_json(report: &Report) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{text}")
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let title = console::style(format!("frameport {} doctor", report.version)).bold();
    writeln!(out, "\n{title}\n")?;
    for Finding { name, status, detail, fix } in &report.checks {
        let mark = match status {
            Status::Ok => console::style("✓").green(),
            Status::Warn => console::style("!").yellow().bold(),
            Status::Fail => console::style("✗").red().bold(),
        };
        writeln!(out, "  {mark} {}  {detail}", console::style(format!("{name:<12}")).bold())?;
        if let Some(fix) = fix {
            writeln!(out, "                  {} {fix}", console::style("→").dim())?;
        }
    }
    let count = |status| report.checks.iter().filter(|check| check.status == status).count();
    let verdict = match (count(Status::Fail), count(Status::Warn)) {
        (0, 0) => "all fine".to_owned(),
        (0, warnings) => format!("works; {warnings} could be better"),
        (failures, _) => format!("{failures} to mend"),
    };
    writeln!(out, "\n  {verdict}\n")
}
