//! Planted faults: the simulated kernel must notice each. Those in the program's own decisions are in `ci/mach_mutants.py`.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::mach::pool::Slots;
use frameport_sys::mach::surface::{Key, Opened, register};
use frameport_sys::mach::{Received, SetupError, Surface as _};

use crate::kernel::{Kernel, SimSurface, SimTask};
use crate::world::{Host, LIMIT, UID, nv12};

/// A whole link with a surface, with a fault planted in one side by `plant`; how many releases each side made. That the link
/// does not come about is noticing it, too.
fn run(plant: impl Fn(&SimTask, bool)) -> (Kernel, [u64; 2]) {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    plant(&task, true);
    let mut worker = None;
    if let Err(error) = link(&kernel, &task, &plant, &mut worker) {
        kernel.state().faults.push(error.to_string());
    }
    let releases = [task.releases(), worker.map_or(0, |worker| worker.releases())];
    (kernel, releases)
}

fn link(
    kernel: &Kernel,
    task: &SimTask,
    plant: &impl Fn(&SimTask, bool),
    started: &mut Option<SimTask>,
) -> Result<(), SetupError> {
    let mut host = Host::of(kernel, task.clone())?;
    let (offer, worker) = host.start(1)?;
    plant(&worker, false);
    *started = Some(worker.clone());
    let pair = host.meet(1, offer, worker.clone())?;
    let mut opened = Opened::new();
    let surface = Arc::new(SimSurface::create(kernel, task, nv12()));
    register(pair.host.peer(), Key { pool: 0, slot: 0, of: 1 }, &surface, LIMIT)?;
    if let Ok(Some(message)) = Received::next(pair.worker.port(), Duration::ZERO)
        && let Some(all) = opened.open(&worker, message, pair.worker.host(), 0)?
    {
        Slots::adopt(all, 1, &nv12())?;
    }
    if surface.is_in_use() {
        kernel.state().faults.push("the surface stays in use".to_owned());
    }
    Ok(())
}

#[test]
fn without_a_fault_there_is_none() {
    run(|_, _| ()).0.assert_clean();
}

#[test]
fn each_release_left_out_is_noticed() {
    let (_, [host, worker]) = run(|_, _| ());
    assert!(host > 8 && worker > 8, "{host} and {worker} releases");
    for (is_host, count) in [(true, host), (false, worker)] {
        for nth in 1..=count {
            let (kernel, _) = run(|task, it_is_host| {
                if it_is_host == is_host {
                    task.omits_release(nth);
                }
            });
            assert!(!kernel.verdict().is_empty(), "release {nth} of {count} is not missed, host: {is_host}");
        }
    }
}

#[test]
fn each_disposition_confused_is_noticed() {
    for is_host in [true, false] {
        // A worker sends no other disposition than MAKE_SEND.
        for from in if is_host { 17..=20 } else { 20..=20 } {
            for to in (16..=21).filter(|to| *to != from && from != 18) {
                let (kernel, _) = run(|task, it_is_host| {
                    if it_is_host == is_host {
                        task.confuses(from, to);
                    }
                });
                assert!(!kernel.verdict().is_empty(), "{from} sent as {to} is not noticed, host: {is_host}");
            }
        }
    }
}

#[test]
fn a_surfaces_port_that_is_kept_is_noticed_as_that() {
    // Copied instead of moved: the host's own right stays.
    let (kernel, _) = run(|task, is_host| {
        if is_host {
            task.confuses(17, 19);
        }
    });
    kernel.assert_found("the surface stays in use");
    // The worker's release of it left out.
    let (_, [_, releases]) = run(|_, _| ());
    let notices = |nth| {
        let (kernel, _) = run(|task, is_host| {
            if !is_host {
                task.omits_release(nth);
            }
        });
        kernel.verdict().iter().any(|line| line.contains("the surface stays in use"))
    };
    assert_eq!((1..=releases).filter(|nth| notices(*nth)).count(), 1);
}
