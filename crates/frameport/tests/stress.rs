//! The wait protocol where it is hardest: more workers than cores, cores that are busy, workers that are stopped at any moment.
//!
//! Every wait has a time limit, the tick, so long that a wait ends by it only if its wake-up was lost. Nothing follows a frame
//! that is waited for until it is there, so nothing else makes good for its lost wake-up: both sides sleep until the tick, then
//! look once more. Was what they find sent, or the slot let go of, more than half a tick before, they slept over it, and
//! count it. `FRAMEPORT_STRESS=<round trips>` makes as many of them, `FRAMEPORT_STRESS_SEED` throws other dice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
#[path = "common/end.rs"]
mod end;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Random, Watched, role, sleeps, some_time, worker};
use end::{End, WAYS, Way, recv_any};
use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Frame, Link, WaitStrategy, Worker};
use rustix::process::Signal;

/// Waits of one crowd slept over after which all leave off.
const ENOUGH: u64 = 3;
const ROUND_TRIPS: u64 = 100_000;

/// The workers of this file: their role says how they wait and the seed.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let (way, seed) = role.split_once(' ').unwrap();
    let way = WAYS.into_iter().find(|known| format!("{known:?}") == way).unwrap();
    let link = Link::from_env().unwrap();
    let (rx, tx) = (link.receiver("in").unwrap(), link.sender("out").unwrap());
    let mut end = End::new(rx, tx, way, 0, seed.parse().unwrap());
    match answer(&link, &mut end) {
        Ok(()) | Err(Error::LinkClosed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn answer(link: &Link, end: &mut End) -> Result<(), Error> {
    loop {
        let (_, mut frame, _) = recv_any(std::slice::from_mut(end), &[0])?.pop().unwrap();
        let (seq, released) = (frame.seq(), end.released_ns);
        match end.random.below(4) {
            0 if end.tx.returns(&frame) => {
                end.dawdle();
                frame.fill(&end.write(seq, released)).unwrap();
                link.send_back(frame)?;
            }
            1 => {
                let reply = end.loan()?;
                end.release(Some(frame));
                end.send(reply, seq, released)?;
            }
            _ => {
                let reply = end.loan()?;
                end.send(reply, seq, released)?;
                end.release(Some(frame));
            }
        }
    }
}

/// Links that one thread of the host serves.
struct Crowd {
    workers: Vec<Worker>,
    ends: Vec<End>,
    /// Of each worker, what it said last: how often it has slept over something.
    theirs: Vec<u64>,
}

impl Crowd {
    /// Workers of these kinds; the host waits for them as `way` says.
    fn start(way: Way, kinds: &[(Delivery, WaitStrategy, Way)], random: &mut Random) -> Self {
        let start = |&(delivery, strategy, theirs): &(Delivery, WaitStrategy, Way)| {
            let slots = if delivery == Delivery::Lossless { 1 + random.below(2) as u32 } else { 4 };
            let spec = VideoSpec::new(PixelFormat::Gray, 31, 7);
            let name = format!("{delivery:?} of {slots}, {strategy:?}: {way:?} at the host, {theirs:?} at the worker");
            let builder = worker(&format!("{theirs:?} {}", random.next())).name(name).slots(slots).wait(strategy);
            let worker = builder.input("in", &spec, delivery).output("out", &spec, delivery).spawn().unwrap();
            let (rx, tx) = (worker.receiver("out").unwrap(), worker.sender("in").unwrap());
            (End::new(rx, tx, way, slots, random.next()), worker)
        };
        let (ends, workers): (Vec<_>, Vec<_>) = kinds.iter().map(start).unzip();
        Self { theirs: vec![0; workers.len()], workers, ends }
    }

    /// Sends all of them frames and waits for all answers, over and over.
    fn run(&mut self, index: usize, stage: &Stage) -> Result<(), Error> {
        let count = self.ends.len();
        let (mut kept, mut sent) = (Vec::from_iter((0..count).map(|_| None)), vec![0; count]);
        while stage.round_trips.load(Relaxed) < stage.wanted && !stage.enough.load(Relaxed) {
            while ![NOBODY, index].contains(&stage.alone.load(Relaxed)) {
                std::thread::sleep(Duration::from_millis(1));
            }
            for (end, (kept, sent)) in self.ends.iter_mut().zip(kept.iter_mut().zip(&mut sent)) {
                let released = end.released_ns;
                // One that came back in place, of the first pool, has the slot that is needed now.
                if end.random.below(2) == 0 || kept.as_ref().is_some_and(|frame: &Frame| frame.pool_id() == 0) {
                    end.release(kept.take());
                }
                for _ in 0..1 + end.random.below(end.slots.min(2).into()) {
                    let frame = end.loan()?;
                    end.send(frame, *sent, released)?;
                    *sent += 1;
                }
                end.release(kept.take());
            }
            let mut pending = Vec::from_iter(0..count);
            while !pending.is_empty() {
                for (at, frame, note) in recv_any(&mut self.ends, &pending)? {
                    self.theirs[at] = note.slept_over;
                    stage.round_trips.fetch_add(1, Relaxed);
                    stage.enough.fetch_or(self.slept_over() >= ENOUGH, Relaxed);
                    if frame.seq() + 1 == sent[at] {
                        pending.retain(|&other| other != at);
                        kept[at] = Some(frame);
                    }
                }
            }
        }
        Ok(())
    }

    fn slept_over(&self) -> u64 {
        self.ends.iter().map(|end| end.slept_over).sum::<u64>() + self.theirs.iter().sum::<u64>()
    }
}

/// What all threads of the host see.
struct Stage {
    wanted: u64,
    round_trips: AtomicU64,
    /// Some crowd has slept over so much that there is no need to go on.
    enough: AtomicBool,
    done: AtomicBool,
    /// The crowd that has the machine to itself, so that both sides run at once; else all are there, with what burns and stops.
    alone: AtomicUsize,
}

const NOBODY: usize = usize::MAX;

impl Stage {
    /// Burns a core now and then.
    fn burn(&self, random: &mut Random) {
        while !self.done.load(Relaxed) {
            let (start, limit) = (Instant::now(), Duration::from_micros(random.below(8_000)));
            while start.elapsed() < limit && self.alone.load(Relaxed) == NOBODY {
                std::hint::spin_loop();
            }
            some_time(random, Duration::from_millis(4));
        }
    }

    /// Stops processes for some milliseconds, then leaves one of so many crowds alone for a while, over and over; says how
    /// many it stopped.
    fn disturb(&self, processes: &[Watched], crowds: usize, random: &mut Random) -> u64 {
        let mut stops = 0;
        while !self.done.load(Relaxed) {
            for _ in 0..8 {
                let process = &processes[random.below(processes.len() as u64) as usize];
                process.signal(Signal::STOP);
                some_time(random, Duration::from_millis(4));
                process.signal(Signal::CONT);
                some_time(random, Duration::from_millis(8));
                stops += 1;
            }
            self.alone.store(random.below(crowds as u64) as usize, Relaxed);
            some_time(random, Duration::from_millis(100));
            self.alone.store(NOBODY, Relaxed);
        }
        stops
    }
}

#[test]
fn no_wait_needs_its_tick() {
    if role().is_some() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let wanted = number("FRAMEPORT_STRESS").unwrap_or(ROUND_TRIPS);
    let seed = number("FRAMEPORT_STRESS_SEED").unwrap_or(28);
    println!("seed {seed}");
    let mut random = Random(seed);
    let strategies = [WaitStrategy::Adaptive, WaitStrategy::Park];
    let kinds =
        [Delivery::Lossless, Delivery::Latest].into_iter().flat_map(|delivery| strategies.map(|s| (delivery, s)));
    let mut crowds = Vec::new();
    // Every way of the host with every kind; the workers' ways take turns.
    for (turn, way) in WAYS.into_iter().enumerate() {
        let theirs = WAYS.into_iter().cycle().skip(turn);
        let kinds: Vec<_> = kinds.clone().zip(theirs).map(|((delivery, s), theirs)| (delivery, s, theirs)).collect();
        // A thread that waits by recv waits for one.
        let together = if way == Way::Recv { 1 } else { kinds.len() };
        crowds.extend(kinds.chunks(together).map(|kinds| Crowd::start(way, kinds, &mut random)));
    }
    let pids: Vec<_> = crowds.iter().flat_map(|crowd| &crowd.workers).map(Worker::pid).collect();
    // The others show what a signal might make good for.
    let stopped: Vec<_> = pids.iter().step_by(2).map(|&pid| Watched::open(pid).unwrap()).collect();
    let (enough, done, alone) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(NOBODY));
    let stage = Stage { wanted, round_trips: AtomicU64::new(0), enough, done, alone };
    let (ends, stops) = std::thread::scope(|scope| {
        let stage = &stage;
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let mut random = Random(random.next());
            scope.spawn(move || stage.burn(&mut random));
        }
        let (mut random, stopped, count) = (Random(random.next()), &stopped, crowds.len());
        let disturber = scope.spawn(move || stage.disturb(stopped, count, &mut random));
        let runs = (0..).zip(&mut crowds).map(|(index, crowd)| scope.spawn(move || crowd.run(index, stage)));
        let runs: Vec<_> = runs.collect();
        let ends: Vec<_> = runs.into_iter().map(|run| run.join()).collect();
        stage.done.store(true, Relaxed);
        (ends, disturber.join().unwrap_or_default())
    });
    let sleeps: Option<u64> = pids.iter().map(|&pid| sleeps(pid)).sum();
    let round_trips = stage.round_trips.into_inner();
    println!("{round_trips} round trips, the workers slept {sleeps:?} times and were stopped {stops} times");
    ends.into_iter().for_each(|end| end.unwrap().unwrap());
    for crowd in &crowds {
        for (worker, (end, theirs)) in crowd.workers.iter().zip(crowd.ends.iter().zip(&crowd.theirs)) {
            let both = (end.slept_over, *theirs);
            assert_eq!(both, (0, 0), "slept over at the host and at the worker: {}", worker.name());
        }
    }
    assert!(sleeps.is_none_or(|sleeps| sleeps > round_trips / 10), "there was little to be woken");
}
