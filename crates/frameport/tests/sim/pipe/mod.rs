//! One worker with a channel in and one out, both of which do random things until one of them has enough or is killed.

mod host;
mod worker;

use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Link, WaitStrategy};
use frameport_sys::clock::now_ns;
use frameport_sys::thread::sleep;
use frameport_sys::world::{self, Fate, Random, World};

use self::host::host;
use self::worker::work;
use crate::harness::{Shared, explore, faults, in_time, some_time};
use crate::stream::Stream;

/// Longest a wait lasts, but for those that must come to an end without.
const WAIT: Duration = Duration::from_millis(10);

/// Pictures from here on are those of answers in place, which are the host's own slots.
const IN_PLACE: u64 = 3_000_000;

/// How a world is laid out.
#[derive(Clone, Copy, Debug)]
struct Plan {
    input: Delivery,
    output: Delivery,
    slots: u32,
    wait: WaitStrategy,
    turns: u64,
    fate: Fate,
    /// The worker may leave early, fail or exit.
    fickle: bool,
    /// Specs change.
    changes: bool,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x91a9);
        let mut below = |limit| random.below(limit);
        let delivery = |number| match number {
            0 | 1 => Delivery::Lossless,
            2 => Delivery::Latest,
            _ => Delivery::Newest(2),
        };
        let (input, output) = (delivery(below(4)), delivery(below(4)));
        let steps = |magnitude: u64, part: u64| (1 << magnitude) + part % (1 << magnitude);
        let (kill, stop) = (below(3) == 0, below(6) == 0);
        let fate = Fate {
            kill: kill.then(|| steps(below(12), below(4096))),
            stop: stop.then(|| (steps(below(12), below(4096)), Duration::from_millis(1 << below(13)))),
        };
        Self {
            input,
            output,
            slots: 3 + below(3) as u32,
            wait: [WaitStrategy::Park, WaitStrategy::Adaptive, WaitStrategy::Adaptive][below(3) as usize],
            turns: 5 + below(40),
            fate,
            fickle: below(4) == 0,
            changes: below(2) == 0,
        }
    }
}

/// What both sides may expect.
#[derive(Debug)]
struct Truth {
    input: Stream,
    output: Stream,
    /// Slots of the input pool that are not at home for certain, and when one last came home.
    away: u32,
    came_home: u64,
    /// Waits that ended by their limits, and sleeps.
    waited: Duration,
    /// Parameters set.
    params: u64,
    /// Events reported and told of.
    reported: u64,
    heard: u64,
    /// The worker's last words: the status it meant to exit with.
    left: Option<i32>,
}

impl Truth {
    fn come_home(&mut self) {
        (self.away, self.came_home) = (self.away - 1, now_ns());
    }

    fn wait(&mut self, time: Duration) {
        self.waited += time;
    }
}

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 7, 5)
}

/// Another one, of a few.
fn other_spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 5 + world::below(4) as u32, 5)
}

/// Sleeps a little.
fn rest(truth: &Shared<Truth>) {
    let time = some_time(Duration::from_millis(2));
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

/// Text that may fill a control channel.
fn pad(most: u64) -> String {
    "x".repeat(world::below(most) as usize)
}

#[test]
fn pipe() {
    explore("pipe", 2000, |seed| {
        let plan = Plan::new(seed);
        let truth = Shared::new(Truth {
            input: Stream::new(plan.input),
            output: Stream::new(plan.output),
            away: 0,
            came_home: 0,
            waited: Duration::ZERO,
            params: 0,
            reported: 0,
            heard: 0,
            left: None,
        });
        let of_worker = truth.clone();
        let its_truth = truth.clone();
        let report = World::new(seed, faults(seed))
            .program("leaves", |_| Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err())))
            .program("works", move |_| work(plan, &of_worker))
            .fates(move |_, name| if name == "works" { plan.fate } else { Fate::default() })
            .run(move || host(plan, &truth));
        let stopped = plan.fate.stop.map_or(Duration::ZERO, |(_, time)| time + Duration::from_secs(5));
        in_time(report, seed, || stopped + its_truth.with(|truth| truth.waited))
    });
}
