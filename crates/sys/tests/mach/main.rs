//! Ports, messages and surfaces between host and worker, on a simulated Mach kernel.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

mod bring_up;
mod fallback;
mod faults;
mod handover;
mod hostile;
mod kernel;
mod kills;
mod rules;
mod strangers;
mod surfaces;
mod watch;
mod world;
