//! What a worker is given by its host beside bytes: regions and doorbells, as Mach rights that travel in messages.

use std::sync::Arc;

use super::task::ThisTask;
use crate::mach::SendRight;
use crate::mach::handover::Bundle;

/// The rights to one region or doorbell, owned.
#[derive(Debug)]
pub struct Handle(pub(super) Bundle<ThisTask>);

impl Handle {
    pub(super) fn new(rights: Vec<Arc<SendRight<ThisTask>>>, len: usize) -> Self {
        Self(Bundle { rights, len: len as u64 })
    }
}
