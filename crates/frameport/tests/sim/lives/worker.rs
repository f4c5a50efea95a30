//! The worker's part of a world.

use std::time::Duration;

use super::{Life, OF_LIFE, Plan, STARTS, Truth, WAIT, rest};
use crate::harness::{Shared, chance, ensure};
use crate::stream::{Stream, edit, look, paint};
use frameport::{Error, Frame, FrameMut, Link, Sender, Until};
use frameport_sys::clock::now_ns;
use frameport_sys::process::exit;
use frameport_sys::thread::yield_now;
use frameport_sys::world;

/// One life.
struct Mine<'a> {
    plan: Plan,
    truth: &'a Shared<Truth>,
    process: u32,
    link: Link,
    outputs: [Sender; 2],
    own: u64,
}

/// The worker. Answers with the status it leaves with.
pub(super) fn work(plan: Plan, truth: &Shared<Truth>) -> i32 {
    let process = world::this_process();
    let fails = plan.fails && chance(3);
    let is_first = truth.with(|truth| {
        ensure(truth.row.0 < plan.starts, || "a start after it was given up".to_owned());
        let is_first = truth.lives.is_empty();
        if fails && !is_first {
            // One that is killed meanwhile hardly counts.
            truth.row = (truth.row.0 + u32::from(!truth.is_doomed), truth.row.1 + 1);
        } else {
            truth.row.0 = 0;
        }
        let outputs = plan.outputs.map(Stream::new);
        truth.lives.insert(process, Life { input: Stream::new(plan.input), outputs, ready_at: None, left: None });
        is_first
    });
    if fails && !is_first {
        return 5;
    }
    // The host may have given up meanwhile.
    let Ok(link) = Link::from_env() else { return 1 };
    let outputs = ["out", "more"].map(|name| link.sender(name).unwrap());
    let mut mine = Mine { plan, truth, process, link, outputs, own: 0 };
    let left = mine.live();
    mine.mine(|life| life.left = Some(left));
    left
}

impl Mine<'_> {
    fn mine<T>(&self, look: impl FnOnce(&mut Life) -> T) -> T {
        self.truth.with(|truth| look(truth.life(self.process)))
    }

    fn recv(&self) -> Result<Option<Frame>, Error> {
        match world::below(3) {
            0 => self.link.try_recv(),
            1 => match self.link.recv_timeout(WAIT) {
                Err(Error::Timeout { .. }) => {
                    self.truth.with(|truth| truth.wait(WAIT));
                    self.mine(|life| life.input.starve());
                    Ok(None)
                }
                other => other.map(Some),
            },
            _ => self.link.recv().map(Some),
        }
    }

    fn live(&mut self) -> i32 {
        let mut held: Vec<(Frame, u64)> = Vec::new();
        let may_die = self.truth.with(|truth| truth.starts < STARTS);
        loop {
            let asked = self.mine(|life| life.input.ask());
            let found = self.recv();
            self.mine(|life| _ = life.ready_at.get_or_insert_with(now_ns));
            match found {
                Ok(Some(frame)) => {
                    // One that ends earlier may be dead when its host looks whether it is ready.
                    self.truth.with(|truth| truth.row.1 = 0);
                    let (picture, params) = self.mine(|life| life.input.arrive(frame.seq(), asked));
                    look(&frame, picture);
                    let known = frame.params().unwrap().get("n").and_then(serde_json::Value::as_u64).unwrap_or(0);
                    ensure(known >= params, || format!("parameters {known} with a frame sent after {params}"));
                    match world::below(4) {
                        0 if held.len() + 2 < self.plan.slots as usize => held.push((frame, picture)),
                        0 => {}
                        1 | 2 => self.answer(frame),
                        _ => self.reply(&frame),
                    }
                }
                Ok(None) => yield_now(),
                Err(Error::LinkClosed { .. }) => break,
                Err(error) => world::fail(&format!("the worker's recv: {error}")),
            }
            if chance(4)
                && let Some((frame, picture)) = held.pop()
            {
                look(&frame, picture);
            }
            if chance(4) {
                self.send_own();
            }
            if chance(10) {
                rest(self.truth, Duration::from_millis(2));
            }
            if self.plan.stall.is_some() && may_die && chance(12) {
                let long = Duration::from_millis(25);
                self.truth.with(|truth| truth.wait(long));
                frameport_sys::thread::sleep(long);
            }
            if self.plan.fickle && may_die && chance(12) {
                let fails = chance(2);
                self.mine(|life| life.left = Some(if fails { 3 } else { 7 }));
                let took = self.mine(|life| life.input.received()) > 0;
                self.truth.with(|truth| truth.row.1 += u32::from(!took));
                if fails {
                    self.link.fail("enough");
                    return 3;
                }
                exit(7);
            }
            if self.plan.leaves && chance(20) {
                break;
            }
        }
        held.iter().for_each(|(frame, picture)| look(frame, *picture));
        0
    }

    /// Sends on one of the two channels what shows `picture`.
    fn send(&self, channel: usize, seq: u64, picture: u64, send: impl FnOnce() -> Result<(), Error>) {
        self.mine(|life| life.outputs[channel].begin(seq, picture, 0));
        let sent = send();
        self.mine(|life| life.outputs[channel].end(sent.is_ok()));
        match sent {
            Ok(()) | Err(Error::LinkClosed { .. }) => {}
            Err(Error::PoolExhausted(_)) => self.truth.with(|truth| truth.wait(WAIT)),
            // Of a spec that does not go out any more.
            Err(Error::Format { .. }) if self.plan.changes => {}
            Err(error) => world::fail(&format!("the worker's send: {error}")),
        }
    }

    /// Sends a frame back in place, edited.
    fn answer(&self, mut frame: Frame) {
        let (seq, picture) = (frame.seq(), self.process as u64 * OF_LIFE + frame.seq());
        edit(&mut frame, picture);
        self.mine(|life| life.outputs[0].disturb());
        self.send(0, seq, picture, || self.link.send_back_until(frame, Until::after(WAIT)));
    }

    /// Answers from the pool.
    fn reply(&self, frame: &Frame) {
        self.mine(|life| life.outputs[0].disturb());
        match self.link.reply_until(frame, Until::after(WAIT)) {
            Ok(reply) => self.send_painted(0, reply, frame.seq()),
            Err(Error::LinkClosed { .. }) => {}
            Err(Error::PoolExhausted(_)) => self.truth.with(|truth| truth.wait(WAIT)),
            Err(error) => world::fail(&format!("the worker's loan: {error}")),
        }
    }

    fn send_own(&mut self) {
        let channel = world::below(2) as usize;
        self.mine(|life| life.outputs[channel].disturb());
        if let Ok(Some(mut own)) = self.outputs[channel].loan_if_free() {
            self.own += 1;
            let number = OF_LIFE / 2 + self.own;
            own.set_seq(self.process as u64 * OF_LIFE + number);
            self.send_painted(channel, own, number);
        }
    }

    fn send_painted(&self, channel: usize, mut frame: FrameMut, number: u64) {
        let picture = self.process as u64 * OF_LIFE + number;
        let seq = if number < OF_LIFE / 2 { number } else { picture };
        paint(&mut frame, picture);
        self.send(channel, seq, picture, || self.outputs[channel].send(frame).map(drop));
    }
}
