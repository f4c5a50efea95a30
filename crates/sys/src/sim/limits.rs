//! How much memory there is.

use super::sched;

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In bytes.
    pub bytes: u64,
    /// Who says so.
    pub source: String,
}

/// What the world's faults leave.
#[must_use]
pub fn available_memory() -> Memory {
    let bytes = sched::with(|state| state.faults.memory).unwrap_or(u64::MAX);
    Memory { bytes, source: "the simulation".to_owned() }
}
