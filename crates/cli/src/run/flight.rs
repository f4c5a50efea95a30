//! The frames that are on their way, and what became of the others.
//!
//! *Who calls it*: the feeding thread before it sends, the collecting thread when a frame is back, the progress display.
//! *Invariants*: offered = answered + dropped + lost + retracted + missed + on their way. A frame counts as dropped as soon as a
//! later one is answered, unless it was retracted: the channel tells how many were, not which.
//! *A hostile worker* can send what nobody asked for: it is counted as extra and gets no one's tags; one that never
//! answers costs [`REMEMBERED`] entries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::media::FrameInfo;
use frameport::Error;

/// The most frames on their way that are remembered; older ones count as dropped.
const REMEMBERED: usize = 1 << 16;

/// Longest latency told apart from longer ones.
const LONGEST_NS: u64 = 3_600_000_000_000;

#[derive(Debug)]
pub(super) struct Flight(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    under_way: VecDeque<Sent>,
    /// But for those that the channel counts; `dropped` is what was told last.
    counts: Counts,
    /// Frames that will not be answered any more: dropped or retracted.
    passed: u64,
    /// From send to receive, in ns; `None` where the machine has no memory for it.
    latency: Option<Histogram<u64>>,
    first_ns: Option<u64>,
    last_ns: u64,
    /// The first frame that was given up, and why.
    first_lost: Option<(u64, Arc<Error>)>,
}

#[derive(Debug)]
struct Sent {
    seq: u64,
    at_ns: u64,
    info: FrameInfo,
    /// Which life of its worker got it.
    life: u64,
}

/// How many frames had which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Sent to the worker.
    pub(super) sent: u64,
    /// Of those, the ones that came back.
    pub(super) answered: u64,
    /// Of those, the ones the worker passed over.
    pub(super) dropped: u64,
    /// Of those, the ones a group has given up, or that were with a worker that died and was started again.
    pub(super) lost: u64,
    /// Of those, the ones taken back for newer ones.
    pub(super) retracted: u64,
    /// Results beside the answers: a second one for a frame, or one for none.
    pub(super) extra: u64,
    /// Frames of a live delivery that found no slot.
    pub(super) missed: u64,
}

impl Counts {
    /// Frames received from the worker.
    pub(super) fn results(&self) -> u64 {
        self.answered + self.extra
    }

    /// Frames the input gave.
    pub(super) fn offered(&self) -> u64 {
        self.sent + self.missed
    }

    /// Frames sent that nothing is known of.
    pub(super) fn under_way(&self) -> u64 {
        let gone = self.answered + self.dropped + self.lost + self.retracted;
        self.sent.saturating_sub(gone)
    }
}

/// Everything there is to show, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) counts: Counts,
    /// Latency in ns: p50, p99, p99.9 and the longest; `None` before the first answer.
    pub(super) latency: Option<[u64; 4]>,
    /// From the first frame sent to the last sent or received, in ns.
    pub(super) span_ns: u64,
}

impl Figures {
    /// Results a second over the whole time; frames sent where there are no results.
    pub(super) fn fps(&self) -> f64 {
        let frames = if self.counts.results() > 0 { self.counts.results() } else { self.counts.sent };
        if self.span_ns == 0 { 0.0 } else { frames as f64 * 1e9 / self.span_ns as f64 }
    }
}

impl Inner {
    /// Frame `seq`, if it is on its way; those before it were dropped.
    fn take(&mut self, seq: u64) -> Option<Sent> {
        while self.under_way.front().is_some_and(|sent| sent.seq < seq) {
            self.under_way.pop_front();
            self.passed += 1;
        }
        let is_next = self.under_way.front().is_some_and(|sent| sent.seq == seq);
        if is_next { self.under_way.pop_front() } else { None }
    }
}

impl Flight {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            under_way: VecDeque::new(),
            counts: Counts::default(),
            passed: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_NS, 3).ok(),
            first_ns: None,
            last_ns: 0,
            first_lost: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that frame `seq` is about to be sent; call in order of `seq`.
    pub(super) fn depart(&self, seq: u64, info: FrameInfo, now_ns: u64, life: u64) {
        let mut inner = self.lock();
        inner.counts.sent += 1;
        inner.first_ns.get_or_insert(now_ns);
        inner.last_ns = inner.last_ns.max(now_ns);
        inner.under_way.push_back(Sent { seq, at_ns: now_ns, info, life });
        if inner.under_way.len() > REMEMBERED {
            inner.under_way.pop_front();
            inner.passed += 1;
        }
    }

    /// Takes back the last departure: the frame could not be sent.
    pub(super) fn recall(&self, seq: u64) {
        let mut inner = self.lock();
        if inner.under_way.back().is_some_and(|sent| sent.seq == seq) {
            inner.under_way.pop_back();
            inner.counts.sent -= 1;
        }
    }

    /// Notes a result, and gives what went out with the frame it answers.
    pub(super) fn arrive(&self, seq: u64, now_ns: u64) -> Option<FrameInfo> {
        let mut inner = self.lock();
        inner.last_ns = inner.last_ns.max(now_ns);
        let answered = inner.take(seq);
        match &answered {
            Some(sent) => {
                inner.counts.answered += 1;
                let passed = now_ns.saturating_sub(sent.at_ns);
                if let Some(latency) = &mut inner.latency {
                    latency.saturating_record(passed);
                }
            }
            None => inner.counts.extra += 1,
        }
        answered.map(|sent| sent.info)
    }

    /// Notes a frame that was given up.
    pub(super) fn lose(&self, seq: u64, why: &Arc<Error>) {
        let mut inner = self.lock();
        if inner.take(seq).is_some() {
            inner.counts.lost += 1;
            inner.first_lost.get_or_insert_with(|| (seq, Arc::clone(why)));
        }
    }

    /// The last departure was loaned before its worker died, and went with it.
    pub(super) fn lose_last(&self, seq: u64) {
        let mut inner = self.lock();
        if inner.under_way.back().is_some_and(|sent| sent.seq == seq) {
            inner.under_way.pop_back();
            inner.counts.lost += 1;
        }
    }

    /// Life `life` of the worker is dead, and all it sent was received: what it did not answer is lost, but for what had been
    /// taken back, of which there are `retracted` in all. How many are lost.
    pub(super) fn bury(&self, life: u64, retracted: u64) -> u64 {
        let mut inner = self.lock();
        let before = inner.under_way.len();
        inner.under_way.retain(|sent| sent.life > life);
        let gone = (before - inner.under_way.len()) as u64;
        let (passed, dropped) = (inner.passed + gone, inner.counts.dropped);
        let lost = passed.saturating_sub(retracted + dropped).min(gone);
        inner.passed = passed - lost;
        inner.counts.lost += lost;
        lost
    }

    /// The first frame that was given up, and why.
    pub(super) fn first_lost(&self) -> Option<(u64, Arc<Error>)> {
        self.lock().first_lost.clone()
    }

    /// Notes a frame of a live delivery that was not sent.
    pub(super) fn miss(&self) {
        self.lock().counts.missed += 1;
    }

    /// Nothing will be answered any more: what is still on its way was dropped or retracted.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.passed += inner.under_way.len() as u64;
        inner.under_way.clear();
    }

    /// What there is to show; `retracted` gives the channel's own number, and is asked after the frames were looked at.
    pub(super) fn figures(&self, retracted: impl Fn() -> u64) -> Figures {
        let mut inner = self.lock();
        let mut counts = inner.counts;
        let unanswered = counts.sent.saturating_sub(counts.answered + counts.lost);
        counts.retracted = retracted().min(unanswered);
        // Some of the retracted may not have been passed yet, so this is the least it can be; at the end it is exact.
        let least = inner.passed.saturating_sub(counts.retracted);
        counts.dropped = least.max(counts.dropped).min(unanswered - counts.retracted);
        inner.counts.dropped = counts.dropped;
        let latency = inner.latency.as_ref().filter(|latency| !latency.is_empty());
        let latency = latency.map(|latency| {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| latency.value_at_quantile(quantile));
            [p50, p99, p999, latency.max()]
        });
        let span_ns = inner.first_ns.map_or(0, |first| inner.last_ns.saturating_sub(first));
        Figures { counts, latency, span_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn tagged(tag: &str) -> FrameInfo {
        FrameInfo { tag: Some(tag.into()), ..FrameInfo::default() }
    }

    #[test]
    fn tags_come_back_with_their_own_frame_and_gaps_count_as_dropped() {
        let flight = Flight::new();
        for (seq, tag) in [(0, "a"), (1, "b"), (2, "c"), (3, "d")] {
            flight.depart(seq, tagged(tag), seq * 100, 0);
        }
        assert_eq!(flight.arrive(0, 500), Some(tagged("a")));
        assert_eq!(flight.arrive(2, 700), Some(tagged("c")));
        assert_eq!(flight.arrive(2, 800), None, "a second result for one frame");
        assert_eq!(flight.arrive(1, 800), None, "a result that comes after a later one");
        let Figures { counts, latency, span_ns } = flight.figures(|| 0);
        assert_eq!(counts, Counts { sent: 4, answered: 2, dropped: 1, lost: 0, retracted: 0, extra: 2, missed: 0 });
        assert_eq!((counts.under_way(), counts.results(), span_ns), (1, 4, 800));
        assert_eq!(latency, Some([500, 500, 500, 500]));
        flight.lose(3, &Arc::new(Error::Interrupted));
        assert_eq!((flight.figures(|| 0).counts.lost, flight.first_lost().map(|lost| lost.0)), (1, Some(3)));
        flight.depart(4, tagged("e"), 900, 0);
        flight.close();
        assert_eq!(flight.figures(|| 0).counts.dropped, 2);
    }

    #[test]
    fn what_was_taken_back_was_not_dropped_and_the_numbers_close_at_every_moment() {
        let (flight, retracted) = (Flight::new(), Cell::new(0));
        let fates = || {
            let counts = flight.figures(|| retracted.get()).counts;
            let Counts { answered, dropped, retracted, missed, .. } = counts;
            assert_eq!(counts.offered(), answered + dropped + retracted + missed + counts.under_way(), "{counts:?}");
            [dropped, retracted, missed, counts.under_way()]
        };
        flight.miss();
        for seq in 0..6 {
            flight.depart(seq, FrameInfo::default(), seq, 0);
        }
        // 0 is answered, 1 and 2 were taken back, 3 was passed over, 4 is answered.
        flight.arrive(0, 10);
        retracted.set(2);
        assert_eq!(fates(), [0, 2, 1, 3], "not yet known to have been passed");
        flight.arrive(4, 11);
        assert_eq!(fates(), [1, 2, 1, 1]);
        flight.depart(6, FrameInfo::default(), 12, 0);
        retracted.set(3);
        assert_eq!(fates(), [1, 3, 1, 1], "5 was taken back; 3 stays dropped");
        flight.close();
        assert_eq!(fates(), [2, 3, 1, 0], "6 got no answer");
        retracted.set(u64::MAX);
        assert_eq!(fates()[3], 0, "whatever is counted");
    }

    #[test]
    fn what_a_dead_life_had_is_lost_but_for_what_was_taken_back() {
        let flight = Flight::new();
        for (seq, life) in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1)] {
            flight.depart(seq, FrameInfo::default(), seq, life);
        }
        // 0 is answered, 1 and 2 were taken back, 3 was with the dead; 5 was loaned before another death.
        flight.arrive(0, 10);
        assert_eq!(flight.bury(0, 2), 1);
        flight.lose_last(5);
        flight.arrive(4, 12);
        let Counts { sent, answered, dropped, lost, retracted, .. } = flight.figures(|| 2).counts;
        assert_eq!((sent, answered, dropped, lost, retracted), (6, 2, 0, 2, 2));
        assert_eq!(flight.bury(1, 2), 0);
    }

    #[test]
    fn a_worker_that_never_answers_costs_bounded_memory() {
        let flight = Flight::new();
        for seq in 0..100_000 {
            flight.depart(seq, FrameInfo::default(), seq, 0);
        }
        assert!(flight.lock().under_way.len() <= REMEMBERED);
        let counts = flight.figures(|| 0).counts;
        assert_eq!(counts.under_way() + counts.dropped, 100_000);
        flight.recall(99_999);
        assert_eq!(flight.figures(|| 0).counts.sent, 99_999);
    }
}
