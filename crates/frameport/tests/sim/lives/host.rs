//! The host's part of a world.

mod end;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use frameport::{Delivery, Error, Exit, Frame, FrameMut, Pin, Receiver, Restart, Stall, Stats, Until, Worker, select};
use frameport_sys::clock::now_ns;
use frameport_sys::world;
use serde_json::Value;

use self::told::Told;
use super::{OF_LIFE, PAUSE, Plan, STARTS, Truth, WAIT, rest, spec, timed};
use crate::harness::{Shared, chance, check_counts, check_left, ensure, margin};
use crate::stream::{Asked, Stream, look, paint};

const FIRST_WIDTH: u32 = 7;

/// The host's side of a world.
struct Host {
    worker: Worker,
    plan: Plan,
    truth: Shared<Truth>,
    receivers: [Receiver; 2],
    told: [Told; 2],
    held: Vec<Frame>,
    /// Loans that are kept, of which life and process.
    loans: Vec<(FrameMut, (u64, u32))>,
    pins: Vec<Pin>,
    next_seq: u64,
    no_slot: u64,
    refused: u64,
    /// Of the input and both outputs, and in which life that was last changed.
    widths: [u32; 3],
    changed: u64,
    /// Up to which life a change that failed may be seen.
    unsure: Option<u64>,
    /// Why nothing can be sent any more.
    ended: Option<Error>,
    is_finished: bool,
}

impl Host {
    /// Which life it is, and its process.
    fn now(&self) -> (u64, u32) {
        loop {
            let (life, process) = (self.worker.stats().restarts, self.worker.pid());
            if self.worker.stats().restarts == life {
                return (life, process);
            }
        }
    }

    fn send(&mut self) {
        let now = self.now();
        self.truth.with(|truth| truth.life(now.1).input.disturb());
        let is_live = self.plan.input != Delivery::Lossless;
        let loaned = match world::below(2) {
            0 => self.worker.loan_if_free(),
            _ => match self.worker.loan_until(Until::after(WAIT)) {
                Err(Error::PoolExhausted(_)) => {
                    self.no_slot += 1;
                    self.truth.with(|truth| truth.wait(if is_live { Duration::ZERO } else { WAIT }));
                    self.check_slots(is_live);
                    Ok(None)
                }
                other => other.map(Some),
            },
        };
        match loaned {
            // Otherwise it is not known whose it is.
            Ok(Some(frame)) if self.now() == now => {
                let found = frame.spec().video().map(|video| video.width);
                let is_right = now.0 == self.changed || self.unsure == Some(now.0) || found == Some(self.widths[0]);
                ensure(is_right, || format!("{found:?} wide in life {}: {:?}", now.0, self.widths));
                if self.loans.is_empty() && chance(6) {
                    self.loans.push((frame, now));
                } else {
                    self.submit(frame, now);
                }
            }
            Ok(_) => {}
            Err(error) => self.end(error),
        }
    }

    /// A loan found no slot in time: a new life has all of them.
    fn check_slots(&self, is_live: bool) {
        let (life, process) = self.now();
        let is_new = self.truth.with(|truth| {
            let life = truth.life(process);
            life.input.sent() == 0 && life.ready_at.is_some_and(|at| at + margin() < now_ns())
        });
        let has_all = is_new && self.loans.iter().all(|(_, (of, _))| *of != life);
        let is_sure = !is_live && !self.plan.changes && world::is_alive(process);
        ensure(!(has_all && is_sure), || format!("no slot of life {life}, which has had no frame"));
    }

    fn submit(&mut self, mut frame: FrameMut, (life, process): (u64, u32)) {
        let is_stale = self.worker.stats().restarts > life;
        let seq = self.next_seq;
        self.next_seq += 1;
        paint(&mut frame, seq);
        frame.set_seq(seq);
        if chance(6) {
            self.pins.push(frame.pin());
        }
        self.truth.with(|truth| {
            let params = truth.params;
            truth.life(process).input.begin(seq, seq, params);
        });
        let sent = self.worker.send(frame);
        self.truth.with(|truth| truth.life(process).input.end(sent.is_ok()));
        self.refused += u64::from(sent.is_err());
        match sent {
            Ok(_) => ensure(!is_stale, || format!("a loan of life {life} was sent in a later one")),
            Err(Error::Stale { .. }) => {
                let is_dead = !world::is_alive(process) || self.plan.stall == Some(Stall::Kill);
                ensure(is_dead, || format!("a loan of life {life} is stale, which lives"));
            }
            Err(error) => {
                ensure(!is_stale, || format!("a loan of life {life} is refused by {error:?}"));
                self.end(error);
            }
        }
    }

    /// Nothing can be sent any more.
    fn end(&mut self, error: Error) {
        self.check_end(&error);
        self.ended = Some(error);
    }

    fn check_end(&self, error: &Error) {
        let (_, process) = self.now();
        let (row, left) = self.truth.with(|truth| (truth.row, truth.life(process).left));
        let is_right = match error {
            Error::GivenUp { starts, .. } => *starts == self.plan.starts && row.1 >= self.plan.starts,
            Error::LinkClosed { .. } => self.is_finished || left == Some(0),
            Error::WorkerDied(death) => self.is_finished && death.pid == process,
            Error::Stalled { .. } => self.is_finished,
            _ => false,
        };
        ensure(is_right, || format!("it ended in {error:?}, starts that failed: {row:?}, left: {left:?}"));
    }

    fn change(&mut self) {
        let (width, before) = (5 + world::below(4) as u32, self.widths);
        let limit = Until::after(WAIT);
        let changed = timed(&self.truth, || match world::below(3) {
            0 => self.worker.change_spec_until(spec(width), limit).map(|()| before.map(|was| was == before[0])),
            1 => self.worker.sender("in").unwrap().change_spec_until(spec(width), limit).map(|()| [true, false, false]),
            _ => self.receivers[0].change_spec_until(spec(width), limit).map(|()| [false, true, false]),
        });
        match changed {
            Ok(changes) => {
                let widths = self.widths.iter_mut().zip(changes).filter(|(_, changes)| *changes);
                widths.for_each(|(now, _)| *now = width);
                self.changed = self.now().0;
            }
            Err(error) => {
                // A life may have gone over to it and died before that could be passed on.
                self.unsure = Some(self.now().0);
                if !matches!(error, Error::PoolExhausted(_) | Error::Timeout { .. }) {
                    self.end(error);
                }
            }
        }
    }

    fn check(&self, before: &mut Stats) {
        let stats = self.worker.stats();
        check_counts(&stats);
        let grows = stats.results >= before.results && stats.sent >= before.sent && stats.refused >= before.refused;
        ensure(grows, || format!("{stats:?} after {before:?}"));
        *before = stats;
        let is_sure = self.unsure.is_none_or(|life| self.now().0 > life);
        let specs = [self.worker.input_spec().unwrap(), self.receivers[0].spec(), self.receivers[1].spec()];
        let is_same = specs == self.widths.map(|width| spec(width).into());
        ensure(is_same || !is_sure, || format!("{specs:?}, not {:?}", self.widths));
        ensure(self.worker.holders().len() <= 200, || "holders".to_owned());
    }

    fn kill(&self) {
        if self.truth.with(|truth| truth.starts < STARTS) {
            if chance(2) { world::kill(self.worker.pid()) } else { self.worker.kill() }
        }
    }

    fn run(&mut self) {
        let mut before = Stats::default();
        for _ in 0..self.plan.turns {
            match world::below(20) {
                0..7 if self.ended.is_none() => self.send(),
                7..14 => {
                    let channel = world::below(2) as usize;
                    if self.told[channel].ended.is_none() {
                        self.recv(channel, false);
                    }
                }
                14 => {
                    let n = self.truth.with(|truth| truth.params) + 1;
                    let values = [("n", n.into()), ("pad", Value::from("x".repeat(world::below(3000) as usize)))];
                    self.worker.params().extend(values).unwrap();
                    self.truth.with(|truth| truth.params = n);
                }
                15 => self.check(&mut before),
                16 if self.plan.changes && self.ended.is_none() => self.change(),
                17 => self.kill(),
                18 if self.ended.is_none() => {
                    if let Some((frame, of)) = self.loans.pop() {
                        self.submit(frame, of);
                    }
                    self.pins.clear();
                }
                _ => rest(&self.truth, Duration::from_millis(4)),
            }
        }
        self.check(&mut before);
    }
}

/// One world.
pub(super) fn host(plan: Plan, truth: &Shared<Truth>) {
    // The service and its like stay.
    let warm_up = Worker::command("leaves").input("in", spec(FIRST_WIDTH), Delivery::Lossless).slots(2).spawn();
    drop(warm_up);
    let before = world::census(world::this_process());
    let mut builder = Worker::command("works")
        .input("in", spec(FIRST_WIDTH), plan.input)
        .output("out", spec(FIRST_WIDTH), plan.outputs[0])
        .output("more", spec(FIRST_WIDTH), plan.outputs[1])
        .slots(plan.slots)
        .restart(Restart::default().starts(plan.starts).backoff(Duration::from_millis(1), PAUSE));
    if let Some(stall) = plan.stall {
        builder = builder.stall(Duration::from_millis(8), stall);
    }
    match builder.spawn() {
        Ok(worker) => {
            if plan.event {
                worker.event().unwrap();
            }
            let receivers = ["out", "more"].map(|name| worker.receiver(name).unwrap());
            let (told, held, loans, pins) = Default::default();
            let (truth, widths, ended) = (truth.clone(), [FIRST_WIDTH; 3], None);
            let (next_seq, no_slot, refused, changed, unsure, is_finished) = Default::default();
            let mut host = Host {
                worker,
                plan,
                truth,
                receivers,
                told,
                held,
                loans,
                pins,
                next_seq,
                no_slot,
                refused,
                widths,
                changed,
                unsure,
                ended,
                is_finished,
            };
            host.run();
            host.finish();
        }
        Err(Error::WorkerDied(_)) => {}
        Err(error) => world::fail(&format!("it does not start: {error}")),
    }
    check_left(before);
}
