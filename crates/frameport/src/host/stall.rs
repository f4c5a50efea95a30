//! Notices a worker that lives and does not move.
//!
//! *Who calls it*: the thread of a worker that has a policy for that, or is restarted; it sleeps here until the worker is
//! dead. *Invariants*: without a policy there is no timer; a worker that waits for a slot this side has is not stalled.
//! *A hostile worker* can hold one frame for ever as long as it lets go of others.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::clock::{Instant, now_ns};
use frameport_sys::thread::Builder;

use super::supervised::Supervised;
use crate::channel::state::End;
use crate::error::Error;
use crate::link::Ends;

/// What is done with a worker that has had a frame for long and let go of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stall {
    /// It is killed: every call says so ([`Error::Stalled`]), or its next life follows, where it has a policy for that.
    Kill,
    /// The slots it has are written off: their frames are lost, and a loan that finds no other slot fails at once and says so.
    /// What the worker lets go of later is loaned again. Of a live channel, frames it has not received are taken back
    /// for newer ones as always.
    WriteOff,
}

/// How many looks at a worker fit into the time it has.
const LOOKS: u32 = 8;

/// Watches a worker that has one life.
pub(super) fn watch(worker: &Arc<Supervised>, policy: (Duration, Stall)) -> Result<(), Error> {
    let worker = Arc::clone(worker);
    let thread = Builder::new().name("frameport-stall".into());
    thread.spawn(move || await_exit(&worker, Some(policy))).map(drop).map_err(Error::system("starting a thread"))
}

/// Waits until `worker` is dead, and does what `policy` says when it does not move.
pub(super) fn await_exit(worker: &Supervised, policy: Option<(Duration, Stall)>) {
    let tick = policy.map(|(after, _)| (after / LOOKS).max(Duration::from_millis(1)));
    let mut motion = Motion::default();
    while !worker.await_exit(tick) {
        if let Some((after, stall)) = policy
            && let Some(ends) = worker.ends.get()
            && let Some(seq) = motion.stands_for(ends, after)
        {
            give_up(worker, ends, stall, &seq);
        }
    }
}

fn give_up(worker: &Supervised, ends: &Ends, stall: Stall, what: &str) {
    match stall {
        Stall::Kill => worker.state.give_up(End::Stalled(what.to_owned())),
        Stall::WriteOff => {
            let lost: u64 = ends.send.iter().map(|end| end.write_off()).sum();
            let (link, pid) = (worker.state.name(), worker.pid);
            tracing::warn!(link, pid, lost, "worker has stalled, its slots are written off: {what}");
        }
    }
}

/// What was seen of a worker.
#[derive(Debug, Default)]
struct Motion {
    /// How often it had let go of a slot at the last look.
    let_go: u64,
    /// Since when it has had frames and let go of nothing.
    since: Option<Instant>,
}

impl Motion {
    /// Looks again. What to say of a worker that has not moved for longer than `after`.
    fn stands_for(&mut self, ends: &Ends, after: Duration) -> Option<String> {
        let burdens: Vec<_> = ends.send.iter().filter_map(|end| end.burden()).collect();
        let let_go = burdens.iter().map(|burden| burden.let_go).sum();
        let oldest = burdens.iter().filter_map(|burden| burden.oldest).min_by_key(|(_, sent_ns)| *sent_ns);
        let moves = std::mem::replace(&mut self.let_go, let_go) != let_go;
        let waits_for_us = || ends.recv.iter().any(|end| end.is_waited_for());
        let Some((seq, sent_ns)) = oldest.filter(|_| !moves && !waits_for_us()) else {
            self.since = None;
            return None;
        };
        let stands = self.since.get_or_insert_with(Instant::now).elapsed();
        (stands > after).then(|| {
            self.since = None;
            let age = Duration::from_nanos(now_ns().saturating_sub(sent_ns)).as_secs_f32();
            format!("it let go of no frame for {:.1} s, and has had frame {seq} for {age:.1} s", stands.as_secs_f32())
        })
    }
}
