//! What the tests of the command share: running it, and workers that are the test program itself.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]
#![expect(clippy::print_stderr, reason = "what a worker says")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio};

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Error, Frame, Link};
use serde_json::Value;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub(crate) use system::*;

const ROLE: &str = "FRAMEPORT_CLI_TEST_ROLE";

/// Names the pipe a worker reads to its end before it goes on.
pub(crate) const GATE: &str = "FRAMEPORT_CLI_TEST_GATE";

/// The command.
pub(crate) fn frameport(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frameport"));
    command.args(words).stdin(Stdio::null()).env_remove(ROLE);
    command
}

/// `frameport run` with these options and this test program in the part `role` as worker.
pub(crate) fn run(options: &[&str], role: &str) -> Command {
    let mut command = frameport(&["run"]);
    command.args(options).arg("--").arg(std::env::current_exe().unwrap());
    command.args(["worker_process", "--exact", "--nocapture", "--quiet"]).env(ROLE, role);
    command
}

/// Runs it with `input` on stdin.
pub(crate) fn pipe(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // The reader may leave early.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What it says on stderr.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The summary on stdout.
pub(crate) fn summary(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text:?}, {}", said(output)))
}

/// A path in a folder of its own for each test.
pub(crate) fn place(test: &str, file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli").join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(file).to_str().unwrap().to_owned()
}

/// y4m of 6 x 4 pixels with parameters of all kinds; each frame has a tag of its own.
pub(crate) fn y4m(frames: u8) -> Vec<u8> {
    let mut stream = b"YUV4MPEG2 W6 H4 F30000:1001 Ip A128:117 C420mpeg2 XYSCSS=420MPEG2 Xodd=one\n".to_vec();
    for frame in 0..frames {
        stream.extend_from_slice(&y4m_frame(frame));
    }
    stream
}

/// Frame `frame` of it.
pub(crate) fn y4m_frame(frame: u8) -> Vec<u8> {
    let mut bytes = format!("FRAME Ixyz Xn={frame}\n").into_bytes();
    bytes.extend((0..36).map(|index| (index * 7) ^ frame));
    bytes
}

/// A run in the background, its worker known by the line it writes at its first frame.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) worker: u32,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    /// Starts it and waits until the worker has its first frame.
    pub(crate) fn start(mut command: Command) -> Self {
        Self::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Starts it with `input` on stdin, which stays open, and waits until the worker has its first frame.
    pub(crate) fn start_fed(mut command: Command, input: &[u8]) -> (Self, ChildStdin) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        (Self::of(child), stdin)
    }

    fn of(mut child: Child) -> Self {
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        let worker = loop {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the worker never got a frame: {all}");
            all.push_str(&line);
            if let Some(pid) = line.trim().strip_prefix("worker has a frame, pid ") {
                break pid.parse().unwrap();
            }
        };
        Self { child, worker, stderr }
    }

    pub(crate) fn interrupt(&self) {
        signal(self.child.id(), "INT");
    }

    /// Waits for a line of its stderr that contains `part`.
    pub(crate) fn await_line(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "no line with {part:?}");
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        let mut stderr = Vec::new();
        self.stderr.read_to_end(&mut stderr).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        output.stderr = stderr;
        output
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// The workers: call it in a test named `worker_process`.
pub(crate) fn work() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut link = Link::builder();
    if role == "grey" {
        link = link.output(VideoSpec::new(PixelFormat::Gray, 2, 2));
    }
    let link = link.connect().unwrap();
    let (mut hoard, mut first) = (Vec::new(), None);
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => panic!("{error}"),
        };
        let seq = frame.seq();
        let first = *first.get_or_insert(seq);
        if seq == 0 {
            eprintln!("worker has a frame, pid {}", std::process::id());
        }
        match role.as_str() {
            "echo" | "bad_end" => link.send_back(frame).unwrap(),
            "every_other" if seq % 2 == 0 => link.send_back(frame).unwrap(),
            "silent" | "every_other" => {}
            // It answers its first frame when the test lets it, and the others at once.
            "gated" => {
                if seq == 0 {
                    std::fs::read(std::env::var_os(GATE).unwrap()).unwrap();
                }
                link.send_back(frame).unwrap();
            }
            "hoard" => {
                eprintln!("worker keeps frame {seq}");
                hoard.push(frame);
            }
            "grey" => grey(&link, &frame),
            // With whatever it got first.
            "die" => std::process::exit(7),
            "crash" if seq == 3 => {
                eprintln!("something is wrong with frame 3");
                std::process::exit(7);
            }
            "crash_once" if seq >= 3 && first < 3 => {
                eprintln!("something was wrong with frame 3");
                std::process::exit(7);
            }
            "leave" if seq == 3 => return,
            "crash" | "crash_once" | "leave" => link.send_back(frame).unwrap(),
            // It answers two frames, then none, and does not even leave when asked to.
            "stuck" if seq < 2 => link.send_back(frame).unwrap(),
            "stuck" => {
                eprintln!("worker is stuck");
                loop {
                    std::thread::park();
                }
            }
            other => panic!("no role {other}"),
        }
    }
    if role == "bad_end" {
        drop(link);
        eprintln!("could not save the results");
        std::process::exit(9);
    }
}

fn grey(link: &Link, frame: &Frame) {
    let mut reply = link.reply(frame).unwrap();
    reply.fill(&[b'g'; 4]).unwrap();
    link.send(reply).unwrap();
}
