//! The memory of pools.

pub use crate::one_region::{Access, Pixels, Store};
pub use crate::plan::{Intent, Picture, Place, Plan, Plane};
