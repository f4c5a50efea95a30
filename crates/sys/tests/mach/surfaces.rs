//! Surfaces: handed over, opened, held, retired; 10,000 times, and when something is wrong with one.

use std::time::Duration;

use frameport_sys::mach::error::Sign;
use frameport_sys::mach::surface::{Geometry, Hold, Key, MAX_SURFACES, Opened, Registrar};
use frameport_sys::mach::{Check, Received, SetupError, Surface};

use crate::kernel::{Kernel, SimSurface};
use crate::world::{Host, LIMIT, Pair, nv12};

fn key(slot: u32) -> Key {
    Key { pool: 1, slot, generation: 7 }
}

fn next(pair: &Pair) -> Received<crate::kernel::SimTask> {
    Received::next(pair.worker.port(), Duration::ZERO).unwrap().expect("a registration")
}

/// Hands one over and opens it.
fn hand_over(
    pair: &Pair,
    registrar: &mut Registrar,
    opened: &mut Opened<SimSurface>,
    key: Key,
    surface: &SimSurface,
) -> Result<Key, SetupError> {
    registrar.register(pair.host.peer(), key, surface, LIMIT)?;
    opened.open(&pair.task, next(pair), pair.worker.host(), |_| Some(nv12()))
}

#[test]
fn ten_thousand_surfaces_leave_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let before = (kernel.names(&host.task), kernel.names(&pair.task));
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    for generation in 0..10_000 {
        let key = Key { pool: 1, slot: generation as u32 % 8, generation };
        let surface = SimSurface::create(&kernel, &host.task, nv12());
        assert_eq!(hand_over(&pair, &mut registrar, &mut opened, key, &surface), Ok(key));
        registrar.opened(key).unwrap();
        assert!(registrar.is_open(key));
        // No port is left to keep it in use.
        assert!(!surface.is_in_use());
        let hold = opened.hold(key).unwrap();
        assert!(surface.is_in_use());
        drop(hold);
        assert!(!surface.is_in_use());
        assert_eq!((kernel.names(&host.task), kernel.names(&pair.task)), before);
        registrar.retire(1);
        opened.retire(1);
    }
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_hold_outlives_its_pool_and_a_dead_worker_holds_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    hand_over(&pair, &mut registrar, &mut opened, key(0), &surface).unwrap();
    let hold: Hold<SimSurface> = opened.hold(key(0)).unwrap();
    opened.retire(1);
    assert_eq!(hold.surface().geometry(), nv12());
    assert!(surface.is_in_use());
    pair.task.kill();
    assert!(!surface.is_in_use());
    drop((hold, surface, pair, host));
    kernel.assert_clean();
}

#[test]
fn a_full_queue_gives_the_port_back() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let mut registrar = Registrar::default();
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    kernel.state().is_full_for = Some(host.task.id());
    for _ in 0..100 {
        let answer = registrar.register(pair.host.peer(), key(3), &surface, LIMIT);
        assert_eq!(answer, Err(SetupError::QueueFull { slot: 3 }));
        assert!(!surface.is_in_use());
    }
    kernel.state().is_full_for = None;
    // Not registered, so it can be again.
    registrar.register(pair.host.peer(), key(3), &surface, LIMIT).unwrap();
    assert!(surface.is_in_use(), "a queued message pins its surface");
    drop((pair, surface, host));
    kernel.assert_clean();
}

#[test]
fn an_interrupted_send_is_begun_anew_and_loses_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let names = kernel.names(&host.task);
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    for interruptions in 0..8 {
        kernel.state().interrupts = Some((host.task.id(), interruptions));
        let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
        assert_eq!(hand_over(&pair, &mut registrar, &mut opened, key(0), &surface), Ok(key(0)));
        assert!(!surface.is_in_use());
        assert_eq!(kernel.names(&host.task), names);
    }
    // Without end, or with the end of the worker in between.
    kernel.state().interrupts = Some((host.task.id(), 100));
    let answer = Registrar::default().register(pair.host.peer(), key(1), &surface, LIMIT);
    assert_eq!(answer, Err(SetupError::QueueFull { slot: 1 }));
    kernel.state().interrupts = Some((host.task.id(), 1));
    kernel.state().dies_after_interruption = Some(pair.task.id());
    let answer = Registrar::default().register(pair.host.peer(), key(1), &surface, LIMIT);
    assert_eq!(answer, Err(SetupError::Died(Sign::DeadName)));
    assert!(!surface.is_in_use());
    drop((surface, pair, host));
    kernel.assert_clean();
}

#[test]
fn a_surface_that_is_not_what_was_agreed_is_given_up() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let mut shapes = Vec::new();
    let mut other = |change: fn(&mut Geometry)| {
        let mut geometry = nv12();
        change(&mut geometry);
        shapes.push(geometry);
    };
    other(|it| it.format = u32::from_be_bytes(*b"BGRA"));
    other(|it| it.width = 1918);
    other(|it| it.height = 1081);
    other(|it| it.plane_count = 3);
    other(|it| it.plane_count = 0);
    other(|it| it.len -= 1);
    other(|it| it.planes[0].stride = 2048);
    other(|it| it.planes[1].offset -= 1);
    other(|it| it.planes[1].height = 541);
    other(|it| it.planes[1].width = 961);
    for (slot, geometry) in shapes.into_iter().enumerate() {
        let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
        let surface = SimSurface::create(&kernel, &host.task, geometry);
        let error = hand_over(&pair, &mut registrar, &mut opened, key(slot as u32), &surface).unwrap_err();
        assert!(matches!(error, SetupError::SurfaceMismatch { slot: s, .. } if s == slot as u32), "{error}");
        assert!(!surface.is_in_use());
    }
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_surface_is_what_the_system_says_not_what_was_announced() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    registrar.register(pair.host.peer(), key(0), &surface, LIMIT).unwrap();
    surface.reshape(Geometry { len: 4096, ..nv12() });
    let answer = opened.open(&pair.task, next(&pair), pair.worker.host(), |_| Some(nv12()));
    assert!(matches!(answer, Err(SetupError::SurfaceMismatch { slot: 0, .. })), "{answer:?}");
    drop((surface, pair, host));
    kernel.assert_clean();
}

#[test]
fn planes_beyond_the_end_are_refused_however_large_their_numbers() {
    let mut geometry = nv12();
    geometry.planes[1].stride = u32::MAX;
    geometry.planes[1].height = u32::MAX;
    geometry.planes[1].offset = u32::MAX;
    geometry.len = u64::MAX >> 8;
    assert_eq!(geometry.check(&geometry).unwrap_err().what, "end of a plane");
}

#[test]
fn a_pool_nobody_agreed_on_and_a_slot_twice_are_refused() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    registrar.register(pair.host.peer(), key(0), &surface, LIMIT).unwrap();
    let answer = opened.open(&pair.task, next(&pair), pair.worker.host(), |_| None);
    assert_eq!(answer, Err(SetupError::PeerRejected(Check::Content)));
    assert_eq!(registrar.register(pair.host.peer(), key(0), &surface, LIMIT), Err(Check::Content.into()));
    // Twice by a host that forgot.
    for expected in [Ok(key(0)), Err(Check::Content.into())] {
        let mut forgetful = Registrar::default();
        assert_eq!(hand_over(&pair, &mut forgetful, &mut opened, key(0), &surface), expected);
    }
    assert!(!surface.is_in_use());
    drop((surface, opened, pair, host));
    kernel.assert_clean();
}

#[test]
fn no_peer_has_more_surfaces_than_agreed() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    for slot in 0..MAX_SURFACES as u32 {
        hand_over(&pair, &mut registrar, &mut opened, key(slot), &surface).unwrap();
    }
    let beyond = key(MAX_SURFACES as u32);
    let expected = Err(SetupError::TooManySurfaces { slot: beyond.slot, limit: MAX_SURFACES });
    assert_eq!(registrar.register(pair.host.peer(), beyond, &surface, LIMIT), expected.clone().map(drop));
    assert_eq!(hand_over(&pair, &mut Registrar::default(), &mut opened, beyond, &surface), expected);
    drop((surface, opened, pair, host));
    kernel.assert_clean();
}

#[test]
fn a_sandbox_that_hides_surfaces_is_named() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    kernel.state().space(pair.task.id()).sandbox.surfaces = true;
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    let error = hand_over(&pair, &mut registrar, &mut opened, key(2), &surface).unwrap_err();
    assert_eq!(error, SetupError::SurfaceLookupFailed { slot: 2 });
    assert!(error.to_string().contains("IOSurfaceRootUserClient"));
    assert!(!surface.is_in_use());
    drop((surface, pair, host));
    kernel.assert_clean();
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_a_violation() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let (mut registrar, mut opened) = (Registrar::default(), Opened::new());
    let surface = SimSurface::create(&kernel, &host.task, nv12());
    hand_over(&pair, &mut registrar, &mut opened, key(0), &surface).unwrap();
    for wrong in [key(1), Key { generation: 6, ..key(0) }, Key { pool: 2, ..key(0) }] {
        assert_eq!(registrar.opened(wrong), Err(Check::Content));
    }
    registrar.opened(key(0)).unwrap();
    assert_eq!(registrar.opened(key(0)), Err(Check::Content));
    assert!(!registrar.is_open(key(1)));
}
