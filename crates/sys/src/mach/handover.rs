//! Rights that go with the bytes of the control channel: a region's memory entry, the ends of a doorbell.
//!
//! *Who calls it*: the control channel of the macOS backend. *Invariants*: from the host to the worker only; one message each,
//! numbered, and sent before the bytes that speak of it, so that whoever has read the bytes finds it in the queue.
//! *A hostile peer*: the worker believes its host's process, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use super::check_in::id;
use super::error::{Check, SetupError, Sign};
use super::message::{Outgoing, SendError};
use super::received::{Received, Shape};
use super::right::SendRight;
use super::task::Task;

/// Most rights that go together.
pub const MAX_RIGHTS: usize = 2;
const PAYLOAD: usize = 3;

/// Rights that belong together: a memory entry, or both ends of a doorbell.
#[derive(Debug)]
pub struct Bundle<T: Task> {
    /// The rights, at least one and at most [`MAX_RIGHTS`].
    pub rights: Vec<Arc<SendRight<T>>>,
    /// Bytes of the memory behind a memory entry; 0 for other rights.
    pub len: u64,
}

/// Hands over a copy of each right of a bundle. `number` counts those of this link from 0.
///
/// # Errors
/// The worker is gone, or its queue is full.
pub fn give<T: Task>(to: &SendRight<T>, number: u32, bundle: &Bundle<T>, limit: Duration) -> Result<(), SetupError> {
    let payload = vec![number, bundle.len as u32, (bundle.len >> 32) as u32];
    let message = Outgoing::new(id::HAND_OVER, payload);
    let message = bundle.rights.iter().fold(message, |message, right| message.copying(right));
    message.send(to, limit).map_err(|error| match error {
        SendError::Gone => SetupError::Died(Sign::DeadName),
        other => SetupError::Send(other),
    })
}

/// Takes the rights of a message from process `host`.
///
/// # Errors
/// What is wrong with it; nothing of it is kept.
pub fn take<T: Task>(message: Received<T>, host: u32, number: u32) -> Result<Bundle<T>, Check> {
    let ports = message.descriptors().clamp(1, MAX_RIGHTS);
    let mut message = message.check(Shape { id: id::HAND_OVER, ports, payload: PAYLOAD })?;
    let sender = message.sender().pid();
    if sender != host {
        return Err(Check::Process { found: sender, expected: host });
    }
    if message.word(0) != number {
        return Err(Check::Content);
    }
    let len = u64::from(message.word(1)) | u64::from(message.word(2)) << 32;
    let rights = std::iter::from_fn(|| message.take()).map(Arc::new).collect();
    Ok(Bundle { rights, len })
}
