//! The report: tables for people, JSON for programs, and the bars beside what they are for.

use std::fmt::Write as _;
use std::time::Duration;

use frameport::WaitStrategy;
use serde_json::{Value, json};

use crate::cores::Placement;
use crate::floor::Kind;
use crate::link::Language;
use crate::measure::Percentiles;
use crate::suite::{Results, Way};

/// A worker, its wait, the floor that wait stands on, and how many times the floor a round trip may take at most.
const BARS: [(Language, WaitStrategy, Kind, f64); 6] = [
    (Language::Rust, WaitStrategy::Spin, Kind::Spin, 4.0),
    (Language::Python, WaitStrategy::Spin, Kind::Spin, 12.0),
    (Language::Rust, WaitStrategy::Adaptive, Kind::Yield, 2.0),
    (Language::Python, WaitStrategy::Adaptive, Kind::Yield, 4.0),
    (Language::Rust, WaitStrategy::Park, Kind::Futex, 1.5),
    (Language::Python, WaitStrategy::Park, Kind::Futex, 1.5),
];
/// How much the largest frame's round trip may differ from the smallest's, untouched.
const SIZE_BAR: f64 = 1.10;
/// How much longer reading and answering whole may take through a link than alone.
const WHOLE_BAR: f64 = 1.25;

/// A bare spin that is answered faster than this did not leave its core. Virtual machines do not tell otherwise.
const ONE_CORE_NS: f64 = 100.0;

/// A figure beside its bar.
struct Ratio {
    what: String,
    value: f64,
    bar: f64,
}

impl Ratio {
    fn is_met(&self) -> bool {
        self.value <= self.bar
    }
}

fn ratios(results: &Results) -> Vec<Ratio> {
    let p50 = |way, placement| {
        let found = results.latency.iter().find(|latency| latency.way == way && latency.placement == placement)?;
        Some(found.times.p50)
    };
    let mut ratios = Vec::new();
    for (language, wait, kind, bar) in BARS {
        for placement in [Placement::Two, Placement::One] {
            let way = Way::Link(language, wait);
            let Some((link, floor)) = p50(way, placement).zip(p50(Way::Floor(kind), placement)) else { continue };
            let what = format!("{}, {} / {}", way.name(), placement.name(), kind.name());
            ratios.push(Ratio { what, value: link / floor, bar });
        }
    }
    let sizes = results.sizes.iter().map(|size| size.times.p50);
    if let (Some(most), Some(least)) = (sizes.clone().reduce(f64::max), sizes.reduce(f64::min)) {
        let what = "untouched frames, slowest size / fastest".to_owned();
        ratios.push(Ratio { what, value: most / least, bar: SIZE_BAR });
    }
    for whole in &results.whole {
        let what = format!("1080p rgba read and answered whole, {} worker / alone", whole.language.name());
        ratios.push(Ratio { what, value: whole.linked.p50 / whole.alone.p50, bar: WHOLE_BAR });
    }
    ratios
}

/// The report as text.
pub(crate) fn text(results: &Results, took: Duration) -> String {
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = write_text(&mut text, results, took);
    text
}

fn write_text(out: &mut String, results: &Results, took: Duration) -> std::fmt::Result {
    let fact = |name: &str| match &results.machine[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let [cpu, cores, kernel, load] = ["cpu", "cores", "kernel", "load"].map(fact);
    writeln!(out, "{cpu}, {cores} cores, {kernel}, load {load}")?;
    writeln!(out, "frameport {}; Python worker: {}", fact("frameport"), fact("python"))?;
    for skipped in &results.skipped {
        writeln!(out, "NOT MEASURED: {skipped}")?;
    }
    let clock = results.clock_ns;
    writeln!(out, "\nround trip, 64 bytes (µs, the clock's own {clock:.0} ns taken off)")?;
    header(out)?;
    for latency in &results.latency {
        row(out, &format!("{}, {}", latency.way.name(), latency.placement.name()), latency.times)?;
    }
    if results.latency.iter().any(|latency| latency.way == Way::Floor(Kind::Spin) && latency.times.p50 < ONE_CORE_NS) {
        writeln!(out, "NOTE: these two cores are hyper-threads of one, as fast an answer says: mind the spin ratios")?;
    }
    writeln!(out, "\nround trip of an untouched frame, by size (Rust worker, default wait)")?;
    header(out)?;
    for size in &results.sizes {
        row(out, &format!("{} ({} bytes)", size.spec, size.bytes), size.times)?;
    }
    writeln!(out, "\n1080p rgba read whole and answered whole (default wait)")?;
    header(out)?;
    for whole in &results.whole {
        row(out, &format!("{} worker", whole.language.name()), whole.linked)?;
        row(out, &format!("the same work in that process alone ({})", whole.language.name()), whole.alone)?;
    }
    writeln!(out, "\n{:<66}{:>8}{:>8}", "ratio of the medians", "", "bar")?;
    for ratio in ratios(results) {
        let mark = if ratio.is_met() { "" } else { "  MISSED" };
        writeln!(out, "{:<66}{:>8.2}{:>8.2}{mark}", ratio.what, ratio.value, ratio.bar)?;
    }
    writeln!(out, "\n{:.0} s", took.as_secs_f64())
}

fn header(out: &mut String) -> std::fmt::Result {
    writeln!(out, "{:<50}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p99", "p99.9", "n")
}

fn row(out: &mut String, what: &str, times: Percentiles) -> std::fmt::Result {
    let Percentiles { count, p50, p99, p999 } = times;
    let [p50, p99, p999] = [p50, p99, p999].map(|ns| ns / 1e3);
    writeln!(out, "{what:<50}{p50:>10.2}{p99:>10.2}{p999:>10.2}{count:>10}")
}

/// The report as JSON, all times in ns.
pub(crate) fn json(results: &Results) -> String {
    let times = |times: &Percentiles| {
        let Percentiles { count, p50, p99, p999 } = *times;
        json!({"count": count, "p50": p50, "p99": p99, "p99.9": p999})
    };
    let latency = results.latency.iter().map(
        |latency| json!({"way": latency.way.name(), "cores": latency.placement.name(), "ns": times(&latency.times)}),
    );
    let sizes = results
        .sizes
        .iter()
        .map(|size| json!({"spec": size.spec.to_string(), "bytes": size.bytes, "ns": times(&size.times)}));
    let whole = results.whole.iter().map(|whole| {
        json!({"worker": whole.language.name(), "linked_ns": times(&whole.linked), "alone_ns": times(&whole.alone)})
    });
    let ratios = ratios(results);
    let ratios = ratios
        .iter()
        .map(|ratio| json!({"what": ratio.what, "value": ratio.value, "bar": ratio.bar, "met": ratio.is_met()}));
    let all = json!({
        "machine": results.machine,
        "skipped": results.skipped,
        "clock_ns": results.clock_ns,
        "latency": latency.collect::<Vec<_>>(),
        "sizes": sizes.collect::<Vec<_>>(),
        "whole": whole.collect::<Vec<_>>(),
        "ratios": ratios.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}
