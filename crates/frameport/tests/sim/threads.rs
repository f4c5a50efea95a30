//! A host and a worker of several threads each: one sends, one receives, one meddles, and frames are dropped where they were
//! not received.

use std::sync::Arc;
use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Frame, Link, Until, Worker};
use frameport_sys::sync::mpsc::{Receiver, channel};
use frameport_sys::thread::{Builder, JoinHandle, sleep, yield_now};
use frameport_sys::world::{self, Fate, Random, World};

use crate::harness::{Shared, chance, check_counts, check_left, ensure, explore, faults, in_time, some_time};
use crate::stream::{Stream, edit, look, paint};

#[derive(Clone, Copy, Debug)]
struct Plan {
    input: Delivery,
    output: Delivery,
    frames: u64,
    kill: Option<u64>,
    /// The meddler stops the worker while the others are busy.
    stops: bool,
}

#[derive(Debug)]
struct Truth {
    input: Stream,
    output: Stream,
}

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 5, 5)
}

fn start<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(run).unwrap()
}

/// Takes frames from the thread that receives them, and answers some.
fn answer(link: &Link, frames: &Receiver<Frame>, truth: &Shared<Truth>) {
    while let Ok(mut frame) = frames.recv() {
        let seq = frame.seq();
        look(&frame, seq);
        if chance(3) {
            continue;
        }
        truth.with(|truth| truth.output.disturb());
        if chance(2) {
            edit(&mut frame, seq + 900);
            truth.with(|truth| truth.output.begin(seq, seq + 900, 0));
            let sent = link.send_back(frame).is_ok();
            truth.with(|truth| truth.output.end(sent));
            continue;
        }
        let Ok(mut reply) = link.reply_until(&frame, Until::forever()) else { return };
        paint(&mut reply, seq + 500);
        truth.with(|truth| truth.output.begin(seq, seq + 500, 0));
        let sent = link.send(reply).is_ok();
        truth.with(|truth| truth.output.end(sent));
        if chance(2) {
            yield_now();
        }
    }
}

fn work(truth: &Shared<Truth>) -> i32 {
    let Ok(link) = Link::from_env().map(Arc::new) else { return 1 };
    let (frames, received) = channel();
    let (of_thread, its_truth) = (Arc::clone(&link), truth.clone());
    let answering = start("answers", move || answer(&of_thread, &received, &its_truth));
    loop {
        let asked = truth.with(|truth| truth.input.ask());
        match link.recv() {
            Ok(frame) => {
                truth.with(|truth| truth.input.arrive(frame.seq(), asked));
                if frames.send(frame).is_err() {
                    break;
                }
            }
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => world::fail(&format!("the worker's recv: {error}")),
        }
    }
    drop(frames);
    let _ = answering.join();
    0
}

fn is_end(plan: Plan, error: &Error) -> bool {
    matches!(error, Error::LinkClosed { .. }) || (matches!(error, Error::WorkerDied(_)) && plan.kill.is_some())
}

fn send(worker: &Worker, plan: Plan, truth: &Shared<Truth>) {
    for seq in 0..plan.frames {
        truth.with(|truth| truth.input.disturb());
        let mut frame = match worker.loan() {
            Ok(frame) => frame,
            Err(Error::PoolExhausted(_)) if plan.input != Delivery::Lossless => continue,
            Err(error) => return ensure(is_end(plan, &error), || format!("a loan: {error}")),
        };
        paint(&mut frame, seq);
        frame.set_seq(seq);
        truth.with(|truth| truth.input.begin(seq, seq, 0));
        let sent = worker.send(frame);
        truth.with(|truth| truth.input.end(sent.is_ok()));
        if let Err(error) = sent {
            return ensure(is_end(plan, &error), || format!("a send: {error}"));
        }
    }
    worker.finish();
}

fn receive(worker: &Worker, plan: Plan, truth: &Shared<Truth>) {
    let mut held = Vec::new();
    loop {
        let asked = truth.with(|truth| truth.output.ask());
        match worker.recv() {
            Ok(frame) => {
                let (picture, _) = truth.with(|truth| truth.output.arrive(frame.seq(), asked));
                look(&frame, picture);
                held.push(frame);
                if chance(2) {
                    // Whoever waits for a slot of its own is told by this thread.
                    held.clear();
                }
                if held.len() > 1 {
                    sleep(some_time(Duration::from_micros(500)));
                    held.clear();
                }
            }
            Err(error) => {
                ensure(is_end(plan, &error), || format!("a recv: {error}"));
                if !plan.stops && matches!(error, Error::LinkClosed { .. }) {
                    truth.with(|truth| truth.output.finish());
                }
                return;
            }
        }
    }
}

fn host(plan: Plan, truth: &Shared<Truth>) {
    drop(Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn());
    let before = world::census(world::this_process());
    let started =
        Worker::command("works").input("in", spec(), plan.input).output("out", spec(), plan.output).slots(4).spawn();
    let worker = match started {
        Ok(worker) => Arc::new(worker),
        Err(Error::WorkerDied(_)) if plan.kill.is_some() => return check_left(before),
        Err(error) => world::fail(&format!("it does not start: {error}")),
    };
    let (one, its_truth) = (Arc::clone(&worker), truth.clone());
    let sending = start("sends", move || send(&one, plan, &its_truth));
    let (one, its_truth) = (Arc::clone(&worker), truth.clone());
    let receiving = start("receives", move || receive(&one, plan, &its_truth));
    for _ in 0..world::below(20) {
        match world::below(4) {
            0 => check_counts(&worker.stats()),
            1 => drop(worker.holders()),
            2 => drop(worker.params().set("n", world::below(1000))),
            _ => sleep(some_time(Duration::from_millis(1))),
        }
    }
    if plan.stops {
        worker.stop().unwrap();
    }
    sending.join().unwrap();
    receiving.join().unwrap();
    worker.stop().unwrap();
    let stats = worker.stats();
    check_counts(&stats);
    ensure(stats.in_flight == 0 && worker.holders().is_empty(), || format!("{stats:?}: {:?}", worker.holders()));
    drop(worker);
    check_left(before);
}

#[test]
fn threads() {
    explore("threads", 1000, |seed| {
        let mut random = Random(seed ^ 0x73ad);
        let mut below = |limit| random.below(limit);
        let delivery = |number| [Delivery::Lossless, Delivery::Lossless, Delivery::Latest, Delivery::Newest(2)][number];
        let plan = Plan {
            input: delivery(below(4) as usize),
            output: delivery(below(4) as usize),
            frames: 1 + below(30),
            kill: (below(3) == 0).then(|| 1 + below(4000)),
            stops: below(4) == 0,
        };
        let truth = Shared::new(Truth { input: Stream::new(plan.input), output: Stream::new(plan.output) });
        let of_worker = truth.clone();
        let report = World::new(seed, faults(seed))
            .program("leaves", |_| Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err())))
            .program("works", move |_| work(&of_worker))
            .fates(move |_, name| Fate { kill: plan.kill.filter(|_| name == "works"), stop: None })
            .run(move || host(plan, &truth));
        in_time(report, seed, || Duration::from_millis(20))
    });
}
