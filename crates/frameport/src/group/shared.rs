//! What a group's callers and its workers' threads share.
//!
//! *Who calls it*: [`super::Group`] and [`super::member`]. *Invariants*: one lock, taken before any lock of a link and
//! never held across a wait, a copy of pixels or the end of a worker; whoever changes what others wait for tells all of
//! them. *A hostile worker* ends its own link at most, and is restarted like one that died.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::clock::{Instant, now_ns};
use frameport_sys::isolation::Level;
use frameport_sys::memory::ForkStamp;
use frameport_sys::sync::{Condvar, Mutex, MutexGuard};
use frameport_wire::spec::Spec;

use super::book::{Book, Kept, Place, Redeliver, Room, Rules};
use super::builder::GroupBuilder;
use super::{GroupStats, MemberStats, Outcome};
use crate::error::Error;
use crate::frame::{Frame, FrameMut, Home, Stamp};
use crate::holders::{Exhausted, Holder};
use crate::host::Worker;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wanted: GroupBuilder,
    pub(super) rules: Rules,
    pub(super) name: String,
    inner: Mutex<Inner>,
    changed: Condvar,
    fork: ForkStamp,
}

/// Why a group takes nothing more.
#[derive(Clone, Debug)]
enum Over {
    Stopped,
    Failed { starts: u32, cause: Arc<Error> },
}

/// The part under the lock.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) book: Book<Frame>,
    pub(super) members: Vec<Member>,
    pub(super) finishing: bool,
    over: Option<Over>,
    copied: u64,
    pub(super) known: Known,
}

/// What the worker that became ready last has.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) input: Option<Spec>,
    pub(super) output: Option<Spec>,
    pub(super) isolation: Option<Level>,
}

/// One of the workers, over all its lives.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// While it lives and is ready.
    pub(super) worker: Option<Arc<Worker>>,
    /// Frames sent to this life of it.
    pub(super) sent: u64,
    /// Set when its thread shall look at the group again.
    pub(super) news: Arc<AtomicBool>,
    /// Whether its thread runs.
    running: bool,
    pub(super) stats: MemberStats,
}

/// What a worker's thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Serve,
    /// No frame will follow.
    Finish,
    /// Now.
    Leave,
}

impl Inner {
    fn duty(&self) -> Duty {
        match self.over {
            Some(_) => Duty::Leave,
            None if self.finishing && !self.book.has_waiting() => Duty::Finish,
            None => Duty::Serve,
        }
    }

    /// Sends a filled slot of `member` as frame `seq`.
    pub(super) fn send_to(&mut self, member: usize, mut frame: FrameMut, seq: u64) -> Result<Option<Place>, Error> {
        let Some(entry) = self.members.get_mut(member) else { return Ok(None) };
        let Some(worker) = entry.worker.as_ref().filter(|worker| worker.lent(&frame)) else { return Ok(None) };
        let place = Place { member, nth: entry.sent, slot: frame.slot, generation: frame.generation };
        frame.set_seq(seq);
        match worker.send(frame) {
            Ok(_) => {
                entry.sent += 1;
                entry.stats.sent += 1;
                Ok(Some(place))
            }
            Err(error @ (Error::Forked | Error::Format { .. } | Error::MetaTooLong { .. })) => Err(error),
            // It is dead or about to leave; its thread will say so.
            Err(_) => Ok(None),
        }
    }

    /// A slot of the worker with the fewest frames.
    fn loan(&self) -> Option<FrameMut> {
        let room = self.book.room();
        let allowed = |index: &usize| room == Room::Anybody || room == Room::Only(*index);
        let mut order: Vec<_> =
            (0..self.members.len()).filter(allowed).map(|index| (self.book.with(index).count(), index)).collect();
        order.sort_unstable();
        order.into_iter().find_map(|(_, index)| self.members.get(index)?.worker.as_ref()?.loan_if_free().ok()?)
    }
}

impl Shared {
    pub(super) fn new(wanted: GroupBuilder, rules: Rules) -> Result<Self, Error> {
        let name = wanted.worker.display_name();
        let member = |number| Member {
            running: true,
            stats: MemberStats { name: format!("{name}#{number}"), ..MemberStats::default() },
            ..Member::default()
        };
        let members = (1..=wanted.workers).map(member).collect();
        let inner =
            Inner { book: Book::new(rules), members, finishing: false, over: None, copied: 0, known: Known::default() };
        let fork = ForkStamp::new().map_err(Error::system("marking the process against forks"))?;
        Ok(Self { wanted, rules, name, inner: Mutex::new(inner), changed: Condvar::new(), fork })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Error::Forked`]: the threads, and perhaps the lock's owner, stayed behind.
    pub(super) fn check_fork(&self) -> Result<(), Error> {
        if self.fork.forked() { Err(Error::Forked) } else { Ok(()) }
    }

    fn closed(&self, why: &'static str) -> Error {
        Error::LinkClosed { link: self.name.clone(), why }
    }

    /// Makes everybody look again.
    pub(super) fn tell_all(&self, inner: &Inner) {
        self.tell_callers();
        for member in &inner.members {
            member.news.store(true, Ordering::Release);
            member.worker.iter().for_each(|worker| worker.wake());
        }
    }

    /// Makes those look again who wait for an outcome or for room.
    pub(super) fn tell_callers(&self) {
        self.changed.notify_all();
    }

    pub(super) fn duty(&self) -> Duty {
        self.lock().duty()
    }

    /// Waits until `look` finds something.
    pub(super) fn wait<T>(
        &self,
        until: &mut Until<'_>,
        mut look: impl FnMut(&Self, &mut Inner) -> Result<Option<T>, Error>,
    ) -> Result<Result<T, Ended>, Error> {
        loop {
            self.check_fork()?;
            if let Some(found) = look(self, &mut self.lock())? {
                return Ok(Ok(found));
            }
            // The interrupt may be slow, or need the group itself.
            let limit = match until.step() {
                Ok(limit) => limit.unwrap_or(Duration::from_secs(1)),
                Err(ended) => return Ok(Err(ended)),
            };
            let mut inner = self.lock();
            if let Some(found) = look(self, &mut inner)? {
                return Ok(Ok(found));
            }
            drop(self.changed.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The next outcome, if there is one.
    pub(super) fn next_outcome(&self, inner: &mut Inner) -> Result<Option<Outcome>, Error> {
        if let Some((seq, fate)) = inner.book.take() {
            // There may be room now.
            self.tell_callers();
            return Ok(Some(match fate {
                Ok(frame) => Outcome::Answer { seq, frame },
                Err(why) => Outcome::Lost { seq, why },
            }));
        }
        self.check(inner)?;
        if inner.finishing && inner.book.in_flight() == 0 {
            return Err(self.closed("its input was finished here, and every frame has its outcome"));
        }
        Ok(None)
    }

    /// A slot to fill, if the window and a worker have room.
    pub(super) fn loan(&self, inner: &Inner) -> Result<Option<FrameMut>, Error> {
        self.check_open(inner)?;
        Ok(inner.loan())
    }

    fn check(&self, inner: &Inner) -> Result<(), Error> {
        match &inner.over {
            None => Ok(()),
            Some(Over::Stopped) => Err(self.closed("it was closed here")),
            Some(Over::Failed { starts, cause }) => {
                Err(Error::Group { group: self.name.clone(), starts: *starts, cause: Arc::clone(cause) })
            }
        }
    }

    fn check_open(&self, inner: &Inner) -> Result<(), Error> {
        self.check(inner)?;
        if inner.finishing { Err(self.closed("its input was finished here")) } else { Ok(()) }
    }

    /// Sends a filled slot to the worker it was loaned from, or, should that be dead, to another.
    pub(super) fn send(&self, mut frame: FrameMut) -> Result<u64, Error> {
        self.check_fork()?;
        frame.stamp.timestamp_ns.get_or_insert_with(now_ns);
        let kept = match self.rules.redeliver {
            Redeliver::AtLeastOnce => Some(Arc::new(self.keep(&frame))),
            Redeliver::AtMostOnce => None,
        };
        let mut inner = self.lock();
        self.check_open(&inner)?;
        let lender = |member: &Member| member.worker.as_ref().is_some_and(|worker| worker.lent(&frame));
        let member = inner.members.iter().position(lender);
        let Home::Channel { end, .. } = &frame.home else {
            return Err(Error::Format { what: "this frame is an audience's: send it there".to_owned() });
        };
        let link = Arc::clone(&end.state);
        if member.is_none() && link.end().is_none() {
            return Err(Error::Format { what: format!("this frame was not loaned from group '{}'", self.name) });
        }
        let seq = inner.book.next_seq();
        let place = member.map_or(Ok(None), |member| inner.send_to(member, frame, seq))?;
        inner.copied += u64::from(kept.is_some());
        let waits = place.is_none() && kept.is_some();
        inner.book.depart(place, kept);
        if place.is_none() && !waits {
            let why = link.check().err().unwrap_or_else(|| self.closed("the worker was about to leave"));
            inner.book.lose(seq, &Arc::new(why));
        }
        if place.is_none() {
            self.tell_all(&inner);
        }
        Ok(seq)
    }

    fn keep(&self, frame: &FrameMut) -> Kept {
        let mut payload = self.lock().book.spare();
        payload.clear();
        for piece in frame.pieces() {
            let start = payload.len();
            payload.resize(start.saturating_add(piece.len()), 0);
            // The length is the piece's own.
            let _whole = payload.get_mut(start..).is_some_and(|to| piece.copy_to(0, to));
        }
        Kept { payload, meta: frame.meta.clone(), stamp: Stamp { seq: None, ..frame.stamp } }
    }

    /// Says that no frame will follow.
    pub(super) fn finish(&self) {
        let mut inner = self.lock();
        inner.finishing = true;
        self.tell_all(&inner);
    }

    /// Gives up: workers that do not start will not start.
    pub(super) fn fail(&self, starts: u32, cause: Error) {
        let cause = Arc::new(cause);
        self.end(Over::Failed { starts, cause: Arc::clone(&cause) }, &cause);
    }

    /// Ends everything.
    pub(super) fn stop(&self) {
        self.end(Over::Stopped, &Arc::new(self.closed("it was closed here")));
    }

    fn end(&self, over: Over, why: &Arc<Error>) {
        let mut inner = self.lock();
        if inner.over.is_none() {
            inner.over = Some(over);
            inner.book.lose_all(why);
        }
        self.tell_all(&inner);
    }

    /// The thread of worker `index` waits before the next start, or as long as it is wanted.
    pub(super) fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut inner = self.lock();
        while inner.duty() == Duty::Serve {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread of worker `index` ends.
    pub(super) fn leave(&self, index: usize) {
        let mut inner = self.lock();
        inner.members.get_mut(index).into_iter().for_each(|member| member.running = false);
        self.tell_callers();
    }

    /// Waits until every thread has ended; whether they have.
    pub(super) fn await_threads(&self, until: &mut Until<'_>) -> bool {
        let gone = |_: &Self, inner: &mut Inner| Ok(inner.members.iter().all(|member| !member.running).then_some(()));
        self.wait(until, gone).is_ok_and(|ended| ended.is_ok())
    }

    /// Waits until a worker is ready.
    pub(super) fn await_ready(&self, until: &mut Until<'_>) -> Result<(), Error> {
        let ready = |this: &Self, inner: &mut Inner| {
            this.check(inner)?;
            Ok(inner.members.iter().any(|member| member.worker.is_some()).then_some(()))
        };
        self.wait(until, ready)?.map_err(|ended| self.gave_up(ended))
    }

    /// A wait that found no outcome.
    pub(super) fn gave_up(&self, ended: Ended) -> Error {
        let channel = || self.wanted.worker.in_and_out().map_or_else(String::new, |[_, out]| out.to_owned());
        match ended {
            Ended::Interrupted => Error::Interrupted,
            Ended::TimedOut { after } => Error::Timeout { link: self.name.clone(), channel: channel(), after },
        }
    }

    /// A wait that found no room.
    pub(super) fn no_room(&self, ended: Ended) -> Error {
        let waited = match ended {
            Ended::Interrupted => return Error::Interrupted,
            Ended::TimedOut { after } => after,
        };
        let inner = self.lock();
        let (waiting, in_flight) = (inner.book.waiting(), inner.book.in_flight());
        let ready = inner.members.iter().filter(|member| member.worker.is_some()).count();
        let hint = match waiting {
            _ if ready == 0 => "no worker is ready: they start or restart".to_owned(),
            0 => format!("{in_flight} frames are with {ready} workers: take results with recv(), and drop those taken"),
            _ => format!("{waiting} results wait to be taken with recv()"),
        };
        let all = inner.members.iter().filter_map(|member| Some(member.worker.as_ref()?.holders())).flatten();
        let (received, holders) = all.partition(|slot| matches!(slot.holder, Holder::Received(_)));
        Error::PoolExhausted(Box::new(Exhausted {
            link: self.name.clone(),
            channel: self.wanted.worker.in_and_out().map_or_else(String::new, |[input, _]| input.to_owned()),
            waited,
            holders,
            received,
            hint: Some(hint),
        }))
    }

    pub(super) fn stats(&self) -> GroupStats {
        let inner = self.lock();
        let counts = inner.book.counts();
        let member = |(index, member): (usize, &Member)| MemberStats {
            pid: member.worker.as_ref().map(|worker| worker.pid()),
            in_flight: inner.book.with(index).count() as u64,
            ..member.stats.clone()
        };
        GroupStats {
            sent: counts.sent,
            answered: counts.answered,
            dropped: counts.dropped,
            lost: counts.lost,
            in_flight: inner.book.in_flight(),
            waiting: inner.book.waiting() as u64,
            extra: counts.extra,
            redelivered: counts.redelivered,
            copied: inner.copied,
            members: inner.members.iter().enumerate().map(member).collect(),
        }
    }
}
