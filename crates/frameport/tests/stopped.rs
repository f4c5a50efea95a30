//! A worker that stands still holds up nobody who sets parameters. A file of its own: it measures the process's memory.

mod common;

use common::{Watched, resident, role, small_worker};
use frameport::{Error, Link};
use rustix::process::Signal;
use serde_json::json;

/// The worker of this file: says with each frame what it saw.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    while let Ok(mut frame) = link.recv() {
        let seen = json!({"seen": frame.params().unwrap().get("at").map(|at| at[0].clone())});
        frame.set_meta(seen.as_object().unwrap());
        link.send_back(frame).unwrap();
    }
}

#[test]
fn a_stopped_worker_holds_up_no_setter_and_costs_no_memory() {
    let worker = small_worker("tell").spawn().unwrap();
    let watched = Watched::open(worker.pid()).unwrap();
    watched.signal(Signal::STOP);
    let text = "x".repeat(500);
    let set = |n: u64| worker.params().set("at", json!([n, text])).unwrap();
    (0..2_000).for_each(set);
    let before = resident();
    (2_000..100_000).for_each(set);
    // Kept, they would be 49 MB.
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    // The frame is sent while the worker still stands.
    worker.send(worker.loan().unwrap()).unwrap();
    watched.signal(Signal::CONT);
    assert_eq!(worker.recv().unwrap().meta().unwrap()["seen"], json!(99_999));
    watched.signal(Signal::STOP);
    set(0);
    worker.kill();
    assert!(matches!(worker.recv(), Err(Error::WorkerDied(_))));
    set(1);
}
