//! A group whose workers answer, pass over, are slow and die, under both policies for the frames of the dead.

use std::collections::BTreeSet;
use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, FrameMut, Group, GroupStats, Link, Outcome, Redeliver, Step, Until, Worker};
use frameport_sys::thread::sleep;
use frameport_sys::world::{self, Fate, Random, World};

use crate::harness::{Shared, chance, check_left, ensure, explore, faults, in_time, some_time};
use crate::stream::{edit, look, paint};

#[derive(Clone, Copy, Debug)]
struct Plan {
    workers: usize,
    ordered: bool,
    redeliver: Redeliver,
    deadly: bool,
    frames: u64,
}

/// What the workers did.
#[derive(Debug, Default)]
struct Truth {
    /// Frames a worker began with, as often as one did.
    begun: Vec<u64>,
    /// Frames a worker passed over.
    passed: BTreeSet<u64>,
    /// Waits that ended by their limits, and sleeps.
    waited: Duration,
}

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Gray, 11, 7)
}

fn rest(truth: &Shared<Truth>) {
    let time = some_time(Duration::from_millis(1));
    truth.with(|truth| truth.waited += time);
    sleep(time);
}

fn work(plan: Plan, truth: &Shared<Truth>) -> i32 {
    let Ok(link) = Link::from_env() else { return 1 };
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return 0,
            Err(error) => world::fail(&format!("a worker's recv: {error}")),
        };
        let seq = frame.seq();
        truth.with(|truth| truth.begun.push(seq));
        look(&frame, seq);
        if chance(8) {
            rest(truth);
        }
        if plan.deadly && chance(30) {
            // It lets go of its frame before it is dead, and has not passed it over.
            drop(frame);
            rest(truth);
            return 3;
        }
        match world::below(6) {
            0 => {
                truth.with(|truth| truth.passed.insert(seq));
                drop(frame);
            }
            1 | 2 => {
                let mut frame = frame;
                let picture = seq + 1_000_000;
                edit(&mut frame, picture);
                if link.send_back(frame).is_err() {
                    return 0;
                }
            }
            _ => {
                let Ok(mut reply) = link.reply(&frame) else { return 0 };
                paint(&mut reply, seq + 1_000_000);
                if link.send(reply).is_err() {
                    return 0;
                }
            }
        }
    }
}

struct Host {
    group: Group,
    plan: Plan,
    truth: Shared<Truth>,
    sent: u64,
    /// Outcomes by number.
    answered: BTreeSet<u64>,
    lost: BTreeSet<u64>,
    newest: Option<u64>,
}

impl Host {
    fn send(&mut self, mut frame: FrameMut) {
        paint(&mut frame, self.sent);
        if chance(10) {
            return;
        }
        let seq = self.group.send(frame);
        ensure(matches!(seq, Ok(seq) if seq == self.sent), || format!("{seq:?}, not {}", self.sent));
        self.sent += 1;
    }

    fn take(&mut self, outcome: &Outcome) {
        let seq = match outcome {
            Outcome::Answer { seq, frame } => {
                look(frame, seq + 1_000_000);
                self.answered.insert(*seq);
                *seq
            }
            Outcome::Lost { seq, why } => {
                let allowed = self.plan.deadly && self.plan.redeliver == Redeliver::AtMostOnce;
                ensure(allowed && matches!(**why, Error::WorkerDied(_) | Error::LinkClosed { .. }), || {
                    format!("frame {seq} is lost: {why}")
                });
                self.lost.insert(*seq);
                *seq
            }
            other => world::fail(&format!("{other:?}")),
        };
        ensure(seq < self.sent, || format!("an outcome for {seq}, which was never sent"));
        ensure(!self.plan.ordered || self.newest.is_none_or(|newest| newest < seq), || format!("{seq} came late"));
        self.newest = Some(seq);
        let outcomes = self.answered.len() + self.lost.len();
        ensure(outcomes == self.answered.union(&self.lost).count(), || format!("two outcomes for {seq}"));
    }

    fn check(&self) -> GroupStats {
        let stats = self.group.stats();
        let GroupStats { sent, answered, dropped, lost, in_flight, .. } = stats;
        ensure(sent == answered + dropped + lost + in_flight, || format!("{stats:?} do not close"));
        stats
    }

    fn run(&mut self) {
        let mut held = Vec::new();
        while self.sent < self.plan.frames {
            match world::below(10) {
                0 => drop(self.check()),
                1 => rest(&self.truth),
                2 => held.clear(),
                3..6 => match self.group.recv_timeout(Duration::from_millis(10)) {
                    Ok(outcome) => {
                        self.take(&outcome);
                        if held.is_empty() && chance(3) {
                            held.push(outcome);
                        }
                    }
                    Err(Error::Timeout { .. }) => self.truth.with(|truth| truth.waited += Duration::from_millis(10)),
                    Err(error) => world::fail(&format!("the group's recv: {error}")),
                },
                6 => match self.group.loan_until(Until::after(Duration::from_millis(10))) {
                    Ok(frame) => self.send(frame),
                    Err(Error::PoolExhausted(_)) => self.truth.with(|truth| truth.waited += Duration::from_millis(10)),
                    Err(error) => world::fail(&format!("the group's loan: {error}")),
                },
                _ => {
                    held.clear();
                    match self.group.step_until(Until::after(Duration::from_secs(20))) {
                        Ok(Step::Outcome(outcome)) => self.take(&outcome),
                        Ok(Step::Room(frame)) => self.send(frame),
                        Ok(other) => world::fail(&format!("{other:?}")),
                        Err(error) => world::fail(&format!("the group's step: {error}")),
                    }
                }
            }
        }
    }

    /// Takes the outcomes that are left.
    fn finish(&mut self) {
        self.group.finish();
        loop {
            match self.group.recv_timeout(Duration::from_secs(20)) {
                Ok(outcome) => self.take(&outcome),
                Err(Error::LinkClosed { .. }) => break,
                Err(error) => world::fail(&format!("the group's last recv: {error}")),
            }
        }
        let stats = self.check();
        let GroupStats { sent, answered, dropped, lost, in_flight, .. } = stats;
        let counted = (answered, lost, in_flight);
        let known = (self.answered.len() as u64, self.lost.len() as u64, 0);
        ensure(sent == self.sent && counted == known, || format!("{stats:?}, {known:?}"));
        self.truth.with(|truth| {
            let seqs: BTreeSet<u64> = truth.begun.iter().copied().collect();
            let is_once = seqs.len() == truth.begun.len();
            let at_most = self.plan.redeliver == Redeliver::AtMostOnce || !self.plan.deadly;
            ensure(!at_most || is_once, || format!("worked on twice: {:?}", truth.begun));
            let outcome = |seq: &u64| self.answered.contains(seq) || self.lost.contains(seq);
            let without: BTreeSet<u64> = (0..self.sent).filter(|seq| !outcome(seq)).collect();
            ensure(without.is_subset(&truth.passed), || format!("no outcome: {without:?}, passed: {:?}", truth.passed));
            ensure(without.len() as u64 == dropped, || format!("{dropped} dropped, not {without:?}"));
        });
        self.group.stop().unwrap();
    }
}

#[test]
fn group() {
    explore("group", 800, |seed| {
        let mut random = Random(seed ^ 0x6709);
        let mut below = |limit| random.below(limit);
        let plan = Plan {
            workers: 1 + below(3) as usize,
            ordered: below(2) == 0,
            redeliver: if below(2) == 0 { Redeliver::AtLeastOnce } else { Redeliver::AtMostOnce },
            deadly: below(2) == 0,
            frames: 5 + below(25),
        };
        let truth = Shared::new(Truth::default());
        let (of_worker, its_truth) = (truth.clone(), truth.clone());
        let report = World::new(seed, faults(seed))
            .program("leaves", |_| Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err())))
            .program("member", move |_| work(plan, &of_worker))
            .fates(move |random, name| {
                let kills = plan.deadly && name == "member" && random.below(3) > 0;
                Fate { kill: kills.then(|| 2 << random.below(13)).map(|most| 1 + random.below(most)), stop: None }
            })
            .run(move || {
                drop(Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn());
                let before = world::census(world::this_process());
                let group = Worker::command("member")
                    .input("in", spec(), Delivery::Lossless)
                    .output("out", spec(), Delivery::Lossless)
                    .slots(3)
                    .group(plan.workers);

                // Nobody here dies of a frame: none is to be given up for having been with the dead.
                match group.ordered(plan.ordered).redeliver(plan.redeliver).tries(50).spawn() {
                    Ok(group) => {
                        let (answered, lost) = Default::default();
                        let mut host = Host { group, plan, truth, sent: 0, answered, lost, newest: None };
                        host.run();
                        host.finish();
                    }
                    Err(error) => world::fail(&format!("the group does not start: {error}")),
                }
                check_left(before);
            });
        // Backoffs of workers that die before they answer.
        let pauses = Duration::from_secs(if plan.deadly { 60 } else { 0 });
        in_time(report, seed, || pauses + its_truth.with(|truth| truth.waited))
    });
}
