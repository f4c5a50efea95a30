//! frameport itself: a worker in Rust (this program again) or in Python, and the two round trips measured with it.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Instant;

use frameport::spec::Spec;
use frameport::{Bytes, Delivery, Error, Frame, Link, WaitStrategy, Worker};
use frameport_mem::floor::sum;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use crate::measure::{Outcome, Turn, nanos};

const PYTHON_WORKER: &str = include_str!("worker.py");

/// What a worker is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
        }
    }
}

/// What a worker does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Sends the very slot back, untouched.
    Echo,
    /// Reads every byte and fills a whole answer.
    Whole,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Whole => "whole",
        }
    }
}

/// The Python to use, and its versions for the report.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    program: String,
    pub(crate) versions: String,
}

impl Python {
    /// Looks for an interpreter with the package and NumPy.
    pub(crate) fn find() -> Result<Self, String> {
        let program = std::env::var("FRAMEPORT_PYTHON").unwrap_or_else(|_| ".venv/bin/python".to_owned());
        let ask = "import sys, numpy, frameport as f\n\
                   print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, \
                   'frameport', getattr(f, '__version__', '?'))";
        let ran = Command::new(&program).args(["-c", ask]).stdin(Stdio::null()).output();
        let ran = ran.map_err(|error| format!("{program} does not run: {error}"))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            return Err(format!("{program}: {}", said.lines().last().unwrap_or("it failed")));
        }
        Ok(Self { program, versions: String::from_utf8_lossy(&ran.stdout).trim().to_owned() })
    }
}

/// A worker and its host's side.
pub(crate) struct Linked {
    worker: Worker,
    pid: Pid,
    part: Part,
}

impl Linked {
    /// Starts a worker; `python` unless it is one in Rust.
    pub(crate) fn start(
        python: Option<&Python>,
        part: Part,
        wait: WaitStrategy,
        spec: &Spec,
        slots: u32,
    ) -> Outcome<Self> {
        let command = match python {
            Some(python) => Worker::command(&python.program).args(["-c", PYTHON_WORKER]),
            None => Worker::command(std::env::current_exe()?).arg("worker"),
        };
        let command = command.arg(part.name()).name(format!("{} {wait:?}", part.name())).slots(slots).wait(wait);
        let worker =
            command.input("in", spec.clone(), Delivery::Lossless).output("out", spec.clone(), Delivery::Lossless);
        let worker = worker.spawn()?;
        let pid = i32::try_from(worker.pid()).ok().and_then(Pid::from_raw).ok_or("a worker without a pid")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Self { worker, pid, part })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn run(&mut self, turn: Turn, times: &mut Vec<u64>) -> Outcome<()> {
        let Self { worker, part, .. } = self;
        turn.run(times, || {
            worker.send(worker.loan()?)?;
            let answer = worker.recv()?;
            if *part == Part::Whole {
                read(answer.payload());
            }
            Ok(())
        })
    }

    /// Lets a worker that answers whole do both sides' work alone, on the same memory, `rounds` times; ns of each.
    pub(crate) fn run_alone(&mut self, rounds: u64) -> Outcome<Vec<u64>> {
        let mut frame = self.worker.loan()?;
        frame.set_meta(&Map::from_iter([("alone".to_owned(), rounds.into())]));
        self.worker.send(frame)?;
        let meta = self.worker.recv()?.meta()?;
        let times = meta.get("ns").and_then(Value::as_array).ok_or("the worker sent no times")?;
        Ok(times.iter().filter_map(Value::as_u64).collect())
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // Stopped, it could not leave in order.
        let _ = kill_process(self.pid, Signal::CONT);
    }
}

fn read(bytes: Bytes<'_>) {
    black_box(sum(bytes));
}

/// The worker in Rust.
pub(crate) fn worker(part: &str) -> Outcome<()> {
    let link = Link::from_env()?;
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if part == Part::Echo.name() { link.send_back(frame)? } else { answer(&link, &frame)? }
    }
}

fn answer(link: &Link, frame: &Frame) -> Outcome<()> {
    let mut reply = link.reply(frame)?;
    let write = || if reply.payload().copy_from_bytes(frame.payload()) { Ok(()) } else { Err("the answer differs") };
    if let Some(rounds) = frame.meta()?.get("alone").and_then(Value::as_u64) {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            write()?;
            read(reply.payload());
            times.push(nanos(start.elapsed()));
        }
        reply.set_meta(&Map::from_iter([("ns".to_owned(), json!(times))]));
    } else {
        write()?;
    }
    link.send(reply)?;
    Ok(())
}
