//! A simulated system: hosts and workers of one test on one thread, with a clock, chance and faults of its own.
//!
//! *Who calls it*: everything above, built with `--cfg frameport_sim`; tests start it with [`world::World`]. *Invariants*:
//! one task runs at a time and gives way only at a call into this module, so that a seed decides everything: who runs next
//! ([`sched`]), how late, and what fails. Time passes when nobody can run. Nothing here is a system call.
//! *A hostile peer* is a program of the test.

pub mod clock;
pub mod event;
pub mod futex;
pub mod handle;
pub mod inherit;
pub mod isolation;
mod kernel;
pub mod limits;
pub mod memory;
pub mod pixels;
pub mod poll;
pub mod process;
mod sched;
pub mod socket;
pub mod sync;
mod tasks;
pub mod thread;
pub mod world;
