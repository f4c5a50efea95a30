//! A host's death at any moment: no worker outlives it by more than a second, whatever it is doing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{ROLE, Random, Watched, all_threads_are_stopped, role, small, some_time, worker, workers_of_this_program};
use frameport::{Delivery, Error, Link, Worker};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KINDS: [&str; 7] = ["echo", "busy", "stopped", "launched", "launched_busy", "launched_stopped", "silent"];
const ROUNDS: usize = 56;

/// The workers and the hosts of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    if let Some(kind) = role.strip_prefix("host_of_") {
        return host_process(kind);
    }
    let link = Link::from_env().unwrap();
    loop {
        let mut frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. } | Error::System { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let about = serde_json::json!({"pid": std::process::id()});
        frame.set_meta(about.as_object().unwrap());
        link.send_back(frame).unwrap();
        while role.ends_with("busy") {
            std::hint::black_box(());
        }
    }
}

/// Starts a worker, prints its processes' ids once it works, then keeps it busy until killed.
fn host_process(kind: &str) {
    let builder = if kind.starts_with("launched") {
        let program = std::env::current_exe().unwrap();
        let script = format!("'{}' worker_process --exact --nocapture --quiet & wait", program.display());
        Worker::command("/bin/sh").args(["-c", &script]).env(ROLE, kind).on_stderr(|_| {})
    } else {
        worker(kind)
    };
    let worker = builder.input("in", small(), Delivery::Lossless).output("out", small(), Delivery::Lossless);
    let worker = worker.spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    let pid = worker.recv().unwrap().meta().unwrap()["pid"].as_u64().unwrap();
    if kind.ends_with("stopped") {
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::STOP).unwrap();
        // A stopped process cannot notice anything. Its host's child gets SIGKILL from the kernel; a grandchild gets
        // SIGCONT as a stopped job of a group that lost its parent, once all of its threads have stopped.
        while !all_threads_are_stopped(pid) {
            std::thread::yield_now();
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "\nworkers {} {pid}", worker.pid()).unwrap();
    out.flush().unwrap();
    loop {
        match kind {
            "echo" | "launched" => {
                worker.send(worker.loan().unwrap()).unwrap();
                drop(worker.recv().unwrap());
            }
            _ => std::thread::park(),
        }
    }
}

/// A host as a process of its own.
fn host_of(kind: &str) -> Child {
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["worker_process", "--exact", "--nocapture", "--quiet"]).env(ROLE, format!("host_of_{kind}"));
    host.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn no_worker_outlives_its_host_by_a_second() {
    if role().is_some() {
        return;
    }
    let mut random = Random(11);
    for kind in KINDS.into_iter().cycle().take(ROUNDS) {
        let mut host = host_of(kind);
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find_map(|line| line.strip_prefix("workers ").map(str::to_owned)).unwrap();
        let workers: Vec<Watched> = line.split(' ').map(|pid| Watched::open(pid.parse().unwrap()).unwrap()).collect();
        some_time(&mut random, Duration::from_millis(5));
        host.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        host.wait().unwrap();
        for worker in &workers {
            assert!(worker.dies_before(deadline), "{kind}: worker {} outlived its host by a second", worker.0);
        }
    }
    a_host_killed_while_it_starts_a_worker_leaves_none(&mut random);
}

/// Kills hosts before anybody knows how far they are.
fn a_host_killed_while_it_starts_a_worker_leaves_none(random: &mut Random) {
    for _ in 0..20 {
        let mut host = host_of("echo");
        some_time(random, Duration::from_millis(20));
        host.kill().unwrap();
        host.wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(1);
    for pid in workers_of_this_program() {
        // One that has died since it was listed cannot be watched any more.
        let dies = Watched::open(pid).is_none_or(|worker| worker.dies_before(deadline));
        assert!(dies, "worker {pid} was left");
    }
}
