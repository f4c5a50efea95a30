//! A live channel between two threads, and what must hold however they are scheduled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use frameport_mem::page::{OwnPage, PeerPage};
use frameport_mem::park::{Bells, Look, Until};
use frameport_mem::ring::{Receiver, Sender, Visit};
use frameport_wire::layout::{BLOCKS, frame_bit, released, taken};
use loom::cell::Cell;
use loom::sync::atomic::{AtomicU64 as Told, Ordering};

use crate::checked::{self, Bounds, entry, maps};
use crate::ledger::{Ledger, State};

/// A model: what runs and how thoroughly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) slots: u32,
    pub(crate) capacity: usize,
    /// How many frames are not taken back.
    pub(crate) depth: u64,
    pub(crate) sends: u64,
    /// How many of them come before the receiver starts.
    pub(crate) early: u64,
    /// How often the receiver looks; with `blocks` it waits for frames until it has the last one instead.
    pub(crate) recvs: usize,
    pub(crate) blocks: bool,
    /// Frames the receiver keeps until it takes another.
    pub(crate) keeps: usize,
    /// A third thread releases them.
    pub(crate) releaser: bool,
    /// The receiver learns how much was sent before each look: then it must find it. Without, nothing but the ring orders the
    /// two sides.
    pub(crate) told: bool,
    pub(crate) bounds: Bounds,
    pub(crate) twist: Option<Twist>,
}

/// What is wrong on purpose in what a channel's end does with its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    StatesBeforeVisit,
    VisitIgnored,
    UnlinkFirst,
    TakenAfterVisit,
    VisitBeforeUnlink,
    FewPositions,
}

/// Three slots on four positions, the newest frame is kept.
pub(crate) const LIVE: Live = Live {
    slots: 3,
    capacity: 4,
    depth: 1,
    sends: 2,
    early: 0,
    recvs: 1,
    blocks: false,
    keeps: 0,
    releaser: false,
    told: false,
    bounds: Bounds { preemptions: None, claims: 1 },
    twist: None,
};

impl Live {
    /// Runs all schedules: how many there were.
    pub(crate) fn passes(self) -> u64 {
        self.bounds.run(&self, move || run(self))
    }
}

/// What lies in no process: pixels, and what the checks know.
struct World {
    /// The number of the frame in each slot.
    pixels: Vec<Cell<u64>>,
    /// Sends that have returned, in the order of the schedule and as the receiver is told.
    sent: AtomicU64,
    told: Told,
    /// Entries below may have been taken back by a loan.
    taken_back: AtomicU64,
}

/// As `SendEnd` of `frameport`.
struct Host {
    setup: Live,
    world: Arc<World>,
    ring: Sender,
    ledger: Ledger,
    page: PeerPage,
    bells: Option<Bells>,
    /// For [`Twist::StatesBeforeVisit`].
    early: Option<Vec<u64>>,
}

impl Host {
    fn look(&mut self) {
        let slots = self.setup.slots;
        self.early = (self.setup.twist == Some(Twist::StatesBeforeVisit))
            .then(|| (0..slots).map(|slot| self.page.state(slot)).collect());
        let visit = self.ring.visit().expect("an honest receiver's visit");
        self.settle(if self.setup.twist == Some(Twist::VisitIgnored) { Visit::from_word(0) } else { visit });
    }

    fn settle(&mut self, visit: Visit) {
        let word_of = |slot| match &self.early {
            Some(states) => states[slot as usize],
            None => self.page.state(slot),
        };
        self.ledger.settle(visit, self.ring.oldest(), word_of).expect("an honest receiver's states");
    }

    fn loan(&mut self) -> Option<(u32, u64)> {
        self.look();
        let mut loaned = self.ledger.loan();
        if loaned.is_none()
            && let Some(oldest) = self.ledger.oldest_queued()
        {
            self.world.taken_back.store(oldest + 1, SeqCst);
            self.ring.unlink(oldest + 1);
            self.look();
            loaned = self.ledger.loan();
        }
        loaned
    }

    fn send(&mut self) -> bool {
        let Some((slot, _)) = self.loan() else { return false };
        let seq = self.ring.next_seq();
        self.world.pixels[slot as usize].set(seq);
        self.ledger.queue(slot, seq, seq, 0);
        self.ledger.unpin(slot);
        let oldest = (seq + 1).saturating_sub(self.setup.depth);
        match self.setup.twist {
            Some(Twist::UnlinkFirst) => {
                self.ring.unlink(oldest);
                self.ring.publish(entry(seq, slot));
            }
            Some(Twist::VisitBeforeUnlink) => {
                self.ring.publish(entry(seq, slot));
                let visit = self.ring.visit().expect("an honest receiver's visit");
                self.ring.unlink(oldest);
                self.settle(visit);
            }
            _ => {
                self.ring.publish(entry(seq, slot));
                self.ring.unlink(oldest);
            }
        }
        self.look();
        self.world.sent.store(seq + 1, SeqCst);
        if self.setup.told {
            self.world.told.store(seq + 1, Ordering::Release);
        }
        if let Some(bells) = &self.bells {
            bells.ring(frame_bit(0));
        }
        true
    }

    fn in_flight(&self) -> u64 {
        let is_in_flight = |state| matches!(state, State::Queued { .. } | State::Doubt { .. });
        self.ledger.slots().filter(|(_, slot)| is_in_flight(slot.state)).count() as u64
    }
}

/// As `RecvEnd` of `frameport`.
struct Worker {
    setup: Live,
    world: Arc<World>,
    ring: Receiver,
    page: Arc<OwnPage>,
    bells: Option<Bells>,
    /// All that was taken.
    got: Vec<u64>,
    held: Vec<(u64, u32)>,
    releasers: Vec<loom::thread::JoinHandle<()>>,
    next: u64,
}

impl Worker {
    /// Takes a frame, if there is one that may be taken.
    fn try_recv(&mut self) -> bool {
        let sent = self.world.sent.load(SeqCst);
        let told = if self.setup.told { self.world.told.load(Ordering::Acquire) } else { 0 };
        let taken_late = self.setup.twist == Some(Twist::TakenAfterVisit);
        let page = &self.page;
        let visited = self.ring.visit(|[ticket, content]| {
            let (seq, slot) = (ticket - 1, (content & 0xff) as u32);
            assert_eq!(content >> 8, seq, "torn entry");
            if !taken_late {
                page.set_state(slot, taken(seq));
            }
            (seq, slot)
        });
        let Some((seq, slot)) = visited.expect("an honest sender") else {
            let gone = self.next.max(self.world.taken_back.load(SeqCst));
            assert!(gone >= told, "none, although {told} were sent and only those below {gone} are gone");
            return false;
        };
        if taken_late {
            page.set_state(slot, taken(seq));
        }
        assert!(seq >= self.next, "order: {seq} after {:?}", self.got);
        assert!(seq >= sent.saturating_sub(self.setup.depth), "frame {seq} after {sent} were sent");
        assert_eq!(self.world.pixels[slot as usize].get(), seq, "foreign pixels at the take");
        self.next = seq + 1;
        self.got.push(seq);
        self.held.push((seq, slot));
        true
    }

    fn recv(&mut self) {
        let bells = self.bells.take().expect("bells");
        let look = || Ok::<_, ()>(if self.try_recv() { Look::Found(()) } else { Look::Nothing });
        bells.wait(frame_bit(0), &mut Until::forever(), look).unwrap().unwrap();
        self.bells = Some(bells);
    }

    /// Releases all but the newest `keeps`.
    fn release(&mut self, keeps: usize) {
        while self.held.len() > keeps {
            let (seq, slot) = self.held.remove(0);
            let (world, page) = (Arc::clone(&self.world), Arc::clone(&self.page));
            let release = move || {
                assert_eq!(world.pixels[slot as usize].get(), seq, "foreign pixels at the release");
                page.set_state(slot, released(seq));
            };
            if self.setup.releaser {
                self.releasers.push(loom::thread::spawn(release));
            } else {
                release();
            }
        }
    }

    fn run(mut self) -> Self {
        let Live { sends, recvs, blocks, keeps, .. } = self.setup;
        if blocks {
            while self.next < sends {
                self.recv();
                self.release(keeps);
            }
        } else {
            for _ in 0..recvs {
                self.try_recv();
                self.release(keeps);
            }
        }
        self.setup.releaser = false;
        self
    }
}

fn run(setup: Live) {
    let capacity = if setup.twist == Some(Twist::FewPositions) { setup.capacity / 2 } else { setup.capacity };
    let [left, right, page] = maps();
    let world = Arc::new(World {
        pixels: (0..setup.slots).map(|_| Cell::new(u64::MAX)).collect(),
        sent: AtomicU64::new(0),
        told: Told::new(0),
        taken_back: AtomicU64::new(0),
    });
    let bells = |own, peer| setup.blocks.then(|| checked::bells(own, peer));
    let worker = Worker {
        setup,
        world: Arc::clone(&world),
        ring: Receiver::new(right, left, BLOCKS, capacity).unwrap(),
        page: Arc::new(OwnPage::new(page, setup.slots, 0).unwrap()),
        bells: bells(right, left),
        got: Vec::new(),
        held: Vec::new(),
        releasers: Vec::new(),
        next: 0,
    };
    let mut host = Host {
        setup,
        world,
        ring: Sender::new(left, right, BLOCKS, capacity).unwrap(),
        ledger: Ledger::new(setup.slots, true),
        page: PeerPage::new(page, setup.slots, 0).unwrap(),
        bells: bells(left, right),
        early: None,
    };
    for _ in 0..setup.early {
        host.send();
    }
    let worker = loom::thread::spawn(move || worker.run());
    for _ in setup.early..setup.sends {
        let sent = host.send();
        assert!(sent || !setup.blocks, "a model that waits for the last frame has slots for it");
    }
    let mut worker = worker.join().unwrap();
    for releaser in worker.releasers.drain(..) {
        releaser.join().unwrap();
    }
    host.look();
    let counts = host.ledger.counts();
    assert_eq!(counts.sent, counts.received + counts.retracted + host.in_flight(), "counters: {counts:?}");
    // All that is left is received and released: nothing stays behind.
    while worker.try_recv() {}
    worker.release(0);
    host.look();
    let counts = host.ledger.counts();
    assert_eq!(counts.sent, counts.received + counts.retracted, "counters at the end: {counts:?}");
    assert_eq!(counts.received, worker.got.len() as u64, "frames received");
    assert!(host.ledger.slots().all(|(_, slot)| slot.state == State::Free), "a slot is lost");
}
