//! What is said at the end, to a person or as JSON.
//!
//! *Who calls it*: the run loop, once. *Invariants*: the JSON's fields stay; a field without a value is null.
//! *A hostile worker* can put any text into the error.

use std::io::{self, Write};

use serde::Serialize;

use super::flight::Figures;
use crate::words;

/// Why it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cause {
    /// The input came to its end, and the worker answered or passed over every frame.
    #[default]
    Input,
    /// The worker left, in order, before the input's end.
    Worker,
    /// Whoever reads standard output did.
    Output,
    /// A signal.
    Signal,
    /// Something went wrong; `error` says what.
    Error,
}

/// One run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) ended: Cause,
    pub(super) error: Option<String>,
    pub(super) input: String,
    pub(super) output: Option<String>,
    /// Whether the output was completed.
    pub(super) written: bool,
    pub(super) command: Vec<String>,
    /// What went to the worker and what came back, as text.
    pub(super) input_spec: Option<String>,
    pub(super) output_spec: Option<String>,
    /// From starting the worker to its first `recv`.
    pub(super) ready_seconds: f64,
    /// From the first frame sent to the last one sent or received.
    pub(super) seconds: f64,
    pub(super) fps: f64,
    /// `lossless`, `latest` or `newest:N`.
    pub(super) delivery: String,
    /// Frames the input gave: `received - extra + dropped + retracted + missed + unanswered + lost`.
    pub(super) offered: u64,
    pub(super) sent: u64,
    /// Frames the worker took.
    pub(super) taken: u64,
    /// Frames that came back: answers and extra ones.
    pub(super) received: u64,
    pub(super) extra: u64,
    pub(super) dropped: u64,
    /// Frames sent on a live delivery and taken back for newer ones before the worker took them.
    pub(super) retracted: u64,
    /// Frames of a live delivery that found no slot and were not sent.
    pub(super) missed: u64,
    /// Frames sent whose fate the end left open.
    pub(super) unanswered: u64,
    /// Frames sent that the worker had not answered when it died.
    pub(super) lost: u64,
    /// Workers that replaced a dead one.
    pub(super) restarts: u64,
    pub(super) latency_us: Option<Latency>,
    pub(super) isolation: String,
    pub(super) exit: Option<String>,
    pub(super) notes: Vec<String>,
}

/// From send to receive, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Summary {
    /// Takes over what was counted. A worker that died has taken along what was on its way.
    pub(super) fn count(&mut self, figures: &Figures, died: bool) {
        let counts = figures.counts;
        self.seconds = figures.span_ns as f64 / 1e9;
        self.fps = figures.fps();
        (self.sent, self.received, self.extra) = (counts.sent, counts.results(), counts.extra);
        (self.dropped, self.missed) = (counts.dropped, counts.missed);
        let under_way = counts.under_way();
        (self.offered, self.retracted) = (counts.offered(), counts.retracted);
        (self.unanswered, self.lost) = if died { (0, counts.lost + under_way) } else { (under_way, counts.lost) };
        self.latency_us = figures.latency.map(|ns| {
            let [p50, p99, p999, max] = ns.map(|ns| ns as f64 / 1e3);
            Latency { p50, p99, p999, max }
        });
    }

    /// As one JSON object on a line, on stdout unless that carries video.
    pub(super) fn print_json(&self) -> io::Result<()> {
        let line = serde_json::to_string(self).map_err(io::Error::other)?;
        if self.output.as_deref() == Some("-") {
            writeln!(io::stderr(), "{line}")
        } else {
            writeln!(io::stdout(), "{line}")
        }
    }

    /// For a person, on stderr.
    pub(super) fn print(&self) -> io::Result<()> {
        let bold = |text: String| console::style(text).for_stderr().bold().to_string();
        let dim = |text: &str| console::style(format!("{text:<10}")).for_stderr().dim().to_string();
        let mut out = io::stderr().lock();
        let time = |seconds: f64| words::time((seconds * 1e9).round() as u64);
        let frames = if self.received > 0 { self.received } else { self.taken };
        let what = if frames == 1 { "frame" } else { "frames" };
        let fate = if self.received > 0 { "" } else { " taken, none sent back," };
        let head = match self.sent {
            0 => "no frames came".to_owned(),
            _ => format!("{} {what}{fate} in {}, {:.1} fps", words::count(frames), time(self.seconds), self.fps),
        };
        writeln!(out, "{}", bold(head))?;
        match (&self.input_spec, &self.output_spec) {
            (Some(input), Some(output)) if input != output => writeln!(out, "  {}{input} → {output}", dim("video"))?,
            (Some(input), _) => writeln!(out, "  {}{input}", dim("video"))?,
            _ => {}
        }
        if let Some(Latency { p50, p99, max, .. }) = self.latency_us {
            let [p50, p99, max] = [p50, p99, max].map(|us| time(us / 1e6));
            writeln!(
                out,
                "  {}p50 {p50}, p99 {p99}, longest {max}, from send to receive, queues included",
                dim("latency")
            )?;
        }
        let lost = [
            (if self.retracted + self.missed > 0 { self.offered } else { 0 }, "offered"),
            (self.retracted, "taken back for newer ones"),
            (if self.received > 0 { self.dropped } else { 0 }, "dropped by the worker"),
            (self.missed, "missed because the worker was busy"),
            (self.extra, "more than were sent"),
            (self.unanswered, "still with the worker at the end"),
            (self.lost, "lost with the worker"),
        ];
        if self.restarts > 0 {
            writeln!(out, "  {}{}", dim("workers"), words::count(self.restarts) + " replaced after a death")?;
        }
        let lost: Vec<String> = lost
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, fate)| format!("{} {fate}", words::count(number)))
            .collect();
        if !lost.is_empty() {
            writeln!(out, "  {}{}", dim("frames"), lost.join(", "))?;
        }
        if let Some(output) =
            self.output.as_deref().filter(|output| *output != "-" && self.written && self.received > 0)
        {
            writeln!(out, "  {}{output}", dim("written"))?;
        }
        Ok(())
    }
}
