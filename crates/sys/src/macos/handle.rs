//! What a worker is given by its host beside bytes: regions, doorbells and surfaces, as Mach rights that travel in messages.

use std::sync::Arc;

use super::surface::Surface;
use super::task::ThisTask;
use crate::mach::SendRight;
use crate::mach::handover::Bundle;

/// What belongs to one region, doorbell or pool, owned.
#[derive(Debug)]
pub struct Handle(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    /// Rights that go in one message.
    Rights(Bundle<ThisTask>),
    /// The surfaces of a pool in the order of its slots. Each has a port for no longer than its own message.
    Surfaces(Vec<Arc<Surface>>),
}

impl Handle {
    pub(super) fn new(rights: Vec<Arc<SendRight<ThisTask>>>, len: usize) -> Self {
        Self(Kind::Rights(Bundle { rights, len: len as u64 }))
    }

    /// The rights; none of a pool's surfaces.
    pub(super) fn into_bundle(self) -> Option<Bundle<ThisTask>> {
        match self.0 {
            Kind::Rights(bundle) => Some(bundle),
            Kind::Surfaces(_) => None,
        }
    }
}
