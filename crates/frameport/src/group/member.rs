//! One worker's thread: starts it, serves it, buries it, starts it again.
//!
//! *Who calls it*: [`super::Group`] starts one for each worker. *Invariants*: it sleeps for its worker's frames, for slots
//! that come back and for the group's news together, and for nothing else; a life's frames are decided on after
//! everything it sent was received. *A hostile worker* that answers later than it may is counted as extra.
//!
//! **How a frame is known to be passed over**: the worker has let go of it, has taken or waits for another, and has not
//! answered. Its answer would be on the ring before the last of these (for a worker that answers while it holds the frame:
//! before the first), so the ring is looked at after them. To have let go is not enough: a worker that fails lets go of
//! everything before it is dead, and must not pass for one that goes on. Nobody rings when a worker begins to wait, and it
//! does so right after letting go: until it is known, this thread looks again after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frameport_mem::park::{Look, Until};
use frameport_sys::process::Exit;
use frameport_wire::spec::Spec;

use super::book::{Ending, Place};
use super::shared::{Duty, Known, Shared};
use crate::error::Error;
use crate::frame::Frame;
use crate::host::Worker;
use crate::restart::{Course, is_killed};

/// How long a start, or a worker that is about to exit, may go on after it is not wanted any more.
const TICK: Duration = Duration::from_millis(50);
/// How long after a worker let go of a frame it is first looked at again, and the longest pause between two looks.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

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
    let mut course = Course::new(shared.wanted.restart);
    while shared.duty() == Duty::Serve {
        let mut unwanted = || shared.duty() != Duty::Serve;
        match builder.clone().spawn_until(Until::forever().or_when(TICK, &mut unwanted)) {
            Ok(worker) => course.lived(serve(shared, index, worker)),
            Err(Error::Interrupted) => continue,
            Err(error) => {
                if is_killed(&error) {
                    shared.lock().book.note_kill();
                }
                tracing::warn!(link = shared.name, "a worker of the group does not start: {error}");
                if course.failed(&error) {
                    shared.fail(course.barren(), error);
                }
            }
        }
        shared.pause(course.pause());
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
    // How long to wait for what becomes of frames it let go of, if there are some.
    let mut undecided = None;
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
        let mut until = undecided.map_or_else(Until::forever, Until::after);
        match worker.watch(&mut until, look) {
            Ok(Ok(Event::Frame(frame))) => fruitful |= answer(shared, index, frame),
            Ok(Ok(Event::CameBack(back))) => {
                seen = back;
                undecided = Some(LOOK_AGAIN.0);
            }
            Ok(Ok(Event::News)) => {}
            Ok(Err(_)) => undecided = undecided.map(|pause| LOOK_AGAIN.1.min(pause * 2)),
            Err(error) => break Some(error),
        }
        if undecided.is_some() && !pass_over(shared, index, &worker, &mut fruitful) {
            undecided = None;
        }
    };
    bury(shared, index, &worker, ended);
    fruitful
}

/// From now on frames may be sent to it.
fn join(shared: &Shared, index: usize, worker: &Arc<Worker>) -> Option<Arc<AtomicBool>> {
    let (input, output) = (worker.input_spec(), worker.output_spec());
    let mut inner = shared.lock();
    inner.known = Known { input, output, isolation: Some(worker.isolation()) };
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

/// Finds the frames the worker passed over; whether it let go of others of which that is not known.
fn pass_over(shared: &Shared, index: usize, worker: &Worker, fruitful: &mut bool) -> bool {
    let back: Vec<(u64, Place)> = {
        let inner = shared.lock();
        // There may be room now.
        shared.tell_callers();
        let is_back = |&(_, place): &(u64, Place)| !worker.is_out(place.slot, place.generation);
        inner.book.with(index).filter(is_back).collect()
    };
    // In this order: see the module. Slots of a dead worker come back by themselves: its burial tells them apart.
    let Ok((taken, waits)) = worker.demand() else { return false };
    loop {
        match worker.try_recv() {
            Ok(Some(frame)) => *fruitful |= answer(shared, index, frame),
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    let mut inner = shared.lock();
    let (known, rest): (Vec<_>, Vec<_>) = back.into_iter().partition(|(_, place)| waits || place.nth + 1 < taken);
    for &(seq, _) in &known {
        inner.book.pass_over(index, seq);
    }
    if !known.is_empty() {
        shared.tell_callers();
    }
    rest.iter().any(|one| inner.book.with(index).any(|with| with == *one))
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
        let is_free_in_length = matches!(loan.spec(), Spec::Bytes(_));
        let fits = !is_free_in_length || loan.set_len(kept.payload.len()).is_ok();
        let filled = fits && loan.fill(&kept.payload).is_ok();
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
        // Its death says more than that it has sent its last.
        let error = if closed && !in_order { worker.try_recv().err().unwrap_or(error) } else { error };
        if !in_order {
            tracing::warn!(link = shared.name, "a worker of the group ended: {error}");
        }
        let killed = is_killed(&error);
        let ending = Ending { taken: worker.stats().received, in_order, killed, why: Arc::new(error) };
        inner.book.bury(index, &ending, |place| worker.is_out(place.slot, place.generation));
    }
    inner.members.get_mut(index).into_iter().for_each(|member| member.worker = None);
    shared.tell_all(&inner);
}
