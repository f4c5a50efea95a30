//! The host's part of a world.

use std::time::Duration;

use frameport::{Delivery, Error, Exit, Frame, Pin, Stats, Until, Worker};
use frameport_sys::clock::now_ns;
use frameport_sys::world;
use serde_json::Value;

use super::{IN_PLACE, Plan, Truth, WAIT, other_spec, pad, rest, spec, timed};
use crate::harness::{Shared, chance, check_counts, check_left, ensure, margin};
use crate::stream::{look, paint};

/// The host's side of a world.
struct Host {
    worker: Worker,
    plan: Plan,
    truth: Shared<Truth>,
    held: Vec<Frame>,
    pin: Option<Pin>,
    next_seq: u64,
    /// Why nothing comes any more.
    ended: Option<Error>,
}

impl Host {
    fn send(&mut self) {
        let is_live = self.truth.with(|truth| {
            truth.input.disturb();
            truth.input.is_live()
        });
        let asked = now_ns();
        let loaned = match world::below(2) {
            0 => self.worker.loan_if_free().map(|loaned| loaned.ok_or(())),
            _ => match self.worker.loan_until(Until::after(WAIT)) {
                Err(Error::PoolExhausted(_)) => {
                    self.truth.with(|truth| truth.wait(if is_live { Duration::ZERO } else { WAIT }));
                    Ok(Err(()))
                }
                other => other.map(Ok),
            },
        };
        // Nothing else can have kept it from a slot.
        let (away, came_home) = self.truth.with(|truth| (truth.away, truth.came_home));
        let was_free = !is_live && !self.plan.changes && self.pin.is_none() && away < self.plan.slots && loaned.is_ok();
        let is_late = was_free && came_home.max(asked) + margin() < now_ns();
        ensure(!is_late, || format!("a slot's wake-up was lost: {away} away, one came home at {came_home}"));
        let mut frame = match loaned {
            Ok(Ok(frame)) => frame,
            Ok(Err(())) => return,
            Err(error) => return self.end(error),
        };
        self.truth.with(|truth| truth.away += 1);
        let seq = self.next_seq;
        paint(&mut frame, seq);
        frame.set_seq(seq);
        if chance(10) {
            drop(frame);
            return self.truth.with(Truth::come_home);
        }
        if chance(6) {
            self.pin = Some(frame.pin());
        }
        self.next_seq += 1;
        self.truth.with(|truth| truth.input.begin(seq, seq, truth.params));
        let sent = self.worker.send(frame);
        self.truth.with(|truth| truth.input.end(sent.is_ok()));
        if let Err(error) = sent {
            self.truth.with(Truth::come_home);
            self.end(error);
        }
    }

    fn recv(&mut self, blocks: bool) {
        let asked = self.truth.with(|truth| truth.output.ask());
        let found = match world::below(3) {
            _ if blocks => self.worker.recv().map(Some),
            0 => self.worker.try_recv(),
            _ => match self.worker.recv_timeout(WAIT) {
                Err(Error::Timeout { .. }) => {
                    self.truth.with(|truth| {
                        truth.wait(WAIT);
                        truth.output.starve();
                    });
                    Ok(None)
                }
                other => other.map(Some),
            },
        };
        match found {
            Ok(Some(frame)) => {
                let (picture, _) = self.truth.with(|truth| truth.output.arrive(frame.seq(), asked));
                look(&frame, picture);
                self.held.push(frame);
                if chance(2) || self.held.len() > 2 {
                    self.let_go();
                }
            }
            Ok(None) => {}
            Err(error) => self.end(error),
        }
    }

    fn change(&mut self) {
        let limit = Until::after(WAIT);
        let changed = timed(&self.truth, || match world::below(3) {
            0 => self.worker.change_spec_until(other_spec(), limit),
            1 => self.worker.sender("in").unwrap().change_spec_until(other_spec(), limit),
            _ => self.worker.receiver("out").unwrap().change_spec_until(other_spec(), limit),
        });
        match changed {
            Ok(()) | Err(Error::PoolExhausted(_) | Error::Timeout { .. }) => {}
            Err(error) => self.end(error),
        }
    }

    fn let_go(&mut self) {
        if let Some(frame) = self.held.pop() {
            let picture = frame.meta().unwrap().get("picture").and_then(serde_json::Value::as_u64).unwrap();
            // It has not changed meanwhile.
            look(&frame, picture);
            drop(frame);
            if picture >= IN_PLACE {
                self.truth.with(Truth::come_home);
            }
        }
    }

    /// An operation said that the link is over.
    fn end(&mut self, error: Error) {
        let pid = self.worker.pid();
        let left = self.truth.with(|truth| truth.left);
        let is_right = match &error {
            Error::WorkerDied(death) => {
                !world::is_alive(pid)
                    && match death.exit {
                        Exit::Signal(9) => self.plan.fate.kill.is_some(),
                        Exit::Code(code) => left == Some(code),
                        _ => false,
                    }
            }
            Error::LinkClosed { .. } => left == Some(0) || self.plan.fickle,
            _ => false,
        };
        ensure(is_right, || format!("the worker (left: {left:?}) ended in {error:?}"));
        self.ended = Some(error);
    }

    fn run(&mut self) {
        let mut before = Stats::default();
        for _ in 0..self.plan.turns {
            match world::below(16) {
                0..7 if self.ended.is_none() => self.send(),
                7..12 if self.ended.is_none() => self.recv(false),
                12 => {
                    let n = self.truth.with(|truth| truth.params) + 1;
                    let values = [("n", n.into()), ("pad", Value::from(pad(5000)))];
                    self.worker.params().extend(values).unwrap();
                    self.truth.with(|truth| truth.params = n);
                }
                13 => {
                    let stats = self.worker.stats();
                    check_counts(&stats);
                    ensure(stats.received >= before.received && stats.sent >= before.sent, || format!("{stats:?}"));
                    before = stats;
                }
                14 => {
                    self.pin = None;
                    ensure(self.worker.holders().len() <= 4 * self.plan.slots as usize + 6, || "holders".to_owned());
                }
                15 if self.plan.changes && self.ended.is_none() => self.change(),
                _ => rest(&self.truth),
            }
        }
    }

    /// Ends the worker, and looks at what is left of it.
    fn finish(mut self) {
        if chance(2) {
            self.worker.finish();
            while self.ended.is_none() {
                self.recv(true);
            }
            if matches!(self.ended, Some(Error::LinkClosed { .. })) && !self.plan.fickle {
                self.truth.with(|truth| {
                    truth.output.finish();
                    truth.input.finish();
                });
            }
        }
        let exit = self.worker.stop().unwrap();
        let left = self.truth.with(|truth| truth.left);
        let expected = match exit {
            Exit::Code(code) => left == Some(code) || code == 1,
            Exit::Signal(9) => self.plan.fate.kill.is_some() || self.plan.fate.stop.is_some(),
            _ => self.plan.fate.stop.is_some(),
        };
        ensure(expected, || format!("{exit} after {left:?}"));
        let stats = self.worker.stats();
        check_counts(&stats);
        ensure(stats.in_flight == 0, || format!("in flight after the stop: {stats:?}"));
        self.pin = None;
        while !self.held.is_empty() {
            self.let_go();
        }
        let holders = self.worker.holders();
        ensure(holders.is_empty(), || format!("not at home: {holders:?}"));
        let (sent, received) = self.truth.with(|truth| (truth.input.sent(), truth.output.received()));
        let counted = (stats.sent, stats.results);
        ensure(counted == (sent as u64, received as u64), || format!("{sent} sent, {received} received: {stats:?}"));
    }
}

/// One world.
pub(super) fn host(plan: Plan, truth: &Shared<Truth>) {
    // The service and its like stay.
    let warm_up = Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn();
    drop(warm_up);
    let before = world::census(world::this_process());
    let heard = truth.clone();
    let started = Worker::command("works")
        .input("in", spec(), plan.input)
        .output("out", spec(), plan.output)
        .slots(plan.slots)
        .wait(plan.wait)
        .on_event(move |event| {
            let n = event.fields.get("n").and_then(serde_json::Value::as_u64).unwrap();
            heard.with(|truth| {
                ensure(n == truth.heard, || format!("event {n}, not {}", truth.heard));
                truth.heard = n + 1;
            });
        })
        .spawn();
    match started {
        Ok(worker) => {
            let truth = truth.clone();
            let mut host = Host { worker, plan, truth, held: Vec::new(), pin: None, next_seq: 0, ended: None };
            host.run();
            host.finish();
        }
        Err(Error::WorkerDied(_)) if plan.fate.kill.is_some() => {}
        Err(error) => world::fail(&format!("it does not start: {error}")),
    }
    check_left(before);
}
