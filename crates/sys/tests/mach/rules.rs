//! The simulated kernel itself: the rules the other tests rest on, and that breaking one is a fault.

use frameport_sys::mach::surface::Geometry;
use frameport_sys::mach::{Buffer, Kern, Name, ReceiveRight, SendRight, Surface, Task};

use crate::kernel::{Item, Kernel, OutOfLine, Raw, SimSurface};
use crate::world::UID;

#[test]
fn an_over_release_is_a_fault() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let port = task.construct(5).unwrap();
    task.make_send(port).unwrap();
    task.deallocate(port).unwrap();
    assert_eq!(task.deallocate(port), Err(Kern::INVALID_RIGHT));
    task.release_receive(port).unwrap();
    assert_eq!(task.release_receive(port), Err(Kern::INVALID_NAME));
    assert_eq!(kernel.state().faults.len(), 2);
}

#[test]
fn what_is_left_is_found() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let port = task.construct(5).unwrap();
    kernel.assert_found("is left");
    task.release_receive(port).unwrap();
    kernel.assert_clean();
    let surface = SimSurface::create(&kernel, &task, Geometry::default());
    let port = task.surface_port(&surface).unwrap();
    drop(surface);
    kernel.assert_found("surface");
    task.deallocate(port).unwrap();
    kernel.assert_clean();
}

#[test]
fn send_and_receive_rights_share_a_name_and_a_death() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let port = ReceiveRight::new(&task, 5).unwrap();
    let (one, two) = (port.make_send().unwrap(), port.make_send().unwrap());
    assert_eq!(one.name(), port.name());
    drop(port);
    // Two references of a dead name are left.
    assert_eq!(kernel.names(&task), 1);
    drop((one, two));
    kernel.assert_clean();
}

#[test]
fn no_senders_is_told_only_after_there_was_one() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let news = frameport_sys::mach::death::News::new(&task).unwrap();
    let port = ReceiveRight::new(&task, 5).unwrap();
    port.tell_when_unreachable(news.port()).unwrap();
    assert_eq!(news.next(crate::world::LIMIT).unwrap(), None);
    drop(port.make_send().unwrap());
    assert_eq!(news.next(crate::world::LIMIT).unwrap(), Some(frameport_sys::mach::error::Sign::NoSenders));
}

#[test]
fn a_dead_name_is_told_of_once_and_brings_a_reference() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    let news = frameport_sys::mach::death::News::new(&task).unwrap();
    let there = other.check_in("there").unwrap();
    let right = SendRight::own(&task, task.look_up("there").unwrap()).unwrap();
    news.port().told_of_death(&right).unwrap();
    other.release_receive(there).unwrap();
    assert_eq!(news.next(crate::world::LIMIT).unwrap(), Some(frameport_sys::mach::error::Sign::DeadName));
    // Too late to ask.
    assert_eq!(news.port().told_of_death(&right), Err(Kern::INVALID_ARGUMENT));
    drop((right, news));
    kernel.assert_clean();
}

#[test]
fn a_watched_right_that_is_released_is_no_death() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    let news = frameport_sys::mach::death::News::new(&task).unwrap();
    let there = other.check_in("there").unwrap();
    let right = SendRight::own(&task, task.look_up("there").unwrap()).unwrap();
    news.port().told_of_death(&right).unwrap();
    drop(right);
    let watched = ReceiveRight::new(&task, 5).unwrap();
    watched.tell_when_unreachable(news.port()).unwrap();
    drop(watched);
    assert_eq!(news.next(crate::world::LIMIT), Ok(None));
    other.release_receive(there).unwrap();
    drop(news);
    kernel.assert_clean();
}

#[test]
fn a_request_that_replaces_another_gives_its_right_back() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    let (first, second) = (ReceiveRight::new(&task, 5).unwrap(), ReceiveRight::new(&task, 5).unwrap());
    let there = other.check_in("there").unwrap();
    let right = SendRight::own(&task, task.look_up("there").unwrap()).unwrap();
    first.told_of_death(&right).unwrap();
    second.told_of_death(&right).unwrap();
    drop((right, first, second));
    other.release_receive(there).unwrap();
    kernel.assert_clean();
}

#[test]
fn what_is_queued_dies_with_its_port() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    let there = other.check_in("there").unwrap();
    let right = SendRight::own(&task, task.look_up("there").unwrap()).unwrap();
    let carried = ReceiveRight::new(&task, 5).unwrap();
    frameport_sys::mach::Outgoing::new(1, vec![]).making(&carried).send(&right, crate::world::LIMIT).unwrap();
    other.release_receive(there).unwrap();
    drop((right, carried));
    kernel.assert_clean();
}

#[test]
fn no_receive_right_comes_to_lie_in_its_own_queue() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID).hostile();
    let ports: [Name; 3] = std::array::from_fn(|_| task.construct(5).unwrap());
    ports.iter().for_each(|port| task.make_send(*port).unwrap());
    let moves = |to: usize, item| task.send_raw(&Raw { to: ports[to].0, items: vec![item], ..Raw::default() });
    assert_eq!(moves(0, Item::Port(ports[0], 16)), Kern::SUCCESS);
    assert_eq!(moves(1, Item::Guarded(ports[2])), Kern::SUCCESS);
    assert_eq!(moves(2, Item::Ports(vec![ports[1]], 16)), Kern::SUCCESS);
    task.kill();
    kernel.assert_clean();
}

#[test]
fn ports_before_one_that_is_refused_are_not_lost() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID).hostile();
    let (to, port) = (task.construct(5).unwrap(), task.construct(5).unwrap());
    task.make_send(to).unwrap();
    let items = vec![Item::Ports(vec![port, Name(99)], 16)];
    assert_eq!(task.send_raw(&Raw { to: to.0, items, ..Raw::default() }), Kern::SEND_INVALID_RIGHT);
    task.kill();
    kernel.assert_clean();
}

/// As libSystem does it, and nobody claims the memory before.
#[test]
fn a_destroyed_message_keeps_memory_that_is_not_to_be_deallocated() {
    for (is_virtual, is_volatile) in [(true, false), (false, false), (true, true), (false, true)] {
        let kernel = Kernel::new();
        let task = kernel.boot(UID).hostile();
        let to = task.construct(5).unwrap();
        task.make_send(to).unwrap();
        let items = vec![Item::Memory(OutOfLine { bytes: 5, is_virtual, is_volatile })];
        assert_eq!(task.send_raw(&Raw { to: to.0, items, ..Raw::default() }), Kern::SUCCESS);
        let mut buffer = Buffer::new();
        assert_eq!(task.receive(to, &mut buffer, 0), Kern::SUCCESS);
        // SAFETY: simulated memory only.
        unsafe { task.destroy(&mut buffer) };
        let is_left = kernel.verdict().iter().any(|line| line.contains("memory at"));
        assert_eq!(is_left, is_volatile || !is_virtual);
        task.kill();
        kernel.assert_clean();
    }
}

#[test]
fn a_dead_task_leaves_nothing() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    other.check_in("there").unwrap();
    let name = task.look_up("there").unwrap();
    let surface = SimSurface::create(&kernel, &other, Geometry::default());
    surface.begin_use();
    other.kill();
    drop(surface);
    // A name of the living task has died; that reference is its own.
    task.deallocate(name).unwrap();
    assert_eq!(task.look_up("there"), Err(Kern::UNKNOWN_SERVICE));
    kernel.assert_clean();
}

#[test]
fn a_message_to_a_dead_name_consumes_nothing() {
    let kernel = Kernel::new();
    let (task, other) = (kernel.boot(UID), kernel.boot(UID));
    let there = other.check_in("there").unwrap();
    let right = SendRight::own(&task, task.look_up("there").unwrap()).unwrap();
    other.release_receive(there).unwrap();
    let carried = ReceiveRight::new(&task, 5).unwrap();
    let moved = carried.make_send().unwrap();
    let answer = frameport_sys::mach::Outgoing::new(1, vec![]).moving(moved).send(&right, crate::world::LIMIT);
    assert_eq!(answer, Err(frameport_sys::mach::SendError::Gone));
    drop((right, carried));
    kernel.assert_clean();
}

#[test]
fn nothing_of_a_forked_process_is_released_in_its_child() {
    let kernel = Kernel::new();
    let parent = kernel.boot(UID);
    let port = ReceiveRight::new(&parent, 5).unwrap();
    let send = port.make_send().unwrap();
    let child = kernel.fork(&parent);
    let pid = parent.pid();
    parent.become_(&child);
    assert_eq!(send.name(), Err(frameport_sys::mach::Forked { owner: pid }));
    drop((port, send));
    // The child has released nothing, not even by mistake.
    assert_eq!(kernel.state().faults, Vec::<String>::new());
    assert_eq!(
        kernel.verdict().iter().filter(|line| line.contains("is left")).count(),
        2,
        "the parent's name and port"
    );
}

#[test]
fn a_right_no_message_may_carry_is_a_fault_of_an_honest_task() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let there = task.check_in("there").unwrap();
    let to = task.look_up("there").unwrap();
    let wrong = Raw { to: to.0, items: vec![Item::Port(Name(99), 17)], ..Raw::default() };
    assert_eq!(task.send_raw(&wrong), Kern::SEND_INVALID_RIGHT);
    kernel.assert_found("is no such right");
    assert_eq!(there, to);
}
