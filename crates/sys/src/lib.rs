//! Handles from the operating system: memory, doorbells, processes, control sockets.
//!
//! *What it is*: the one seam between frameport and a kernel. Every system is a module with the same names inside,
//! chosen here and nowhere else. *Who calls it*: `frameport-mem` (memory, doorbells) and `frameport` (the rest).
//! *Invariants*: handles are owned by type and close-on-exec from birth; every region is created complete by the
//! host, out of its worker's reach before it is sent where that may only read it, and checked by whoever receives it.
//! *A hostile peer* reaches this crate through file descriptors it was given; what it sends is bytes, read without room for
//! descriptors. On macOS it sends Mach messages besides, as may any process of the login: [`mach`] destroys what is not exactly
//! expected. A worker without a port takes descriptors from its host alone (`passing`).

mod exit;
#[cfg(any(frameport_sim, all(target_os = "linux", frameport_gaps)))]
mod gapped;
mod level;
pub mod mach;
#[cfg(any(not(target_os = "macos"), frameport_sim))]
mod one_means;
#[cfg_attr(
    any(frameport_sim, frameport_gaps),
    allow(dead_code, unreachable_pub, reason = "pools with gaps have their own of some")
)]
mod one_region;
pub mod passing;
mod plan;
#[cfg(not(frameport_sim))]
pub mod real_sync;
#[cfg(not(frameport_sim))]
pub mod real_thread;
pub mod shm;
mod writers;

#[cfg(frameport_sim)]
mod sim;
#[cfg(frameport_sim)]
pub use sim::*;

#[cfg(all(target_os = "linux", not(frameport_sim)))]
mod linux;
#[cfg(all(target_os = "linux", not(frameport_sim)))]
pub use linux::*;

#[cfg(all(target_os = "macos", not(frameport_sim)))]
mod macos;
#[cfg(all(target_os = "macos", not(frameport_sim)))]
pub use macos::*;

#[cfg(not(any(target_os = "linux", target_os = "macos", frameport_sim)))]
compile_error!("frameport runs on Linux and macOS; other systems are modules beside src/linux");
