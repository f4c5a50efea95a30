//! Running a model within bounds.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use frameport_mem::model::{Doorbell, set_claims};
use frameport_mem::park::Bells;
use frameport_sys::memory::{Map, Region, Writers};
use frameport_wire::control::WaitStrategy;
use frameport_wire::layout::ticket;

/// How thoroughly a model runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most preemptions of a schedule; `None`: all schedules.
    pub(crate) preemptions: Option<usize>,
    /// See [`set_claims`].
    pub(crate) claims: usize,
}

impl Bounds {
    /// Runs all schedules: how many there were.
    pub(crate) fn run(self, what: &dyn Debug, model: impl Fn() + Sync + Send + 'static) -> u64 {
        let (schedules, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let counted = Arc::clone(&schedules);
        set_claims(self.claims);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.preemptions;
        builder.max_branches = 20_000;
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        let schedules = schedules.load(Ordering::Relaxed);
        eprintln!("{schedules} schedules, {:.1} s: {what:?}", started.elapsed().as_secs_f32());
        schedules
    }
}

/// The two control regions and the receiver's page: names of places only, see [`frameport_mem::model`].
pub(crate) fn maps() -> &'static [Arc<Map>; 3] {
    static MAPS: OnceLock<[Arc<Map>; 3]> = OnceLock::new();
    let map = |name| Arc::new(Region::create(name, 4096, Writers::All).unwrap().1);
    MAPS.get_or_init(|| ["left", "right", "page"].map(map))
}

/// One side's bells, which never ring for an event loop: nobody here has one.
pub(crate) fn bells(own: &Arc<Map>, peer: &Arc<Map>) -> Bells {
    Bells::new(own, peer, Doorbell::pair().unwrap().0, WaitStrategy::Park).unwrap()
}

/// An entry whose every word says which it is.
pub(crate) fn entry(seq: u64, slot: u32) -> [u64; 2] {
    [ticket(seq), seq << 8 | u64::from(slot)]
}
