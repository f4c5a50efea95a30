//! Hosts and workers under random schedules, kills and faults, on the simulated system: see `make test-sim`.
#![cfg(frameport_sim)]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test reports and fails")]

mod harness;
mod pipe;
