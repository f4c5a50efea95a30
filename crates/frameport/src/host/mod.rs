//! The host's side: a builder that becomes a worker.
//!
//! [`builder`] checks what was asked for, [`bring_up`] starts the process and leads it to its first `recv`,
//! [`worker`] is what the application then holds, [`supervised`] is the same worker as the one [`service`] thread sees
//! it: its messages, its stderr, its death.

mod bring_up;
mod builder;
mod forward;
mod service;
mod supervised;
mod worker;

pub use builder::WorkerBuilder;
pub use worker::{Stats, Worker};
