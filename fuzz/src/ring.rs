//! A host's side of two rings, of release words and of their ledger, while its worker writes anything into its own memory.
//!
//! The host does with them what `frameport`'s sending and receiving ends do, which are not to be had without a process at
//! their other end: those are for `make test-sim`, whose worker `lies`. Nothing panics; whatever the words say, a slot is
//! loaned only when it is free, in a generation of its own, and no frame is counted twice.

// Not otherwise to be had, as for the models of frameport-mem.
#[expect(dead_code, reason = "the whole ledger is here, audiences and stalls included")]
#[path = "../../crates/frameport/src/channel/ledger/mod.rs"]
mod ledger;

use std::sync::Arc;

use frameport_mem::page::{OwnPage, PeerPage};
use frameport_mem::pixels::Bytes;
use frameport_mem::ring::{Receiver, Sender};
use frameport_sys::memory::{Map, Region, Writers};
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{BLOCKS, ENTRIES, OLDEST, PRODUCED, block_len, blocks, page_len, released, taken};

use crate::choices::Choices;
use ledger::{Ledger, State};

const CAPACITY: usize = 4;
const SLOTS: u32 = 3;
const META: u32 = 64;
const POOL: u32 = 5;

pub fn run(bytes: &[u8]) {
    MEMORY.with(|memory| {
        let mut choices = Choices::new(bytes);
        let mut host = Host::new(memory, choices.one_in(2));
        let mut is_lie = false;
        while !choices.are_over() && !is_lie {
            match choices.below(3) {
                // Several at a time, as a worker is faster than its host.
                0 => (0..=choices.below(4)).for_each(|_| memory.scribble(&mut choices)),
                _ => is_lie = host.act(&mut choices).is_none(),
            }
            host.check();
        }
        host.end();
    });
}

thread_local! {
    /// Made once: each run begins with zeros.
    static MEMORY: Memory = Memory::new();
}

/// The control regions and the pages of a link with a channel in each direction.
struct Memory {
    own: Arc<Map>,
    own_page: Arc<Map>,
    /// What the worker writes, as it maps it and as its host does.
    peer: Arc<Map>,
    peer_page: Arc<Map>,
    seen: Arc<Map>,
    seen_page: Arc<Map>,
    starts: Vec<usize>,
}

impl Memory {
    fn new() -> Self {
        let region = |len| {
            let (region, map) = Region::create("fuzz", len, Writers::All).expect("memory");
            (Arc::new(map), Arc::new(region.map(false).expect("memory")))
        };
        let (starts, len) = blocks(&[CAPACITY; 2]);
        let ((own, _), (own_page, _)) = (region(len), region(page_len(SLOTS, META)));
        let ((peer, seen), (peer_page, seen_page)) = (region(len), region(page_len(SLOTS, META)));
        Self { own, own_page, peer, peer_page, seen, seen_page, starts }
    }

    fn clear(&self) {
        for map in [&self.own, &self.own_page, &self.peer, &self.peer_page] {
            write(map, 0, &vec![0; map.len()]);
        }
    }

    /// Anything anywhere, more often what might do harm.
    fn scribble(&self, choices: &mut Choices<'_>) {
        let number = choices.number();
        match choices.below(6) {
            0 => write(&self.peer, 8 * choices.below(self.peer.len() / 8), &number.to_le_bytes()),
            1 => write(&self.peer, self.starts[0] + 64 + 8 * choices.below(2), &number.to_le_bytes()),
            2 => write(&self.peer, self.starts[1] + choices.one_of(&[0, 8, 80]), &number.to_le_bytes()),
            3 | 4 => {
                let word = [number, taken(number), released(number)][choices.below(3)];
                write(&self.peer_page, 8 * choices.below(SLOTS as usize), &word.to_le_bytes());
            }
            _ => {
                let descriptor = Descriptor {
                    ring_seq: number,
                    pool: POOL,
                    slot: choices.below(SLOTS as usize + 1) as u32,
                    generation: choices.number(),
                    payload_len: choices.number(),
                    meta_len: choices.below(100) as u32,
                    ..Descriptor::default()
                };
                let start = self.starts[1] + ENTRIES + 64 * (number as usize % CAPACITY);
                let words = descriptor.encode().map(u64::to_le_bytes);
                write(&self.peer, start, words.as_flattened());
                write(&self.peer, self.starts[1], &number.wrapping_add(1).to_le_bytes());
            }
        }
    }
}

fn write(map: &Map, offset: usize, bytes: &[u8]) {
    assert!(Bytes::new(map, offset, bytes.len()).expect("inside").copy_from(0, bytes));
}

struct Host {
    is_live: bool,
    /// The worker's control region, and where its channel's block is.
    seen: (Arc<Map>, usize),
    sender: Sender,
    receiver: Receiver,
    ledger: Ledger,
    own: OwnPage,
    page: PeerPage,
    /// Loaned here: slots and generations.
    loans: Vec<(u32, u64)>,
    /// The last generation of each slot.
    generations: [u64; SLOTS as usize],
    /// Sent, still with a view of this side's own.
    viewed: Vec<u32>,
    /// Sent back in place, and held here.
    returned: Vec<u32>,
    /// The next entry, or any later one on a live channel.
    received: u64,
}

impl Host {
    fn new(memory: &Memory, is_live: bool) -> Self {
        memory.clear();
        let Memory { own, own_page, seen, seen_page, starts, .. } = memory;
        assert_eq!((starts[0], starts[1]), (BLOCKS, BLOCKS + block_len(CAPACITY)));
        Self {
            is_live,
            seen: (Arc::clone(seen), starts[1]),
            sender: Sender::new(own, seen, starts[0], CAPACITY).expect("it fits"),
            receiver: Receiver::new(own, seen, starts[1], CAPACITY).expect("it fits"),
            ledger: Ledger::new(SLOTS, is_live),
            own: OwnPage::new(own_page, SLOTS, META).expect("it fits"),
            page: PeerPage::new(seen_page, SLOTS, META).expect("it fits"),
            loans: Vec::new(),
            generations: [0; SLOTS as usize],
            viewed: Vec::new(),
            returned: Vec::new(),
            received: 0,
        }
    }

    /// None: the worker has lied, and the link is over.
    fn act(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        match choices.below(8) {
            0 | 1 => self.loan(),
            2 | 3 => self.send(choices),
            4 => self.look(),
            5 => self.receive(),
            6 => {
                self.let_go(choices);
                Some(())
            }
            _ => {
                let known = self.sender.known_taken();
                let taken = self.sender.taken().ok()?;
                assert!((known..=self.sender.next_seq()).contains(&taken));
                match choices.below(4) {
                    0 => drop(self.ledger.write_off(taken)),
                    _ if !self.is_live => self.ledger.note_taken(taken),
                    _ => {}
                }
                Some(())
            }
        }
    }

    /// As `SendEnd::look_for_slot` does.
    fn loan(&mut self) -> Option<()> {
        self.look()?;
        let mut loaned = self.ledger.loan();
        while loaned.is_none()
            && let Some(oldest) = self.ledger.oldest_queued()
        {
            self.sender.unlink(oldest + 1);
            self.look()?;
            loaned = self.ledger.loan();
            if loaned.is_none() && self.ledger.oldest_queued().is_some_and(|next| next <= oldest) {
                panic!("a slot that is unlinked stays queued");
            }
        }
        let Some((slot, generation)) = loaned else { return Some(()) };
        assert!(self.loans.iter().all(|loan| loan.0 != slot), "loaned twice");
        assert!(!self.viewed.contains(&slot) && !self.returned.contains(&slot), "loaned while it is seen here");
        let last = &mut self.generations[slot as usize];
        assert!(generation > *last, "a generation twice");
        *last = generation;
        self.loans.push((slot, generation));
        Some(())
    }

    /// As `SendEnd::try_send` does.
    fn send(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let Some((slot, generation)) = self.loans.pop() else { return Some(()) };
        let ring_seq = self.sender.next_seq();
        assert!(self.own.set_meta(slot, b"{}"));
        self.ledger.queue(slot, ring_seq, ring_seq, ring_seq);
        if choices.one_in(4) {
            self.viewed.push(slot);
        } else {
            self.ledger.unpin(slot);
        }
        self.sender.publish(Descriptor { ring_seq, pool: POOL, slot, generation, ..Descriptor::default() }.encode());
        if self.is_live {
            let depth = choices.below(3) as u64;
            self.sender.unlink(self.sender.next_seq().saturating_sub(depth));
            self.look()?;
        }
        Some(())
    }

    fn look(&mut self) -> Option<()> {
        let before: Vec<State> = self.ledger.slots().map(|(_, slot)| slot.state).collect();
        let oldest = self.sender.oldest();
        if self.is_live {
            let visit = self.sender.visit().ok()?;
            self.ledger.settle(visit, oldest, |slot| self.page.state(slot)).ok()?;
        } else {
            self.ledger.look(|slot| self.page.state(slot)).ok()?;
        }
        for ((slot, now), before) in self.ledger.slots().zip(before).filter(|((_, now), _)| now.state == State::Free) {
            let is_home = match before {
                State::Sent { ring_seq } | State::Held { ring_seq } | State::Off { ring_seq, visit: None } => {
                    self.page.state(slot) == released(ring_seq)
                }
                State::Queued { ring_seq } => ring_seq < oldest || self.page.state(slot) == released(ring_seq),
                _ => true,
            };
            assert!(is_home, "{now:?} was {before:?}");
        }
        Some(())
    }

    /// An answer in place, as `RecvEnd::poll` takes it.
    fn receive(&mut self) -> Option<()> {
        let words = match self.is_live {
            true => self.receiver.visit(|words| words),
            false => self.receiver.poll(),
        };
        let Some(words) = words.ok()? else { return Some(()) };
        let descriptor = Descriptor::decode(words).ok()?;
        assert!(if self.is_live { descriptor.ring_seq >= self.received } else { descriptor.ring_seq == self.received });
        self.received = descriptor.ring_seq + 1;
        let (mut produced, mut oldest) = ([0; 8], [0; 8]);
        let block = Bytes::new(&self.seen.0, self.seen.1, 16).expect("inside");
        assert!(block.copy_to(PRODUCED, &mut produced) && block.copy_to(OLDEST, &mut oldest));
        let may_be_taken = u64::from_le_bytes(oldest)..u64::from_le_bytes(produced);
        assert!(!self.is_live || may_be_taken.contains(&descriptor.ring_seq), "taken beyond {may_be_taken:?}");
        let slot = descriptor.slot;
        let word = if slot < SLOTS { self.page.state(slot) } else { 0 };
        let before = self.ledger.slots().find(|(index, _)| *index == slot).map(|(_, slot)| slot.state);
        self.ledger.returned(slot, descriptor.generation, word).ok()?;
        let is_told = match before.expect("the ledger knows it") {
            State::Sent { ring_seq } => word != released(ring_seq),
            State::Queued { ring_seq } | State::Doubt { ring_seq, .. } | State::Held { ring_seq } => {
                word == taken(ring_seq)
            }
            _ => true,
        };
        assert!(is_told, "{before:?}, which {word} ends otherwise");
        assert!(slot < SLOTS && self.loans.iter().all(|loan| loan.0 != slot) && !self.returned.contains(&slot));
        assert_eq!(descriptor.generation, self.generations[slot as usize]);
        self.returned.push(slot);
        let _ = self.page.meta(slot, descriptor.meta_len);
        Some(())
    }

    fn let_go(&mut self, choices: &mut Choices<'_>) {
        match choices.below(3) {
            0 => self.loans.pop().into_iter().for_each(|(slot, _)| self.ledger.unpin(slot)),
            1 => self.viewed.pop().into_iter().for_each(|slot| self.ledger.unpin(slot)),
            _ => self.returned.pop().into_iter().for_each(|slot| self.ledger.let_go(slot)),
        }
    }

    fn check(&mut self) {
        let counts = self.ledger.counts();
        let out = |state: &State| !matches!(state, State::Free | State::Filling | State::Returned | State::Left);
        let out = self.ledger.slots().filter(|(_, slot)| out(&slot.state)).count() as u64;
        assert!(counts.sent <= self.sender.next_seq() && counts.sent >= out);
        if self.is_live {
            let gone = counts.received + counts.retracted + counts.lost;
            assert!(gone <= counts.sent, "{counts:?}");
        }
        for (slot, _) in &self.loans {
            assert!(self.ledger.slots().any(|(index, it)| index == *slot && it.state == State::Filling));
        }
    }

    /// The worker is gone, with whatever it said last.
    fn end(mut self) {
        let _ = (self.look(), self.sender.taken());
        self.ledger.reclaim(self.sender.known_taken());
        self.loans.drain(..).for_each(|(slot, _)| self.ledger.unpin(slot));
        self.viewed.drain(..).for_each(|slot| self.ledger.unpin(slot));
        self.returned.drain(..).for_each(|slot| self.ledger.let_go(slot));
        let is_over = |state| matches!(state, State::Free | State::Left);
        assert!(self.ledger.slots().all(|(_, slot)| is_over(slot.state)), "a slot is still out");
    }
}
