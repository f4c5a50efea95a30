//! One worker's thread: starts it, serves it, buries it, starts it again.
//!
//! *Who calls it*: [`super::Group`] starts one for each worker. *Invariants*: it sleeps for its worker's frames, for slots
//! that come back and for the group's news together, and for nothing else; a life's frames are decided on after
//! everything it sent was received. **How a frame is known to be passed over**: a worker answers before it lets go of a
//! frame. Its answer is on the ring before its word for the slot is; so where the word is there, and the ring, looked at
//! after that, has no answer, none will come. *A hostile worker* that answers later is counted as extra.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frameport_mem::park::{Look, Until};
use frameport_sys::process::Exit;

use super::book::{Ending, Place};
use super::shared::{Duty, Shared};
use crate::error::Error;
use crate::frame::Frame;
use crate::host::Worker;

/// How long a start, or a worker that is about to exit, may go on after it is not wanted any more.
const TICK: Duration = Duration::from_millis(50);
/// How many starts ended by SIGKILL count as one that failed.
const KILLS: u32 = 10;

/// What a thread finds when it wakes.
enum Event {
    Frame(Frame),
    /// Slots came back; the number of all that did.
    CameBack(u64),
    News,
}

/// The thread of worker `index`.
pub(super) fn run(shared: &Shared, index: usize) {
    let _leave = Leave(shared, index);
    let builder = shared.wanted.worker.clone().name(format!("{}#{}", shared.name, index + 1));
    // Failed starts in tenths, and lives without an answer, both in a row.
    let (mut failed, mut barren) = (0, 0);
    while shared.duty() == Duty::Serve {
        let mut unwanted = || shared.duty() != Duty::Serve;
        match builder.clone().spawn_until(Until::forever().or_when(TICK, &mut unwanted)) {
            Ok(worker) => {
                failed = 0;
                barren = if serve(shared, index, worker) { 0 } else { barren + 1 };
            }
            Err(Error::Interrupted) => continue,
            Err(error) => {
                barren += 1;
                let killed = matches!(&error, Error::WorkerDied(death) if death.exit == Exit::Signal(9));
                failed += if killed { 1 } else { KILLS };
                tracing::warn!(link = shared.name, "a worker of the group does not start: {error}");
                if failed >= shared.wanted.starts.saturating_mul(KILLS) {
                    shared.fail(barren, error);
                }
            }
        }
        shared.pause(shared.wanted.pause(barren));
    }
}

/// Says at the end of a thread, whatever ended it, that it has.
struct Leave<'a>(&'a Shared, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// One life; whether it answered a frame.
fn serve(shared: &Shared, index: usize, worker: Worker) -> bool {
    let worker = Arc::new(worker);
    let Some(news) = join(shared, index, &worker) else { return false };
    let (mut seen, mut fruitful) = (0, false);
    let ended = loop {
        match shared.duty() {
            Duty::Leave => break None,
            Duty::Finish => worker.finish(),
            Duty::Serve => give_waiting(shared, index, &worker),
        }
        let look = || {
            if let Some(frame) = worker.try_recv()? {
                return Ok(Look::Found(Event::Frame(frame)));
            }
            let back = worker.came_back()?;
            let event = if back == seen { None } else { Some(Event::CameBack(back)) };
            let called = || news.swap(false, Ordering::AcqRel).then_some(Event::News);
            Ok(event.or_else(called).map_or(Look::Nothing, Look::Found))
        };
        match worker.watch(&mut Until::forever(), look) {
            Ok(Ok(Event::Frame(frame))) => fruitful |= answer(shared, index, frame),
            Ok(Ok(Event::CameBack(back))) => {
                seen = back;
                fruitful |= pass_over(shared, index, &worker);
            }
            Ok(Ok(Event::News) | Err(_)) => {}
            Err(error) => break Some(error),
        }
    };
    bury(shared, index, &worker, ended);
    fruitful
}

/// From now on frames may be sent to it.
fn join(shared: &Shared, index: usize, worker: &Arc<Worker>) -> Option<Arc<AtomicBool>> {
    let mut inner = shared.lock();
    let member = inner.members.get_mut(index)?;
    member.worker = Some(Arc::clone(worker));
    member.sent = 0;
    member.stats.lives += 1;
    let news = Arc::clone(&member.news);
    shared.tell_callers();
    Some(news)
}

/// Takes over a frame of the worker's; whether it is an answer.
fn answer(shared: &Shared, index: usize, frame: Frame) -> bool {
    let mut inner = shared.lock();
    let is_answer = inner.book.answer(index, frame.seq(), frame);
    inner.members.get_mut(index).into_iter().for_each(|member| member.stats.answered += u64::from(is_answer));
    shared.tell_callers();
    is_answer
}

/// Finds the frames the worker let go of without an answer; whether answers came meanwhile.
fn pass_over(shared: &Shared, index: usize, worker: &Worker) -> bool {
    let back: Vec<u64> = {
        let inner = shared.lock();
        let is_back = |&(_, place): &(u64, Place)| !worker.is_out(place.slot, place.generation);
        inner.book.with(index).filter(is_back).map(|(seq, _)| seq).collect()
    };
    // In this order: see the module.
    let mut fruitful = false;
    loop {
        match worker.try_recv() {
            Ok(Some(frame)) => fruitful |= answer(shared, index, frame),
            Ok(None) => break,
            // Slots of a dead worker come back by themselves: its burial tells them apart.
            Err(_) => return fruitful,
        }
    }
    let mut inner = shared.lock();
    for seq in back {
        inner.book.pass_over(index, seq);
    }
    // There may be room now.
    shared.tell_callers();
    fruitful
}

/// Gives the worker frames that dead ones left.
fn give_waiting(shared: &Shared, index: usize, worker: &Worker) {
    loop {
        let mut inner = shared.lock();
        if !inner.book.has_waiting() {
            return;
        }
        // In order, results of later frames that wait for this one must not keep the worker from answering it: it needs
        // a slot for each frame before it.
        let (slots, _) = shared.wanted.worker.slots_and_deadline();
        let ahead = worker.stats().held + inner.book.with(index).count() as u64;
        if shared.rules.ordered && ahead >= u64::from(slots) {
            return;
        }
        let Some((seq, kept)) = inner.book.take_waiting() else { return };
        let Ok(Some(mut loan)) = worker.loan_if_free() else { return inner.book.moved(seq, None) };
        drop(inner);
        loan.stamp = kept.stamp;
        loan.meta.clone_from(&kept.meta);
        let filled = loan.set_len(kept.payload.len()).is_ok() && loan.payload().copy_from(0, &kept.payload);
        let mut inner = shared.lock();
        if !filled {
            let what = format!("frame {seq} does not fit a slot of group '{}'", shared.name);
            inner.book.lose(seq, &Arc::new(Error::Format { what }));
        } else if inner.book.is_moving(seq) {
            let place = inner.send_to(index, loan, seq).ok().flatten();
            inner.book.moved(seq, place);
            if place.is_none() {
                return;
            }
        }
        shared.tell_all(&inner);
    }
}

/// Ends a life and decides on the frames it had.
fn bury(shared: &Shared, index: usize, worker: &Worker, ended: Option<Error>) {
    let closed = matches!(ended, Some(Error::LinkClosed { .. }));
    // One that has sent its last may have files to write.
    while closed && shared.duty() == Duty::Finish && worker.wait_exit(TICK).is_none() {}
    let exit = worker.stop();
    let mut inner = shared.lock();
    if let Some(error) = ended {
        let in_order = closed && matches!(exit, Ok(Exit::Code(0)));
        if !in_order {
            tracing::warn!(link = shared.name, "a worker of the group ended: {error}");
        }
        let ending = Ending { taken: worker.stats().received, in_order, why: Arc::new(error) };
        inner.book.bury(index, &ending, |place| worker.is_out(place.slot, place.generation));
    }
    inner.members.get_mut(index).into_iter().for_each(|member| member.worker = None);
    shared.tell_all(&inner);
}
