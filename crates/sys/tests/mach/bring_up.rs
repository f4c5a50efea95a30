//! A worker finds its host, checks in, and is welcomed; by every way there is, and what happens where none is.

use frameport_sys::mach::error::Sign;
use frameport_sys::mach::host::{HostLink, Offer};
use frameport_sys::mach::rendezvous::WorkerId;
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Check, Kern, SendError, SetupError, Task};

use crate::kernel::{Kernel, Raw, SimTask};
use crate::world::{Host, LIMIT, REGIONS, UID, nonce, over};

#[test]
fn a_worker_meets_its_host_and_nothing_is_left() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    assert_eq!(pair.host.audit().pid(), pair.task.pid());
    assert_eq!(host.rendezvous.refused(), 0);
    assert_eq!((pair.host.fate().unwrap(), pair.worker.fate().unwrap()), (None, None));
    // The host: two entrances, the worker's port, its news, the right to the worker.
    assert_eq!(kernel.names(&host.task), 5);
    // The worker: its port, its news, the right to the host, and not the entrance it came by.
    assert_eq!(kernel.names(&pair.task), 3);
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn each_side_learns_of_the_others_end() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    pair.task.kill();
    let mut signs = Vec::new();
    while let Some(sign) = pair.host.news().next(LIMIT).unwrap() {
        signs.push(sign);
    }
    signs.sort_by_key(|sign| format!("{sign:?}"));
    assert_eq!(signs, [Sign::DeadName, Sign::NoSenders]);
    let second = host.bring_up(2).unwrap();
    drop(second.host);
    let sign = second.worker.news().next(LIMIT).unwrap();
    assert!(matches!(sign, Some(Sign::NoSenders | Sign::DeadName)), "{sign:?}");
    drop((pair.host, pair.worker, second.worker, host));
    kernel.assert_clean();
}

#[test]
fn a_right_that_was_passed_on_hides_no_death() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (one, two) = (host.bring_up(1).unwrap(), host.bring_up(2).unwrap());
    let keeper = kernel.boot(UID).hostile();
    // Somebody keeps rights to both ports: neither runs out of senders.
    one.task.grant(one.worker.port().name().unwrap(), &keeper);
    host.task.grant(two.host.port().name().unwrap(), &keeper);
    two.task.kill();
    assert_eq!(two.host.news().next(LIMIT).unwrap(), Some(Sign::DeadName));
    host.task.kill();
    assert_eq!(one.worker.news().next(LIMIT).unwrap(), Some(Sign::DeadName));
    keeper.kill();
    drop((one, two, host));
    kernel.assert_clean();
}

#[test]
fn twenty_workers_at_once_come_to_their_own_hosts_links() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let started: Vec<_> = (0..20).map(|worker| (worker, host.start(worker).unwrap())).collect();
    let mut waiting = Vec::new();
    for (worker, (offer, task)) in started.into_iter().rev() {
        waiting.push((worker, offer, CheckedIn::new(&task, &host.hello(worker), REGIONS.len(), LIMIT).unwrap(), task));
    }
    for (worker, offer, checked_in, task) in waiting {
        // One at a time, so that each accepted one is seen.
        let port = host.entrance.ports().next().unwrap();
        let message = frameport_sys::mach::Received::next(port, LIMIT).unwrap().unwrap();
        let accepted = host.rendezvous.accept(message).unwrap();
        assert_eq!((accepted.worker, accepted.audit.pid()), (WorkerId(worker), task.pid()));
        let link = host.welcome(offer, accepted).unwrap();
        drop(checked_in.welcomed(over).unwrap());
        drop(link);
    }
    drop(host);
    kernel.assert_clean();
}

#[test]
fn a_nonce_is_good_once() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    let thief = kernel.spawn(&host.task);
    let again = CheckedIn::new(&thief, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    assert_eq!(host.serve().1, [Check::Nonce]);
    // Refused looks like a host that is gone: nobody has the right it sent.
    assert_eq!(again.welcomed(over).unwrap_err(), SetupError::Died(Sign::NoSenders));
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_nonce_is_good_until_its_worker_is_given_up() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    host.rendezvous.forget(WorkerId(1));
    let late = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    assert_eq!(host.serve().1, [Check::Nonce]);
    drop((offer, late, host));
    kernel.assert_clean();
}

#[test]
fn a_host_that_does_not_answer_is_a_timeout() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    assert_eq!(checked_in.welcomed(over).unwrap_err(), SetupError::RendezvousTimeout);
    drop((offer, host));
    kernel.assert_clean();
}

/// What a worker learns during whose first wait something happens, at the end of which its pipe may have ended.
fn learns(
    happens: impl FnOnce(&mut Host, Offer<SimTask>) -> Option<HostLink<SimTask>>,
    ends: bool,
) -> Result<(), SetupError> {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let ports = checked_in.watched().unwrap();
    let (mut happens, mut link) = (Some(|host: &mut Host| happens(host, offer)), None);
    let learnt = checked_in.welcomed(|| {
        let happens = happens.take().expect("it knows now");
        link = happens(&mut host);
        assert!(ends || kernel.is_readable(&task, &ports), "it is woken");
        if ends { Err(SetupError::Died(Sign::EndOfFile)) } else { Ok(()) }
    });
    let learnt = learnt.map(drop);
    drop((link, host));
    kernel.assert_clean();
    learnt
}

#[test]
fn a_worker_that_waits_learns_at_once_what_becomes_of_its_host() {
    let answers = |host: &mut Host, offer| {
        let accepted = host.serve().0.unwrap();
        host.welcome(offer, accepted).ok()
    };
    assert_eq!(learns(answers, false), Ok(()));
    // It answered before its pipe ended.
    assert_eq!(learns(answers, true), Ok(()));
    let dies = |host: &mut Host, _| {
        host.task.kill();
        None
    };
    assert_eq!(learns(dies, false), Err(SetupError::Died(Sign::NoSenders)));
    let refuses = |host: &mut Host, _| {
        host.rendezvous.forget(WorkerId(1));
        host.serve();
        None
    };
    assert_eq!(learns(refuses, false), Err(SetupError::Died(Sign::NoSenders)));
    let leaves = |_: &mut Host, _| None;
    assert_eq!(learns(leaves, true), Err(SetupError::Died(Sign::EndOfFile)));
}

#[test]
fn a_worker_that_waits_passes_over_what_the_kernel_did_not_send() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let forger = kernel.boot(UID).hostile();
    let to = task.grant(checked_in.news().port().name().unwrap(), &forger).0;
    let (mut offer, mut link) = (Some(offer), None);
    let learnt = checked_in.welcomed(|| {
        if forger.is_alive() {
            assert_eq!(forger.send_raw(&Raw { to, id: 70, payload: vec![0, 1, 1], ..Raw::default() }), Kern::SUCCESS);
            forger.kill();
        } else {
            let accepted = host.serve().0.unwrap();
            link = host.welcome(offer.take().unwrap(), accepted).ok();
        }
        Ok(())
    });
    drop((learnt.unwrap(), link, host));
    kernel.assert_clean();
}

#[test]
fn a_worker_that_dies_before_its_welcome_costs_nothing() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let accepted = host.serve().0.unwrap();
    task.kill();
    assert_eq!(host.welcome(offer, accepted).unwrap_err(), SetupError::Died(Sign::DeadName));
    drop((checked_in, host));
    kernel.assert_clean();
}

#[test]
fn a_worker_that_dies_between_its_welcome_and_the_watch_is_noticed() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let accepted = host.serve().0.unwrap();
    kernel.state().dies_after_send = Some(task.id());
    assert_eq!(host.welcome(offer, accepted).unwrap_err(), SetupError::Died(Sign::DeadName));
    drop((checked_in, host));
    kernel.assert_clean();
}

#[test]
fn a_welcome_that_finds_no_room_comes_back_whole() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let checked_in = CheckedIn::new(&task, &host.hello(1), REGIONS.len(), LIMIT).unwrap();
    let accepted = host.serve().0.unwrap();
    kernel.state().is_full_for = Some(host.task.id());
    assert_eq!(host.welcome(offer, accepted).unwrap_err(), SetupError::Send(SendError::Full));
    assert_eq!(checked_in.welcomed(over).unwrap_err(), SetupError::Died(Sign::NoSenders));
    drop(host);
    kernel.assert_clean();
}

#[test]
fn a_worker_of_another_version_is_told_apart() {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let (offer, task) = host.start(1).unwrap();
    let hello = frameport_sys::mach::check_in::Hello { version: 9, ..host.hello(1) };
    let error = CheckedIn::new(&task, &hello, REGIONS.len(), LIMIT).unwrap_err();
    assert_eq!(error, SetupError::PeerRejected(Check::Version { found: 9 }));
    drop((offer, host));
    kernel.assert_clean();
}

#[test]
fn a_hello_survives_the_pipe_and_nonsense_is_an_error() {
    use frameport_sys::mach::check_in::Hello;
    let kernel = Kernel::new();
    let host = Host::new(&kernel);
    for service in [host.entrance.service().map(str::to_owned), None] {
        let hello = Hello { service, ..host.hello(9) };
        let bytes = hello.to_bytes().unwrap();
        let read = Hello::from_bytes(&bytes).unwrap();
        assert_eq!((read.version, read.host, read.lent), (hello.version, hello.host, hello.lent));
        assert_eq!((&read.service, read.to_bytes().unwrap()), (&hello.service, bytes));
        for (at, byte) in [(8, 128), (11, 1), (48, 0xff)] {
            let mut wrong = bytes;
            wrong[at] = byte;
            if read.service.is_some() || at != 48 {
                assert!(Hello::from_bytes(&wrong).is_err(), "byte {at}");
            }
        }
    }
    assert!(Hello { service: Some("x".repeat(128)), ..host.hello(9) }.to_bytes().is_err());
}

#[test]
fn nothing_prints_a_nonce() {
    assert_eq!(format!("{:?}", nonce(3)), "Nonce(..)");
}
