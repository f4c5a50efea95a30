//! Event loops and select: a descriptor that is readable exactly while a receive may find something.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use common::{picture, role, small, small_worker, worker};
use frameport::spec::BytesSpec;
use frameport::{Delivery, Error, Link, Until, Worker, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    let link = Link::from_env().unwrap();
    let run = || -> Result<(), Error> {
        match role.as_str() {
            "echo" => loop {
                link.send_back(link.recv()?)?;
            },
            // Waits by poll, never by recv.
            "polled" => loop {
                while let Some(frame) = link.try_recv()? {
                    link.send_back(frame)?;
                }
                is_readable(link.event()?, None);
            },
            // Answers each message on "ask" with that many on "b", the default channel and "c" being silent.
            "three" => {
                let (ask, b) = (link.receiver("ask")?, link.sender("b")?);
                loop {
                    for _ in 0..ask.recv()?.payload().len() {
                        b.send(b.loan()?)?;
                    }
                }
            }
            other => panic!("no role {other}"),
        }
    };
    match run() {
        Ok(()) | Err(Error::LinkClosed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn is_readable(fd: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 });
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], limit.as_ref()).unwrap() == 1
}

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn push(worker: &Worker, seq: u64) {
    let mut frame = worker.loan().unwrap();
    frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
    worker.send(frame).unwrap();
}

#[test]
fn an_event_is_readable_until_nothing_is_found() {
    for role in ["echo", "polled"] {
        let worker = small_worker(role).spawn().unwrap();
        let event = worker.event().unwrap();
        assert!(!is_readable(event, NOW), "nothing was sent");
        for seq in 0..200 {
            push(&worker, seq);
            push(&worker, seq);
            assert!(is_readable(event, LONG), "frame {seq}");
            let mut got = 0;
            while got < 2 {
                match worker.try_recv().unwrap() {
                    Some(_) => {
                        got += 1;
                        assert!(is_readable(event, NOW), "it was not yet found empty");
                    }
                    None => assert!(is_readable(event, LONG), "the second of frame {seq}"),
                }
            }
            assert!(worker.try_recv().unwrap().is_none());
            // A ring may come late, for each of the two; it costs a look.
            let late = std::iter::from_fn(|| is_readable(event, NOW).then(|| worker.try_recv().unwrap()));
            assert!(late.take(3).count() < 3, "it was found empty");
        }
        worker.kill();
        assert!(is_readable(event, LONG), "a death is something to be found");
        while worker.try_recv().is_ok() {}
        assert!(matches!(worker.try_recv(), Err(Error::WorkerDied(_))));
        assert!(is_readable(event, NOW), "and stays so");
    }
}

#[test]
fn one_thread_waits_for_many_links_and_channels() {
    let spawn = |name: &str| small_worker("echo").name(name).spawn().unwrap();
    let (one, two) = (spawn("one"), spawn("two"));
    let bytes = || BytesSpec::new(100);
    let three = worker("three").input("ask", bytes(), Delivery::Lossless).output("a", bytes(), Delivery::Lossless);
    let three = three.output("b", bytes(), Delivery::Lossless).output("c", small(), Delivery::Latest).spawn().unwrap();
    let all = [
        one.receiver("out").unwrap(),
        two.receiver("out").unwrap(),
        three.receiver("a").unwrap(),
        three.receiver("b").unwrap(),
        three.receiver("c").unwrap(),
    ];
    let all: Vec<_> = all.iter().collect();
    let wait = || select(&all, Until::after(Duration::from_secs(60))).unwrap();
    for seq in 0..100 {
        push(&one, seq);
        assert_eq!(wait(), [0]);
        all[0].recv().unwrap();
        push(&two, seq);
        assert_eq!(wait(), [1]);
        all[1].recv().unwrap();
        let mut ask = three.loan().unwrap();
        ask.set_len(2).unwrap();
        three.send(ask).unwrap();
        for _ in 0..2 {
            assert_eq!(wait(), [3]);
            all[3].recv().unwrap();
        }
    }
    // What nobody waits for wakes nobody.
    let mut ask = three.loan().unwrap();
    ask.set_len(3).unwrap();
    three.send(ask).unwrap();
    let others = [all[0], all[2]];
    assert!(matches!(select(&others, Until::after(Duration::from_millis(5))), Err(Error::Timeout { .. })));
    assert_eq!(wait(), [3]);
    for _ in 0..3 {
        all[3].recv().unwrap();
    }
    let timed_out = select(&all, Until::after(Duration::from_millis(5)));
    assert!(matches!(timed_out, Err(Error::Timeout { .. })));
    two.kill();
    assert_eq!(wait(), [1], "its end");
    assert!(matches!(all[1].recv(), Err(Error::WorkerDied(_))));
    assert!(matches!(select(&[], Until::forever()), Err(Error::Config { .. })));
}

#[test]
fn a_select_may_be_interrupted() {
    let worker = small_worker("echo").spawn().unwrap();
    let out = worker.receiver("out").unwrap();
    let mut asked = 0;
    let mut interrupt = || {
        asked += 1;
        asked == 3
    };
    let waited = select(&[&out], Until::forever().or_when(Duration::from_millis(1), &mut interrupt));
    assert!(matches!(waited, Err(Error::Interrupted)));
}

#[cfg(feature = "tokio")]
#[test]
fn a_tokio_task_receives_from_many_workers_and_a_cancelled_receive_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let workers: Vec<_> = (0..3).map(|_| small_worker("echo").spawn().unwrap()).collect();
    runtime.block_on(async {
        for seq in 0..200 {
            for worker in &workers {
                let out = worker.receiver("out").unwrap();
                tokio::select! {
                    biased;
                    early = out.recv_async() => panic!("{early:?}"),
                    () = tokio::task::yield_now() => {}
                }
                let mut frame = worker.sender("in").unwrap().loan_async().await.unwrap();
                frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
                worker.send(frame).unwrap();
            }
            for worker in &workers {
                let out = worker.receiver("out").unwrap();
                assert_eq!(out.recv_async().await.unwrap().seq(), seq);
            }
        }
        workers[0].kill();
        let end = workers[0].receiver("out").unwrap().recv_async().await;
        assert!(matches!(end, Err(Error::WorkerDied(_))));
    });
}
