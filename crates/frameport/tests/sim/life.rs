//! Beginnings that fail and ends of all kinds: what cannot be made, a worker killed at any step of its start, a host that dies.

use std::time::Duration;

use frameport::spec::{BytesSpec, Spec};
use frameport::{Delivery, Error, Exit, Link, Until, Worker};
use frameport_sys::clock::now_ns;
use frameport_sys::thread::yield_now;
use frameport_sys::world::{self, Failure, Fate, Faults, Random, Report, World};

use crate::harness::{Shared, chance, check_left, ensure, explore, faults};

fn spec() -> Spec {
    BytesSpec::new(40).into()
}

/// Takes what comes until it is told to leave.
fn take() -> i32 {
    let Ok(link) = Link::from_env() else { return 1 };
    loop {
        match link.recv() {
            Ok(frame) if chance(2) => drop(link.send_back(frame)),
            Ok(_) => {}
            Err(_) => return 0,
        }
    }
}

fn world(seed: u64, faults: Faults) -> World {
    World::new(seed, faults).program("takes", |_| take())
}

fn start() -> Result<Worker, Error> {
    Worker::command("takes")
        .input("in", spec(), Delivery::Lossless)
        .output("out", spec(), Delivery::Lossless)
        .ready_timeout(Duration::from_secs(5))
        .spawn()
}

#[test]
fn starts() {
    explore("starts", 3000, |seed| {
        let mut random = Random(seed ^ 0x57a7);
        let kill = (random.below(3) == 0).then(|| 1 + random.below(300));
        let mut one_of = |many: u64| if random.below(3) == 0 { 1 + random.below(many) } else { 0 };
        let (regions, handles, threads, spawns) = (one_of(10), one_of(20), one_of(4), one_of(3));
        let fates = move |_: &mut Random, name: &str| Fate { kill: kill.filter(|_| name == "takes"), stop: None };
        world(seed, faults(seed)).fates(fates).run(move || {
            drop(start());
            let before = world::census(world::this_process());
            world::change_faults(|faults| {
                (faults.regions, faults.handles) = (regions, handles);
                (faults.threads, faults.spawns) = (threads, spawns);
            });
            for _ in 0..3 {
                match start() {
                    Ok(worker) => {
                        let sent = worker.loan().and_then(|frame| worker.send(frame));
                        let died = matches!(sent, Err(Error::WorkerDied(_)));
                        ensure(sent.is_ok() || (died && kill.is_some()), || format!("{sent:?}"));
                    }
                    Err(Error::WorkerDied(death)) => {
                        let is_killed = death.exit == Exit::Signal(9) && kill.is_some();
                        // A worker without threads, or without what it sleeps on, cannot connect, and leaves.
                        let gave_up = death.exit == Exit::Code(1) && threads + handles > 0;
                        ensure(is_killed || gave_up, || format!("{death:?}"));
                    }
                    Err(Error::System { .. }) => ensure(regions + handles + threads > 0, || "System".to_owned()),
                    Err(Error::Spawn { .. }) => ensure(spawns > 0, || "Spawn".to_owned()),
                    Err(error) => world::fail(&format!("a start: {error:?}")),
                }
            }
            world::change_faults(|faults| {
                (faults.regions, faults.handles, faults.threads, faults.spawns) = (0, 0, 0, 0);
            });
            check_left(before);
            if kill.is_none() {
                ensure(start().is_ok(), || "it does not start any more".to_owned());
            }
        })
    });
}

/// A worker to which something cannot be handed over ends with the reason: nobody waits in vain for what it was not told.
#[test]
fn untold() {
    explore("untold", 1000, |seed| {
        world(seed, faults(seed)).run(|| {
            drop(start());
            let before = world::census(world::this_process());
            let worker = start().unwrap();
            world::change_faults(|faults| faults.sends = 4);
            let change = || -> Result<(), Error> {
                let capacity = 40 + world::below(9) as usize;
                worker.change_spec(BytesSpec::new(capacity))?;
                worker.send(worker.loan()?)?;
                worker.recv_timeout(Duration::from_secs(1)).map(drop)
            };
            let ended = (0..200).find_map(|_| match change() {
                // It sends half of them back.
                Ok(()) | Err(Error::Timeout { .. }) => None,
                Err(error) => Some(error),
            });
            let is_told = matches!(&ended, Some(Error::Untold { what, .. }) if what.contains("faults"));
            ensure(is_told, || format!("{ended:?}"));
            ensure(worker.wait_exit(Duration::from_secs(1)).is_some(), || "it lives on".to_owned());
            drop(worker);
            check_left(before);
        })
    });
}

/// Parameters are there at once, however early the worker asks.
#[test]
fn early_parameters() {
    explore("early_parameters", 1000, |seed| {
        World::new(seed, faults(seed))
            .program("asks", |_| {
                let Ok(link) = Link::from_env() else { return 1 };
                let seen = link.params().unwrap().get("n").cloned();
                ensure(seen == Some(7.into()), || format!("{seen:?}"));
                while link.recv().is_ok() {}
                0
            })
            .run(|| {
                let worker = Worker::command("asks").input("in", spec(), Delivery::Latest).param("n", 7).spawn();
                drop(worker.unwrap());
            })
    });
}

/// No worker outlives its host by a second, though the system does not see to it.
#[test]
fn host_dies() {
    explore("host_dies", 400, |seed| {
        let died = Shared::new(0);
        let of_worker = died.clone();
        let host_died = died.clone();
        let steps = Random(seed ^ 0xdead).below(1200) + 1;
        let faults = Faults { die_with_parent: false, delays: 0, ..faults(seed) };
        let report = World::new(seed, faults)
            .program("busy", move |_| {
                // One that never waits.
                let Ok(link) = Link::from_env() else { return 1 };
                let _ready = link.try_recv();
                while of_worker.with(|died| *died == 0) || chance(20) {
                    yield_now();
                }
                loop {
                    frameport_sys::thread::sleep(Duration::from_millis(100));
                }
            })
            .program("takes", |_| take())
            .fates(move |_, name| Fate { kill: (name == "host").then_some(steps), stop: None })
            .run(move || {
                let _one = start();
                let busy = Worker::command("busy").input("in", spec(), Delivery::Lossless).spawn();
                died.with(|died| *died = now_ns());
                if let Ok(worker) = &busy {
                    let _ = worker.loan_until(Until::after(Duration::from_millis(50))).map(|frame| worker.send(frame));
                }
                loop {
                    yield_now();
                    died.with(|died| *died = now_ns());
                }
            });
        report.inspect(|Report { time, .. }| {
            let died = host_died.with(|died| *died);
            let late = time.as_nanos() as u64 - died;
            assert!(died == 0 || late < 1_000_000_000, "seed {seed}: {late} ns after the host");
        })
    });
}

/// The same seed is the same world, another is another.
#[test]
fn seeds() {
    let run = |seed| {
        world(seed, faults(seed)).run(|| {
            let worker = start().unwrap();
            for _ in 0..10 {
                let loaned = worker.loan_if_free().unwrap();
                loaned.map(|frame| worker.send(frame).unwrap());
                drop(worker.try_recv());
            }
        })
    };
    for seed in 0..50 {
        let (one, same, other): (Result<_, Failure>, _, _) = (run(seed), run(seed), run(seed + 1));
        assert_eq!(one, same, "seed {seed}");
        assert_ne!(one.unwrap().fingerprint, other.unwrap().fingerprint, "seed {seed}");
    }
}

/// What must not pass for a world that went well.
#[test]
fn bad_worlds() {
    use frameport_sys::sync::mpsc::channel;
    let failure = |host: fn()| World::new(1, Faults { steps: 50_000, ..faults(1) }).run(host).unwrap_err().what;
    let deadlock = failure(|| {
        let (_sender, receiver) = channel::<()>();
        let _ = receiver.recv();
    });
    assert!(deadlock.contains("deadlock") && deadlock.contains("waits for a queue"), "{deadlock}");
    assert!(
        failure(|| loop {
            yield_now()
        })
        .contains("livelock")
    );
    let panic = failure(|| assert_eq!(start().map(|worker| worker.pid()).unwrap_or(1), 2));
    assert!(panic.contains("left: 1"), "{panic}");
}
