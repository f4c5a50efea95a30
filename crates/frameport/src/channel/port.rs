//! A channel of a worker over all its lives: the end that is used now, and what is left of those before.
//!
//! *Who calls it*: [`super::lives`]. *Invariants*: at most one life's frames wait here beside those of the newest; counters
//! of a life are taken over once, when nothing can change them any more; each death is reported once. Locks are held for
//! bookkeeping only. *A hostile worker* meets the ends' own checks.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use frameport_sys::clock::now_ns;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::Delivery;

use super::handle::{RecvStats, SendStats};
use super::ledger::Counts;
use super::recv::RecvEnd;
use super::send::SendEnd;
use super::source::Source;
use crate::error::Error;
use crate::holders::SlotHolder;

/// Deaths that wait to be reported on a channel; older ones are forgotten.
const DEATHS: usize = 8;

/// The sending side.
#[derive(Debug)]
pub(super) struct SendPort {
    pub(super) name: String,
    pub(super) delivery: Delivery,
    pub(super) deadline: Option<Duration>,
    now: Mutex<Sending>,
}

#[derive(Debug)]
struct Sending {
    end: Arc<SendEnd>,
    /// Of the lives before this one.
    past: Counts,
    closed: bool,
}

impl SendPort {
    pub(super) fn new(end: &Arc<SendEnd>) -> Self {
        let now = Sending { end: Arc::clone(end), past: Counts::default(), closed: false };
        Self { name: end.name().to_owned(), delivery: end.delivery(), deadline: end.deadline(), now: Mutex::new(now) }
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the newest life, dead or alive.
    pub(super) fn end(&self) -> Arc<SendEnd> {
        Arc::clone(&self.lock().end)
    }

    /// The next life's. The last one's process is dead and what it had reclaimed.
    pub(super) fn adopt(&self, end: &Arc<SendEnd>) {
        let mut now = self.lock();
        now.past = now.past + now.end.counts().slots;
        now.end = Arc::clone(end);
        if now.closed {
            end.close();
        }
    }

    /// Says that nothing follows, in no life.
    pub(super) fn close(&self) {
        let mut now = self.lock();
        now.closed = true;
        now.end.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn stats(&self) -> SendStats {
        let now = self.lock();
        SendStats::of(now.past, now.end.counts(), now.end.copied())
    }
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct RecvPort {
    pub(super) name: String,
    pub(super) delivery: Delivery,
    now: Mutex<Receiving>,
    /// Somebody waits in an event loop since a look that found nothing.
    pub(super) armed: AtomicBool,
}

#[derive(Debug)]
struct Receiving {
    newest: Arc<RecvEnd>,
    /// What is to be received, the oldest first.
    stages: VecDeque<Stage>,
    /// Of the lives before the first of them: received, skipped.
    past: (u64, u64),
    /// Where frames of such lives lie that may still be held.
    old: Vec<Weak<Source>>,
}

#[derive(Debug)]
enum Stage {
    /// A life, dead or alive.
    Life(Arc<RecvEnd>),
    /// A death that is to be reported; its life had nothing more to receive.
    Dead(Error),
}

/// What a receiver is to look at.
pub(super) enum Front {
    Life(Arc<RecvEnd>),
    Dead(Error),
    /// The last life's death was reported, and the next one is not there.
    Nothing,
}

impl RecvPort {
    pub(super) fn new(end: &Arc<RecvEnd>) -> Self {
        let stages = VecDeque::from([Stage::Life(Arc::clone(end))]);
        let now = Receiving { newest: Arc::clone(end), stages, past: (0, 0), old: Vec::new() };
        Self {
            name: end.name().to_owned(),
            delivery: end.delivery(),
            now: Mutex::new(now),
            armed: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Receiving> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be looked at; a death that waits to be reported is taken.
    pub(super) fn front(&self) -> Front {
        let mut now = self.lock();
        if let Some(Stage::Life(end)) = now.stages.front() {
            return Front::Life(Arc::clone(end));
        }
        match now.stages.pop_front() {
            Some(Stage::Dead(error)) => Front::Dead(error),
            _ => Front::Nothing,
        }
    }

    /// The life to receive from, if there is one.
    pub(super) fn life(&self) -> Option<Arc<RecvEnd>> {
        match self.lock().stages.front() {
            Some(Stage::Life(end)) => Some(Arc::clone(end)),
            _ => None,
        }
    }

    /// Whether a receive would not look at `end`, if at any.
    pub(super) fn has_left(&self, end: Option<&Arc<RecvEnd>>) -> bool {
        match (self.lock().stages.front(), end) {
            (Some(Stage::Life(now)), Some(end)) => !Arc::ptr_eq(now, end),
            (None, None) => false,
            _ => true,
        }
    }

    /// Goes on from a life whose death is about to be reported; false when somebody else did.
    pub(super) fn pass(&self, end: &Arc<RecvEnd>) -> bool {
        let mut now = self.lock();
        let is_front = matches!(now.stages.front(), Some(Stage::Life(front)) if Arc::ptr_eq(front, end));
        if is_front {
            now.stages.pop_front();
            now.retire(end);
        }
        is_front
    }

    /// Lives that have nothing more to receive become a death to report: their memory is free. How many others there are.
    pub(super) fn settle(&self) -> usize {
        let mut now = self.lock();
        let stages = std::mem::take(&mut now.stages);
        for stage in stages {
            let death = match &stage {
                Stage::Life(end) if end.state.end().is_some_and(super::state::End::is_death) => end.state.check().err(),
                _ => None,
            };
            match (stage, death) {
                (Stage::Life(end), Some(death)) if matches!(death, Error::Violation { .. }) || !end.has_next() => {
                    now.retire(&end);
                    now.stages.push_back(Stage::Dead(death));
                }
                (stage, _) => now.stages.push_back(stage),
            }
        }
        let is_death = |stage: &&Stage| matches!(stage, Stage::Dead(_));
        if now.stages.iter().filter(is_death).count() > DEATHS
            && let Some(oldest) = now.stages.iter().position(|stage| is_death(&stage))
        {
            now.stages.remove(oldest);
        }
        now.stages.iter().filter(|stage| !is_death(stage)).count()
    }

    /// The next life's end.
    pub(super) fn adopt(&self, end: &Arc<RecvEnd>) {
        let mut now = self.lock();
        now.newest = Arc::clone(end);
        now.stages.push_back(Stage::Life(Arc::clone(end)));
    }

    /// The end of the newest life, dead or alive.
    pub(super) fn newest(&self) -> Arc<RecvEnd> {
        Arc::clone(&self.lock().newest)
    }

    /// Where frames in this side's hands may lie, and how many were received and skipped.
    fn all(&self) -> (Vec<Arc<Source>>, (u64, u64)) {
        let now = self.lock();
        let mut sums = now.past;
        let mut sources: Vec<_> = now.old.iter().filter_map(Weak::upgrade).collect();
        for stage in &now.stages {
            if let Stage::Life(end) = stage {
                let (received, skipped) = end.counts();
                sums = (sums.0 + received, sums.1 + skipped);
                sources.extend(end.sources());
            }
        }
        (sources, sums)
    }

    pub(super) fn stats(&self) -> RecvStats {
        let (sources, (received, skipped)) = self.all();
        RecvStats { received, skipped, held: sources.iter().map(|source| source.held().count() as u64).sum() }
    }

    pub(super) fn holders(&self) -> Vec<SlotHolder> {
        let now = now_ns();
        self.all().0.iter().flat_map(|source| source.holders(now)).collect()
    }
}

impl Receiving {
    /// Takes over the counters of a life of which nothing more is received.
    fn retire(&mut self, end: &Arc<RecvEnd>) {
        let (received, skipped) = end.counts();
        self.past = (self.past.0 + received, self.past.1 + skipped);
        self.old.retain(|source| source.strong_count() > 0);
        self.old.extend(end.sources().iter().map(Arc::downgrade));
    }
}
