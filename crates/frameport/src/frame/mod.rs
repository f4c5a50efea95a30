//! Frames: a loan to fill, a received frame to read or edit, and their planes.
//!
//! *Who calls it*: applications. *Invariants*: a [`Frame`]'s pixels stay what they were received as until it and every
//! [`Hold`] made from it are gone (an honest sender does not write after sending); a [`FrameMut`] is this side's alone
//! until it is sent; no reference to the pixels is ever made. *A hostile worker* can change pixels under a frame it
//! sent, at any time: what the application computes from them is then garbage, and nothing else; take a
//! [`Frame::snapshot`] where that matters.

mod loan;
mod plane;
mod received;

pub(crate) use loan::Home;
pub use loan::{FrameMut, Pin};
pub use plane::Plane;
pub use received::{Frame, Hold};

use serde_json::{Map, Value};

/// The sequence number, times and so on that a frame carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) seq: Option<u64>,
    pub(crate) timestamp_ns: Option<u64>,
    pub(crate) pts: Option<i64>,
    pub(crate) duration: Option<u32>,
}

/// The bytes of a metadata object; none for an empty one.
fn encode_meta(meta: &Map<String, Value>) -> Vec<u8> {
    // An object of JSON values always has a text.
    if meta.is_empty() { Vec::new() } else { serde_json::to_vec(meta).unwrap_or_default() }
}
