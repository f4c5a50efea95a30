//! The ring from both ends in one thread, and what a lying peer can write.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_wire::layout::{ENTRIES, OLDEST, PRODUCED, TAKEN, VISIT, block_len, ticket};

use super::*;
use crate::words::OwnWords;
use frameport_sys::memory::{Region, Writers};

const CAPACITY: usize = 4;

struct Bench {
    /// What a lying side writes through.
    sent: OwnWords,
    received: OwnWords,
    sender: Sender,
    receiver: Receiver,
}

fn bench() -> Bench {
    let region = || Region::create("ring", block_len(CAPACITY), Writers::Creator).unwrap();
    let ((left, left_map), (right, right_map)) = (region(), region());
    let (left_own, right_own) = (Arc::new(left_map), Arc::new(right_map));
    let (left_seen, right_seen) = (Arc::new(left.map(false).unwrap()), Arc::new(right.map(false).unwrap()));
    Bench {
        sent: OwnWords::new(&left_own, 0, block_len(CAPACITY) / 8).unwrap(),
        received: OwnWords::new(&right_own, 0, block_len(CAPACITY) / 8).unwrap(),
        sender: Sender::new(&left_own, &right_seen, 0, CAPACITY).unwrap(),
        receiver: Receiver::new(&right_own, &left_seen, 0, CAPACITY).unwrap(),
    }
}

fn entry(seq: u64) -> [u64; WORDS] {
    std::array::from_fn(|index| if index == 0 { ticket(seq) } else { seq * 31 + index as u64 })
}

#[test]
fn entries_arrive_in_order_whole_and_once() {
    let mut bench = bench();
    for seq in 0..100 {
        bench.sender.publish(entry(seq));
        if seq % 3 == 2 {
            assert_eq!(bench.sender.taken(), Ok(seq - 2));
            for due in seq - 2..=seq {
                assert_eq!(bench.receiver.poll(), Ok(Some(entry(due))));
            }
            assert_eq!(bench.receiver.poll(), Ok(None));
        }
    }
    assert_eq!(bench.sender.taken(), Ok(99));
    assert!(!bench.receiver.is_closed());
    bench.sender.close();
    assert!(bench.receiver.is_closed());
    assert_eq!(bench.receiver.poll(), Ok(Some(entry(99))), "what was sent before the close still arrives");
}

#[test]
fn a_ticket_that_is_neither_due_nor_the_one_before_is_a_violation() {
    for round in [0, 1] {
        for (lie, found) in [("one ahead", 2), ("far ahead", 1 << 40), ("all ones", u64::MAX), ("back", 0)] {
            let mut bench = bench();
            for seq in 0..round * CAPACITY as u64 {
                bench.sender.publish(entry(seq));
                bench.receiver.poll().unwrap().unwrap();
            }
            let due = round * CAPACITY as u64;
            let found = if found == 2 { due + 2 } else { found };
            bench.sent.store(word(ENTRIES), found, Ordering::Release);
            let expected =
                if found == 0 && round == 0 { Ok(None) } else { Err(RingViolation::WrongEntry { due, found }) };
            assert_eq!(bench.receiver.poll(), expected, "{lie} in round {round}");
        }
    }
}

#[test]
fn a_count_of_taken_entries_that_cannot_be_is_a_violation() {
    let mut bench = bench();
    for seq in 0..2 {
        bench.sender.publish(entry(seq));
    }
    bench.receiver.poll().unwrap();
    assert_eq!(bench.sender.taken(), Ok(1));
    for now in [0, 3, u64::MAX] {
        bench.received.store(word(TAKEN), now, Ordering::Release);
        assert_eq!(bench.sender.taken(), Err(RingViolation::Taken { seen: 1, now, produced: 2 }));
    }
}

#[test]
fn a_visit_takes_the_oldest_entry_that_was_not_taken_back() {
    let mut bench = bench();
    assert_eq!(bench.receiver.visit(|words| words), Ok(None));
    for seq in 0..3 {
        bench.sender.publish(entry(seq));
    }
    bench.sender.unlink(1);
    assert_eq!(bench.receiver.visit(|words| words), Ok(Some(entry(1))));
    let over = bench.sender.visit().unwrap();
    assert_eq!((over.may_take(1), over.may_take(2)), (false, false));
    bench.sender.unlink(3);
    assert_eq!(bench.receiver.visit(|words| words), Ok(None), "all are taken back");
    bench.sender.publish(entry(3));
    assert_eq!(bench.receiver.visit(|words| words), Ok(Some(entry(3))));
    assert_eq!(bench.receiver.skipped(), 2);
}

#[test]
fn a_visit_says_what_it_may_take() {
    let mut bench = bench();
    for seq in 0..2 {
        bench.sender.publish(entry(seq));
    }
    bench.sender.unlink(1);
    let Bench { sender, receiver, .. } = &mut bench;
    let seen = receiver.visit(|_| sender.visit().unwrap()).unwrap().unwrap();
    assert_eq!([0, 1, 2].map(|seq| seen.may_take(seq)), [false, true, false]);
}

#[test]
fn counts_of_a_live_sender_that_cannot_be_are_violations() {
    for (oldest, produced) in [(4, 3), (0, 1), (1, 1)] {
        let mut bench = bench();
        for seq in 0..2 {
            bench.sender.publish(entry(seq));
        }
        bench.sender.unlink(1);
        bench.receiver.visit(|_| ()).unwrap();
        bench.sent.store(word(OLDEST), oldest, Ordering::Release);
        bench.sent.store(word(PRODUCED), produced, Ordering::Release);
        let due = oldest.max(2);
        assert_eq!(bench.receiver.visit(|_| ()), Err(RingViolation::Counts { oldest, produced, due }));
    }
}

#[test]
fn a_receivers_word_that_falls_is_a_violation() {
    let mut bench = bench();
    bench.received.store(word(VISIT), 9, Ordering::Release);
    bench.sender.visit().unwrap();
    bench.received.store(word(VISIT), 8, Ordering::Release);
    assert_eq!(bench.sender.visit(), Err(RingViolation::Visit { seen: 9, now: 8 }));
}

#[test]
fn a_block_that_does_not_fit_is_refused() {
    let (_region, map) = Region::create("ring", block_len(CAPACITY), Writers::All).unwrap();
    let map = Arc::new(map);
    assert!(Sender::new(&map, &map, 8, CAPACITY).is_none());
    assert!(Sender::new(&map, &map, 4, 1).is_none());
    assert!(Receiver::new(&map, &map, 0, 3).is_none());
    assert!(Receiver::new(&map, &map, usize::MAX - 7, CAPACITY).is_none());
    assert!(Receiver::new(&map, &map, 0, 1 << 61).is_none());
}
