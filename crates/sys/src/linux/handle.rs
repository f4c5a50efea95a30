//! What a worker is given by its host beside bytes: regions and doorbells, as handles that travel over the control channel.

/// The right to one region or doorbell, owned.
pub use std::os::fd::OwnedFd as Handle;

pub use crate::one_means::Means;
