//! One worker over many lives, which end in all ways and at all places, and what its host is told of them.

mod host;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Link, Stall};
use frameport_sys::clock::now_ns;
use frameport_sys::thread::sleep;
use frameport_sys::world::{Fate, Random, World};

use self::host::host;
use self::worker::work;
use crate::harness::{Shared, explore, faults, in_time, some_time};
use crate::stream::Stream;

/// Longest a wait lasts, but for those that must come to an end without.
const WAIT: Duration = Duration::from_millis(10);
/// A life's pictures: its process times this, and a number below it. Those of the host are below.
const OF_LIFE: u64 = 1_000_000;
/// Longest backoff.
const PAUSE: Duration = Duration::from_millis(4);
/// Workers started from here on are spared: of more deaths than these, those nobody receives are forgotten.
const STARTS: u32 = 9;

/// How a world is laid out.
#[derive(Clone, Copy, Debug)]
struct Plan {
    input: Delivery,
    outputs: [Delivery; 2],
    slots: u32,
    turns: u64,
    /// Starts in a row that may fail, and whether some do.
    starts: u32,
    fails: bool,
    /// Workers are killed after up to so many steps.
    kill: Option<u64>,
    /// Workers are stopped for a while.
    stops: bool,
    /// Workers exit and fail.
    fickle: bool,
    /// One may leave in order.
    leaves: bool,
    /// Specs change.
    changes: bool,
    stall: Option<Stall>,
    /// Whether there is a descriptor for event loops.
    event: bool,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x11fe5);
        let mut below = |limit| random.below(limit);
        let delivery = |number| match number {
            0..3 => Delivery::Lossless,
            3 => Delivery::Latest,
            _ => Delivery::Newest(2),
        };
        Self {
            input: delivery(below(5)),
            outputs: [delivery(below(5)), delivery(below(5))],
            slots: 3 + below(3) as u32,
            turns: 10 + below(60),
            starts: 1 + below(3) as u32,
            fails: below(3) == 0,
            kill: (below(4) > 0).then(|| 64 << below(7)),
            stops: below(8) == 0,
            fickle: below(3) == 0,
            leaves: below(12) == 0,
            changes: below(2) == 0,
            stall: [None, None, None, None, Some(Stall::Kill), Some(Stall::WriteOff)][below(6) as usize],
            event: below(3) == 0,
        }
    }

    fn fate(&self, random: &mut Random) -> Fate {
        let kill = self.kill.filter(|_| random.below(4) > 0).map(|most| 1 + random.below(most));
        let stop = self.stops && random.below(2) == 0;
        let stop = stop.then(|| (1 + random.below(3000), Duration::from_millis(1 << random.below(8))));
        Fate { kill, stop }
    }
}

/// One process that ran the worker's program.
#[derive(Debug)]
struct Life {
    input: Stream,
    outputs: [Stream; 2],
    /// When it had surely become ready.
    ready_at: Option<u64>,
    /// The status it meant to exit with.
    left: Option<i32>,
}

/// What both sides may expect.
#[derive(Debug, Default)]
struct Truth {
    /// By process.
    lives: BTreeMap<u32, Life>,
    starts: u32,
    /// The newest one is killed sometime.
    is_doomed: bool,
    /// Starts in a row that failed by themselves: at least, and at most.
    row: (u32, u32),
    params: u64,
    waited: Duration,
    stopped: Duration,
}

impl Truth {
    fn life(&mut self, process: u32) -> &mut Life {
        self.lives.get_mut(&process).unwrap()
    }

    fn wait(&mut self, time: Duration) {
        self.waited += time;
    }
}

fn spec(width: u32) -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, width, 5)
}

/// Sleeps a little.
fn rest(truth: &Shared<Truth>, most: Duration) {
    let time = some_time(most);
    truth.with(|truth| truth.wait(time));
    sleep(time);
}

/// Does something that may wait as long as it likes.
fn timed<T>(truth: &Shared<Truth>, act: impl FnOnce() -> T) -> T {
    let start = now_ns();
    let done = act();
    truth.with(|truth| truth.wait(Duration::from_nanos(now_ns() - start)));
    done
}

#[test]
fn lives() {
    explore("lives", 2500, |seed| {
        let plan = Plan::new(seed);
        let truth = Shared::new(Truth::default());
        let (of_worker, of_fate, its_truth) = (truth.clone(), truth.clone(), truth.clone());
        let report = World::new(seed, faults(seed))
            .program("leaves", |_| Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err())))
            .program("works", move |_| work(plan, &of_worker))
            .fates(move |random, name| {
                let spared = of_fate.with(|truth| {
                    truth.starts += u32::from(name == "works");
                    name != "works" || truth.starts >= STARTS
                });
                let fate = if spared { Fate::default() } else { plan.fate(random) };
                let stopped = fate.stop.map_or(Duration::ZERO, |(_, time)| time + Duration::from_secs(5));
                of_fate.with(|truth| {
                    truth.stopped += stopped;
                    truth.is_doomed = fate.kill.is_some();
                });
                fate
            })
            .run(move || host(plan, &truth));
        in_time(report, seed, || its_truth.with(|truth| truth.waited + truth.stopped + PAUSE * truth.starts))
    });
}
