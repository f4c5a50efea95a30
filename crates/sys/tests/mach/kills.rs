//! Either side killed at each of its calls, from the first to the last of a link with a surface: what the other side has left
//! to give up, it gives up, and then there is nothing.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::mach::death::Fate;
use frameport_sys::mach::pool::Slots;
use frameport_sys::mach::surface::{Key, Opened, register};
use frameport_sys::mach::{Received, SetupError, Surface as _};
use frameport_sys::pixels::Intent;

use crate::kernel::{Kernel, Sandbox, SimSurface, SimTask};
use crate::world::{Host, LIMIT, UID, nv12};

/// Who is killed.
#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Host,
    Worker,
}

/// Kills `victim` at its call `at`; whether it came that far.
fn run(victim: Victim, at: u64, sandbox: Sandbox) -> bool {
    let kernel = Kernel::new();
    let host = kernel.boot(UID);
    kernel.state().space(host.id()).sandbox = sandbox;
    if victim == Victim::Host {
        host.dies_at(at);
    }
    let mut worker = None;
    // Errors are expected; what counts is what is left.
    let _ = link(&kernel, &host, victim, at, &mut worker);
    let died = match victim {
        Victim::Host => !host.is_alive(),
        Victim::Worker => worker.as_ref().is_some_and(|worker: &SimTask| !worker.is_alive()),
    };
    // The survivor's process goes on: only what it released itself is gone.
    kernel.assert_clean();
    died
}

fn link(
    kernel: &Kernel,
    task: &SimTask,
    victim: Victim,
    at: u64,
    started: &mut Option<SimTask>,
) -> Result<(), SetupError> {
    let mut host = Host::of(kernel, task.clone())?;
    let (offer, worker) = host.start(1)?;
    *started = Some(worker.clone());
    if victim == Victim::Worker {
        worker.dies_at(at);
    }
    let pair = host.meet(1, offer, worker.clone());
    if !worker.is_alive() || !task.is_alive() {
        host.rendezvous.forget(frameport_sys::mach::rendezvous::WorkerId(1));
    }
    let pair = pair?;
    let mut opened = Opened::new();
    let ours = Arc::new(Slots::create(3, || Some(SimSurface::create(kernel, task, nv12())))?);
    let filled = ours.access(0, Intent::Write);
    ours.look(0);
    for (slot, surface) in (0..).zip(ours.surfaces()) {
        register(pair.host.peer(), Key { pool: 0, slot, of: 3 }, surface, LIMIT)?;
    }
    drop(filled);
    // One it reads, and one it has gone over to when it is killed, or given up.
    let mut reads = None;
    while let Ok(Some(message)) = Received::next(pair.worker.port(), Duration::ZERO) {
        if let Ok(Some(all)) = opened.open(&worker, message, pair.worker.host(), 0) {
            let theirs = Arc::new(Slots::adopt(all, 3, &nv12())?);
            reads = Some([theirs.access(1, Intent::Read), theirs.access(2, Intent::Write)]);
            theirs.look(1);
            drop(theirs.access(2, Intent::Read));
        }
    }
    if worker.is_alive() && task.is_alive() {
        assert!(ours.surface(1).is_some_and(|surface| surface.is_in_use()));
        // The worker's last call of all, so that it can die with all of it in use.
        let _ = pair.worker.news().next(Duration::ZERO);
    }
    let surface = ours.surface(1).cloned().ok_or(frameport_sys::mach::Kern::FAILURE)?;
    if !worker.is_alive() {
        assert!(kernel.is_readable(task, &pair.host.watched().unwrap()), "the host is woken");
        assert!(matches!(pair.host.fate(), Ok(Some(Fate::Died(_)))), "the host learns of it");
        assert!(!surface.is_in_use(), "nothing of the dead worker's is in use");
    }
    drop((reads, ours));
    if !task.is_alive() {
        assert!(kernel.is_readable(&worker, &pair.worker.watched().unwrap()), "the worker is woken");
        assert!(matches!(pair.worker.fate(), Ok(Some(Fate::Died(_)))), "the worker learns of it");
    }
    Ok(())
}

#[test]
fn a_worker_killed_at_any_call_leaves_nothing() {
    for sandbox in [Sandbox::default(), Sandbox { look_up: true, ..Sandbox::default() }] {
        let points = (1..).take_while(|at| run(Victim::Worker, *at, sandbox)).count();
        assert!(points > 20, "{points} calls");
    }
}

#[test]
fn a_host_killed_at_any_call_leaves_nothing() {
    for sandbox in [Sandbox::default(), Sandbox { register: true, ..Sandbox::default() }] {
        let points = (1..).take_while(|at| run(Victim::Host, *at, sandbox)).count();
        assert!(points > 20, "{points} calls");
    }
}
