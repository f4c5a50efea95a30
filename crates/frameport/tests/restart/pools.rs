//! The memory of a worker's pools over its lives. Linux only: a pool is told from another by its inode, and a worker leaves
//! descriptors of it to a process of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use frameport::{Delivery, Worker};
use rustix::process::Signal;

use super::common::{Watched, apart, is_picture, stat};
use super::rig::Rig;
use super::{LONG, MARK, assert_died, await_restarts, kill, lively, mark, run_host, send};

#[test]
fn the_memory_of_pools_goes_to_the_next_life_unless_somebody_sees_it() {
    run_host("host_of_pools");
}

/// A worker that parks, and may leave its link and the memory it was given to a process outside of its group.
#[expect(clippy::zombie_processes, reason = "it outlives its parent, and its host ends it")]
pub(super) fn keep_parked(mark: &PathBuf, with_grandchild: bool) {
    let rig = Rig::connect();
    if with_grandchild && !mark.exists() {
        let inherited = rustix::io::FdFlags::empty();
        rustix::io::fcntl_setfd(&rig.link, inherited).unwrap();
        rig.regions.iter().for_each(|got| rustix::io::fcntl_setfd(&got.region, inherited).unwrap());
        let child = apart("sleep").arg("600").spawn().unwrap();
        std::fs::write(mark, child.id().to_string()).unwrap();
    }
    loop {
        std::thread::park();
    }
}

/// The inodes of the pools this process maps.
fn pools() -> BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let pools = maps.lines().filter(|line| line.contains("memfd:frameport-pool"));
    pools.map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect()
}

fn await_pools(found: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    let deadline = Instant::now() + LONG;
    loop {
        let now = pools();
        if found(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{now:?}");
        std::thread::yield_now();
    }
}

pub(super) fn are_passed_on() {
    let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
    let mut first = pools();
    assert_eq!(first.len(), 2);
    let mut lives = 0;
    let mut next = |worker: &Worker| {
        kill(worker);
        worker.recv_timeout(LONG).unwrap_err();
        lives += 1;
        await_restarts(worker, lives);
    };
    let exchange = |seq: u64| {
        send(&worker, seq);
        let back = worker.recv_timeout(LONG).unwrap();
        assert!(is_picture(&back, seq + 7));
        back
    };
    for life in 0..3 {
        drop(exchange(life));
        next(&worker);
        assert_eq!(await_pools(|now| now.len() == 2), first, "nothing sees them");
    }
    // A received frame, a loan, a view of a sent one, a result that nobody has received.
    let keepers: [&dyn Fn() -> Box<dyn std::any::Any>; 3] =
        [&|| Box::new(exchange(10)), &|| Box::new(worker.loan().unwrap()), &|| {
            let frame = worker.loan().unwrap();
            let pin = frame.pin();
            worker.send(frame).unwrap();
            drop(worker.recv_timeout(LONG).unwrap());
            Box::new(pin)
        }];
    for (index, keep) in keepers.into_iter().enumerate() {
        let kept = keep();
        next(&worker);
        let now = await_pools(|now| now.difference(&first).count() > 0);
        assert_eq!((now.difference(&first).count(), now.intersection(&first).count()), (1, 2), "keeper {index}");
        drop(kept);
        first = await_pools(|now| now.len() == 2);
    }
    send(&worker, 20);
    while worker.stats().received < worker.stats().sent || !worker.receiver("out").unwrap().is_ready() {
        std::thread::yield_now();
    }
    let pid = kill(&worker);
    await_restarts(&worker, 7);
    assert_eq!(pools().difference(&first).count(), 2, "the result is still to be received, in whichever pool it lies");
    assert!(is_picture(&worker.recv_timeout(LONG).unwrap(), 27));
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    drop(worker);
    assert!(pools().is_empty());

    for (role, fresh) in [("childless", 0), ("grandchild", 2)] {
        let mark = mark(role);
        let builder = lively(role, Delivery::Lossless).env(MARK, &mark).grace(Duration::from_millis(20));
        let worker = builder.spawn().unwrap();
        let first = pools();
        let deadline = Instant::now() + LONG;
        let is_apart = || {
            let grandchild: u32 = std::fs::read_to_string(&mark).ok()?.parse().ok()?;
            (stat(grandchild, 5)? == u64::from(grandchild)).then_some(())
        };
        while fresh > 0 && is_apart().is_none() {
            assert!(Instant::now() < deadline, "there is no grandchild");
            std::thread::yield_now();
        }
        let pid = kill(&worker);
        assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
        await_restarts(&worker, 1);
        let now = await_pools(|now| now.len() == 2);
        assert_eq!(now.difference(&first).count(), fresh, "{role}");
        if let Ok(grandchild) = std::fs::read_to_string(&mark) {
            Watched::open(grandchild.parse().unwrap()).unwrap().signal(Signal::KILL);
            std::fs::remove_file(&mark).unwrap();
        }
    }
}
