//! Words, fences and a doorbell that loom watches: it runs a model under every schedule, and lets each load return every
//! value the memory model allows.
//!
//! *Who calls it*: this crate itself under `--cfg loom`, where [`crate::words`] and [`crate::sync`] use it in place of mapped
//! words and the standard library, and the models in `tests/model`, which choose a [`Mutant`]. *Invariants*: two `Words` over
//! one offset of one mapping are the same words, so both ends of a model are made over the same [`Map`]s; the mapping itself
//! holds none of them. All threads of a model run on one thread of the system, so thread-local is local to a model.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use frameport_sys::memory::Map;
use frameport_wire::layout::{BLOCKS, CLOSED, ENTRIES, OLDEST, PARKED, PRODUCED, TAKEN, VISIT};
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};

/// One thing that is wrong on purpose.
#[derive(Clone, Copy, Debug)]
pub enum Mutant {
    /// Stores of such a value to a word at such an offset are relaxed.
    Store(fn(usize, u64) -> bool),
    /// Loads of a word at such an offset are relaxed.
    Load(fn(usize) -> bool),
    /// Stores of such a value to a word at such an offset do not happen.
    NoStore(fn(usize, u64) -> bool),
    /// The second word is loaded just before the first instead of after it.
    Swap {
        /// Offset of the word that is to be loaded first.
        first: usize,
        /// Offset of the word that is to be loaded after it.
        second: usize,
    },
    /// The part of that name is left out.
    Omit(&'static str),
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
    /// For [`Mutant::Swap`].
    static EARLY: Cell<Option<u64>> = const { Cell::new(None) };
    static CLAIMS: Cell<usize> = const { Cell::new(1) };
}

/// Runs models on this thread with something wrong, or with nothing.
pub fn set_mutant(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

/// How many entries a visit claims, on this thread, before it becomes one for any: few, so that a model comes to that.
pub fn set_claims(claims: usize) {
    CLAIMS.set(claims);
}

pub(crate) fn claims() -> usize {
    CLAIMS.get()
}

/// Whether this part is left out.
#[must_use]
pub fn omits(part: &str) -> bool {
    matches!(MUTANT.get(), Some(Mutant::Omit(omitted)) if omitted == part)
}

pub(crate) use loom::sync::atomic::fence;

pub(crate) fn pause(_time: Duration) {
    loom::thread::yield_now();
}

/// The words of one offset.
#[derive(Debug)]
struct Place {
    words: Vec<Option<AtomicU64>>,
    bell: AtomicU32,
    /// The kernel's queue of those who sleep on the bell.
    queue: Mutex<()>,
    wake: Condvar,
}

/// Not padding: each word costs every schedule time.
fn is_word(offset: usize, index: usize) -> bool {
    let block_words = [PRODUCED, OLDEST, VISIT, TAKEN, CLOSED];
    match offset {
        BLOCKS.. => index * 8 >= ENTRIES || block_words.contains(&(index * 8)),
        PARKED => index == 0,
        _ => true,
    }
}

loom::lazy_static! {
    /// The places of this run of the model, by mapping and offset.
    static ref PLACES: std::sync::Mutex<HashMap<(usize, usize), Arc<Place>>> = std::sync::Mutex::default();
}

#[derive(Clone, Debug)]
pub(crate) struct Words {
    place: Arc<Place>,
    offset: usize,
}

impl Words {
    pub(crate) fn new(map: &Arc<Map>, offset: usize, count: usize) -> Option<Self> {
        let end = count.checked_mul(8)?.checked_add(offset)?;
        (offset.is_multiple_of(8) && end <= map.len()).then(|| {
            let key = (map.base().as_ptr().addr(), offset);
            let mut places = PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let place = places.entry(key).or_insert_with(|| {
                Arc::new(Place {
                    words: (0..count).map(|index| is_word(offset, index).then(|| AtomicU64::new(0))).collect(),
                    bell: AtomicU32::new(0),
                    queue: Mutex::new(()),
                    wake: Condvar::new(),
                })
            });
            Self { place: Arc::clone(place), offset }
        })
    }

    fn at(&self, index: usize) -> &AtomicU64 {
        let count = self.place.words.len();
        self.place.words.get(index).and_then(Option::as_ref).unwrap_or_else(|| unreachable!("word {index} of {count}"))
    }

    pub(crate) fn load(&self, index: usize) -> u64 {
        self.at(index).load(Ordering::Relaxed)
    }

    pub(crate) fn load_acquire(&self, index: usize) -> u64 {
        let at = self.offset + index * 8;
        let is_weak = matches!(MUTANT.get(), Some(Mutant::Load(is_weak)) if is_weak(at));
        // An acquire load promises less than the relaxed load and fence of the product, and is all the protocol asks.
        let load = |index| self.at(index).load(if is_weak { Ordering::Relaxed } else { Ordering::Acquire });
        match MUTANT.get() {
            Some(Mutant::Swap { first, second }) if at == first => {
                EARLY.set(Some(load((index + second / 8).saturating_sub(first / 8))));
                load(index)
            }
            Some(Mutant::Swap { second, .. }) if at == second => EARLY.take().unwrap_or_else(|| load(index)),
            _ => load(index),
        }
    }

    pub(crate) fn store(&self, index: usize, value: u64, ordering: Ordering) {
        let at = self.offset + index * 8;
        if matches!(MUTANT.get(), Some(Mutant::NoStore(is_left)) if is_left(at, value)) {
            return;
        }
        let is_weak = matches!(MUTANT.get(), Some(Mutant::Store(is_weak)) if is_weak(at, value));
        self.at(index).store(value, if is_weak { Ordering::Relaxed } else { ordering });
    }

    pub(crate) fn bell(&self) -> &AtomicU32 {
        &self.place.bell
    }

    pub(crate) fn wait(&self, seen: u32, _limit: Option<Duration>) {
        let queue = self.place.queue.lock();
        if self.place.bell.load(Ordering::Relaxed) == seen {
            drop(queue.map(|queue| self.place.wake.wait(queue)));
        }
    }

    pub(crate) fn wake_all(&self) {
        let _queue = self.place.queue.lock();
        self.place.wake.notify_all();
    }
}

/// Waits for a notification. No limit ever ends.
pub(crate) fn wait_for<T>(condvar: &Condvar, guard: loom::sync::MutexGuard<'_, T>, _limit: Option<Duration>) {
    drop(condvar.wait(guard));
}

/// What a doorbell's ends and their events share: the kernel's part.
#[derive(Debug, Default)]
struct Line {
    /// What was rung for each side.
    rung: [bool; 2],
    /// The events that were signalled.
    signalled: Vec<bool>,
}

/// One side's end of a doorbell.
#[derive(Clone, Debug)]
pub struct Doorbell {
    line: Arc<(Mutex<Line>, Condvar)>,
    side: usize,
}

impl Doorbell {
    /// Both ends.
    ///
    /// # Errors
    /// Never.
    pub fn pair() -> std::io::Result<(Self, Self)> {
        let line = Arc::new((Mutex::new(Line::default()), Condvar::new()));
        Ok((Self { line: Arc::clone(&line), side: 0 }, Self { line, side: 1 }))
    }

    fn with<R>(&self, change: impl FnOnce(&mut Line) -> R) -> R {
        let result = change(&mut self.line.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.line.1.notify_all();
        result
    }

    pub(crate) fn ring(&self) {
        self.with(|line| line.rung.iter_mut().nth(1 - self.side).into_iter().for_each(|rung| *rung = true));
    }
}

/// Readable once its doorbell was rung or it was signalled, until it is cleared.
#[derive(Debug)]
pub struct Event {
    doorbell: Doorbell,
    number: usize,
}

impl Event {
    pub(crate) fn new(doorbell: &Doorbell) -> std::io::Result<Self> {
        let number = doorbell.with(|line| {
            line.signalled.push(false);
            line.signalled.len() - 1
        });
        Ok(Self { doorbell: doorbell.clone(), number })
    }

    pub(crate) fn signal(&self) {
        self.doorbell.with(|line| line.signalled.iter_mut().nth(self.number).into_iter().for_each(|it| *it = true));
    }

    pub(crate) fn clear(&self, _doorbell: &Doorbell) -> bool {
        self.doorbell.with(|line| {
            line.signalled.iter_mut().nth(self.number).into_iter().for_each(|it| *it = false);
            line.rung.iter_mut().nth(self.doorbell.side).is_some_and(std::mem::take)
        })
    }
}

/// Waits until the first of `events` is readable. No limit ever ends.
///
/// # Errors
/// Never.
pub fn wait_any(events: &[&Event], _limit: Option<Duration>) -> std::io::Result<()> {
    let Some(event) = events.first() else { return Ok(()) };
    let (line, changed) = &*event.doorbell.line;
    let mut line = line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let is_set = |flags: &[bool], at: usize| flags.get(at).is_some_and(|it| *it);
    while !is_set(&line.signalled, event.number) && !is_set(&line.rung, event.doorbell.side) {
        line = changed.wait(line).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    Ok(())
}
