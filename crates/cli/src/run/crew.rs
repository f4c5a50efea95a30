//! Who works: one worker, or several behind one queue.
//!
//! *Who calls it*: the run loop and its two threads. *Invariants*: both kinds number the frames 0, 1, 2 and so on and give
//! results in that order. *A hostile worker* ends a run on its own; in a group it costs the frames it was given.

use std::sync::Arc;
use std::time::Duration;

use frameport::spec::Spec;
use frameport::{Error, Exit, Frame, FrameMut, Group, Outcome, Until, Worker};

/// See the module.
#[derive(Debug)]
pub(super) enum Crew {
    One(Worker),
    Many(Group),
}

/// What came back.
#[derive(Debug)]
pub(super) enum Back {
    Result(Frame),
    /// A frame that a group has given up.
    Lost(u64, Arc<Error>),
    /// The worker died, and is started again.
    Died(Error),
}

impl Crew {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::One(worker) => worker.name(),
            Self::Many(group) => group.name(),
        }
    }

    pub(super) fn specs(&self) -> [Option<Spec>; 2] {
        match self {
            Self::One(worker) => [worker.input_spec(), worker.output_spec()],
            Self::Many(group) => [group.input_spec(), group.output_spec()],
        }
    }

    /// How far it is kept from other processes.
    pub(super) fn isolation(&self) -> String {
        match self {
            Self::One(worker) => worker.isolation().to_string(),
            Self::Many(group) => group.isolation().map_or_else(String::new, |level| level.to_string()),
        }
    }

    pub(super) fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        match self {
            Self::One(worker) => worker.loan_if_free(),
            Self::Many(group) => group.loan_if_free(),
        }
    }

    pub(super) fn loan_until(&self, until: Until<'_>) -> Result<FrameMut, Error> {
        match self {
            Self::One(worker) => worker.loan_until(until),
            Self::Many(group) => group.loan_until(until),
        }
    }

    pub(super) fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        match self {
            Self::One(worker) => worker.send(frame),
            Self::Many(group) => group.send(frame),
        }
    }

    pub(super) fn recv_until(&self, until: Until<'_>) -> Result<Back, Error> {
        match self {
            Self::One(worker) => match worker.recv_until(until) {
                Ok(frame) => Ok(Back::Result(frame)),
                Err(death) if death.is_death() && worker.goes_on() => Ok(Back::Died(death)),
                Err(error) => Err(error),
            },
            Self::Many(group) => match group.recv_until(until)? {
                Outcome::Answer { frame, .. } => Ok(Back::Result(frame)),
                Outcome::Lost { seq, why } => Ok(Back::Lost(seq, why)),
                _ => Err(Error::Interrupted),
            },
        }
    }

    pub(super) fn finish(&self) {
        match self {
            Self::One(worker) => worker.finish(),
            Self::Many(group) => group.finish(),
        }
    }

    /// Ends it now; the exit of one worker.
    pub(super) fn stop(&self) -> Option<Exit> {
        match self {
            Self::One(worker) => worker.stop().ok(),
            Self::Many(group) => {
                let _ = group.stop();
                None
            }
        }
    }

    /// Waits until it has left by itself: the exit of one worker, if there is one to tell, or `None` after `limit`.
    pub(super) fn wait_exit(&self, limit: Duration) -> Option<Option<Exit>> {
        match self {
            Self::One(worker) => worker.wait_exit(limit).map(Some),
            Self::Many(group) => group.wait_exit(limit).then_some(None),
        }
    }

    /// What a worker that exited with another status than 0 died of.
    pub(super) fn failure(&self) -> Option<Error> {
        match self {
            Self::One(worker) => worker.try_recv().err(),
            Self::Many(_) => None,
        }
    }

    /// Frames taken.
    pub(super) fn taken(&self) -> u64 {
        match self {
            Self::One(worker) => worker.stats().received,
            Self::Many(group) => {
                let stats = group.stats();
                stats.answered + stats.dropped
            }
        }
    }

    /// Frames taken back before a worker took them.
    pub(super) fn retracted(&self) -> u64 {
        match self {
            Self::One(worker) => worker.stats().retracted,
            Self::Many(_) => 0,
        }
    }

    /// Which life of the one worker there is: frames of a dead one are lost.
    pub(super) fn life(&self) -> u64 {
        match self {
            Self::One(worker) if worker.goes_on() => worker.restarts(),
            _ => 0,
        }
    }

    /// How often a dead worker was replaced.
    pub(super) fn restarts(&self) -> u64 {
        match self {
            Self::One(worker) => worker.restarts(),
            Self::Many(group) => group.stats().members.iter().map(|member| member.lives.saturating_sub(1)).sum(),
        }
    }
}
