use super::*;
use crate::sync::wait_any;
use frameport_sys::memory::{Region, Writers};
use frameport_wire::layout::BLOCKS;
use std::sync::atomic::AtomicU64;

fn sides(strategy: WaitStrategy) -> [Bells; 2] {
    let (left, left_map) = Region::create("left", BLOCKS, Writers::Creator).unwrap();
    let (right, right_map) = Region::create("right", BLOCKS, Writers::Creator).unwrap();
    let (left_doorbell, right_doorbell) = Doorbell::pair().unwrap();
    let peer = |region: &Region| Arc::new(region.map(false).unwrap());
    [
        Bells::new(&Arc::new(left_map), &peer(&right), left_doorbell, strategy).unwrap(),
        Bells::new(&Arc::new(right_map), &peer(&left), Doorbell::adopt(right_doorbell), strategy).unwrap(),
    ]
}

/// Both kinds of sides: with a futex, and without.
fn kinds(strategy: WaitStrategy) -> [[Bells; 2]; 2] {
    [sides(strategy), sides(strategy).map(|side| side.without_futex().unwrap())]
}

/// Each thread waits for the other's count to follow its own: a lost wake-up ends in the deadline.
fn ping_pong([left, right]: [Bells; 2], turns: u64) {
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let follow = |bells: &Bells, own: usize, lag: u64| {
        for turn in 1..=turns {
            let reached = || {
                let now = counts[1 - own].load(Ordering::Acquire) + lag;
                Ok::<_, ()>(if now >= turn { Look::Found(()) } else { Look::Nothing })
            };
            bells.wait(1, &mut Until::after(Duration::from_secs(60)), reached).unwrap().unwrap();
            counts[own].store(turn, Ordering::Release);
            bells.ring(1);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| follow(&right, 1, 0));
        follow(&left, 0, 1);
    });
}

#[test]
fn no_wake_up_is_lost() {
    for (strategy, turns) in [(WaitStrategy::Park, 2_000), (WaitStrategy::Adaptive, 20_000), (WaitStrategy::Spin, 200)]
    {
        kinds(strategy).into_iter().for_each(|sides| ping_pong(sides, turns));
    }
}

#[test]
fn waits_end_at_their_deadline_or_interrupt() {
    let strategies = [WaitStrategy::Park, WaitStrategy::Adaptive, WaitStrategy::Spin];
    for [left, _right] in strategies.into_iter().flat_map(kinds) {
        let never = || Ok::<Look<()>, ()>(Look::Nothing);
        let wait = |until: &mut Until<'_>| left.wait(1, until, never).unwrap().unwrap_err();
        assert!(matches!(wait(&mut Until::after(Duration::from_millis(5))), Ended::TimedOut { .. }));
        let mut asked = 0;
        let mut third = || {
            asked += 1;
            asked == 3
        };
        assert_eq!(wait(&mut Until::forever().or_when(Duration::from_millis(1), &mut third)), Ended::Interrupted);
        assert_eq!(left.own_parked.load(0), 0, "nobody is left parked");
    }
}

#[test]
fn a_sleepers_own_callback_may_interrupt() {
    for [left, _right] in kinds(WaitStrategy::Park) {
        let mut asked = 0;
        let mut interrupting = || {
            asked += 1;
            left.interrupt_all();
            asked == 3
        };
        let mut until = Until::forever().or_when(Duration::from_millis(1), &mut interrupting);
        let never = || Ok::<Look<()>, ()>(Look::Nothing);
        assert_eq!(left.wait(1, &mut until, never).unwrap().unwrap_err(), Ended::Interrupted);
    }
}

#[test]
fn interrupters_do_not_wait_for_each_other() {
    for [left, _right] in kinds(WaitStrategy::Park) {
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let look =
                    || Ok::<_, ()>(if done.load(Ordering::Acquire) == 4 { Look::Found(()) } else { Look::Nothing });
                left.wait(1, &mut Until::after(Duration::from_secs(60)), look).unwrap().unwrap();
            });
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        left.interrupt_all();
                    }
                    done.fetch_add(1, Ordering::Release);
                    left.interrupt_all();
                });
            }
        });
    }
}

#[test]
fn an_interrupt_makes_every_sleeper_look_again() {
    for (turn, [left, _right]) in (0..50).flat_map(|turn| kinds(WaitStrategy::Park).map(|sides| (turn, sides))) {
        let closed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for bit in [1, 2, 2] {
                let (left, closed) = (&left, &closed);
                scope.spawn(move || {
                    let look = || {
                        if closed.load(Ordering::Acquire) == 1 { Err("closed") } else { Ok(Look::<()>::Nothing) }
                    };
                    assert_eq!(left.wait(bit, &mut Until::after(Duration::from_secs(60)), look), Err("closed"));
                });
            }
            // In every other turn the sleepers are caught on their way to sleep.
            while turn % 2 == 0 && left.own_parked.load(0) & 3 != 3 {
                std::thread::yield_now();
            }
            closed.store(1, Ordering::Release);
            left.interrupt_all();
        });
    }
}

/// Without a futex all of a side hear one doorbell: three threads that sleep, and one in an event loop.
#[test]
fn nobody_takes_anothers_ring() {
    const TURNS: u64 = 500;
    let [left, right] = sides(WaitStrategy::Park).map(|side| side.without_futex().unwrap());
    let published: [AtomicU64; 4] = Default::default();
    let followed: [AtomicU64; 4] = Default::default();
    let is_there = |index: usize, turn| published[index].load(Ordering::Acquire) >= turn;
    let sleep = |index: usize| {
        for turn in 1..=TURNS {
            let look = || Ok::<_, ()>(if is_there(index, turn) { Look::Found(()) } else { Look::Nothing });
            left.wait(1 << index, &mut Until::after(Duration::from_secs(60)), look).unwrap().unwrap();
            followed[index].store(turn, Ordering::Release);
        }
    };
    let watch_event = |index: usize| {
        let event = left.event().unwrap();
        for turn in 1..=TURNS {
            left.arm(1 << index);
            while !is_there(index, turn) {
                let start = Instant::now();
                wait_any(&[event], Some(Duration::from_secs(60))).unwrap();
                assert!(start.elapsed() < Duration::from_secs(60), "turn {turn} is not told");
                left.arm(1 << index);
            }
            left.disarm();
            followed[index].store(turn, Ordering::Release);
        }
    };
    std::thread::scope(|scope| {
        (0..3).for_each(|index| drop(scope.spawn(move || sleep(index))));
        scope.spawn(|| watch_event(3));
        for turn in 1..=TURNS {
            for index in (0..4).map(|index| (index + turn as usize) % 4) {
                published[index].store(turn, Ordering::Release);
                right.ring(1 << index);
            }
            while followed.iter().any(|followed| followed.load(Ordering::Acquire) < turn) {
                std::thread::yield_now();
            }
        }
    });
}
