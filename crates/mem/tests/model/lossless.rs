//! A lossless channel whose two ends wait for each other, and an interrupt: nothing is slept over, no slot used twice.

use std::sync::Arc;

use frameport_mem::page::{OwnPage, PeerPage};
use frameport_mem::park::{Bells, Look, Until};
use frameport_mem::ring::{Receiver, Sender};
use frameport_wire::layout::{BLOCKS, frame_bit, released, slot_bit};
use loom::cell::Cell;
use loom::sync::atomic::{AtomicBool, Ordering};

use crate::checked::{Bounds, bells, entry, maps};
use crate::ledger::{Ledger, State};

/// What a lossless model runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lossless {
    pub(crate) slots: u32,
    pub(crate) sends: u64,
    /// Both ends wait; else the sender gives up a frame where there is no slot, and the receiver looks as often.
    pub(crate) blocks: bool,
    pub(crate) bounds: Bounds,
}

fn wait_until(bells: &Bells, bit: u64, mut is_there: impl FnMut() -> bool) {
    let look = || Ok::<_, ()>(if is_there() { Look::Found(()) } else { Look::Nothing });
    bells.wait(bit, &mut Until::forever(), look).unwrap().unwrap();
}

impl Lossless {
    pub(crate) fn passes(self) -> u64 {
        self.bounds.run(&self, move || self.run())
    }

    fn run(self) {
        let Self { slots, sends, blocks, .. } = self;
        let [left, right, page] = maps();
        let capacity = slots.next_power_of_two() as usize;
        let pixels: Arc<Vec<_>> = Arc::new((0..slots).map(|_| Cell::new(u64::MAX)).collect());
        let mut receiver = Receiver::new(right, left, BLOCKS, capacity).unwrap();
        let own = OwnPage::new(page, slots, 0).unwrap();
        let here = bells(right, left);
        let seen = Arc::clone(&pixels);
        let worker = loom::thread::spawn(move || {
            let mut next = 0;
            let mut poll = || {
                let Some(words) = receiver.poll().expect("an honest sender") else { return false };
                let slot = (words[1] & 0xff) as u32;
                assert_eq!(words, entry(next, slot), "torn entry");
                assert_eq!(seen[slot as usize].get(), next, "foreign pixels");
                own.set_state(slot, released(next));
                here.ring(slot_bit(0));
                next += 1;
                true
            };
            for _ in 0..sends {
                if blocks { wait_until(&here, frame_bit(0), &mut poll) } else { _ = poll() }
            }
            next
        });
        let mut sender = Sender::new(left, right, BLOCKS, capacity).unwrap();
        let peer = PeerPage::new(page, slots, 0).unwrap();
        let (mut ledger, here) = (Ledger::new(slots, false), bells(left, right));
        for _ in 0..sends {
            let mut loaned = None;
            let mut loan = || {
                ledger.look(|slot| peer.state(slot)).expect("an honest receiver");
                loaned = ledger.loan();
                loaned.is_some()
            };
            if blocks {
                wait_until(&here, slot_bit(0), &mut loan)
            } else {
                _ = loan()
            }
            let Some((slot, _)) = loaned else { continue };
            let seq = sender.next_seq();
            pixels[slot as usize].set(seq);
            ledger.queue(slot, seq, seq, 0);
            ledger.unpin(slot);
            sender.publish(entry(seq, slot));
            here.ring(frame_bit(0));
        }
        let taken = worker.join().unwrap();
        assert_eq!(sender.taken(), Ok(taken));
        ledger.look(|slot| peer.state(slot)).unwrap();
        let left = ledger.slots().filter(|(_, slot)| slot.state != State::Free).count() as u64;
        assert_eq!(sender.next_seq(), taken + left, "a slot is lost");
    }
}

/// A sleeper, and somebody of its own side who interrupts it after a change that no bell tells of.
pub(crate) fn interrupt(bounds: Bounds) -> u64 {
    bounds.run(&"interrupt", || {
        let [left, right, _] = maps();
        let side = Arc::new(bells(left, right));
        let closed = Arc::new(AtomicBool::new(false));
        let (own, says) = (Arc::clone(&side), Arc::clone(&closed));
        let sleeper = loom::thread::spawn(move || wait_until(&own, 1, || says.load(Ordering::Relaxed)));
        closed.store(true, Ordering::Relaxed);
        side.interrupt_all();
        sleeper.join().unwrap();
    })
}

/// Who sees that nothing follows sees what was sent before.
pub(crate) fn end(bounds: Bounds) -> u64 {
    bounds.run(&"end", || {
        let [left, right, _] = maps();
        let mut sender = Sender::new(left, right, BLOCKS, 2).unwrap();
        let mut receiver = Receiver::new(right, left, BLOCKS, 2).unwrap();
        let worker = loom::thread::spawn(move || {
            let closed = receiver.is_closed();
            let polled = receiver.poll().expect("an honest sender");
            assert!(polled.is_some() || !closed, "the last entry is not seen");
        });
        sender.publish(entry(0, 0));
        sender.close();
        worker.join().unwrap();
    })
}
