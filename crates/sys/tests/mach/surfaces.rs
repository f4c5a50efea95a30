//! Surfaces: handed over, opened, compared, used, given up; 10,000 times, and when something is wrong with one.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::mach::error::Sign;
use frameport_sys::mach::pool::Slots;
use frameport_sys::mach::surface::{Geometry, Key, MAX_SURFACES, Opened, register};
use frameport_sys::mach::{Check, Kern, Received, SetupError, Surface};
use frameport_sys::pixels::Intent;

use crate::kernel::{Kernel, SimSurface, SimTask};
use crate::world::{Host, LIMIT, Pair, bgra, nv12, p010};

type Change = fn(&mut Geometry);
type Pool = Slots<SimSurface>;

fn next(pair: &Pair) -> Received<SimTask> {
    Received::next(pair.worker.port(), Duration::ZERO).unwrap().expect("a registration")
}

fn key(slot: u32) -> Key {
    Key { pool: 5, slot, of: 100 }
}

fn surface(host: &Host, geometry: Geometry) -> Arc<SimSurface> {
    Arc::new(SimSurface::create(&host.kernel, &host.task, geometry))
}

fn pool(host: &Host, slots: u32, geometry: Geometry) -> Arc<Pool> {
    Arc::new(Slots::create(slots, || Some(SimSurface::create(&host.kernel, &host.task, geometry))).unwrap())
}

/// A host and a worker that has got a pool, as handle `number`.
struct Shared {
    pair: Pair,
    opened: Opened<SimSurface>,
}

impl Shared {
    fn new(host: &mut Host) -> Self {
        Self { pair: host.bring_up(1).unwrap(), opened: Opened::new() }
    }

    fn hand_over(&mut self, pool: &Pool, number: u32, agreed: &Geometry) -> Result<Arc<Pool>, SetupError> {
        let of = pool.surfaces().count() as u32;
        let mut all = None;
        for (slot, surface) in (0..).zip(pool.surfaces()) {
            let key = Key { pool: number, slot, of };
            register(self.pair.host.peer(), key, surface, LIMIT)?;
            all = self.opened.open(&self.pair.task, next(&self.pair), self.pair.worker.host(), number)?;
            assert_eq!(all.is_none(), self.opened.is_partial());
            // No port is left to keep it in use.
            assert!(!surface.is_in_use());
        }
        Slots::adopt(all.expect("all of them came"), of, agreed).map(Arc::new)
    }
}

#[test]
fn ten_thousand_surfaces_leave_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    let before = (kernel.names(&host.task), kernel.names(&shared.pair.task));
    for number in 0..2_500 {
        let geometry = [nv12(), p010(), bgra()][number as usize % 3];
        let ours = pool(&host, 4, geometry);
        let theirs = shared.hand_over(&ours, number, &geometry).unwrap();
        for slot in 0..4 {
            let seen = ours.surface(slot).unwrap();
            let filled = ours.access(slot, Intent::Write).unwrap();
            assert!(ours.look(slot).unwrap().is_in_use());
            drop(filled);
            let held = theirs.access(slot, Intent::Read).unwrap();
            theirs.look(slot).unwrap();
            assert!(seen.is_in_use());
            drop(held);
            assert!(!seen.is_in_use());
        }
        assert_eq!((kernel.names(&host.task), kernel.names(&shared.pair.task)), before);
    }
    drop((shared, host));
    kernel.assert_clean();
}

#[test]
fn a_surface_is_locked_from_the_first_look_to_the_last_who_may_look() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    let ours = pool(&host, 2, nv12());
    let surface = ours.surface(1).unwrap();
    let first = ours.access(1, Intent::Read).unwrap();
    let second = ours.access(1, Intent::Read).unwrap();
    // In use, and a graphics processor's alone.
    assert!(surface.is_in_use());
    assert_eq!(surface.locks(), [0, 0]);
    for _ in 0..2 {
        assert!(Arc::ptr_eq(ours.look(1).unwrap(), surface));
        assert_eq!(surface.locks(), [1, 0]);
    }
    let writer = ours.access(1, Intent::Write).unwrap();
    assert_eq!(surface.locks(), [1, 0]);
    ours.look(1).unwrap();
    assert_eq!(surface.locks(), [1, 1]);
    drop(first);
    assert_eq!(surface.locks(), [1, 1]);
    drop(second);
    assert_eq!(surface.locks(), [0, 1]);
    assert!(surface.is_in_use());
    let third = ours.access(1, Intent::Read).unwrap();
    // What the third saw was locked by the writer: it stays so.
    ours.look(1).unwrap();
    assert_eq!(surface.locks(), [0, 1]);
    drop(writer);
    assert_eq!(surface.locks(), [1, 0]);
    drop(third);
    assert_eq!(surface.locks(), [0, 0]);
    assert!(!surface.is_in_use());
    // A writer that nobody looked by leaves the readers as they are.
    let (reader, writer) = (ours.access(1, Intent::Read).unwrap(), ours.access(1, Intent::Write).unwrap());
    drop(writer);
    assert_eq!(surface.locks(), [0, 0]);
    drop(reader);
    assert!(!ours.surface(0).unwrap().is_in_use());
    // Nobody has it: where it lies is all that may be asked.
    ours.look(0).unwrap();
    assert_eq!(ours.surface(0).unwrap().locks(), [0, 0]);
    assert!(ours.access(2, Intent::Read).is_none() && ours.look(2).is_none());
    drop((ours, host));
    kernel.assert_clean();
}

#[test]
fn what_is_passed_on_is_only_read_by_the_views_that_are_left() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    let ours = pool(&host, 1, nv12());
    let surface = ours.surface(0).unwrap();
    for looks in [true, false] {
        let (loan, view) = (ours.access(0, Intent::Write).unwrap(), ours.access(0, Intent::Write).unwrap());
        if looks {
            ours.look(0).unwrap();
            assert_eq!(surface.locks(), [0, 1]);
        }
        loan.pass_on();
        assert_eq!(surface.locks(), [usize::from(looks), 0]);
        assert!(surface.is_in_use());
        ours.look(0).unwrap();
        assert_eq!(surface.locks(), [1, 0]);
        drop(view);
        assert!(!surface.is_in_use());
        assert_eq!(surface.locks(), [0, 0]);
    }
    // Nobody else has it.
    let loan = ours.access(0, Intent::Write).unwrap();
    ours.look(0).unwrap();
    loan.pass_on();
    assert_eq!((surface.locks(), surface.is_in_use()), ([0, 0], false));
    drop((ours, host));
    kernel.assert_clean();
}

#[test]
fn a_lock_that_is_refused_is_tried_again_and_never_undone() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    let ours = pool(&host, 1, nv12());
    let surface = ours.surface(0).unwrap();
    kernel.state().refuses_locks = true;
    let refused = ours.access(0, Intent::Write).unwrap();
    ours.look(0).unwrap();
    assert_eq!(surface.locks(), [0, 0]);
    drop(refused);
    assert!(!surface.is_in_use());
    let access = ours.access(0, Intent::Write).unwrap();
    ours.look(0).unwrap();
    kernel.state().refuses_locks = false;
    ours.look(0).unwrap();
    assert_eq!(surface.locks(), [0, 1]);
    drop((access, ours, host));
    kernel.assert_clean();
}

#[test]
fn an_access_outlives_its_pool_and_a_dead_worker_uses_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    let ours = pool(&host, 1, nv12());
    let theirs = shared.hand_over(&ours, 0, &nv12()).unwrap();
    let access = theirs.access(0, Intent::Write).unwrap();
    drop(theirs);
    let surface = ours.surface(0).unwrap();
    assert!(surface.is_in_use());
    shared.pair.task.kill();
    assert!(!surface.is_in_use());
    drop((access, ours, shared, host));
    kernel.assert_clean();
}

#[test]
fn a_full_queue_gives_the_port_back() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let surface = surface(&host, nv12());
    kernel.state().is_full_for = Some(host.task.id());
    for _ in 0..100 {
        let answer = register(pair.host.peer(), key(3), &surface, LIMIT);
        assert_eq!(answer, Err(SetupError::QueueFull { slot: 3 }));
        assert!(!surface.is_in_use());
    }
    kernel.state().is_full_for = None;
    register(pair.host.peer(), key(3), &surface, LIMIT).unwrap();
    assert!(surface.is_in_use(), "a queued message pins its surface");
    drop((pair, surface, host));
    kernel.assert_clean();
}

#[test]
fn an_interrupted_send_is_begun_anew_and_loses_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    let names = kernel.names(&host.task);
    for interruptions in 0..8 {
        kernel.state().interrupts = Some((host.task.id(), interruptions));
        let ours = pool(&host, 1, nv12());
        shared.hand_over(&ours, interruptions as u32, &nv12()).unwrap();
        assert_eq!(kernel.names(&host.task), names);
    }
    // Without end, or with the end of the worker in between.
    let surface = surface(&host, nv12());
    let pair = &shared.pair;
    kernel.state().interrupts = Some((host.task.id(), 100));
    let answer = register(pair.host.peer(), key(1), &surface, LIMIT);
    assert_eq!(answer, Err(SetupError::QueueFull { slot: 1 }));
    kernel.state().interrupts = Some((host.task.id(), 1));
    kernel.state().dies_after_interruption = Some(pair.task.id());
    let answer = register(pair.host.peer(), key(1), &surface, LIMIT);
    assert_eq!(answer, Err(SetupError::Died(Sign::DeadName)));
    assert!(!surface.is_in_use());
    drop((surface, shared, host));
    kernel.assert_clean();
}

#[test]
fn a_surface_that_is_not_what_was_agreed_is_given_up() {
    let changes: [(&str, Change); 10] = [
        ("pixel format", |it| it.format = u32::from_be_bytes(*b"420f")),
        ("width", |it| it.width -= 1),
        ("height", |it| it.height += 1),
        ("number of planes", |it| it.plane_count = 3),
        ("number of planes", |it| it.plane_count = 0),
        ("size", |it| it.len -= 1),
        ("stride", |it| it.planes[0].stride += 64),
        ("stride", |it| it.planes[1].stride -= 64),
        ("offset of a plane", |it| it.planes[1].offset -= 64),
        ("width of a plane", |it| it.planes[1].width += 1),
    ];
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    for (number, (what, change)) in (0..).zip(changes) {
        let mut other = nv12();
        change(&mut other);
        // One that is right before it, all of it in vain.
        let surfaces = vec![surface(&host, nv12()), surface(&host, other)];
        let all = Slots::adopt(surfaces.clone(), 2, &nv12()).unwrap_err();
        assert!(matches!(&all, SetupError::SurfaceMismatch { slot: 1, mismatch } if mismatch.what == what), "{all}");
        let ours = pool(&host, 1, nv12());
        let error = shared.hand_over(&ours, number, &other).unwrap_err();
        assert!(matches!(error, SetupError::SurfaceMismatch { slot: 0, .. }), "{error}");
        assert!(!ours.surface(0).unwrap().is_in_use());
    }
    drop((shared, host));
    kernel.assert_clean();
}

#[test]
fn a_pool_is_of_surfaces_that_are_all_alike() {
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    let made = std::cell::Cell::new(0);
    let make = |strange: u32| {
        made.set(0);
        Slots::create(3, || {
            made.set(made.get() + 1);
            let geometry = if made.get() == strange { bgra() } else { nv12() };
            (made.get() != strange + 10).then(|| SimSurface::create(&kernel, &host.task, geometry))
        })
    };
    for (strange, slot) in [(1, 1), (2, 1), (3, 2)] {
        let error = make(strange).unwrap_err();
        assert!(matches!(error, SetupError::SurfaceMismatch { slot: found, .. } if found == slot), "{error}");
    }
    assert_eq!(make(5).unwrap().geometry(), &nv12());
    let out_of_memory = Slots::<SimSurface>::create(2, || None).unwrap_err();
    assert_eq!(out_of_memory, SetupError::Kernel(Kern::FAILURE));
    assert_eq!(Slots::<SimSurface>::create(0, || None).unwrap_err(), Check::Content.into());
    drop(host);
    kernel.assert_clean();
}

#[test]
fn a_surface_is_what_the_system_says_not_what_it_was_when_it_was_sent() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    let ours = pool(&host, 1, nv12());
    ours.surface(0).unwrap().reshape(Geometry { len: 4096, ..nv12() });
    let answer = shared.hand_over(&ours, 0, &nv12());
    assert!(matches!(answer, Err(SetupError::SurfaceMismatch { slot: 0, .. })), "{answer:?}");
    drop((ours, shared, host));
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
fn a_pool_comes_whole_and_in_order_or_not_at_all() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let surface = surface(&host, nv12());
    let send = |opened: &mut Opened<SimSurface>, pool, slot, of| {
        register(pair.host.peer(), Key { pool, slot, of }, &surface, LIMIT).unwrap();
        opened.open(&pair.task, next(&pair), pair.worker.host(), 5).map(|all| all.map(|all| all.len()))
    };
    let wrong = Err(SetupError::PeerRejected(Check::Content));
    let mut opened = Opened::new();
    assert_eq!(send(&mut opened, 4, 0, 2), wrong, "of another pool");
    assert_eq!(send(&mut opened, 5, 1, 2), wrong, "the second first");
    assert_eq!(send(&mut opened, 5, 0, 0), wrong, "one of none");
    assert_eq!(send(&mut opened, 5, 0, 2), Ok(None));
    assert_eq!(send(&mut opened, 5, 0, 2), wrong, "twice");
    assert_eq!(send(&mut opened, 5, 1, 2), Ok(Some(2)));
    assert!(!surface.is_in_use() && !opened.is_partial());
    // Fewer than the pool has.
    let few = Slots::adopt(vec![surface.clone()], 2, &nv12()).unwrap_err();
    assert_eq!(few, Check::Content.into());
    drop((surface, opened, pair, host));
    kernel.assert_clean();
}

#[test]
fn a_worker_opens_no_more_surfaces_than_it_can_have_use_for() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let mut opened = Opened::new();
    let mut send = |surface: &Arc<SimSurface>| {
        register(pair.host.peer(), Key { pool: 5, slot: 0, of: 1 }, surface, LIMIT).unwrap();
        opened.open(&pair.task, next(&pair), pair.worker.host(), 5)
    };
    let mut has = Vec::new();
    for _ in 0..MAX_SURFACES {
        has.extend(send(&surface(&host, nv12())).unwrap().unwrap());
    }
    let beyond = surface(&host, nv12());
    assert_eq!(send(&beyond).unwrap_err(), SetupError::TooManySurfaces { slot: 0, limit: MAX_SURFACES });
    assert!(!beyond.is_in_use());
    // Those that are given up make room.
    has.pop();
    assert_eq!(send(&beyond).unwrap().map(|all| all.len()), Some(1));
    drop((has, opened, beyond, pair, host));
    kernel.assert_clean();
}

#[test]
fn a_sandbox_that_hides_surfaces_is_named() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let mut shared = Shared::new(&mut host);
    kernel.state().space(shared.pair.task.id()).sandbox.surfaces = true;
    let ours = pool(&host, 3, nv12());
    let error = shared.hand_over(&ours, 0, &nv12()).unwrap_err();
    assert_eq!(error, SetupError::SurfaceLookupFailed { slot: 0 });
    assert!(error.to_string().contains("IOSurfaceRootUserClient"));
    assert!(!ours.surface(0).unwrap().is_in_use());
    drop((ours, shared, host));
    kernel.assert_clean();
}
