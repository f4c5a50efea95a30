//! Messages to the ports beyond the entrance: from a worker to its own in the host, from strangers to a worker's, and to those
//! that only the kernel sends to.

use std::time::Duration;

use frameport_sys::mach::check_in::{VERSION, id};
use frameport_sys::mach::death::{Fate, News};
use frameport_sys::mach::received::ReceiveError;
use frameport_sys::mach::surface::Opened;
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Check, Kern, Name, Received, SetupError, Surface, Task};

use crate::kernel::{Item, Kernel, OutOfLine, Raw, SimSurface};
use crate::world::{Host, LIMIT, REGIONS, UID, nv12, over, payload};

#[test]
fn whatever_comes_to_a_workers_port_is_a_violation() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let task = pair.task.clone().hostile();
    let own = task.construct(5).unwrap();
    let to = pair.worker.peer().name().unwrap().0;
    let before = kernel.names(&host.task);
    let items = [vec![], vec![Item::Port(own, 20)], vec![Item::memory(1 << 20)], vec![Item::Ports(vec![own; 9], 20)]];
    for items in items {
        assert_eq!(task.send_raw(&Raw { to, id: id::WELCOME, items, ..Raw::default() }), Kern::SUCCESS);
        assert_eq!(pair.host.fate().unwrap(), Some(Fate::Lied(Check::Id { found: id::WELCOME })));
        assert_eq!(kernel.names(&host.task), before);
    }
    assert_eq!(task.send_raw(&Raw { to, payload: vec![1; 90], ..Raw::default() }), Kern::SUCCESS);
    assert_eq!(pair.host.fate().unwrap(), Some(Fate::Lied(Check::TooLarge)));
    assert_eq!(pair.host.fate().unwrap(), None);
    task.kill();
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn what_the_kernel_did_not_send_is_no_sign_of_death() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let forger = kernel.boot(UID).hostile();
    let news = News::new(&task).unwrap();
    let other = task.construct(5).unwrap();
    task.make_send(other).unwrap();
    let to = task.grant(news.port().name().unwrap(), &forger).0;
    let before = kernel.names(&task);
    for omits_audit in [false, true] {
        kernel.state().omits_audit = omits_audit;
        for id in [65, 69, 70, 72] {
            // A dead name that is a right of the host's own: believed, it would be released.
            let raw = Raw { to, id, payload: vec![0, 1, other.0], ..Raw::default() };
            assert_eq!(forger.send_raw(&raw), Kern::SUCCESS);
            let expected = match omits_audit {
                true => Check::Trailer,
                false => Check::Process { found: forger.pid(), expected: 0 },
            };
            assert_eq!(news.next(Duration::ZERO), Err(ReceiveError::Unfit(expected)));
            assert_eq!(kernel.names(&task), before);
        }
        let raw = Raw { to, id: 70, payload: vec![0, 1], ..Raw::default() };
        assert_eq!(forger.send_raw(&raw), Kern::SUCCESS);
        assert!(matches!(news.next(Duration::ZERO), Err(ReceiveError::Unfit(Check::Size { .. }))));
    }
    forger.kill();
    kernel.state().omits_audit = false;
    // That was nobody the kernel would tell of.
    assert_eq!(news.next(Duration::ZERO), Ok(None));
    task.deallocate(other).unwrap();
    task.release_receive(other).unwrap();
    drop(news);
    kernel.assert_clean();
}

#[test]
fn a_death_behind_a_queue_full_of_forgeries_leaves_no_reference() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let forger = kernel.boot(UID).hostile();
    let to = host.task.grant(pair.host.news().port().name().unwrap(), &forger).0;
    while forger.send_raw(&Raw { to, id: 72, payload: vec![0, 1, 3], ..Raw::default() }) == Kern::SUCCESS {}
    forger.kill();
    pair.task.kill();
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_welcome_of_somebody_else_is_refused() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let stranger = kernel.boot(UID).hostile();
    let to = task.grant(checked_in.port().name().unwrap(), &stranger).0;
    let own = stranger.construct(5).unwrap();
    let raw = Raw {
        to,
        id: id::WELCOME,
        items: vec![Item::Port(own, 20); 3],
        payload: vec![VERSION, 4096, 0, 4096, 0],
        ..Raw::default()
    };
    assert_eq!(stranger.send_raw(&raw), Kern::SUCCESS);
    let expected = Check::Process { found: stranger.pid(), expected: host.task.pid() };
    assert_eq!(checked_in.welcomed(over).unwrap_err(), SetupError::PeerRejected(expected));
    stranger.kill();
    drop((offer, host));
    kernel.assert_clean();
}

#[test]
fn a_surface_of_somebody_else_is_not_opened() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let stranger = kernel.boot(UID).hostile();
    let surface = SimSurface::create(&kernel, &stranger, nv12());
    let port = stranger.surface_port(&surface).unwrap();
    let to = pair.task.grant(pair.worker.port().name().unwrap(), &stranger).0;
    let raw = Raw { to, id: id::REGISTER, items: vec![Item::Port(port, 17)], payload: vec![0, 0, 1], ..Raw::default() };
    assert_eq!(stranger.send_raw(&raw), Kern::SUCCESS);
    let message = Received::next(pair.worker.port(), Duration::ZERO).unwrap().unwrap();
    let mut opened = Opened::new();
    let error = opened.open(&pair.task, message, pair.worker.host(), 0).unwrap_err();
    assert_eq!(error, SetupError::PeerRejected(Check::Process { found: stranger.pid(), expected: host.task.pid() }));
    assert!(!surface.is_in_use());
    stranger.kill();
    drop((surface, pair, host));
    kernel.assert_clean();
}

/// Any messages at all, to every port a worker can reach, from a generator that starts the same each time.
#[test]
fn no_sequence_of_messages_leaves_anything() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let task = pair.task.clone().hostile();
    let news = task.grant(pair.worker.news().port().name().unwrap(), &task);
    let own = task.construct(1000).unwrap();
    let entrance = task.look_up(host.entrance.service().unwrap()).unwrap();
    let reachable = [entrance, pair.worker.peer().name().unwrap(), pair.worker.port().name().unwrap(), news];
    let names = (kernel.names(&host.task), kernel.names(&task));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % limit
    };
    let mut opened = Opened::<SimSurface>::new();
    for _ in 0..20_000 {
        let to = reachable[below(reachable.len())];
        let item = |below: &mut dyn FnMut(usize) -> usize| match below(6) {
            0 => {
                let (bytes, kind) = (below(1 << 20) as u32, below(4));
                Item::Memory(OutOfLine { bytes, is_virtual: kind & 1 > 0, is_volatile: kind & 2 > 0 })
            }
            1 => Item::Ports(vec![own; below(20)], 20 + below(2) as u32),
            2 => Item::Port([Name::NULL, Name::DEAD][below(2)], 17),
            3 => Item::Port(reachable[below(2)], 19),
            _ => Item::Port(own, 20 + below(2) as u32),
        };
        let items = (0..[0, 1, 1, 1, 2, 3][below(6)]).map(|_| item(&mut below)).collect();
        let ids = [id::CHECK_IN, id::WELCOME, id::REGISTER, 65, 69, 70, 71, 72, below(1 << 30) as i32];
        let payload = match below(3) {
            0 => payload(),
            _ => (0..below(50)).map(|_| below(1 << 32) as u32).collect(),
        };
        let reply = (below(8) == 0).then_some((own, 20 + below(2) as u32));
        task.send_raw(&Raw { to: to.0, id: ids[below(ids.len())], reply, items, payload, ..Raw::default() });
        let (accepted, _) = host.serve();
        assert!(accepted.is_none());
        let _ = (pair.host.fate(), pair.worker.fate());
        if let Ok(Some(message)) = Received::next(pair.worker.port(), Duration::ZERO) {
            assert!(opened.open(&task, message, pair.worker.host(), 0).is_err());
        }
        while task.receive(own, &mut frameport_sys::mach::Buffer::new(), 0) == Kern::SUCCESS {}
        assert_eq!((kernel.names(&host.task), kernel.names(&task)), names);
    }
    assert_eq!(kernel.state().faults, Vec::<String>::new());
    task.kill();
    drop((pair, host));
    kernel.assert_clean();
}
