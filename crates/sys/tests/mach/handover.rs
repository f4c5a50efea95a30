//! Rights that go with bytes: whole, in order, from the host alone.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::mach::check_in::id;
use frameport_sys::mach::handover::{Bundle, give, take};
use frameport_sys::mach::{Check, Name, ReceiveRight, Received, SendRight, Task};

use crate::kernel::{Item, Kernel, Raw, SimTask};
use crate::world::{Host, LIMIT, Pair, UID};

fn next(pair: &Pair) -> Received<SimTask> {
    Received::next(pair.worker.port(), Duration::ZERO).unwrap().expect("a message")
}

#[test]
fn rights_arrive_whole_and_in_order() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let entry = SendRight::own(&host.task, host.task.memory_entry(4096, true)).unwrap();
    let ends = [ReceiveRight::new(&host.task, 5).unwrap(), ReceiveRight::new(&host.task, 5).unwrap()];
    let bell = ends.each_ref().map(|end| end.make_send().unwrap());
    let bundles = [
        Bundle { rights: vec![Arc::new(entry)], len: 5 << 32 | 4096 },
        Bundle { rights: bell.map(Arc::new).into(), len: 0 },
    ];
    for (number, bundle) in (0..).zip(&bundles) {
        give(pair.host.peer(), number, bundle, LIMIT).unwrap();
    }
    let got: Vec<_> = (0..2).map(|number| take(next(&pair), host.task.pid(), number).unwrap()).collect();
    assert_eq!(
        got.iter().map(|bundle| (bundle.rights.len(), bundle.len)).collect::<Vec<_>>(),
        [(1, 5 << 32 | 4096), (2, 0)]
    );
    pair.task.map(got[0].rights[0].name().unwrap(), 4096, true).unwrap();
    drop((got, bundles, ends, pair, host));
    kernel.assert_clean();
}

#[test]
fn what_is_out_of_order_or_of_another_form_is_destroyed() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let pid = host.task.pid();
    let entry = SendRight::own(&host.task, host.task.memory_entry(4096, true)).unwrap();
    let bundle = Bundle { rights: vec![Arc::new(entry)], len: 4096 };
    give(pair.host.peer(), 7, &bundle, LIMIT).unwrap();
    assert_eq!(take(next(&pair), pid, 6).unwrap_err(), Check::Content);
    let stranger = kernel.boot(UID).hostile();
    let to = pair.task.grant(pair.worker.port().name().unwrap(), &stranger).0;
    let own = stranger.construct(5).unwrap();
    let send = |items: Vec<Item>| {
        stranger.send_raw(&Raw { to, id: id::HAND_OVER, items, payload: vec![0, 0, 0], ..Raw::default() });
        take(next(&pair), pid, 0).unwrap_err()
    };
    assert_eq!(send(vec![Item::Port(own, 20)]), Check::Process { found: stranger.pid(), expected: pid });
    assert_eq!(send(vec![]), Check::Complex);
    assert!(matches!(send(vec![Item::Port(own, 20); 3]), Check::Size { .. }));
    assert_eq!(send(vec![Item::Port(own, 20), Item::Port(Name::DEAD, 17)]), Check::DeadRight);
    stranger.kill();
    drop((bundle, pair, host));
    kernel.assert_clean();
}
