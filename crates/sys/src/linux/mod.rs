//! Linux: sealed memfd, shared futex, pidfd, socketpair.

pub mod clock;
pub mod event;
pub mod futex;
pub mod handle;
pub mod inherit;
pub mod isolation;
pub mod limits;
pub mod memory;
pub mod pixels;
pub mod poll;
pub mod process;
pub mod socket;
pub use crate::{real_sync as sync, real_thread as thread};
