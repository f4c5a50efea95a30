//! Either side killed at each of its calls, from the first to the last of a link with a surface: what the other side has left
//! to give up, it gives up, and then there is nothing.

use std::time::Duration;

use frameport_sys::mach::rendezvous::Sender;
use frameport_sys::mach::surface::{Key, Opened, Registrar};
use frameport_sys::mach::{Received, SetupError, Surface};

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
    let (offer, worker) = host.start(1, Sender::Anyone)?;
    *started = Some(worker.clone());
    if victim == Victim::Worker {
        worker.dies_at(at);
    }
    let pair = host.meet(1, offer, worker.clone());
    if !worker.is_alive() || !task.is_alive() {
        host.rendezvous.forget(frameport_sys::mach::rendezvous::WorkerId(1));
    }
    let pair = pair?;
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(kernel, task, nv12());
    for slot in 0..2 {
        let key = Key { pool: 0, slot, generation: 0 };
        registrar.register(pair.host.peer(), key, &surface, LIMIT)?;
        if let Ok(Some(message)) = Received::next(pair.worker.port(), Duration::ZERO) {
            let opened_one = opened.open(&worker, message, pair.worker.host(), |_| Some(nv12()));
            if opened_one.is_ok() {
                registrar.opened(key).map_err(SetupError::PeerRejected)?;
                drop(opened.hold(key));
            }
        }
    }
    if !worker.is_alive() {
        assert!(pair.host.news().next(LIMIT).unwrap().is_some(), "the host learns of it");
        assert!(!surface.is_in_use(), "nothing of the dead worker's is in use");
    }
    if !task.is_alive() {
        assert!(pair.worker.news().next(LIMIT).unwrap().is_some(), "the worker learns of it");
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
