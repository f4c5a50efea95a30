//! The words both sides of a frameport link agree on.
//!
//! *What it is*: specs, frame descriptors, the layout of shared words, and control messages, with their encodings; no
//! I/O, no clock, no memory mapping. *Who calls it*: every other crate; a worker in another language implements it
//! from `PROTOCOL.md`. *Invariants*: decoding checks everything it returns, all layout arithmetic is checked, nothing
//! here panics on any input. *A hostile peer* can make any decoder here return an error and nothing else.
#![forbid(unsafe_code)]

pub mod control;
pub mod descriptor;
pub mod event;
pub mod layout;
pub mod spec;

/// The protocol version this build speaks (see `PROTOCOL.md`, "Versions").
pub const PROTOCOL: u32 = 1;
