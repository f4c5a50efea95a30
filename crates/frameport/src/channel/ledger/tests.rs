//! What became of frames, as a peer of every kind may say.

use super::*;

fn counts(sent: u64, received: u64, retracted: u64, lost: u64) -> Counts {
    Counts { sent, received, retracted, lost, off_taken: 0 }
}

fn send(ledger: &mut Ledger, ring_seq: u64) -> u32 {
    let (slot, _) = ledger.loan().unwrap();
    ledger.queue(slot, ring_seq, ring_seq, 0);
    ledger.unpin(slot);
    slot
}

#[test]
fn the_slot_freed_last_is_loaned_first() {
    let mut ledger = Ledger::new(3, false);
    let loans: Vec<_> = std::iter::from_fn(|| ledger.loan()).collect();
    assert_eq!(loans, [(0, 1), (1, 1), (2, 1)]);
    ledger.unpin(2);
    ledger.unpin(0);
    assert_eq!(ledger.loan(), Some((0, 2)));
    assert_eq!(ledger.loan(), Some((2, 2)));
}

#[test]
fn a_live_view_of_the_senders_own_keeps_a_released_slot_from_reuse() {
    let mut ledger = Ledger::new(1, false);
    let (slot, _) = ledger.loan().unwrap();
    ledger.queue(slot, 0, 0, 0);
    ledger.look(|_| released(0)).unwrap();
    assert_eq!(ledger.loan(), None, "pinned");
    ledger.unpin(slot);
    assert!(ledger.loan().is_some());
}

#[test]
fn words_that_fit_nothing_are_violations() {
    for word in [released(1), released(0) - 1, 7, u64::MAX] {
        let mut ledger = Ledger::new(1, false);
        send(&mut ledger, 0);
        ledger.look(|_| 0).unwrap();
        for _ in 0..2 {
            assert!(ledger.look(|_| word).is_err(), "word {word}");
        }
    }
    let mut ledger = Ledger::new(1, false);
    send(&mut ledger, 0);
    ledger.look(|_| released(0)).unwrap();
    send(&mut ledger, 1);
    ledger.look(|_| released(0)).unwrap();
    assert!(ledger.look(|_| 0).is_err(), "a word that goes back");
}

#[test]
fn a_slot_sent_back_must_be_held_in_its_generation() {
    let mut ledger = Ledger::new(2, false);
    ledger.loan().unwrap();
    assert!(ledger.returned(0, 1, 0).is_err(), "still being filled");
    ledger.queue(0, 0, 9, 0);
    ledger.unpin(0);
    assert!(ledger.returned(0, 2, 0).is_err(), "another generation");
    assert!(ledger.returned(0, 1, released(0)).is_err(), "released before");
    assert!(ledger.returned(1, 1, 0).is_err(), "free");
    assert!(ledger.returned(7, 1, 0).is_err(), "no such slot");
    ledger.returned(0, 1, 0).unwrap();
    assert!(ledger.returned(0, 1, 0).is_err(), "twice");
    ledger.let_go(0);
    assert_eq!(ledger.loan(), Some((0, 2)));
}

#[test]
fn a_death_counts_what_the_peer_never_took_and_lets_its_last_replies_arrive() {
    let mut ledger = Ledger::new(4, false);
    for ring_seq in 0..3 {
        send(&mut ledger, ring_seq);
    }
    ledger.loan().unwrap();
    ledger.reclaim(1);
    assert_eq!(ledger.counts(), counts(3, 0, 0, 0));
    assert!(ledger.returned(1, 1, 0).is_err(), "it never took that");
    ledger.returned(0, 1, 0).unwrap();
    ledger.let_go(0);
    ledger.unpin(3);
    assert!(ledger.slots().all(|(_, slot)| slot.state == State::Free));
}

/// A receiver's word about its visits, as the ring has it: outside, claiming one entry, or taking any.
fn visit(word: u64) -> Visit {
    Visit::from_word(word)
}

#[test]
fn what_was_taken_back_is_free_unless_the_visit_may_take_it() {
    let (outside, claims_first, any) = (visit(0), visit(1), visit(2));
    for (during, first, second) in [
        (outside, State::Free, State::Free),
        (claims_first, State::Doubt { ring_seq: 0, visit: claims_first }, State::Free),
        (any, State::Doubt { ring_seq: 0, visit: any }, State::Doubt { ring_seq: 1, visit: any }),
    ] {
        let mut ledger = Ledger::new(3, true);
        for seq in 0..3 {
            send(&mut ledger, seq);
        }
        ledger.settle(during, 2, |_| 0).unwrap();
        let states: Vec<_> = ledger.slots().map(|(_, slot)| slot.state).collect();
        assert_eq!(states, [first, second, State::Queued { ring_seq: 2 }], "{during:?}");
        ledger.settle(visit(8), 2, |_| 0).unwrap();
        assert_eq!(ledger.counts(), counts(3, 0, 2, 0), "when it is over");
    }
}

#[test]
fn a_frame_in_doubt_that_was_taken_is_received_and_comes_back_by_its_release() {
    let mut ledger = Ledger::new(2, true);
    for seq in 0..2 {
        send(&mut ledger, seq);
    }
    ledger.settle(visit(1), 1, |_| 0).unwrap();
    let words = [taken(0), 0];
    ledger.settle(visit(4), 1, |slot| words[slot as usize]).unwrap();
    assert_eq!(ledger.counts(), counts(2, 1, 0, 0));
    assert_eq!(ledger.loan(), None);
    ledger.settle(visit(4), 1, |slot| [released(0), 0][slot as usize]).unwrap();
    assert_eq!(ledger.loan(), Some((0, 2)));
    assert_eq!(ledger.oldest_queued(), Some(1));
    ledger.reclaim(0);
    assert_eq!(ledger.counts(), counts(2, 1, 0, 0));
}

#[test]
fn what_is_written_off_is_lost_and_comes_back_when_the_peer_lets_go_of_it_after_all() {
    let mut ledger = Ledger::new(4, false);
    for ring_seq in 0..3 {
        send(&mut ledger, ring_seq);
    }
    ledger.note_taken(1);
    assert_eq!(ledger.write_off(1), 3);
    assert_eq!(ledger.counts(), Counts { off_taken: 1, ..counts(3, 0, 0, 3) });
    assert!(ledger.is_stalled() && ledger.oldest_out().is_none());
    assert_eq!(ledger.loan(), Some((3, 1)), "the one that was free");
    assert_eq!(ledger.loan(), None);
    // It takes all, lets go of one, sends another back in place; the third stays with it to its end.
    ledger.note_taken(3);
    assert_eq!(ledger.counts().off_taken, 3, "none of them is received");
    ledger.look(|slot| if slot == 0 { released(0) } else { 0 }).unwrap();
    assert!(!ledger.is_stalled());
    assert_eq!(ledger.loan(), Some((0, 2)));
    ledger.returned(1, 1, 0).unwrap();
    ledger.let_go(1);
    assert_eq!(ledger.loan(), Some((1, 2)));
    ledger.reclaim(3);
    assert_eq!(ledger.counts(), Counts { off_taken: 3, ..counts(3, 0, 0, 3) });
    assert!(ledger.returned(2, 1, 0).is_ok(), "it may be on the ring");
}

#[test]
fn of_a_live_channel_what_is_held_or_in_doubt_is_written_off() {
    let word_of = |words: [u64; 4]| move |slot: u32| words[slot as usize];
    let mut ledger = Ledger::new(4, true);
    for seq in 0..4 {
        send(&mut ledger, seq);
    }
    // 0 is held, 1 in doubt (of a visit that may take any), 2 and 3 wait.
    ledger.settle(visit(2), 2, word_of([taken(0), 0, 0, 0])).unwrap();
    assert_eq!(ledger.write_off(0), 2);
    assert_eq!(ledger.counts(), counts(4, 0, 0, 2));
    // 1 was taken after all; then both come back.
    ledger.settle(visit(4), 2, word_of([taken(0), taken(1), 0, 0])).unwrap();
    assert_eq!(ledger.loan(), None);
    ledger.settle(visit(4), 2, word_of([released(0), taken(1), 0, 0])).unwrap();
    assert_eq!(ledger.loan(), Some((0, 2)));
    ledger.returned(1, 1, taken(1)).unwrap();
    assert_eq!(ledger.counts(), counts(4, 0, 0, 2));
    // One in doubt that was not taken comes back with the end of the visit.
    let mut ledger = Ledger::new(2, true);
    send(&mut ledger, 0);
    send(&mut ledger, 1);
    ledger.settle(visit(2), 1, |_| 0).unwrap();
    assert_eq!(ledger.write_off(0), 1);
    ledger.settle(visit(4), 1, |_| 0).unwrap();
    assert_eq!(ledger.loan(), Some((0, 2)));
    assert_eq!(ledger.counts(), counts(2, 0, 0, 1));
}

#[test]
fn live_words_that_fit_nothing_are_violations() {
    for (before, now) in [(0, taken(1)), (0, released(1)), (0, 7), (taken(0), 0), (taken(0), taken(1)), (0, u64::MAX)] {
        let mut ledger = Ledger::new(1, true);
        send(&mut ledger, 0);
        ledger.settle(visit(0), 0, |_| before).unwrap();
        assert!(ledger.settle(visit(0), 0, |_| now).is_err(), "{before} then {now}");
    }
}

#[test]
fn a_live_frame_may_come_back_in_place_once_it_was_taken() {
    let mut ledger = Ledger::new(1, true);
    send(&mut ledger, 0);
    assert!(ledger.returned(0, 1, 0).is_err(), "not taken");
    ledger.returned(0, 1, taken(0)).unwrap();
    assert_eq!(ledger.counts().received, 1);
    ledger.settle(visit(4), 1, |_| taken(0)).unwrap();
    ledger.let_go(0);
    assert_eq!(ledger.loan(), Some((0, 2)));
}
