//! Everything a stranger or a hostile worker can send: refused for the right reason, with no right, memory or name left.

use frameport_sys::mach::check_in::id;
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Check, Kern, Name, SetupError, Task};

use crate::kernel::{Item, Kernel, OutOfLine, Raw, SimTask};
use crate::world::{Host, LIMIT, REGIONS, UID, payload};

/// A host that expects worker 1, and somebody who may send to it.
struct Attack {
    kernel: Kernel,
    host: Host,
    task: SimTask,
    /// The attacker's right to the entrance, and a port of its own.
    to: Name,
    own: Name,
    offer: frameport_sys::mach::host::Offer<SimTask>,
}

impl Attack {
    fn new() -> Self {
        let kernel = Kernel::new();
        let mut host = Host::new(&kernel);
        let (offer, task) = host.start(1).unwrap();
        let task = task.hostile();
        let to = task.look_up(host.entrance.service().unwrap()).unwrap();
        let own = task.construct(5).unwrap();
        Self { kernel, host, task, to, own, offer }
    }

    /// A check-in that would be believed.
    fn good(&self) -> Raw {
        let items = vec![Item::Port(self.own, 20)];
        Raw { to: self.to.0, id: id::CHECK_IN, items, payload: payload(), ..Raw::default() }
    }

    /// Sends a check-in with something changed, and says why it was refused.
    fn refused(&mut self, change: impl FnOnce(&mut Raw)) -> Check {
        let mut raw = self.good();
        change(&mut raw);
        let before = self.kernel.names(&self.host.task);
        assert_eq!(self.task.send_raw(&raw), Kern::SUCCESS);
        let (accepted, refused) = self.host.serve();
        assert!(accepted.is_none());
        assert_eq!(self.kernel.names(&self.host.task), before);
        assert_eq!(refused.len(), 1);
        refused[0]
    }

    /// After all that, the worker is still welcome, and nothing is left.
    fn end(mut self) {
        assert_eq!(self.task.send_raw(&self.good()), Kern::SUCCESS);
        let accepted = self.host.serve().0.expect("the nonce is still good");
        drop((self.host.welcome(self.offer, accepted).unwrap(), self.host));
        self.task.kill();
        self.kernel.assert_clean();
    }
}

#[test]
fn a_check_in_of_another_form_is_refused_for_it() {
    let mut it = Attack::new();
    let (own, to) = (it.own, it.to);
    assert_eq!(it.refused(|raw| raw.id = id::WELCOME), Check::Id { found: id::WELCOME });
    assert_eq!(it.refused(|raw| raw.id = 70), Check::Id { found: 70 });
    assert_eq!(it.refused(|raw| raw.items.clear()), Check::Complex);
    let size = |raw: &mut Raw| raw.payload.push(0);
    assert_eq!(it.refused(size), Check::Size { found: 80, expected: 76 });
    assert_eq!(it.refused(|raw| raw.payload.truncate(8)), Check::Size { found: 72, expected: 76 });
    // Two rights in a message of the right size.
    let two = |raw: &mut Raw| {
        raw.items.push(Item::Port(own, 20));
        raw.payload.truncate(6);
    };
    assert_eq!(it.refused(two), Check::Descriptors { found: 2 });
    // None, in one that says it has some.
    let none = |raw: &mut Raw| {
        (raw.is_complex, raw.items) = (true, vec![]);
        raw.payload.extend([0; 3]);
    };
    assert_eq!(it.refused(none), Check::Descriptors { found: 0 });
    for (item, words, found) in [(Item::memory(1 << 20), 8, 1), (Item::Ports(vec![own; 30], 20), 8, 2)] {
        let other = |raw: &mut Raw| {
            raw.items = vec![item];
            raw.payload.truncate(words);
        };
        assert_eq!(it.refused(other), Check::Kind { found });
    }
    assert_eq!(it.refused(|raw| raw.items = vec![Item::Port(own, 21)]), Check::Disposition { found: 18 });
    assert_eq!(it.refused(|raw| raw.items = vec![Item::Port(Name::NULL, 19)]), Check::DeadRight);
    assert_eq!(it.refused(|raw| raw.items = vec![Item::Port(Name::DEAD, 17)]), Check::DeadRight);
    assert_eq!(it.refused(|raw| raw.reply = Some((own, 20))), Check::ReplyPort);
    assert_eq!(it.refused(|raw| raw.reply = Some((own, 21))), Check::ReplyPort);
    assert_eq!(it.refused(|raw| raw.payload[3] ^= 1 << 17), Check::Nonce);
    assert_eq!(it.refused(|raw| raw.payload[8] ^= 1 << 31), Check::Nonce);
    assert_eq!(it.refused(|raw| raw.payload[1..].fill(0)), Check::Nonce);
    assert_eq!(it.refused(|raw| raw.payload[0] = 2), Check::Version { found: 2 });
    // The host's own entrance, for it to talk to itself.
    assert_eq!(it.refused(|raw| raw.items = vec![Item::Port(to, 19)]), Check::Shared);
    assert_eq!(it.host.rendezvous.refused(), 19);
    it.end();
}

#[test]
fn receive_rights_are_destroyed_with_their_message() {
    let mut it = Attack::new();
    for guarded in [false, true] {
        let port = it.task.construct(5).unwrap();
        let item = if guarded { Item::Guarded(port) } else { Item::Port(port, 16) };
        let expected = if guarded { Check::Kind { found: 4 } } else { Check::Disposition { found: 16 } };
        let other = |raw: &mut Raw| {
            raw.items = vec![item];
            raw.payload.truncate(if guarded { 8 } else { 9 });
        };
        assert_eq!(it.refused(other), expected);
    }
    it.end();
}

#[test]
fn a_right_whose_port_dies_on_the_way_is_none() {
    let mut it = Attack::new();
    let port = it.task.construct(5).unwrap();
    let raw = Raw { items: vec![Item::Port(port, 20)], ..it.good() };
    assert_eq!(it.task.send_raw(&raw), Kern::SUCCESS);
    it.task.release_receive(port).unwrap();
    assert_eq!(it.host.serve().1, [Check::DeadRight]);
    it.end();
}

#[test]
fn oversize_and_floods_leave_nothing() {
    let mut it = Attack::new();
    let own = it.own;
    assert_eq!(it.refused(|raw| raw.payload = vec![7; 100]), Check::TooLarge);
    let many = |raw: &mut Raw| {
        raw.items = vec![Item::Port(own, 20); 15];
        raw.payload.clear();
    };
    assert!(matches!(it.refused(many), Check::Size { .. }));
    let memory = |raw: &mut Raw| {
        raw.items = vec![Item::memory(1 << 30); 8];
        raw.items.push(Item::Ports(vec![own; 1000], 20));
        raw.payload.clear();
    };
    assert!(matches!(it.refused(memory), Check::Size { .. }));
    // More than the queue holds: the rest never comes.
    let flood = Raw { items: vec![Item::memory(4096), Item::Port(own, 20)], ..it.good() };
    let sent = (0..1000).filter(|_| it.task.send_raw(&flood) == Kern::SUCCESS).count();
    assert_eq!(sent, 64);
    assert_eq!(it.host.serve().1.len(), 64);
    it.end();
}

/// Whatever the sender says of it: libSystem's own `mach_msg_destroy` would leave three of these four.
#[test]
fn memory_of_every_kind_goes_with_its_message() {
    let mut it = Attack::new();
    let own = it.own;
    for (is_virtual, is_volatile) in [(true, false), (false, false), (true, true), (false, true)] {
        let memory = |bytes| Item::Memory(OutOfLine { bytes, is_virtual, is_volatile });
        let one = |raw: &mut Raw| {
            raw.items = vec![memory(1 << 30)];
            raw.payload.truncate(8);
        };
        assert_eq!(it.refused(one), Check::Kind { found: if is_volatile { 3 } else { 1 } });
        // Behind descriptors of every other kind and size, and in a message that has not arrived whole.
        for room in [None, Some(0)] {
            let port = it.task.construct(5).unwrap();
            let many = |raw: &mut Raw| {
                let ports = Item::Ports(vec![own; 3], 20);
                raw.items = vec![Item::Port(own, 20), ports, Item::Guarded(port), memory(0), memory(1), memory(2)];
            };
            let host = it.host.task.id();
            it.kernel.state().space(host).room = room;
            let found = it.refused(many);
            assert!(matches!((room, found), (None, Check::Size { .. }) | (Some(_), Check::Incomplete)), "{found:?}");
            it.kernel.state().space(host).room = None;
        }
    }
    it.end();
}

#[test]
fn memory_without_room_is_an_incomplete_message() {
    let mut it = Attack::new();
    let (own, host) = (it.own, it.host.task.id());
    it.kernel.state().space(host).is_map_full = true;
    // An array has no address then, but as many names as before.
    for item in [Item::memory(1 << 30), Item::Ports(vec![own; 9], 20)] {
        assert_eq!(it.refused(|raw| raw.items = vec![item, Item::Port(own, 20)]), Check::Incomplete);
    }
    it.kernel.state().space(host).is_map_full = false;
    it.end();
}

#[test]
fn no_room_for_a_right_is_an_incomplete_message() {
    let mut it = Attack::new();
    let host = it.host.task.id();
    it.kernel.state().space(host).room = Some(0);
    assert_eq!(it.refused(|_| ()), Check::Incomplete);
    let own = it.own;
    assert_eq!(it.refused(|raw| raw.reply = Some((own, 20))), Check::Incomplete);
    // Room for the first of two: that one is here by then, and must go.
    let other = it.task.construct(5).unwrap();
    it.kernel.state().space(host).room = Some(1);
    assert_eq!(it.refused(|raw| raw.items.push(Item::Port(other, 20))), Check::Incomplete);
    it.kernel.state().space(host).room = None;
    it.end();
}

#[test]
fn another_user_with_the_nonce_is_refused() {
    let mut it = Attack::new();
    let other = it.kernel.boot(502).hostile();
    let to = other.look_up(it.host.entrance.service().unwrap()).unwrap();
    let own = other.construct(5).unwrap();
    let raw = Raw { to: to.0, items: vec![Item::Port(own, 20)], ..it.good() };
    assert_eq!(other.send_raw(&raw), Kern::SUCCESS);
    assert_eq!(it.host.serve().1, [Check::User { found: 502 }]);
    other.kill();
    it.end();
}

#[test]
fn without_a_trailer_nobody_is_believed() {
    let mut it = Attack::new();
    it.kernel.state().omits_audit = true;
    assert_eq!(it.refused(|_| ()), Check::Trailer);
    it.kernel.state().omits_audit = false;
    it.end();
}

#[test]
fn a_right_others_in_the_host_have_is_refused() {
    let mut it = Attack::new();
    // As with launchd's port: whoever asks to be told of its death would replace a request of libxpc's.
    let service = it.kernel.boot(UID);
    let there = service.check_in("com.apple.somewhere").unwrap();
    let theirs = it.host.task.look_up("com.apple.somewhere").unwrap();
    let same = it.task.look_up("com.apple.somewhere").unwrap();
    assert_eq!(it.refused(|raw| raw.items = vec![Item::Port(same, 19)]), Check::Shared);
    it.host.task.deallocate(theirs).unwrap();
    service.release_receive(there).unwrap();
    it.end();
}

#[test]
fn the_entrance_can_be_filled_and_serves_again() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let flooder = kernel.spawn(&host.task).hostile();
    let to = flooder.look_up(host.entrance.service().unwrap()).unwrap().0;
    while flooder.send_raw(&Raw { to, id: 5, ..Raw::default() }) == Kern::SUCCESS {}
    let error = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap_err();
    assert_eq!(error, SetupError::Send(frameport_sys::mach::SendError::Full));
    assert_eq!(host.serve().1.len(), 64);
    flooder.kill();
    let pair = host.meet(1, offer, task).unwrap();
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_worker_may_only_read_the_hosts_region() {
    let kernel = Kernel::new();
    let task = kernel.boot(UID);
    let entry = task.memory_entry(4096, false);
    assert_eq!(task.map(entry, 4096, true), Err(Kern::INVALID_RIGHT));
    assert_eq!(task.map(entry, 4096, false), Ok(()));
    task.deallocate(entry).unwrap();
    kernel.assert_clean();
}
