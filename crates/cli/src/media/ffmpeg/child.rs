//! One running ffmpeg and what it says.
//!
//! *What it is*: the process, its drained stderr, and its end. *Who calls it*: the decoder and the encoder. *Invariants*:
//! dropping it kills the process; killing it from another thread never blocks. *A hostile input* chooses what ffmpeg
//! prints: at most [`KEPT_LINES`] lines of at most [`LONGEST_LINE`] bytes are kept of it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::MediaError;

const KEPT_LINES: usize = 400;
const LONGEST_LINE: u64 = 1000;
/// The most sizes that are remembered of an input that changes its.
const KEPT_SIZES: usize = 4;
/// How long the description is waited for once frames come: it has been printed by then, in words known here or not.
const HEAD_TIME: Duration = Duration::from_secs(5);

pub(super) struct Ffmpeg {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    process: Arc<Mutex<Child>>,
    said: Arc<Said>,
    listener: Option<JoinHandle<()>>,
}

/// Its stderr so far.
#[derive(Default)]
struct Said {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Default)]
struct Text {
    /// Everything up to the start of the output: the description of the inputs and outputs.
    head: Vec<String>,
    /// `[error]` and `[fatal]` lines: the first few.
    errors: Vec<String>,
    error_count: u64,
    head_done: bool,
    /// Sizes the input changed to in the middle, each once.
    sizes: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ffmpeg {
    /// Starts it with messages marked by their level; stdin, stdout as told.
    pub(super) fn start(ffmpeg: &Path, arguments: &[String], stdin: Stdio, stdout: Stdio) -> Result<Self, MediaError> {
        let mut command = Command::new(ffmpeg);
        command.args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+info"]).args(arguments);
        command.env_remove("AV_LOG_FORCE_COLOR").env("AV_LOG_FORCE_NOCOLOR", "1");
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        let wrong = |source| MediaError::FfmpegStart { path: ffmpeg.display().to_string(), source };
        let mut process = command.spawn().map_err(wrong)?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let said = Arc::new(Said::default());
        let heard = Arc::clone(&said);
        let process = Arc::new(Mutex::new(process));
        let mut running = Self { stdin, stdout, process, said, listener: None };
        if let Some(stderr) = stderr {
            let listener = std::thread::Builder::new().name("ffmpeg-messages".to_owned());
            running.listener = Some(listener.spawn(move || heard.listen(stderr)).map_err(wrong)?);
        }
        Ok(running)
    }

    /// A function that ends it from any thread.
    pub(super) fn killer(&self) -> impl Fn() + Send + Sync + 'static {
        let process = Arc::clone(&self.process);
        move || drop(lock(&process).kill())
    }

    /// Waits for the description of inputs and outputs, and gives it.
    pub(super) fn head(&self) -> Vec<String> {
        let text = lock(&self.said.text);
        let waited = self.said.changed.wait_timeout_while(text, HEAD_TIME, |text| !text.head_done);
        waited.unwrap_or_else(PoisonError::into_inner).0.head.clone()
    }

    /// Waits for its end. Close `stdin` and read `stdout` to the end first.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        // The end of stderr is the end of the process, so that the lock is not held while it still runs.
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
        lock(&self.process).wait().ok()
    }

    /// The first errors it reported, as one line, and how many more there were. Call after [`Ffmpeg::wait`].
    pub(super) fn errors(&self) -> Option<String> {
        let text = lock(&self.said.text);
        let shown = u64::try_from(text.errors.len()).unwrap_or(0);
        let first = (shown > 0).then(|| text.errors.join("; "))?;
        let more = text.error_count.saturating_sub(shown);
        Some(if more > 0 { format!("{first} (and {more} more messages)") } else { first })
    }

    /// The sizes the input changed to in the middle, as one phrase. Call after [`Ffmpeg::wait`].
    pub(super) fn other_sizes(&self) -> Option<String> {
        Some(lock(&self.said.text).sizes.join(", ")).filter(|sizes| !sizes.is_empty())
    }

    /// Why it ended badly: its first errors, for those after them only follow.
    pub(super) fn failure(&self, status: Option<ExitStatus>) -> String {
        let first = lock(&self.said.text).errors.join("; ");
        if first.contains("matches no streams") {
            return "there is no video stream in it".to_owned();
        }
        Some(first).filter(|first| !first.is_empty()).unwrap_or_else(|| {
            status.map_or("ffmpeg is gone".to_owned(), |status| format!("ffmpeg ended with {status} and said nothing"))
        })
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        drop((self.stdin.take(), self.stdout.take()));
        drop(lock(&self.process).kill());
        let _ = self.wait();
    }
}

impl Said {
    fn listen(&self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            match stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.take(String::from_utf8_lossy(&line).trim_end()),
            }
        }
        lock(&self.text).head_done = true;
        self.changed.notify_all();
    }

    fn take(&self, line: &str) {
        let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut text = lock(&self.text);
        if clean.contains("[error]") || clean.contains("[fatal]") {
            text.error_count += 1;
            let error = without_marks(&clean);
            if text.errors.len() < 2 && !text.errors.contains(&error) {
                text.errors.push(error);
            }
        }
        // "… because video parameters changed to yuv420p(tv, bt709), 160x128, …", of ffmpeg 6.1 and newer.
        if let Some((_, changed)) = clean.split_once("parameters changed to ") {
            let is_size = |word: &&str| word.split_once('x').is_some_and(|(w, h)| is_number(w) && is_number(h));
            let size = changed.split(", ").find(is_size).map(str::to_owned);
            let new = size.filter(|size| text.sizes.len() < KEPT_SIZES && !text.sizes.contains(size));
            text.sizes.extend(new);
        }
        if !text.head_done {
            // Once the output's stream is described, all is said.
            let is_output = text.head.iter().any(|line| line.starts_with("[info] Output #0"));
            text.head_done = is_output && clean.trim_start_matches("[info]").trim_start().starts_with("Stream #0:0");
            if text.head.len() < KEPT_LINES {
                text.head.push(clean);
            }
            if text.head_done {
                self.changed.notify_all();
            }
        }
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `[h264 @ 0x55d0] [error] no frame!` without what only ffmpeg's authors need.
fn without_marks(line: &str) -> String {
    let mut rest = line.trim();
    while let Some((mark, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        if !(mark.contains(" @ ") || matches!(mark, "error" | "fatal")) {
            break;
        }
        rest = after.trim_start();
    }
    rest.trim_end_matches(['.', ' ']).to_owned()
}
