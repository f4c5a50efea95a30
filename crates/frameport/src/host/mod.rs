//! The host's side: a builder that becomes a worker.
//!
//! [`builder`] checks what was asked for, [`bring_up`] starts the process and leads it to its first `recv`,
//! [`worker`] is what the application then holds, [`supervised`] is the same worker as the one [`service`] thread sees
//! it: its messages, its stderr, its death. What the host sets for it are its [`params`], which leave by its [`outbox`];
//! what it reports are [`events`]. [`change`] gives its channels another spec. A worker that is to be started again after a
//! death has a thread of its own for that ([`restart`]); that thread, or one of its own, also notices when it does not move
//! ([`stall`]).

mod bring_up;
mod builder;
mod change;
mod events;
mod forward;
mod outbox;
mod params;
mod restart;
mod service;
mod stall;
mod supervised;
mod worker;

pub use builder::WorkerBuilder;
pub use events::Event;
pub use params::Params;
pub use stall::Stall;
pub use worker::{Stats, Worker};
