//! Workers that wait cost memory and nothing else, however many. One test, because it counts what belongs to the whole process.
//! `FRAMEPORT_IDLE=<workers>` says how many.
//! Linux only: it counts each thread's sleeps as /proc has them.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{children, is_picture, mapped_regions, memory, open_files, picture, role, small_worker, stat, switches};
use frameport::{Exit, Link, Worker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const WORKERS: usize = 200;
/// Of a pair that is busy meanwhile.
const ROUND_TRIPS: u64 = 5_000;
/// More descriptors than a link has at its host, and than this process has beside.
const FILES_EACH: u64 = 16;

/// The workers of this file.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    while let Ok(frame) = link.recv() {
        link.send_back(frame).unwrap();
    }
}

fn start() -> Worker {
    // The harness then waits for one test without a look at the clock.
    let worker = small_worker("echo").env("RUST_TEST_THREADS", "1").spawn().unwrap();
    exchange(&worker, 1);
    worker
}

fn exchange(worker: &Worker, count: u64) {
    for seq in 0..count {
        let mut frame = worker.loan().unwrap();
        frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
        worker.send(frame).unwrap();
        assert!(is_picture(&worker.recv().unwrap(), seq));
    }
}

/// Of each thread, by process and number: how often it has slept and been made to wait, and its time in ticks.
type Counts = BTreeMap<(u32, u32), [u64; 3]>;

fn counts(pid: u32) -> Counts {
    let ticks = |thread: u32| [14, 15].map(|field| stat(format!("{pid}/task/{thread}"), field).unwrap()).iter().sum();
    switches(pid).into_iter().map(|(thread, [slept, waited])| ((pid, thread), [slept, waited, ticks(thread)])).collect()
}

/// Those of the workers, and of this process's threads but the one that asks and the harness's.
fn all_counts(workers: &[Worker]) -> Counts {
    let own = std::process::id();
    let asks = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let mut all = counts(own);
    all.retain(|&(_, thread), _| thread != own && thread != asks);
    all.extend(workers.iter().flat_map(|worker| counts(worker.pid())));
    all
}

/// The threads whose counts are others than before: these, and those of now.
fn changes(before: &Counts, now: &Counts) -> BTreeMap<(u32, u32), [Option<[u64; 3]>; 2]> {
    let threads = before.keys().chain(now.keys());
    let both = threads.map(|thread| (*thread, [before, now].map(|counts| counts.get(thread).copied())));
    both.filter(|(_, [before, now])| before != now).collect()
}

/// Allows this process as many descriptors as that many workers need.
fn allow_files(workers: usize) {
    let need = (workers as u64 + 16) * FILES_EACH;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < need) {
        assert!(
            maximum.is_none_or(|maximum| maximum >= need),
            "{workers} workers need {need} open files, and {maximum:?} are allowed: raise it (ulimit -Hn) or set FRAMEPORT_IDLE"
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum }).unwrap();
    }
}

#[test]
fn idle_workers_cost_no_cpu_and_no_thread_of_their_host() {
    if role().is_some() {
        return;
    }
    let count = std::env::var("FRAMEPORT_IDLE").map_or(WORKERS, |text| text.parse().unwrap());
    allow_files(count);
    // What serves all workers stays.
    drop(start());
    let before = (open_files(), mapped_regions(), children());
    let own = std::process::id();

    let busy = start();
    let threads: Vec<u32> = switches(own).into_keys().collect();
    let (files, resident) = (open_files(), memory(own, "Rss:"));
    let started = Instant::now();
    let workers: Vec<Worker> = (0..count).map(|_| start()).collect();
    let took = started.elapsed();
    assert!(switches(own).into_keys().all(|thread| threads.contains(&thread)), "a thread of the host's for workers");
    let files = open_files() - files;
    assert_eq!(files, 4 * count, "process, control channel, doorbell and stderr of {count} workers");

    // On their way to sleep some may still be.
    let mut calm = all_counts(&workers);
    loop {
        exchange(&busy, 200);
        let before = std::mem::replace(&mut calm, all_counts(&workers));
        let restless = changes(&before, &calm);
        if restless.is_empty() {
            break;
        }
        assert!(started.elapsed() < took + Duration::from_secs(120), "they never come to rest: {restless:?}");
    }
    exchange(&busy, ROUND_TRIPS);
    let changes = changes(&calm, &all_counts(&workers));
    assert!(changes.is_empty(), "sleeps, waits and ticks before and after, by process and thread: {changes:?}");

    let theirs = workers.iter().map(|worker| memory(worker.pid(), "Pss:")).sum::<u64>();
    println!(
        "{count} workers started in {took:?} beside {} threads of the host; each has {} descriptors and {} kB there, and {} kB \
         of its own",
        threads.len(),
        files / count,
        (memory(own, "Rss:") - resident) / count as u64,
        theirs / count as u64
    );
    workers.iter().for_each(Worker::finish);
    for worker in &workers {
        assert_eq!(worker.wait_exit(Duration::from_secs(60)), Some(Exit::Code(0)));
    }
    drop((workers, busy));
    assert_eq!((open_files(), mapped_regions(), children()), before);
}
