//! Sleeping on the doorbell, where there is no futex: two threads of a side that sleep, one that sleeps beside an event loop.

use std::sync::Arc;

use frameport_mem::model::{Doorbell, wait_any};
use frameport_mem::park::{Bells, Look, Until};
use frameport_wire::control::WaitStrategy;
use loom::sync::atomic::{AtomicBool, Ordering};

use crate::checked::{Bounds, maps};

/// What the threads of one side wait for, by its bits.
const BITS: [u64; 2] = [1, 2];

/// Both sides, and what the right one has published for each bit. `Relaxed`: nothing but the bells orders it.
struct World {
    left: Arc<Bells>,
    right: Bells,
    published: Arc<[AtomicBool; 2]>,
}

impl World {
    fn new() -> Self {
        let [left, right, _] = maps();
        let (left_bell, right_bell) = Doorbell::pair().unwrap();
        let bells =
            |own, peer, doorbell| Bells::new(own, peer, doorbell, WaitStrategy::Park).unwrap().without_futex().unwrap();
        let published = Arc::new([false, false].map(AtomicBool::new));
        Self { left: Arc::new(bells(left, right, left_bell)), right: bells(right, left, right_bell), published }
    }

    /// A thread of the left side that sleeps until its word is published.
    fn sleeper(&self, index: usize) -> loom::thread::JoinHandle<()> {
        let (left, published) = (Arc::clone(&self.left), Arc::clone(&self.published));
        loom::thread::spawn(move || {
            let look = || {
                let is_there = published[index].load(Ordering::Relaxed);
                Ok::<_, ()>(if is_there { Look::Found(()) } else { Look::Nothing })
            };
            left.wait(BITS[index], &mut Until::forever(), look).unwrap().unwrap();
        })
    }

    /// A thread of the left side that waits for its word in an event loop.
    fn event_loop(&self, index: usize) -> loom::thread::JoinHandle<()> {
        let (left, published) = (Arc::clone(&self.left), Arc::clone(&self.published));
        let event = Arc::clone(&left);
        loom::thread::spawn(move || {
            let event = event.event().unwrap();
            loop {
                left.arm(BITS[index]);
                if published[index].load(Ordering::Relaxed) {
                    return left.disarm();
                }
                wait_any(&[event], None).unwrap();
            }
        })
    }

    fn publish(&self, index: usize) {
        self.published[index].store(true, Ordering::Relaxed);
        self.right.ring(BITS[index]);
    }
}

/// Each is woken, whichever of them listens.
pub(crate) fn two_sleepers(bounds: Bounds) -> u64 {
    bounds.run(&"two sleepers", || {
        let world = World::new();
        let sleepers = [0, 1].map(|index| world.sleeper(index));
        (0..2).for_each(|index| world.publish(index));
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    })
}

/// Neither takes from the other what was rung for it.
pub(crate) fn a_sleeper_and_an_event_loop(bounds: Bounds) -> u64 {
    bounds.run(&"a sleeper and an event loop", || {
        let world = World::new();
        let threads = [world.sleeper(0), world.event_loop(1)];
        (0..2).for_each(|index| world.publish(index));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    })
}

/// Somebody of the sleepers' own side makes both look again.
pub(crate) fn interrupted(bounds: Bounds) -> u64 {
    bounds.run(&"both interrupted", || {
        let world = World::new();
        let sleepers = [0, 1].map(|index| world.sleeper(index));
        world.published.iter().for_each(|word| word.store(true, Ordering::Relaxed));
        world.left.interrupt_all();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    })
}
