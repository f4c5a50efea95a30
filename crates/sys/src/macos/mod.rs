//! macOS: memory entries, pipes, Mach messages, kqueue.
//!
//! Not run: no Mac was at hand. `make check-macos` proves that it compiles and links, and what it declares by hand; the Mach
//! part of it runs on a simulated kernel (`tests/mach`). Whatever the heads of these files promise beyond that is not proven.

mod child;
pub mod clock;
#[cfg(feature = "core-video")]
pub mod core_video;
pub mod event;
pub mod futex;
pub mod handle;
pub mod inherit;
pub mod isolation;
pub mod limits;
mod meet;
pub mod memory;
#[cfg(feature = "metal")]
pub mod metal;
pub mod pixels;
pub mod poll;
pub mod process;
mod raw;
pub mod socket;
pub mod surface;
pub mod task;

pub use crate::{real_sync as sync, real_thread as thread};
