//! An audience whose members join, leave, hold what they may and die while its host sends.

use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Audience, Delivery, Error, Exit, Frame, Link, Pin, Worker};
use frameport_sys::thread::{sleep, yield_now};
use frameport_sys::world::{self, Fate, Random, World};

use crate::harness::{Shared, chance, check_counts, check_left, ensure, explore, faults, in_time, some_time};
use crate::stream::{Stream, look, paint};

/// What each member's worker may expect, by its number.
type Truth = Shared<Vec<(Stream, Option<i32>)>>;

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Gray, 13, 9)
}

/// How often the audience's spec changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    Never,
    /// Members may still hold frames of the spec before.
    Once,
    /// Members hold nothing: a lossless one would keep its host from the next change but one.
    Often,
}

/// A member: holds up to `quota - 2` frames, and looks at them again.
fn work(number: usize, quota: usize, changes: Changes, truth: &Truth) -> i32 {
    let Ok(link) = Link::from_env() else { return 1 };
    let mut held: Vec<(Frame, u64)> = Vec::new();
    loop {
        let asked = truth.with(|truth| truth[number].0.ask());
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => world::fail(&format!("a member's recv: {error}")),
        };
        let (picture, _) = truth.with(|truth| truth[number].0.arrive(frame.seq(), asked));
        look(&frame, picture);
        ensure(!frame.payload().copy_from(0, &[0]), || "a member may write".to_owned());
        if changes != Changes::Often && held.len() + 2 < quota && chance(2) {
            drop(frame.hold());
            held.push((frame, picture));
        }
        if chance(3)
            && let Some((frame, picture)) = held.pop()
        {
            look(&frame, picture);
        }
        if chance(6) {
            sleep(some_time(Duration::from_millis(1)));
        }
        if chance(40) {
            break;
        }
    }
    held.iter().for_each(|(frame, picture)| look(frame, *picture));
    truth.with(|truth| truth[number].1 = Some(0));
    0
}

/// A member as its host knows it.
struct Member {
    worker: Worker,
    number: usize,
    delivery: Delivery,
    /// Frames it had no room for.
    missed: u64,
}

struct Host {
    audience: Audience,
    members: Vec<Member>,
    started: usize,
    /// Slots that are not members' yet.
    room: u32,
    truth: Truth,
    next_seq: u64,
    deadly: bool,
    changes: Changes,
    pins: Vec<Pin>,
}

/// Slots of the audience, and of each member.
const SLOTS: u32 = 10;
const QUOTA: u32 = 3;

impl Host {
    fn join(&mut self) {
        if self.room < QUOTA {
            return;
        }
        let number = self.started;
        let delivery = [Delivery::Lossless, Delivery::Latest, Delivery::Newest(2)][world::below(3) as usize];
        self.started += 1;
        self.truth.with(|truth| truth.push((Stream::new(delivery), None)));
        let started = Worker::command("member")
            .arg(number.to_string())
            .share("in", &self.audience, delivery, QUOTA)
            .send_deadline(Duration::from_secs(1))
            .spawn();
        match started {
            Ok(worker) => {
                self.room -= QUOTA;
                self.members.push(Member { worker, number, delivery, missed: 0 });
            }
            Err(Error::WorkerDied(death)) if death.exit == Exit::Signal(9) => {}
            Err(error) => world::fail(&format!("a member does not start: {error}")),
        }
    }

    fn send(&mut self) {
        let mut frame = match self.audience.loan() {
            Ok(frame) => frame,
            Err(error) => world::fail(&format!("no slot for the next frame: {error}")),
        };
        // It may have taken frames back.
        self.truth.with(|truth| truth.iter_mut().for_each(|(stream, _)| stream.disturb()));
        let seq = self.next_seq;
        paint(&mut frame, seq);
        if chance(10) {
            return;
        }
        if self.pins.is_empty() && chance(6) {
            self.pins.push(frame.pin());
        }
        frame.set_seq(seq);
        self.next_seq += 1;
        let numbers: Vec<usize> = self.members.iter().map(|member| member.number).collect();
        self.truth.with(|truth| numbers.iter().for_each(|&number| truth[number].0.begin(seq, seq, 0)));
        ensure(self.audience.send(frame).is_ok(), || "an audience's send".to_owned());
        // A live member that has its quota misses it.
        let misses = |member: &mut Member| {
            let before = std::mem::replace(&mut member.missed, member.worker.stats().no_slot);
            member.missed > before
        };
        let missed: Vec<bool> = self.members.iter_mut().map(misses).collect();
        self.truth.with(|truth| {
            numbers.iter().zip(&missed).for_each(|(&number, missed)| {
                truth[number].0.end(!missed);
            });
        });
    }

    fn change(&mut self) {
        let spec = VideoSpec::new(PixelFormat::Gray, 9 + world::below(6) as u32, 9);
        let changed = self.audience.change_spec(spec);
        ensure(changed.is_ok(), || format!("the audience's change: {changed:?}"));
        if self.changes == Changes::Once {
            self.changes = Changes::Never;
        }
    }

    /// Ends a member and looks at how it was.
    fn leave(&mut self, index: usize) {
        let Member { worker, number, delivery, missed } = self.members.swap_remove(index);
        let ends_in_order = chance(2);
        if ends_in_order {
            worker.finish();
            ensure(worker.wait_exit(Duration::from_secs(10)).is_some(), || "a member stays".to_owned());
        }
        let exit = worker.stop().unwrap();
        let stats = worker.stats();
        check_counts(&stats);
        ensure(stats.in_flight == 0, || format!("in flight after the stop: {stats:?}"));
        ensure(delivery != Delivery::Lossless || missed == 0, || format!("a lossless member missed: {stats:?}"));
        let left = self.truth.with(|truth| truth[number].1);
        let expected = match exit {
            Exit::Code(code) => left == Some(code) || code == 1,
            Exit::Signal(9) => self.deadly,
            _ => false,
        };
        ensure(expected, || format!("{exit} after {left:?}"));
        drop(worker);
        self.room += QUOTA;
    }

    fn run(&mut self) {
        for _ in 0..10 + world::below(50) {
            match world::below(12) {
                0 => self.join(),
                1 if !self.members.is_empty() => self.leave(world::below(self.members.len() as u64) as usize),
                2 => drop(self.audience.holders()),
                3 => {
                    let stats = self.audience.stats();
                    ensure(stats.free <= u64::from(SLOTS), || format!("{stats:?}"));
                }
                4 => self.pins.clear(),
                5 => sleep(some_time(Duration::from_millis(1))),
                6 => yield_now(),
                7 if self.changes != Changes::Never => self.change(),
                _ => self.send(),
            }
        }
        while !self.members.is_empty() {
            self.leave(0);
        }
        self.pins.clear();
        let stats = self.audience.stats();
        ensure(stats.free == u64::from(SLOTS) && stats.members == 0, || format!("not at home: {stats:?}"));
        ensure(self.audience.holders().is_empty(), || "holders".to_owned());
    }
}

#[test]
fn fanout() {
    explore("fanout", 1500, |seed| {
        let mut random = Random(seed ^ 0xfa40);
        let deadly = random.below(2) == 0;
        let changes = [Changes::Never, Changes::Once, Changes::Often][random.below(3) as usize];
        let truth = Shared::new(Vec::new());
        let of_worker: Truth = truth.clone();
        let report = World::new(seed, faults(seed))
            .program("leaves", |_| Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err())))
            .program("member", move |args| work(args[0].parse().unwrap(), QUOTA as usize, changes, &of_worker))
            .fates(move |random, name| {
                let kills = deadly && name == "member" && random.below(2) == 0;
                Fate { kill: kills.then(|| 1 << random.below(12)).map(|most| 1 + random.below(most)), stop: None }
            })
            .run(move || {
                drop(Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn());
                let before = world::census(world::this_process());
                let audience = Audience::new(spec(), SLOTS).unwrap();
                let (members, pins) = (Vec::new(), Vec::new());
                let (started, room, next_seq) = (0, SLOTS - 1, 0);
                let mut host = Host { audience, members, started, room, truth, next_seq, deadly, changes, pins };
                host.run();
                drop(host);
                check_left(before);
            });
        in_time(report, seed, || Duration::from_millis(200))
    });
}
