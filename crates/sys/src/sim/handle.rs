//! What a process owns, by number.

use super::kernel::{State, What};
use super::sched;

pub use crate::one_means::Means;

/// An object of this process.
#[derive(Debug)]
pub struct Handle(pub(super) u64);

impl Handle {
    /// A new one.
    pub(super) fn new(make: impl FnOnce(&mut State) -> What) -> Self {
        sched::inside(|state| {
            let what = make(state);
            Self(state.add(state.current_process(), what))
        })
    }

    /// What it is.
    pub(super) fn what(&self) -> Option<What> {
        sched::with(|state| state.objects.get(&self.0).map(|object| object.what.clone())).flatten()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        sched::with(|state| state.close(self.0));
    }
}

/// Whether one more cannot be made.
pub(super) fn check(faults: impl Fn(&State) -> u64) -> std::io::Result<()> {
    let fails = sched::inside(|state| {
        let many = faults(state);
        !state.over && state.chance(many)
    });
    if fails { Err(std::io::Error::other("as the world's faults say")) } else { Ok(()) }
}
