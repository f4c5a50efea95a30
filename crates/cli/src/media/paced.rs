//! A source in real time: each frame when its time has come, as a camera would give it.
//!
//! *Who calls it*: the run loop, for a source that would else give its frames as fast as they are asked for. *Invariants*:
//! no frame comes early; one that is late is not waited for; [`Source::stopper`] ends every wait. *A hostile input file*
//! can state times years apart, which costs a wait, no more.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use frameport::spec::{Rational, VideoSpec};

use super::{FrameInfo, Incoming, MediaError, Origin, Source, Stopper};

pub(super) struct Paced {
    source: Box<dyn Source>,
    pace: Pace,
    began: Option<Instant>,
    stop: Arc<Stop>,
}

impl Paced {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        let pace = Pace::new(source.spec());
        Self { source, pace, began: None, stop: Arc::default() }
    }
}

impl Source for Paced {
    fn spec(&self) -> &VideoSpec {
        self.source.spec()
    }

    fn origin(&self) -> &Origin {
        self.source.origin()
    }

    fn next(&mut self) -> Result<Option<Incoming<'_>>, MediaError> {
        let Some(incoming) = self.source.next()? else { return Ok(None) };
        let due = self.pace.due(&incoming.info);
        // The first frame says when now is.
        let passed = self.began.get_or_insert_with(Instant::now).elapsed();
        let stopped = self.stop.wait(due.saturating_sub(passed));
        Ok((!stopped).then_some(incoming))
    }

    fn frames_hint(&self) -> Option<u64> {
        self.source.frames_hint()
    }

    fn notes(&self) -> &[String] {
        self.source.notes()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn stopper(&self) -> Stopper {
        let (stop, inner) = (Arc::clone(&self.stop), self.source.stopper());
        Stopper::new(move || {
            inner.stop();
            stop.set();
        })
    }
}

/// When frames are due, from the first one on.
struct Pace {
    time_base: Option<Rational>,
    fps: Option<Rational>,
    first: Option<i64>,
    frames: u64,
}

impl Pace {
    fn new(spec: &VideoSpec) -> Self {
        Self { time_base: spec.time_base, fps: spec.fps, first: None, frames: 0 }
    }

    /// When the next frame is: by its time, else by the rate; at once where neither is known.
    fn due(&mut self, info: &FrameInfo) -> Duration {
        let number = self.frames;
        self.frames += 1;
        let seconds = match (info.pts.zip(self.time_base), self.fps) {
            (Some((pts, base)), _) => {
                let since = pts.saturating_sub(*self.first.get_or_insert(pts));
                since as f64 * f64::from(base.num) / f64::from(base.den)
            }
            (None, Some(fps)) => number as f64 * f64::from(fps.den) / f64::from(fps.num),
            (None, None) => 0.0,
        };
        // Not for a time before the first frame's, nor for one that no clock has.
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// A wait that can be ended for good.
#[derive(Default)]
struct Stop {
    came: Mutex<bool>,
    bell: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    /// Waits, and says whether it was ended.
    fn wait(&self, limit: Duration) -> bool {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        *self.bell.wait_timeout_while(came, limit, |came| !*came).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport::spec::PixelFormat;

    fn dues(spec: &VideoSpec, times: &[Option<i64>]) -> Vec<u128> {
        let mut pace = Pace::new(spec);
        let info = |pts: &Option<i64>| FrameInfo { pts: *pts, ..FrameInfo::default() };
        times.iter().map(|pts| pace.due(&info(pts)).as_millis()).collect()
    }

    #[test]
    fn a_frame_is_due_at_its_time_else_by_the_rate() {
        let spec = VideoSpec::new(PixelFormat::Gray, 2, 2);
        let ticking = spec.clone().time_base(1, 1000);
        assert_eq!(dues(&ticking, &[Some(5_000), Some(5_040), Some(5_020), Some(4_000)]), [0, 40, 20, 0]);
        assert_eq!(dues(&ticking, &[Some(i64::MIN), Some(i64::MAX)]).len(), 2, "no time is a panic");
        assert_eq!(dues(&spec.clone().fps(50, 1), &[None, None, Some(9)]), [0, 20, 40]);
        assert_eq!(dues(&spec, &[None, Some(7_000)]), [0, 0]);
    }

    #[test]
    fn stopping_ends_a_wait_of_any_length_and_the_source() {
        // The second frame comes in three years.
        let source = super::super::open_source("pattern:8x8@1/100000000", None).unwrap();
        let mut paced = Paced::new(source);
        assert!(paced.next().unwrap().is_some());
        let stopper = paced.stopper();
        let waiting = std::thread::spawn(move || paced.next().unwrap().is_none());
        stopper.stop();
        assert!(waiting.join().unwrap());
    }
}
