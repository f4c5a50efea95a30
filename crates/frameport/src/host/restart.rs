//! Keeps a worker going: the thread that sleeps until its process dies, and starts the next one.
//!
//! *Who calls it*: [`super::builder`] for a worker with a [`Restart`] policy, which its [`super::Worker`] then asks for the
//! process of the moment. *Invariants*: nothing waits for this thread but a stop; the memory of a life's pools goes to the
//! next one only if nobody sees it any more, neither here nor in what the dead process may have started; no more than two
//! lives' memory is there at once, but for what the application holds. *A hostile worker* can die as often as the policy
//! allows.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::process::Exit;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_sys::thread::{Builder, JoinHandle};

use super::bring_up::{self, Earlier, Kept, Life, Line};
use super::builder::WorkerBuilder;
use super::stall;
use super::supervised::Supervised;
use crate::channel::lives::Lives;
use crate::channel::recv::RecvEnd;
use crate::channel::state::End;
use crate::error::Error;
use crate::link::Ends;
use crate::restart::{Course, Restart};

/// How long a start may go on after it is not wanted any more.
const TICK: Duration = Duration::from_millis(50);
/// How long what a dead process had started may take to be dead, too, before its memory is left to it.
const GROUP: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    builder: WorkerBuilder,
    pub(super) lives: Arc<Lives>,
    /// The newest that became ready.
    now: Mutex<Arc<Supervised>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// Keeps a worker going whose first life is ready.
    pub(super) fn start(builder: WorkerBuilder, policy: Restart, line: Line, life: Life) -> Result<Arc<Self>, Error> {
        let worker = Arc::clone(&life.worker);
        let lives = Lives::new(worker.ends.get_or_init(Ends::default), &worker.state, policy.limit());
        let lives = lives.inspect_err(|_| bring_up::end_start(&worker))?;
        let keeper = Arc::new(Self { builder, lives, now: Mutex::new(worker), thread: Mutex::default() });
        let on_thread = Arc::clone(&keeper);
        let thread = Builder::new().name("frameport-keep".into());
        match thread.spawn(move || on_thread.run(policy, &line, life)) {
            Ok(thread) => *lock(&keeper.thread) = Some(thread),
            Err(error) => {
                bring_up::end_start(&keeper.now());
                return Err(Error::system("starting a thread")(error));
            }
        }
        Ok(keeper)
    }

    /// The newest life that became ready, dead or alive.
    pub(super) fn now(&self) -> Arc<Supervised> {
        Arc::clone(&lock(&self.now))
    }

    /// Ends it in whatever state it is.
    pub(super) fn stop(&self, grace: Duration) -> Exit {
        self.lives.stop();
        let exit = self.now().end(grace);
        if let Some(thread) = lock(&self.thread).take() {
            // It has nothing left to do, nor to say.
            let _ = thread.join();
        }
        let worker = self.now();
        worker.state.finish(End::Closed);
        worker.settle(2);
        super::forward::flush();
        exit
    }

    fn run(&self, policy: Restart, line: &Line, first: Life) {
        let _done = Done(&self.lives);
        let (mut course, mut life) = (Course::new(policy), first);
        let mut builder = self.builder.clone();
        loop {
            stall::await_exit(&life.worker, self.builder.stall);
            if !self.lives.goes_on(&life.worker.state) {
                return;
            }
            let ends = life.worker.ends.get_or_init(Ends::default);
            course.lived(is_fruitful(ends));
            report(&life.worker, ends, course.pause());
            // What this side has changed stays changed.
            life.worker.pass_on(&mut builder);
            match self.next(&mut course, &builder, line, &life) {
                Some(next) => life = next,
                None => return,
            }
        }
    }

    /// The next life; `None` when none is wanted any more, or it was given up.
    fn next(&self, course: &mut Course, builder: &WorkerBuilder, line: &Line, last: &Life) -> Option<Life> {
        let stained = Cell::new(!last.worker.is_gone_within(GROUP));
        loop {
            self.lives.note_start(course.next_start());
            if !self.lives.pause(course.pause()) || !self.lives.await_room() {
                return None;
            }
            let ends = last.worker.ends.get_or_init(Ends::default);
            let unseen = last.kept.iter().filter(|kept| !stained.get() && is_unseen(kept, ends)).collect();
            let earlier = Earlier { ends, unseen, stained: &stained };
            let mut unwanted = || !self.lives.is_wanted();
            let until = Until::forever().or_when(TICK, &mut unwanted);
            match bring_up::bring_up(builder, line, Some(&earlier), until) {
                Ok(next) => {
                    let ends = next.worker.ends.get_or_init(Ends::default);
                    let take = || *lock(&self.now) = Arc::clone(&next.worker);
                    if !self.lives.adopt(ends, &next.worker.state, take) {
                        next.worker.state.finish(End::Closed);
                        bring_up::end_start(&next.worker);
                        return None;
                    }
                    tracing::info!(link = self.lives.name(), pid = next.worker.pid, "worker restarted");
                    return Some(next);
                }
                Err(_) if !self.lives.is_wanted() => return None,
                Err(error) => {
                    let last = course.failed(&error);
                    let why = error.in_short();
                    if last {
                        tracing::error!(link = self.lives.name(), "worker does not start, which is given up: {why}");
                        self.lives.fail(error);
                        return None;
                    }
                    let next_in = course.pause();
                    tracing::warn!(link = self.lives.name(), ?next_in, "worker does not start: {why}");
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says at the thread's end, whatever ended it, that nothing is started any more.
struct Done<'a>(&'a Lives);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// Whether a dead worker took or sent a frame.
fn is_fruitful(ends: &Ends) -> bool {
    ends.send.iter().any(|end| end.counts().slots.received > 0)
        || ends.recv.iter().any(|end| end.counts().0 > 0 || end.has_next())
}

/// Whether nothing on this side sees the memory of a dead worker's pool: no loan, no view, no result, received or not. Who
/// has what of a pool that was there before a change of spec is not looked for.
fn is_unseen(kept: &Kept, ends: &Ends) -> bool {
    let is_only = |end: &Arc<RecvEnd>| matches!(end.pools().as_slice(), [only] if Arc::ptr_eq(only, &kept.pool));
    let is_unseen = ends.send.iter().any(|end| end.is_unseen(&kept.pool)) || ends.recv.iter().any(is_only);
    is_unseen && ends.recv.iter().all(|end| !end.sees(&kept.pool))
}

fn report(worker: &Supervised, ends: &Ends, next_in: Duration) {
    let why = worker.state.check().err().map_or_else(String::new, |error| error.in_short());
    let lost: u64 = ends.send.iter().map(|end| end.counts().slots.lost).sum();
    let (link, pid, after) = (worker.state.name(), worker.pid, worker.born.elapsed());
    tracing::warn!(link, pid, ?after, lost, ?next_in, "worker ended and is restarted: {why}");
}
