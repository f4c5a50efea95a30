//! The memory of pools.

#[cfg(frameport_gaps)]
pub use crate::gapped::{Access, Pixels, Store};
#[cfg(not(frameport_gaps))]
pub use crate::one_region::{Access, Pixels, Store};
pub use crate::plan::{Intent, Picture, Place, Plan, Plane};
