//! Where a sandbox denies names: the registered port, and what happens where that is gone too.

use frameport_sys::mach::error::{Operation, Slot};
use frameport_sys::mach::slot;
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Denied, Kern, SetupError, Task};

use crate::kernel::{Kernel, Sandbox};
use crate::world::{Host, LIMIT, REGIONS, UID};

fn sandboxed(sandbox: Sandbox) -> (Kernel, Host) {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    kernel.state().space(task.id()).sandbox = sandbox;
    let host = Host::of(&kernel, task).unwrap();
    (kernel, host)
}

#[test]
fn without_a_name_the_registered_port_leads_to_the_host() {
    let (kernel, mut host) = sandboxed(Sandbox { register: true, ..Sandbox::default() });
    assert_eq!((host.entrance.service(), host.entrance.denied()), (None, Some(Kern::NOT_PRIVILEGED)));
    let pair = host.bring_up(1).unwrap();
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_worker_that_may_not_look_up_takes_the_registered_port() {
    let (kernel, mut host) = sandboxed(Sandbox { look_up: true, ..Sandbox::default() });
    let pair = host.bring_up(1).unwrap();
    // Its own children do not inherit it.
    let child = kernel.spawn(&pair.task);
    assert_eq!(frameport_sys::mach::slot::take(&child).unwrap_err(), Slot::Empty);
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn both_denied_is_an_error_that_names_the_operation() {
    let (kernel, mut host) = sandboxed(Sandbox { look_up: true, ..Sandbox::default() });
    let (offer, task) = host.start(1).unwrap();
    // A launcher between host and worker forks: the slot is wiped.
    let worker = kernel.fork(&task);
    let error = CheckedIn::new(&worker, &host.hello(1), REGIONS.len(), LIMIT).unwrap_err();
    let denied = Denied { operation: Operation::LookUp, answer: Kern::NOT_PRIVILEGED, slot: Slot::Empty };
    assert_eq!(error, SetupError::RendezvousDenied(denied));
    let text = error.to_string();
    assert!(text.contains("mach-lookup") && text.contains("1100") && text.contains("(allow mach-lookup"), "{text}");
    drop((offer, host));
    kernel.assert_clean();
}

#[test]
fn a_host_that_is_denied_both_spawns_nobody() {
    let (kernel, host) = sandboxed(Sandbox { register: true, registered: true, ..Sandbox::default() });
    let error = host.entrance.admit(|| unreachable!("nobody would be found")).map(|((), _)| ()).unwrap_err();
    assert_eq!(error.operation(), Some(Operation::Register));
    let text = error.to_string();
    assert!(text.contains("(allow mach-register") && text.contains("registered ports were answered"), "{text}");
    drop(host);
    kernel.assert_clean();
    // The name alone will do.
    let (kernel, host) = sandboxed(Sandbox { registered: true, ..Sandbox::default() });
    assert_eq!(host.entrance.admit(|| 7), Ok((7, false)));
    drop(host);
    kernel.assert_clean();
}

#[test]
fn a_host_that_is_denied_a_name_says_so_through_its_worker() {
    let (kernel, mut host) = sandboxed(Sandbox { register: true, ..Sandbox::default() });
    let (offer, task) = host.start(1).unwrap();
    let worker = kernel.fork(&task);
    let error = CheckedIn::new(&worker, &host.hello(1), REGIONS.len(), LIMIT).unwrap_err();
    assert!(error.to_string().contains("(allow mach-register"), "{error}");
    drop((offer, host));
    kernel.assert_clean();
}

#[test]
fn a_fork_beside_the_spawn_takes_the_right_from_the_worker() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    for wipes in [true, false] {
        kernel.state().fork_wipes = wipes;
        let spawned = host.entrance.lend(|| {
            kernel.fork(&host.task).kill();
            kernel.spawn(&host.task)
        });
        let worker = spawned.unwrap();
        assert_eq!(slot::take(&worker).err(), wipes.then_some(Slot::Empty));
        worker.kill();
    }
    drop(host);
    kernel.assert_clean();
}

#[test]
fn a_spawn_that_panics_leaves_the_slots_as_they_were() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    let spawn = std::panic::AssertUnwindSafe(|| host.entrance.lend(|| panic!("no such program")).map(drop));
    std::panic::catch_unwind(spawn).unwrap_err();
    drop(host);
    kernel.assert_clean();
}

#[test]
fn what_others_registered_stays() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let theirs = frameport_sys::mach::ReceiveRight::new(&host.task, 5).unwrap();
    let right = theirs.make_send().unwrap();
    let [zero, ..] = host.task.registered().unwrap();
    host.task.register([zero, right.name().unwrap(), right.name().unwrap()]).unwrap();
    host.task.deallocate(zero).unwrap();
    let pair = host.bring_up(1).unwrap();
    let found = host.task.registered().unwrap();
    assert_eq!(found[1..], [right.name().unwrap(); 2]);
    found.iter().for_each(|name| host.task.deallocate(*name).unwrap());
    drop((pair, right, theirs));
    assert_eq!(kernel.state().faults, Vec::<String>::new());
}
