//! What a person sees while it runs.
//!
//! *What it is*: a progress bar on a terminal, a line every few seconds elsewhere, and the worker's words above them.
//! *Who calls it*: the run loop; the worker's words come on a thread of their own. *Invariants*: all of it on stderr;
//! nothing but the worker's words when asked to be quiet. *A hostile worker* writes what it likes to its stderr.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::flight::Figures;
use crate::words;

/// Between two lines where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
/// The time the shown rate is a mean of.
const RATE: Duration = Duration::from_secs(2);
/// A worker's line is shown in parts when it is longer.
const LONGEST_LINE: usize = 8192;

pub(super) struct Screen {
    bar: ProgressBar,
    quiet: bool,
    last_line: Instant,
    recent: VecDeque<(Instant, u64)>,
    worker_words: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    pub(super) fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let bar = ProgressBar::with_draw_target(None, target);
        Self { bar, quiet, last_line: Instant::now(), recent: VecDeque::new(), worker_words: Arc::default() }
    }

    /// Says what is waited for before the first frame.
    pub(super) fn waiting(&self, text: &str) {
        self.bar.set_style(style("{spinner:.cyan} {msg}"));
        self.bar.set_message(text.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Begins to show figures; `total` is about how many frames there will be.
    pub(super) fn begin(&mut self, total: Option<u64>) {
        self.last_line = Instant::now();
        match total.filter(|&total| total > 0) {
            Some(total) => {
                self.bar.set_length(total);
                self.bar.set_style(style("{bar:20.cyan/dim} {pos}/{len}  {msg}").progress_chars("━╸─"));
            }
            None => self.bar.set_style(style("{spinner:.cyan} {pos} frames  {msg}")),
        }
    }

    /// Shows the figures of this moment.
    pub(super) fn update(&mut self, figures: &Figures) {
        let counts = figures.counts;
        // What the worker had; then what it did not get is done with as well.
        let had = if counts.results() > 0 { counts.answered + counts.dropped } else { counts.sent - counts.retracted };
        let done = had + counts.retracted + counts.missed;
        let now = Instant::now();
        while self.recent.front().is_some_and(|(then, _)| now - *then > RATE) && self.recent.len() > 1 {
            self.recent.pop_front();
        }
        let rate = self
            .recent
            .front()
            .map_or(0.0, |(then, before)| (had.saturating_sub(*before)) as f64 / (now - *then).as_secs_f64().max(1e-3));
        self.recent.push_back((now, had));
        let mut text = format!("{rate:.1} fps");
        if let Some([p50, p99, ..]) = figures.latency {
            text.push_str(&format!("  latency p50 {} p99 {}", words::time(p50), words::time(p99)));
        }
        let dropped = if counts.results() > 0 { counts.dropped } else { 0 };
        for (number, name) in [(dropped, "dropped"), (counts.retracted, "taken back"), (counts.missed, "missed")] {
            if number > 0 {
                text.push_str(&format!("  {number} {name}"));
            }
        }
        if !self.bar.is_hidden() {
            self.bar.set_position(done);
            self.bar.set_message(text);
        } else if !self.quiet && now - self.last_line >= LINES {
            self.last_line = now;
            self.say(&format!("{done} frames  {text}"));
        }
    }

    /// A line that stays, above the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// A remark, unless it is to be quiet.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.say(&format!("{} {text}", console::style("note:").for_stderr().yellow()));
        }
    }

    /// Whether a person wants to see nothing.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Where the worker's stderr goes: whole lines above the bar, or straight on where there is none.
    pub(super) fn worker_words(&self) -> impl Fn(&[u8]) + Send + Sync + 'static {
        let (bar, kept) = (self.bar.clone(), Arc::clone(&self.worker_words));
        move |bytes| {
            if bar.is_hidden() {
                let _ = std::io::stderr().write_all(bytes);
                return;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(bytes);
            let end = kept.iter().rposition(|&byte| byte == b'\n').map(|newline| newline + 1);
            let end = end.or((kept.len() > LONGEST_LINE).then_some(kept.len()));
            if let Some(end) = end {
                let lines: Vec<u8> = kept.drain(..end).collect();
                bar.suspend(|| {
                    let _ = std::io::stderr().write_all(&lines);
                });
            }
        }
    }

    /// Takes the bar away and shows what the worker left in the middle of a line.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
        let rest = std::mem::take(&mut *self.worker_words.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            self.say(&String::from_utf8_lossy(&rest));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
