//! Running many worlds, and what all of them check: the ground truth of frames, and that nothing is left behind.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use frameport::{Bytes, Stats};
use frameport_sys::thread::preempt;
use frameport_sys::world::{self, Census, Failure, Faults, Random, Report};

/// Runs worlds of the seeds from 0 on, `many` unless FRAMEPORT_SCHEDULES says how many; with FRAMEPORT_SEED, that one only.
pub(crate) fn explore(test: &str, many: u64, world: impl Fn(u64) -> Result<Report, Failure>) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("FRAMEPORT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FRAMEPORT_SCHEDULES").unwrap_or(many),
    };
    let (start, count, mut steps) = (Instant::now(), seeds.end - seeds.start, 0);
    for seed in seeds {
        match world(seed) {
            Ok(report) => steps += report.steps,
            Err(failure) => {
                panic!("{failure}\nrun it again: make test-sim FRAMEPORT_SEED={seed} TEST={test}")
            }
        }
    }
    eprintln!("{test}: {count} schedules, {steps} steps, {:.1} s", start.elapsed().as_secs_f32());
}

/// What goes wrong in the world of a seed.
pub(crate) fn faults(seed: u64) -> Faults {
    let mut random = Random(seed ^ 0x5eed);
    let mut one_of = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
    Faults {
        switch: one_of(&[1, 2, 3, 8, 30]),
        delays: one_of(&[0, 0, 0, 3000, 300]),
        longest_delay_ns: 300_000,
        spurious: one_of(&[0, 0, 20]),
        short_reads: one_of(&[0, 0, 3]),
        control_room: one_of(&[200 << 10, 200 << 10, 6000]) as usize,
        futex: one_of(&[1, 1, 0]) == 1,
        ..Faults::default()
    }
}

/// A world that took longer than all its waits that may end by their deadlines, some 200 ms aside: somebody was not woken, and
/// only a fallback went on.
///
/// Where a world has failed, what its tasks shared may be locked for good: `waits` is not asked then.
pub(crate) fn in_time(
    report: Result<Report, Failure>,
    seed: u64,
    waits: impl FnOnce() -> Duration,
) -> Result<Report, Failure> {
    let (report, waits) = (report?, waits());
    // The clock starts at a second.
    let time = report.time.saturating_sub(Duration::from_secs(1));
    if faults(seed).delays == 0 && time > waits + Duration::from_millis(200) {
        return Err(Failure { seed, what: format!("it took {time:?}, of which {waits:?} were waited for nothing") });
    }
    Ok(report)
}

/// Whether a condition holds, or the world ends.
#[track_caller]
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        world::fail(&format!("{} ({})", what(), std::panic::Location::caller()));
    }
}

/// One in `many`.
pub(crate) fn chance(many: u64) -> bool {
    world::below(many) == 0
}

/// Byte `index` of frame `seq`: computed, never stored.
pub(crate) fn byte(seq: u64, index: usize) -> u8 {
    let mixed = (seq ^ (index as u64) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Writes the picture of `seq` to a frame's pieces, with breaks between them.
pub(crate) fn fill<'a>(pieces: impl Iterator<Item = Bytes<'a>>, seq: u64) {
    let mut at = 0;
    for piece in pieces {
        let bytes: Vec<u8> = (at..at + piece.len()).map(|index| byte(seq, index)).collect();
        ensure(piece.copy_from(0, &bytes), || "a frame cannot be written".to_owned());
        at += piece.len();
        preempt();
    }
}

/// Compares a frame's pieces with the picture of `seq`, with breaks between them.
#[track_caller]
pub(crate) fn check<'a>(pieces: impl Iterator<Item = Bytes<'a>>, seq: u64) {
    let mut at = 0;
    for piece in pieces {
        let found = piece.to_vec();
        let wrong = found.iter().enumerate().find(|&(index, &found)| found != byte(seq, at + index));
        ensure(wrong.is_none(), || format!("byte {wrong:?} + {at} is not that of frame {seq}"));
        at += piece.len();
        preempt();
    }
}

/// Counters add up.
#[track_caller]
pub(crate) fn check_counts(stats: &Stats) {
    let Stats { offered, received, retracted, no_slot, refused, lost, in_flight, .. } = *stats;
    let sum = received + retracted + no_slot + refused + lost + in_flight;
    ensure(offered == sum, || format!("{stats:?} do not close"));
}

/// The host's own, before and after a worker.
pub(crate) fn check_left(before: Census) {
    let now = world::census(world::this_process());
    ensure(now == before, || format!("left behind: {now:?}, before: {before:?}"));
}

/// Something host and workers of a test share, for it is no part of what is tested.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    /// Nothing in `look` may give way.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long, in ns, something that is there may not have been noticed: where nobody is delayed or stopped, time passes only
/// while everybody waits.
pub(crate) fn margin() -> u64 {
    if world::is_even() { 500_000 } else { u64::MAX / 2 }
}

/// Some time up to `most`, short times more often.
pub(crate) fn some_time(most: Duration) -> Duration {
    most / (1 + world::below(50) as u32)
}
