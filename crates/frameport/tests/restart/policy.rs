//! Whether and when there is another life.

use frameport::{Delivery, Error, Exit, Restart, Until, select};
use std::time::{Duration, Instant};

use super::common::{Random, role, some_time};
use super::{LONG, MARK, assert_died, kill, lively, mark, quick, send};

#[test]
fn it_is_given_up_after_so_many_starts_that_fail() {
    if role().is_some() {
        return;
    }
    let mark = mark("never_again");
    let worker = lively("never_again", Delivery::Lossless).env(MARK, &mark).restart(quick().starts(2)).spawn().unwrap();
    let receivers = [worker.receiver("out").unwrap(), worker.receiver("out").unwrap()];
    let pid = kill(&worker);
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    for error in [worker.loan().map(drop), receivers[0].recv().map(drop), receivers[1].try_recv().map(drop)] {
        let error = error.unwrap_err();
        let Error::GivenUp { starts: 2, cause, .. } = &error else { panic!("{error}") };
        assert!(matches!(&**cause, Error::WorkerDied(death) if death.exit == Exit::Code(4)), "{cause}");
    }
    assert!(matches!(worker.try_loan().unwrap_err(), Error::GivenUp { .. }));
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Signal(9)));
    assert_eq!((worker.stats().restarts, worker.stats().in_flight), (0, 0));
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
    std::fs::remove_file(mark).unwrap();
}

#[test]
fn loans_wait_for_the_next_life_or_say_at_once_that_there_is_none_yet() {
    if role().is_some() {
        return;
    }
    for (delivery, least) in [(Delivery::Lossless, Duration::from_millis(30)), (Delivery::Latest, Duration::ZERO)] {
        let mark = mark(&format!("slow_start-{delivery:?}"));
        let builder = lively("slow_start", delivery).env(MARK, &mark).send_deadline(Duration::from_millis(30));
        let worker = builder.spawn().unwrap();
        kill(&worker);
        worker.recv_timeout(LONG).unwrap_err();
        let asked = Instant::now();
        let error = worker.loan().unwrap_err();
        assert!(asked.elapsed() >= least);
        let Error::PoolExhausted(exhausted) = &error else { panic!("{error}") };
        let text = error.to_string();
        assert!(exhausted.waited >= least && text.contains("is being restarted (start 1 of 3"), "{text}");
        assert!(text.contains("SIGKILL") && !text.contains("last words"), "{text}");
        assert!(worker.sender("in").unwrap().loan_if_free().unwrap().is_none());
        let mut interrupt = || true;
        let until = Until::forever().or_when(Duration::from_millis(1), &mut interrupt);
        let expected = if delivery == Delivery::Lossless { "interrupted" } else { "restarted" };
        assert!(worker.loan_until(until).unwrap_err().to_string().contains(expected));
        let stats = worker.stats();
        assert_eq!((stats.offered, stats.no_slot), if least.is_zero() { (2, 2) } else { (1, 1) }, "{stats:?}");
        assert!(matches!(worker.recv_timeout(Duration::from_millis(1)), Err(Error::Timeout { .. })));
        // In the middle of a start.
        let stopping = Instant::now();
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
        assert!(stopping.elapsed() < Duration::from_secs(2));
        assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
        assert!(matches!(worker.recv().unwrap_err(), Error::LinkClosed { .. }));
        std::fs::remove_file(mark).unwrap();
    }
}

#[test]
fn a_stop_ends_it_in_the_middle_of_a_backoff_and_wakes_who_waits() {
    if role().is_some() {
        return;
    }
    let hour = Duration::from_secs(3600);
    let worker = lively("reply", Delivery::Lossless).restart(Restart::default().backoff(hour, hour)).spawn().unwrap();
    let pid = kill(&worker);
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| worker.loan_until(Until::forever()).map(drop)),
            scope.spawn(|| worker.recv().map(drop)),
            scope.spawn(|| select(&[&worker.receiver("out").unwrap()], Until::forever()).map(drop)),
        ];
        some_time(&mut Random(3), Duration::from_millis(20));
        let stopping = Instant::now();
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
        assert!(stopping.elapsed() < Duration::from_secs(2));
        let [loan, recv, selected] = waiting.map(|thread| thread.join().unwrap());
        assert!(matches!(loan, Err(Error::LinkClosed { .. })) && matches!(recv, Err(Error::LinkClosed { .. })));
        selected.unwrap();
    });
    assert!(worker.wait_exit(Duration::ZERO).is_some());
    drop(worker);
}

#[test]
fn a_worker_that_leaves_in_order_is_not_started_again() {
    if role().is_some() {
        return;
    }
    let worker = lively("leave", Delivery::Lossless).spawn().unwrap();
    send(&worker, 0);
    assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::LinkClosed { .. }));
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Code(0)));
    assert!(matches!(worker.recv().unwrap_err(), Error::LinkClosed { .. }));
    assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
    // After finish neither in order nor otherwise.
    for by_channel in [false, true] {
        let worker = lively("reply", Delivery::Lossless).spawn().unwrap();
        send(&worker, 0);
        if by_channel {
            worker.sender("in").unwrap().finish()
        } else {
            worker.finish()
        }
        assert!(matches!(worker.loan().unwrap_err(), Error::LinkClosed { .. }));
        assert_eq!(worker.recv_timeout(LONG).unwrap().seq(), 0);
        assert!(matches!(worker.recv_timeout(LONG).unwrap_err(), Error::LinkClosed { .. }));
        assert_eq!((worker.wait_exit(LONG), worker.stats().restarts), (Some(Exit::Code(0)), 0));
    }
    // Finished while there is none.
    let hour = Duration::from_secs(3600);
    let worker = lively("reply", Delivery::Lossless).restart(Restart::default().backoff(hour, hour)).spawn().unwrap();
    let pid = kill(&worker);
    worker.finish();
    assert_died(&worker.recv_timeout(LONG).unwrap_err(), pid);
    assert_eq!(worker.wait_exit(LONG), Some(Exit::Signal(9)));
    assert!(worker.recv_timeout(LONG).is_err());
}
