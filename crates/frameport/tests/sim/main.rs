//! Hosts and workers under random schedules, kills and faults, on the simulated system: see `make test-sim`.
//!
//! A scenario is a host and programs that do random things, with what they may expect of each other written down beside them
//! ([`stream`]); what must hold in every world is in [`harness`]. A new operation is one more arm in a scenario's `match`.
#![cfg(frameport_sim)]
#![expect(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "a test reports and fails")]

mod fanout;
mod group;
mod harness;
mod hostile;
mod life;
mod lives;
mod pipe;
mod stream;
mod threads;
