//! What becomes of a peer, as its ports and its pipe tell: the first sign decides, and no byte is lost to it.

use std::collections::VecDeque;
use std::io;

use frameport_sys::mach::check_in::id;
use frameport_sys::mach::death::{Fate, Watch};
use frameport_sys::mach::error::Sign;
use frameport_sys::mach::{Check, Forked, Kern, ReceiveRight, SetupError, Task};

use crate::kernel::{Item, Kernel, Raw};
use crate::world::{Host, Pair, UID};

/// A pipe: what was written and not read, and whether somebody has its other end.
#[derive(Debug)]
struct Pipe {
    bytes: VecDeque<u8>,
    is_open: bool,
}

impl Pipe {
    fn new() -> Self {
        Self { bytes: VecDeque::new(), is_open: true }
    }

    fn read(&mut self) -> io::Result<usize> {
        match (self.bytes.pop_front(), self.is_open) {
            (Some(_), _) => Ok(1),
            (None, true) => Err(io::ErrorKind::WouldBlock.into()),
            (None, false) => Ok(0),
        }
    }
}

fn met() -> (Kernel, Host, Pair) {
    let kernel = Kernel::new();
    let mut host = Host::new(&kernel);
    let pair = host.bring_up(1).unwrap();
    (kernel, host, pair)
}

/// What the host's next read answers.
fn read(watch: &mut Watch, pair: &Pair, pipe: &mut Pipe) -> Result<usize, io::ErrorKind> {
    watch.read(|| pair.host.fate(), || pipe.read()).map_err(|error| error.kind())
}

#[test]
fn the_first_sign_decides() {
    let fates = [Fate::Died(Sign::EndOfFile), Fate::Died(Sign::NoSenders), Fate::Lied(Check::TooLarge)];
    for first in fates {
        let mut watch = Watch::default();
        assert!(watch.is_news(first));
        assert!(fates.iter().all(|later| !watch.is_news(*later)));
        assert_eq!(watch.fate(), Some(first));
    }
}

#[test]
fn what_a_worker_wrote_before_it_died_comes_before_the_end() {
    let (kernel, host, pair) = met();
    let (mut watch, mut pipe) = (Watch::default(), Pipe::new());
    assert_eq!(read(&mut watch, &pair, &mut pipe), Err(io::ErrorKind::WouldBlock));
    pipe.bytes.extend(*b"by");
    pair.task.kill();
    assert!(kernel.is_readable(&host.task, &pair.host.watched().unwrap()));
    let reads = std::array::from_fn(|_| read(&mut watch, &pair, &mut pipe));
    // Somebody still has the other end of the pipe.
    assert_eq!((reads, pipe.is_open), ([Ok(1), Ok(1), Ok(0), Ok(0)], true));
    drop((pair, host));
    kernel.assert_clean();
}

/// It does so after its ports were asked: before its pipe is read, or when that was found empty.
#[test]
fn a_worker_that_writes_and_dies_during_a_read_is_read_to_the_end() {
    for is_late in [false, true] {
        let (kernel, host, pair) = met();
        let (mut watch, mut pipe) = (Watch::default(), Pipe::new());
        let write_and_die = || {
            let found = if is_late { pipe.read() } else { Ok(0) };
            pipe.bytes.push_back(7);
            pair.task.kill();
            if is_late { found } else { pipe.read() }
        };
        let first = watch.read(|| pair.host.fate(), write_and_die).map_err(|error| error.kind());
        assert_eq!(first, if is_late { Err(io::ErrorKind::WouldBlock) } else { Ok(1) });
        let rest: Vec<_> = (0..3).map(|_| read(&mut watch, &pair, &mut pipe)).collect();
        assert_eq!(rest, if is_late { [Ok(1), Ok(0), Ok(0)] } else { [Ok(0); 3] });
        drop((pair, host));
        kernel.assert_clean();
    }
}

#[test]
fn the_pipes_end_is_a_sign_and_ends_the_questions() {
    let (kernel, host, pair) = met();
    let (mut watch, mut pipe) = (Watch::default(), Pipe { is_open: false, ..Pipe::new() });
    assert_eq!(read(&mut watch, &pair, &mut pipe), Ok(0));
    pair.task.kill();
    assert_eq!(watch.read(|| unreachable!("it is known"), || pipe.read()).unwrap(), 0);
    assert_eq!(watch.fate(), Some(Fate::Died(Sign::EndOfFile)));
    drop((pair, host));
    kernel.assert_clean();
}

/// Whatever comes to the worker's port, and at once: the bytes beside it are not read any more.
#[test]
fn a_violation_is_told_until_the_end() {
    let (kernel, host, pair) = met();
    let task = pair.task.clone().hostile();
    let (to, own) = (pair.worker.peer().name().unwrap().0, task.construct(5).unwrap());
    let mut messages = vec![Raw { to, payload: vec![1; 90], ..Raw::default() }];
    for id in [id::CHECK_IN, id::HAND_OVER, 70, 72] {
        let items = [vec![], vec![Item::Port(own, 20)], vec![Item::memory(4096)], vec![Item::Ports(vec![own; 9], 20)]];
        messages.extend(items.map(|items| Raw { to, id, items, ..Raw::default() }));
    }
    for message in messages {
        let (mut watch, mut pipe) = (Watch::default(), Pipe::new());
        pipe.bytes.push_back(1);
        assert_eq!(task.send_raw(&message), Kern::SUCCESS);
        assert!(kernel.is_readable(&host.task, &pair.host.watched().unwrap()));
        assert!((0..3).all(|_| read(&mut watch, &pair, &mut pipe) == Err(io::ErrorKind::InvalidData)));
        assert!(matches!(watch.fate(), Some(Fate::Lied(_))), "{message:?}");
        assert!(!kernel.is_readable(&host.task, &pair.host.watched().unwrap()), "destroyed");
    }
    // Its death changes nothing any more.
    let mut watch = Watch::default();
    watch.is_news(Fate::Lied(Check::TooLarge));
    task.kill();
    assert_eq!(read(&mut watch, &pair, &mut Pipe::new()), Err(io::ErrorKind::InvalidData));
    drop((pair, host));
    kernel.assert_clean();
}

/// Each of both signs alone, on each side: the other is hidden by somebody who keeps a right, or by what is not released.
#[test]
fn either_sign_is_enough() {
    for from_host in [true, false] {
        let (kernel, host, pair) = met();
        let keeper = kernel.boot(UID).hostile();
        // Keeps the victim's port from having no senders: what is left is the dead name.
        let (survivor, port) =
            if from_host { (&pair.task, pair.worker.port()) } else { (&host.task, pair.host.port()) };
        survivor.grant(port.name().unwrap(), &keeper);
        let watched = || match from_host {
            true => kernel.is_readable(&pair.task, &pair.worker.watched().unwrap()),
            false => kernel.is_readable(&host.task, &pair.host.watched().unwrap()),
        };
        let fate = || if from_host { pair.worker.fate() } else { pair.host.fate() };
        assert!(!watched() && fate().unwrap().is_none());
        if from_host {
            host.task.kill()
        } else {
            pair.task.kill()
        }
        assert!(watched());
        assert_eq!(fate().unwrap(), Some(Fate::Died(Sign::DeadName)));
        keeper.kill();
        drop((pair, host));
        kernel.assert_clean();
    }
    // A worker that gives up its right to the host's port, and lives: nobody is at that end any more.
    let (kernel, host, pair) = met();
    let task = pair.task.clone().hostile();
    task.deallocate(pair.worker.peer().name().unwrap()).unwrap();
    assert!(kernel.is_readable(&host.task, &pair.host.watched().unwrap()));
    assert_eq!(pair.host.fate().unwrap(), Some(Fate::Died(Sign::NoSenders)));
    task.kill();
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn a_notification_of_somebody_else_is_no_fate() {
    let (kernel, host, pair) = met();
    let forger = kernel.boot(UID).hostile();
    let to = host.task.grant(pair.host.news().port().name().unwrap(), &forger).0;
    assert_eq!(forger.send_raw(&Raw { to, id: 70, payload: vec![0, 1, 1], ..Raw::default() }), Kern::SUCCESS);
    assert_eq!(pair.host.fate(), Ok(None));
    forger.kill();
    pair.task.kill();
    assert!(matches!(pair.host.fate(), Ok(Some(Fate::Died(_)))));
    drop((pair, host));
    kernel.assert_clean();
}

#[test]
fn in_a_fork_nothing_is_watched_and_nothing_said() {
    let (kernel, host, pair) = met();
    let (parent, child) = (host.task.clone(), kernel.fork(&host.task));
    let owner = parent.pid();
    host.task.become_(&child);
    assert_eq!(pair.host.watched(), Err(Forked { owner }));
    let error = Watch::default().read(|| pair.host.fate(), || Ok(1)).unwrap_err();
    assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&SetupError::Forked(Forked { owner })));
    child.kill();
}

/// Both sides talk; one is killed at any call, of theirs or of the kernel's that told them. The other reads all that was
/// written, and then the end.
#[test]
fn whoever_is_killed_at_any_call_is_read_to_the_end() {
    for host_dies in [false, true] {
        let run = |at: u64| {
            let (kernel, host, pair) = met();
            let victim = if host_dies { host.task.clone() } else { pair.task.clone() };
            let calls = kernel.state().space(victim.id()).calls;
            victim.dies_at(calls + at);
            let (mut watch, mut pipe, mut written, mut got) = (Watch::default(), Pipe::new(), 0, 0);
            let mut end = false;
            for _ in 0..50 {
                // Writes, and makes a call, as for a right that goes with the bytes.
                if victim.is_alive() {
                    pipe.bytes.push_back(0);
                    written += 1;
                    let name = victim.construct(1);
                    drop(name.ok().and_then(|name| ReceiveRight::own(&victim, name)));
                }
                let ask = || if host_dies { pair.worker.fate() } else { pair.host.fate() };
                match watch.read(ask, || pipe.read()) {
                    Ok(0) => {
                        end = true;
                        break;
                    }
                    Ok(some) => got += some,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert_eq!((end, got), (!victim.is_alive(), if end { written } else { got }), "call {at}");
            drop((pair, host));
            kernel.assert_clean();
            !victim.is_alive()
        };
        assert!((1..=40).all(run), "every one of these calls is made");
    }
}
