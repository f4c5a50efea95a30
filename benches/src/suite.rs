//! What is measured, in turns, and what is compared with what.

use std::time::Duration;

use frameport::WaitStrategy;
use frameport::spec::{BytesSpec, PixelFormat, Spec, VideoSpec};
use rustix::process::Pid;
use serde_json::Value;

use crate::cores::{Cores, Placement};
use crate::floor::{Floor, Kind};
use crate::link::{Language, Linked, Part, Python};
use crate::machine;
use crate::measure::{Outcome, Percentiles, Turn, clock_ns};

const WARM_UP: Turn = Turn { trips: 100, time: Duration::from_millis(10) };
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Spin, WaitStrategy::Adaptive, WaitStrategy::Park];
/// Answers timed in one turn: their times fit a frame's metadata.
const ANSWERS: usize = 20;

/// What a round trip goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Floor(Kind),
    Link(Language, WaitStrategy),
}

impl Way {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Floor(kind) => format!("floor: {}", kind.name()),
            Self::Link(language, wait) => format!("{} worker, {wait:?}", language.name()),
        }
    }

    /// Two sides that never let go of a core measure the scheduler's time slice where they share one.
    fn makes_sense(self, placement: Placement) -> bool {
        let burns = matches!(self, Self::Floor(Kind::Spin) | Self::Link(_, WaitStrategy::Spin));
        placement == Placement::Two || !burns
    }
}

/// Round trips of one way.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) way: Way,
    pub(crate) placement: Placement,
    pub(crate) times: Percentiles,
}

/// Round trips of untouched frames of one size.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) spec: Spec,
    pub(crate) bytes: usize,
    pub(crate) times: Percentiles,
}

/// Frames read whole and answered whole, through a link and by the worker alone.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) language: Language,
    pub(crate) linked: Percentiles,
    pub(crate) alone: Percentiles,
}

/// Everything a run found out.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) machine: Value,
    pub(crate) clock_ns: f64,
    pub(crate) latency: Vec<Latency>,
    pub(crate) sizes: Vec<Size>,
    pub(crate) whole: Vec<Whole>,
    /// What could not be measured, and why.
    pub(crate) skipped: Vec<String>,
}

/// Runs everything.
pub(crate) fn run(quick: bool) -> Outcome<Results> {
    let cores = Cores::of_this_process()?;
    let mut skipped = Vec::new();
    let python = Python::find().map_err(|why| skipped.push(format!("the Python worker: {why}"))).ok();
    let machine = machine::describe(&cores, python.as_ref().map(|python| python.versions.as_str()));
    if !cores.allow(Placement::Two) {
        skipped.push("everything on two cores: this process may use one only".to_owned());
    }
    skipped.push("pure spins on one core: they would measure the scheduler's time slice".to_owned());
    let run = Run { cores, python, clock: clock_ns()?, rounds: if quick { 4 } else { 40 } };
    let latency = run.latency()?;
    let sizes = run.sizes()?;
    let whole = run.whole()?;
    Ok(Results { machine, clock_ns: run.clock, latency, sizes, whole, skipped })
}

/// Something whose round trips are timed.
enum Subject {
    Floor(Floor),
    Link(Linked),
}

impl Subject {
    fn pid(&self) -> Pid {
        match self {
            Self::Floor(floor) => floor.pid(),
            Self::Link(linked) => linked.pid(),
        }
    }

    fn run(&mut self, turn: Turn, times: &mut Vec<u64>) -> Outcome<()> {
        match self {
            Self::Floor(floor) => floor.run(turn, times),
            Self::Link(linked) => linked.run(turn, times),
        }
    }
}

struct Run {
    cores: Cores,
    python: Option<Python>,
    clock: f64,
    rounds: usize,
}

impl Run {
    fn languages(&self) -> Vec<(Language, Option<&Python>)> {
        let python = self.python.as_ref().map(|python| (Language::Python, Some(python)));
        [(Language::Rust, None)].into_iter().chain(python).collect()
    }

    /// Two processes on cores of their own, where there are two.
    fn apart(&self) -> Placement {
        if self.cores.allow(Placement::Two) { Placement::Two } else { Placement::One }
    }

    fn turn(&self, subject: &mut Subject, placement: Placement, turn: Turn, times: &mut Vec<u64>) -> Outcome<()> {
        let _running = self.cores.turn(subject.pid(), placement)?;
        subject.run(WARM_UP, &mut Vec::new())?;
        subject.run(turn, times)
    }

    fn latency(&self) -> Outcome<Vec<Latency>> {
        let spec = Spec::from(BytesSpec::new(64));
        let mut subjects = Vec::new();
        for kind in [Kind::Spin, Kind::Yield, Kind::Futex] {
            subjects.push((Way::Floor(kind), Subject::Floor(Floor::start(kind)?)));
        }
        for (language, python) in self.languages() {
            for wait in STRATEGIES {
                let linked = Linked::start(python, Part::Echo, wait, &spec, 4)?;
                subjects.push((Way::Link(language, wait), Subject::Link(linked)));
            }
        }
        for (_, subject) in &subjects {
            // A floor just started is not yet stopped.
            drop(self.cores.turn(subject.pid(), Placement::One)?);
        }
        let placements: Vec<Placement> =
            [Placement::Two, Placement::One].into_iter().filter(|&placement| self.cores.allow(placement)).collect();
        let mut all: Vec<(Way, Placement, Vec<u64>)> = Vec::new();
        for &placement in &placements {
            all.extend(subjects.iter().map(|&(way, _)| (way, placement, Vec::new())));
        }
        all.retain(|&(way, placement, _)| way.makes_sense(placement));
        let turn = Turn { trips: 4000, time: Duration::from_millis(60) };
        for _ in 0..self.rounds {
            for (way, placement, times) in &mut all {
                if let Some((_, subject)) = subjects.iter_mut().find(|(other, _)| other == way) {
                    self.turn(subject, *placement, turn, times)?;
                }
            }
        }
        let latency = all.into_iter().filter_map(|(way, placement, times)| {
            Some(Latency { way, placement, times: Percentiles::of(times, self.clock)? })
        });
        Ok(latency.collect())
    }

    fn sizes(&self) -> Outcome<Vec<Size>> {
        let rgba = |width, height| Spec::from(VideoSpec::new(PixelFormat::Rgba, width, height));
        let specs = [Spec::from(BytesSpec::new(64)), rgba(640, 480), rgba(1920, 1080), rgba(3840, 2160)];
        let mut all = Vec::new();
        for spec in specs {
            let linked = Linked::start(None, Part::Echo, WaitStrategy::Adaptive, &spec, 2)?;
            all.push((spec, Subject::Link(linked), Vec::new()));
        }
        let turn = Turn { trips: 2000, time: Duration::from_millis(30) };
        for _ in 0..self.rounds {
            for (_, subject, times) in &mut all {
                self.turn(subject, self.apart(), turn, times)?;
            }
        }
        let mut sizes = Vec::new();
        for (spec, _, times) in all {
            let bytes = spec.payload_capacity()?;
            sizes.extend(Percentiles::of(times, self.clock).map(|times| Size { spec, bytes, times }));
        }
        Ok(sizes)
    }

    fn whole(&self) -> Outcome<Vec<Whole>> {
        let spec = Spec::from(VideoSpec::new(PixelFormat::Rgba, 1920, 1080));
        let mut all = Vec::new();
        for (language, python) in self.languages() {
            let linked = Linked::start(python, Part::Whole, WaitStrategy::Adaptive, &spec, 4)?;
            all.push((language, linked, Vec::new(), Vec::new()));
        }
        let turn = Turn { trips: ANSWERS, time: Duration::from_millis(100) };
        for _ in 0..self.rounds {
            for (_, linked, times, alone) in &mut all {
                let _running = self.cores.turn(linked.pid(), self.apart())?;
                linked.run(Turn { trips: 3, ..turn }, &mut Vec::new())?;
                linked.run(turn, times)?;
                alone.extend(linked.run_alone(ANSWERS as u64)?);
            }
        }
        let whole = all.into_iter().filter_map(|(language, _, times, alone)| {
            let (linked, alone) = (Percentiles::of(times, self.clock)?, Percentiles::of(alone, self.clock)?);
            Some(Whole { language, linked, alone })
        });
        Ok(whole.collect())
    }
}
