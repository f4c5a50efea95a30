//! The two ends of a channel and what they share.
//!
//! A frame's way: [`send::SendEnd::loan`] → [`crate::FrameMut`] → [`send::SendEnd::send`] → ring →
//! [`recv::RecvEnd::recv`] → [`crate::Frame`] → its last hold dropped → [`recv::RecvEnd`] says released →
//! the sender's [`ledger`] frees the slot at its next look. Host and worker use the same ends; what only the host knows
//! is whether a slot sent back in place was really the worker's to send. The channels of a worker that is restarted go on
//! over its [`lives`].

pub(crate) mod audience;
pub(crate) mod handle;
pub(crate) mod keep;
pub(crate) mod ledger;
pub(crate) mod lives;
pub(crate) mod lot;
mod port;
pub(crate) mod recv;
pub(crate) mod send;
pub(crate) mod source;
pub(crate) mod state;
