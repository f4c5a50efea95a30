use super::*;
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

/// Each thread waits for the other's count to follow its own: a lost wake-up ends in the deadline.
fn ping_pong(strategy: WaitStrategy, turns: u64) {
    let [left, right] = sides(strategy);
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
    ping_pong(WaitStrategy::Park, 2_000);
    ping_pong(WaitStrategy::Adaptive, 20_000);
    ping_pong(WaitStrategy::Spin, 200);
}

#[test]
fn waits_end_at_their_deadline_or_interrupt() {
    for strategy in [WaitStrategy::Park, WaitStrategy::Adaptive, WaitStrategy::Spin] {
        let [left, _right] = sides(strategy);
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
    let [left, _right] = sides(WaitStrategy::Park);
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

#[test]
fn interrupters_do_not_wait_for_each_other() {
    let [left, _right] = sides(WaitStrategy::Park);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let look = || Ok::<_, ()>(if done.load(Ordering::Acquire) == 4 { Look::Found(()) } else { Look::Nothing });
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

#[test]
fn an_interrupt_makes_every_sleeper_look_again() {
    for turn in 0..50 {
        let [left, _right] = sides(WaitStrategy::Park);
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
            while turn % 2 == 0 && left.own_parked.load(0) != 3 {
                std::thread::yield_now();
            }
            closed.store(1, Ordering::Release);
            left.interrupt_all();
        });
    }
}
