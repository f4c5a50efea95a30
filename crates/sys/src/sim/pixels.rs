//! The memory of pools.

pub use crate::gapped::{Access, Pixels, Store};
pub use crate::plan::{Intent, Picture, Place, Plan, Plane};
