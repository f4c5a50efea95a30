//! Timed round trips and their percentiles.

use std::error::Error;
use std::time::{Duration, Instant};

/// What every part of this program answers.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How much of one subject is measured at a time: whichever ends first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) trips: usize,
    pub(crate) time: Duration,
}

impl Turn {
    /// Runs `trip` as often as the turn allows and keeps how long each took, in ns. Each trip carries the cost of one
    /// reading of the clock, see [`clock_ns`].
    pub(crate) fn run(self, times: &mut Vec<u64>, mut trip: impl FnMut() -> Outcome<()>) -> Outcome<()> {
        let start = Instant::now();
        let mut last = start;
        for _ in 0..self.trips {
            trip()?;
            let now = Instant::now();
            times.push(nanos(now - last));
            last = now;
            if now - start >= self.time {
                break;
            }
        }
        Ok(())
    }
}

/// Whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What reading the clock costs, in ns: part of every time measured here. A median, as another process may interfere.
pub(crate) fn clock_ns() -> Outcome<f64> {
    let mut times = Vec::new();
    Turn { trips: 20_000, time: Duration::from_secs(1) }.run(&mut times, || Ok(()))?;
    Ok(Percentiles::of(times, 0.0).ok_or("the clock stands still")?.p50)
}

/// Percentiles of many times, in ns, without the cost of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Percentiles {
    /// Of `times`, each of which includes `clock` ns; `None` of nothing.
    pub(crate) fn of(mut times: Vec<u64>, clock: f64) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let at = |share: f64| {
            let time = times.get((last as f64 * share).round() as usize).copied().unwrap_or_default();
            (time as f64 - clock).max(0.0)
        };
        Some(Self { count: times.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let found = Percentiles::of((0..=1000).rev().collect(), 0.0).unwrap();
        assert_eq!((found.count, found.p50, found.p99, found.p999), (1001, 500.0, 990.0, 999.0));
        assert_eq!(Percentiles::of(vec![30, 10], 20.0).unwrap().p50, 10.0);
        assert!(Percentiles::of(Vec::new(), 0.0).is_none());
    }

    #[test]
    fn a_turn_ends_with_its_trips() {
        let (mut times, mut trips) = (Vec::new(), 0);
        let turn = Turn { trips: 7, time: Duration::MAX };
        turn.run(&mut times, || {
            trips += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!((times.len(), trips), (7, 7));
    }
}
