//! There is no domain to start a worker in: macOS keeps strangers from a process's memory by its own rules, which depend on how
//! both were signed and are not this library's to promise.

pub use crate::level::Level;

/// There is none.
#[derive(Debug)]
pub enum Scope {}

/// None.
#[must_use]
pub fn best_scope() -> Option<Scope> {
    None
}

/// The version of Landlock: none.
#[must_use]
pub fn landlock_abi() -> Option<u32> {
    None
}

/// None: a worker of the same user can at least signal its host.
#[must_use]
pub fn level(_scoped: bool) -> Level {
    Level::None
}
