//! Threads of this process: the standard library's.

pub use std::hint::spin_loop;
pub use std::thread::{Builder, JoinHandle, panicking, sleep, yield_now};

/// Called before every access to a word that another process sees: where processes are simulated, another may run here.
#[inline(always)]
pub fn preempt() {}
