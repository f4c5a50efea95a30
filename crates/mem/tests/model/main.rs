//! Models of a live channel and of parking, over the product's own ring, pages, bells and ledger.
#![cfg(loom)]
#![expect(clippy::arc_with_non_send_sync, reason = "all threads of a model are one thread of the system")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a model reports and fails as a test does"
)]

mod checked;
#[expect(dead_code, reason = "the whole ledger is here, for a model of its live half")]
#[path = "../../../frameport/src/channel/ledger/mod.rs"]
mod ledger;
mod listening;
mod live;
mod lossless;
mod mutants;

use checked::Bounds;
use live::{LIVE, Live};
use lossless::Lossless;

const ALL_SCHEDULES: Bounds = Bounds { preemptions: None, claims: 1 };

const fn within(preemptions: usize) -> Bounds {
    Bounds { preemptions: Some(preemptions), claims: 1 }
}

#[test]
fn two_sends_one_look() {
    Live { bounds: ALL_SCHEDULES, ..LIVE }.passes();
}

#[test]
fn two_sends_two_looks() {
    Live { recvs: 2, bounds: within(3), ..LIVE }.passes();
}

#[test]
fn four_sends_two_looks() {
    Live { sends: 4, recvs: 2, bounds: within(2), ..LIVE }.passes();
}

#[test]
fn what_was_sent_before_a_look_is_there() {
    Live { sends: 3, recvs: 2, told: true, bounds: within(2), ..LIVE }.passes();
}

#[test]
fn visits_for_any() {
    Live { sends: 3, recvs: 2, bounds: Bounds { claims: 0, ..within(2) }, ..LIVE }.passes();
}

#[test]
fn a_second_claim() {
    Live { sends: 3, bounds: Bounds { claims: 2, ..within(2) }, ..LIVE }.passes();
}

#[test]
fn the_two_newest_are_kept() {
    Live { sends: 3, recvs: 2, depth: 2, bounds: within(2), ..LIVE }.passes();
}

#[test]
fn entries_are_overwritten_while_they_are_read() {
    Live { slots: 2, capacity: 2, sends: 3, bounds: within(3), ..LIVE }.passes();
}

#[test]
fn a_loan_takes_the_oldest_back() {
    for keeps in [0, 1] {
        Live { slots: 2, capacity: 2, sends: 3, recvs: 2, keeps, bounds: within(2), ..LIVE }.passes();
    }
}

#[test]
fn another_thread_releases() {
    Live { recvs: 2, releaser: true, bounds: within(2), ..LIVE }.passes();
}

#[test]
fn a_live_receiver_waits() {
    Live { blocks: true, bounds: within(3), ..LIVE }.passes();
}

#[test]
fn lossless() {
    Lossless { slots: 2, sends: 3, blocks: false, bounds: ALL_SCHEDULES }.passes();
}

#[test]
fn lossless_ends_wait_for_each_other() {
    Lossless { slots: 1, sends: 2, blocks: true, bounds: within(3) }.passes();
}

#[test]
fn the_last_entry_is_seen_before_the_end() {
    lossless::end(ALL_SCHEDULES);
}

#[test]
fn a_sleeper_is_interrupted() {
    lossless::interrupt(ALL_SCHEDULES);
}

#[test]
fn two_sleepers_without_a_futex() {
    listening::two_sleepers(within(3));
}

#[test]
fn a_sleeper_beside_an_event_loop_without_a_futex() {
    listening::a_sleeper_and_an_event_loop(within(3));
}

#[test]
fn sleepers_without_a_futex_are_interrupted() {
    listening::interrupted(within(3));
}

#[test]
#[ignore = "takes minutes"]
fn more_preemptions() {
    Live { sends: 3, recvs: 2, bounds: within(3), ..LIVE }.passes();
}

#[test]
#[ignore = "takes minutes"]
fn four_sends_on_two_slots() {
    Live { slots: 2, capacity: 2, sends: 4, recvs: 2, bounds: within(2), ..LIVE }.passes();
}
