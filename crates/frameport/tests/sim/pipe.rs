//! One worker with a channel in and one out, both of which do random things until one of them has enough or is killed.

use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Frame, FrameMut, Level, Link, Pin, Stats, Until, WaitStrategy, Worker, select};
use frameport_sys::clock::now_ns;
use frameport_sys::process::exit;
use frameport_sys::thread::{sleep, yield_now};
use frameport_sys::world::{self, Fate, Random, World};
use serde_json::Value;

use crate::harness::{Shared, chance, check_counts, check_left, ensure, explore, faults, in_time, margin, some_time};
use crate::stream::{Stream, edit, look, paint};

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

/// The worker. Answers with the status it leaves with.
fn work(plan: Plan, truth: &Shared<Truth>) -> i32 {
    // The host may have given up meanwhile.
    let Ok(link) = Link::from_env() else { return 1 };
    let mut held: Vec<(Frame, u64)> = Vec::new();
    let let_go = |(frame, picture): (Frame, u64)| {
        look(&frame, picture);
        drop(frame);
        truth.with(Truth::come_home);
    };
    // One that was stopped between its last look and its deadline may have missed it.
    let starve = || {
        truth.with(|truth| {
            truth.wait(WAIT);
            truth.input.starve();
        });
    };
    let mut next_own = 1_000_000;
    loop {
        let asked = truth.with(|truth| truth.input.ask());
        let found = match world::below(4) {
            0 => link.try_recv().map(|found| found.ok_or(())),
            1 => match link.recv_timeout(WAIT) {
                Err(Error::Timeout { .. }) => {
                    starve();
                    Ok(Err(()))
                }
                other => other.map(Ok),
            },
            2 => match select(&[&link.receiver("in").unwrap()], Until::after(WAIT)) {
                Ok(_) => link.try_recv().map(|found| found.ok_or(())),
                Err(Error::Timeout { .. }) => {
                    starve();
                    Ok(Err(()))
                }
                Err(error) => Err(error),
            },
            _ => link.recv().map(Ok),
        };
        let frame = match found {
            Ok(Ok(frame)) => frame,
            Ok(Err(())) => {
                yield_now();
                continue;
            }
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => world::fail(&format!("the worker's recv: {error}")),
        };
        let (picture, params) = truth.with(|truth| truth.input.arrive(frame.seq(), asked));
        look(&frame, picture);
        let known = frame.params().unwrap().get("n").and_then(serde_json::Value::as_u64).unwrap_or(0);
        ensure(known >= params, || format!("parameters {known} with a frame sent after {params}"));
        match world::below(5) {
            0 => let_go((frame, picture)),
            1 if held.len() + 2 < plan.slots as usize => {
                // A view less keeps the frame.
                drop(frame.hold());
                held.push((frame, picture));
            }
            2 | 3 => {
                if !answer(&link, frame, plan, truth) {
                    break;
                }
            }
            _ => {
                let answer = frame.seq() + 1_500_000;
                truth.with(|truth| truth.output.disturb());
                match link.reply_until(&frame, Until::after(WAIT)) {
                    Ok(mut reply) => {
                        paint(&mut reply, answer);
                        truth.with(|truth| truth.output.begin(frame.seq(), answer, 0));
                        let sent = link.send(reply).is_ok();
                        truth.with(|truth| truth.output.end(sent));
                    }
                    Err(Error::LinkClosed { .. }) => {}
                    Err(Error::PoolExhausted(_)) => truth.with(|truth| truth.wait(WAIT)),
                    Err(error) => world::fail(&format!("the worker's loan: {error}")),
                }
                let_go((frame, picture));
            }
        }
        if !held.is_empty() && chance(3) {
            let frame = held.swap_remove(world::below(held.len() as u64) as usize);
            let_go(frame);
        }
        if chance(8)
            && let Ok(Some(mut own)) = loan_own(&link, truth)
        {
            next_own += 1;
            paint(&mut own, next_own);
            own.set_seq(next_own);
            truth.with(|truth| truth.output.begin(next_own, next_own, 0));
            let sent = link.send(own).is_ok();
            truth.with(|truth| truth.output.end(sent));
        }
        if chance(8) && link.report(Level::Info, pad(3000), [("n", truth.with(|truth| truth.reported))]) {
            truth.with(|truth| truth.reported += 1);
        }
        if chance(10) {
            rest(truth);
        }
        if plan.changes && chance(15) {
            let sender = link.sender("out").unwrap();
            match timed(truth, || sender.change_spec_until(other_spec(), Until::after(WAIT))) {
                Ok(()) | Err(Error::PoolExhausted(_) | Error::Timeout { .. } | Error::LinkClosed { .. }) => {}
                // The one it gave up waiting for is under way.
                Err(Error::Config { .. }) => {}
                Err(error) => world::fail(&format!("the worker's change: {error:?}")),
            }
        }
        if plan.fickle && chance(15) {
            match world::below(3) {
                0 => break,
                1 => {
                    truth.with(|truth| truth.left = Some(7));
                    exit(7);
                }
                _ => {
                    link.fail("enough");
                    truth.with(|truth| truth.left = Some(3));
                    return 3;
                }
            }
        }
    }
    while let Some(frame) = held.pop() {
        let_go(frame);
    }
    truth.with(|truth| truth.left = Some(0));
    0
}

fn loan_own(link: &Link, truth: &Shared<Truth>) -> Result<Option<FrameMut>, Error> {
    truth.with(|truth| truth.output.disturb());
    link.loan_if_free()
}

/// Sends a frame back in place, edited or not; false when the link is closed.
fn answer(link: &Link, mut frame: Frame, plan: Plan, truth: &Shared<Truth>) -> bool {
    let hold = chance(4).then(|| frame.hold());
    let seq = frame.seq();
    let in_place = hold.is_none() && link.sender("out").unwrap().returns(&frame);
    let picture = seq + if in_place { IN_PLACE } else { 2_000_000 };
    edit(&mut frame, picture);
    let copied = link.copied();
    truth.with(|truth| {
        truth.output.disturb();
        truth.output.begin(seq, picture, 0);
    });
    let sent = link.send_back_until(frame, Until::after(WAIT));
    truth.with(|truth| truth.output.end(sent.is_ok()));
    drop(hold);
    if sent.is_err() || !in_place {
        truth.with(Truth::come_home);
    }
    let is_copied = link.copied() != copied;
    ensure(sent.is_err() || is_copied != in_place, || format!("frame {seq}: {in_place}, {is_copied}"));
    match sent {
        Ok(()) => true,
        // Of a spec that does not go out any more.
        Err(Error::Format { .. }) if plan.changes => true,
        Err(Error::PoolExhausted(_)) => {
            truth.with(|truth| truth.wait(WAIT));
            true
        }
        Err(Error::LinkClosed { .. }) => false,
        Err(error) => world::fail(&format!("the worker's answer: {error}")),
    }
}

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
fn host(plan: Plan, truth: &Shared<Truth>) {
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
