//! The group's book: where each frame is, and what is to be handed out next.
//!
//! *Who calls it*: [`super::shared`], under the group's lock. *Invariants*: a frame has one fate; in order, fates are
//! handed out by rising number; `sent = answered + dropped + lost + in flight` at every moment; every death of a worker
//! that has frames charges at least one of them, so that no frame is tried for ever. No I/O, no clock, no shared memory.
//! *A hostile worker* can answer its own frames only: any other number is counted as extra and ignored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::error::Error;
use crate::frame::Stamp;

/// How many kills are let pass for each try.
const PATIENCE: u32 = 20;

/// What a group does with the frames a dead worker had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redeliver {
    /// They are given to another worker: nothing is lost, some frames may be worked on twice. The group keeps a copy of
    /// each frame until it is answered, because a worker may have edited its own ([`super::GroupStats::copied`]).
    #[default]
    AtLeastOnce,
    /// They are reported as lost: no frame is worked on twice, nothing is copied.
    AtMostOnce,
}

/// A frame's content, kept for another worker.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) payload: Vec<u8>,
    pub(super) meta: Vec<u8>,
    pub(super) stamp: Stamp,
}

/// Which slot of which worker a frame went out in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: usize,
    /// How many frames went to this worker process before it.
    pub(super) nth: u64,
    pub(super) slot: u32,
    pub(super) generation: u64,
}

/// How a worker process ended, as far as its frames care.
#[derive(Debug)]
pub(super) struct Ending {
    /// How many of its frames it took.
    pub(super) taken: u64,
    /// It left by itself, in order: what it took and did not answer it passed over.
    pub(super) in_order: bool,
    /// SIGKILL ended it.
    pub(super) killed: bool,
    pub(super) why: Arc<Error>,
}

#[derive(Debug)]
enum State<F> {
    With(Place),
    /// For another worker.
    Waiting,
    /// On its way into another worker's slot.
    Moving,
    Settled(Fate<F>),
}

#[derive(Debug)]
enum Fate<F> {
    Answered(F),
    Lost(Arc<Error>),
    Dropped,
}

#[derive(Debug)]
struct Entry<F> {
    state: State<F>,
    kept: Option<Arc<Kept>>,
    /// Workers that died of it, as far as can be told.
    tries: u32,
    /// The last one that was killed while it had the frame, and how many of them were let pass.
    killed: Option<u64>,
    passed: u32,
}

impl<F> Entry<F> {
    fn new(state: State<F>, kept: Option<Arc<Kept>>) -> Self {
        Self { state, kept, tries: 0, killed: None, passed: 0 }
    }

    /// A worker died while it had the frame. A crash is put down to it. So is a SIGKILL (the frame may need more memory
    /// than there is), unless workers without it were killed since the last one with it: then somebody goes about killing.
    fn suspect(&mut self, killed: Option<u64>, patience: u32) {
        let before = killed.and(self.killed);
        let elsewhere = matches!((killed, before), (Some(now), Some(before)) if now > before + 1);
        self.killed = killed.or(self.killed);
        if elsewhere && self.passed < patience {
            self.passed += 1;
        } else {
            self.tries += 1;
        }
    }
}

/// What became of everything sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) dropped: u64,
    pub(super) lost: u64,
    pub(super) extra: u64,
    pub(super) redelivered: u64,
}

/// Who may be given a new frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Anybody,
    Only(usize),
    Nobody,
}

/// How the book is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) ordered: bool,
    pub(super) window: usize,
    pub(super) tries: u32,
    pub(super) redeliver: Redeliver,
}

/// See the module. `F` is an answer.
#[derive(Debug)]
pub(super) struct Book<F> {
    rules: Rules,
    counts: Counts,
    under_way: BTreeMap<u64, Entry<F>>,
    /// To be handed out, in this order.
    ready: VecDeque<(u64, Result<F, Arc<Error>>)>,
    /// Memory of copies no longer needed: fresh memory costs a page fault for every 4 KiB.
    spare: Vec<Vec<u8>>,
    /// Workers that SIGKILL ended.
    kills: u64,
}

impl<F> Book<F> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            counts: Counts::default(),
            under_way: BTreeMap::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
            kills: 0,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Frames whose fate is open.
    pub(super) fn in_flight(&self) -> u64 {
        let Counts { sent, answered, dropped, lost, .. } = self.counts;
        sent.saturating_sub(answered).saturating_sub(dropped).saturating_sub(lost)
    }

    /// Fates known and not handed out.
    pub(super) fn waiting(&self) -> usize {
        let settled = |entry: &&Entry<F>| matches!(entry.state, State::Settled(Fate::Answered(_) | Fate::Lost(_)));
        self.ready.len() + self.under_way.values().filter(settled).count()
    }

    /// Number of the next frame.
    pub(super) fn next_seq(&self) -> u64 {
        self.counts.sent
    }

    /// Notes that the next frame went out, or, without a place, that it waits for a worker.
    pub(super) fn depart(&mut self, place: Option<Place>, kept: Option<Arc<Kept>>) -> u64 {
        let seq = self.next_seq();
        self.counts.sent += 1;
        let state = place.map_or(State::Waiting, State::With);
        self.under_way.insert(seq, Entry::new(state, kept));
        seq
    }

    /// The frames `member` has, oldest first.
    pub(super) fn with(&self, member: usize) -> impl Iterator<Item = (u64, Place)> {
        self.under_way.iter().filter_map(move |(&seq, entry)| match entry.state {
            State::With(place) if place.member == member => Some((seq, place)),
            _ => None,
        })
    }

    /// Who may be given a new frame: a full window makes an exception for a worker that has only the oldest frame and
    /// may have passed over it: it lets go of it when it takes another.
    pub(super) fn room(&self) -> Room {
        let mut open = self.under_way.values().filter(|entry| !matches!(entry.state, State::Settled(_)));
        let len = self.under_way.len() + self.ready.len();
        if self.has_waiting() {
            Room::Nobody
        } else if len < self.rules.window {
            Room::Anybody
        } else {
            match open.next().map(|entry| &entry.state) {
                Some(&State::With(Place { member, .. }))
                    if len == self.rules.window && self.ready.is_empty() && self.with(member).count() == 1 =>
                {
                    Room::Only(member)
                }
                _ => Room::Nobody,
            }
        }
    }

    /// `member` sent a frame with number `seq`; false where it is no answer.
    pub(super) fn answer(&mut self, member: usize, seq: u64, frame: F) -> bool {
        let mine = |entry: &&Entry<F>| matches!(entry.state, State::With(place) if place.member == member);
        let is_answer = self.under_way.get(&seq).filter(mine).is_some();
        if is_answer {
            self.settle(seq, Fate::Answered(frame));
        } else {
            self.counts.extra += 1;
        }
        is_answer
    }

    /// `member` let go of frame `seq` and asks for another without an answer.
    pub(super) fn pass_over(&mut self, member: usize, seq: u64) {
        if self.with(member).any(|(with, _)| with == seq) {
            self.settle(seq, Fate::Dropped);
        }
    }

    /// The process of `member` has ended, everything it sent is noted: decides on what it had.
    pub(super) fn bury(&mut self, member: usize, ending: &Ending, is_out: impl Fn(Place) -> bool) {
        let killed = ending.killed.then(|| self.note_kill());
        let had: Vec<_> = self.with(member).collect();
        // Frames it had taken may have killed it; where none was, the next one is suspected, so that this ends.
        let mut suspects: Vec<u64> = Vec::new();
        let mut rest = Vec::new();
        for (seq, place) in had {
            let taken = place.nth < ending.taken;
            if taken && (ending.in_order || (!is_out(place) && place.nth + 1 < ending.taken)) {
                self.settle(seq, Fate::Dropped);
                continue;
            }
            if taken {
                suspects.push(seq);
            }
            rest.push(seq);
        }
        if suspects.is_empty() {
            suspects.extend(rest.first());
        }
        for seq in rest {
            let Some(entry) = self.under_way.get_mut(&seq) else { continue };
            if suspects.contains(&seq) {
                entry.suspect(killed, self.rules.tries.saturating_mul(PATIENCE));
            }
            if entry.kept.is_some() && entry.tries < self.rules.tries {
                entry.state = State::Waiting;
            } else {
                self.settle(seq, Fate::Lost(Arc::clone(&ending.why)));
            }
        }
    }

    /// SIGKILL ended a worker.
    pub(super) fn note_kill(&mut self) -> u64 {
        self.kills += 1;
        self.kills
    }

    /// Whether a frame waits for another worker.
    pub(super) fn has_waiting(&self) -> bool {
        self.under_way.values().any(|entry| matches!(entry.state, State::Waiting | State::Moving))
    }

    /// Takes the oldest frame that waits for another worker.
    pub(super) fn take_waiting(&mut self) -> Option<(u64, Arc<Kept>)> {
        let (&seq, entry) = self.under_way.iter_mut().find(|(_, entry)| matches!(entry.state, State::Waiting))?;
        let kept = Arc::clone(entry.kept.as_ref()?);
        entry.state = State::Moving;
        Some((seq, kept))
    }

    /// A frame taken for another worker went out to it or, without a place, waits again.
    pub(super) fn moved(&mut self, seq: u64, place: Option<Place>) {
        if let Some(entry) = self.under_way.get_mut(&seq).filter(|entry| matches!(entry.state, State::Moving)) {
            self.counts.redelivered += u64::from(place.is_some());
            entry.state = place.map_or(State::Waiting, State::With);
        }
    }

    /// Whether a frame taken for another worker is still wanted there.
    pub(super) fn is_moving(&self, seq: u64) -> bool {
        self.under_way.get(&seq).is_some_and(|entry| matches!(entry.state, State::Moving))
    }

    /// Reports the last frame sent as lost.
    pub(super) fn lose(&mut self, seq: u64, why: &Arc<Error>) {
        self.settle(seq, Fate::Lost(Arc::clone(why)));
    }

    /// Nothing will be answered any more.
    pub(super) fn lose_all(&mut self, why: &Arc<Error>) {
        let open = |(&seq, entry): (&u64, &Entry<F>)| (!matches!(entry.state, State::Settled(_))).then_some(seq);
        let open: Vec<u64> = self.under_way.iter().filter_map(open).collect();
        for seq in open {
            self.lose(seq, why);
        }
    }

    fn settle(&mut self, seq: u64, fate: Fate<F>) {
        let Some(entry) = self.under_way.get_mut(&seq).filter(|entry| !matches!(entry.state, State::Settled(_))) else {
            return;
        };
        *match fate {
            Fate::Answered(_) => &mut self.counts.answered,
            Fate::Lost(_) => &mut self.counts.lost,
            Fate::Dropped => &mut self.counts.dropped,
        } += 1;
        entry.state = State::Settled(fate);
        let kept = entry.kept.take().and_then(Arc::into_inner);
        self.spare.extend(kept.map(|kept| kept.payload).filter(|_| self.spare.len() < self.rules.window));
        if !self.rules.ordered {
            self.make_ready(seq);
        }
        while let Some(entry) =
            self.under_way.first_entry().filter(|first| matches!(first.get().state, State::Settled(_)))
        {
            let seq = *entry.key();
            self.make_ready(seq);
        }
    }

    fn make_ready(&mut self, seq: u64) {
        match self.under_way.remove(&seq).map(|entry| entry.state) {
            Some(State::Settled(Fate::Answered(frame))) => self.ready.push_back((seq, Ok(frame))),
            Some(State::Settled(Fate::Lost(why))) => self.ready.push_back((seq, Err(why))),
            _ => {}
        }
    }

    /// Memory for a copy.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// What is to be handed out next.
    pub(super) fn take(&mut self) -> Option<(u64, Result<F, Arc<Error>>)> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(ordered: bool, redeliver: Redeliver) -> Book<&'static str> {
        Book::new(Rules { ordered, window: 4, tries: 2, redeliver })
    }

    fn place(member: usize, nth: u64) -> Place {
        Place { member, nth, slot: nth as u32, generation: 1 }
    }

    fn kept() -> Option<Arc<Kept>> {
        Some(Arc::new(Kept { payload: Vec::new(), meta: Vec::new(), stamp: Stamp::default() }))
    }

    fn ending(taken: u64, in_order: bool) -> Ending {
        Ending { taken, in_order, killed: false, why: Arc::new(Error::Interrupted) }
    }

    fn taken(book: &mut Book<&'static str>) -> Vec<(u64, Option<&'static str>)> {
        std::iter::from_fn(|| book.take()).map(|(seq, fate)| (seq, fate.ok())).collect()
    }

    #[test]
    fn answers_are_handed_out_in_order_or_as_they_come() {
        for (ordered, first) in [(true, vec![]), (false, vec![(1, Some("b"))])] {
            let mut book = book(ordered, Redeliver::AtMostOnce);
            for nth in 0..3 {
                book.depart(Some(place(nth as usize, 0)), None);
            }
            assert!(book.answer(1, 1, "b"));
            assert_eq!((taken(&mut book), book.in_flight()), (first, 2));
            book.pass_over(2, 2);
            assert!(book.answer(0, 0, "a"));
            let rest = if ordered { vec![(0, Some("a")), (1, Some("b"))] } else { vec![(0, Some("a"))] };
            assert_eq!((taken(&mut book), book.in_flight(), book.counts().dropped), (rest, 0, 1));
        }
    }

    #[test]
    fn a_worker_answers_its_own_frames_once() {
        let mut book = book(false, Redeliver::AtMostOnce);
        book.depart(Some(place(0, 0)), None);
        assert!(!book.answer(1, 0, "of another worker's") && !book.answer(0, 7, "of none"));
        assert!(book.answer(0, 0, "a") && !book.answer(0, 0, "again"));
        assert_eq!((book.counts().answered, book.counts().extra, book.in_flight()), (1, 3, 0));
    }

    #[test]
    fn only_frames_a_dead_worker_had_taken_are_charged() {
        let mut book = book(true, Redeliver::AtLeastOnce);
        for nth in 0..3 {
            book.depart(Some(place(0, nth)), kept());
        }
        // The first was let go of, the second held, the third never taken.
        book.bury(0, &ending(2, false), |place| place.nth > 0);
        assert_eq!(book.counts().dropped, 1);
        for (seq, nth) in [(1, 0), (2, 1)] {
            assert_eq!(book.take_waiting().unwrap().0, seq);
            book.moved(seq, Some(place(1, nth)));
        }
        assert!(!book.has_waiting());
        book.bury(1, &ending(2, false), |_| true);
        assert_eq!(taken(&mut book), [(1, None)], "given up after its second try");
        assert_eq!(book.take_waiting().unwrap().0, 2);
        book.moved(2, None);
        assert!(book.has_waiting() && book.in_flight() == 1);
    }

    #[test]
    fn a_death_before_the_first_take_charges_the_oldest() {
        let mut book = book(true, Redeliver::AtLeastOnce);
        book.depart(Some(place(0, 0)), kept());
        book.depart(Some(place(0, 1)), kept());
        for _ in 0..2 {
            book.bury(0, &ending(0, false), |_| true);
            while let Some((seq, _)) = book.take_waiting() {
                book.moved(seq, Some(place(0, seq)));
            }
        }
        assert_eq!((taken(&mut book), book.in_flight()), (vec![(0, None)], 1));
    }

    #[test]
    fn a_killed_worker_does_not_count_where_others_were_killed_since_the_last() {
        for (others, deaths) in [(false, 2), (true, 2 + 2 * PATIENCE as usize)] {
            let mut book = book(true, Redeliver::AtLeastOnce);
            book.depart(Some(place(0, 0)), kept());
            for _ in 1..deaths {
                book.bury(0, &Ending { killed: true, ..ending(1, false) }, |_| true);
                assert_eq!(book.take_waiting().unwrap().0, 0, "not given up yet");
                book.moved(0, Some(place(0, 0)));
                if others {
                    book.note_kill();
                }
            }
            book.bury(0, &Ending { killed: true, ..ending(1, false) }, |_| true);
            assert_eq!(taken(&mut book), [(0, None)], "after {deaths} deaths");
        }
    }

    #[test]
    fn at_most_once_loses_what_the_dead_had() {
        let mut book = book(true, Redeliver::AtMostOnce);
        for nth in 0..3 {
            book.depart(Some(place(0, nth)), None);
        }
        book.answer(0, 0, "a");
        book.bury(0, &ending(2, false), |_| true);
        assert_eq!(taken(&mut book), [(0, Some("a")), (1, None), (2, None)]);
        assert_eq!((book.counts().lost, book.in_flight()), (2, 0));
    }

    #[test]
    fn a_worker_that_left_in_order_passed_over_what_it_took() {
        let mut book = book(true, Redeliver::AtLeastOnce);
        book.depart(Some(place(0, 0)), kept());
        book.depart(Some(place(0, 1)), kept());
        book.bury(0, &ending(1, true), |_| true);
        assert_eq!((book.counts().dropped, book.take_waiting().unwrap().0), (1, 1));
    }

    #[test]
    fn a_full_window_lets_one_more_to_a_worker_that_may_have_passed_over_the_oldest() {
        let mut book = book(true, Redeliver::AtMostOnce);
        assert_eq!(book.room(), Room::Anybody);
        book.depart(Some(place(0, 0)), None);
        for nth in 0..3 {
            book.depart(Some(place(1, nth)), None);
            book.answer(1, nth + 1, "b");
        }
        assert_eq!(book.room(), Room::Only(0));
        book.depart(Some(place(0, 1)), None);
        assert_eq!(book.room(), Room::Nobody);
        book.pass_over(0, 0);
        assert_eq!(book.room(), Room::Nobody, "three wait to be received");
        assert_eq!(taken(&mut book).len(), 3);
        assert_eq!(book.room(), Room::Anybody);
    }
}
