//! There is nothing to be kept from here.

pub use crate::level::Level;

/// There is none.
#[derive(Debug)]
pub enum Scope {}

/// None.
#[must_use]
pub fn best_scope() -> Option<Scope> {
    None
}

/// None.
#[must_use]
pub fn level(_scoped: bool) -> Level {
    Level::None
}
