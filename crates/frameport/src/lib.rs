//! Exchange video frames with worker processes, zero-copy, with nothing to install, register or clean up.
//!
//! A **host** starts **workers** and owns all memory; frames travel both ways through shared slots, by a 64-byte
//! descriptor each. A received [`Frame`] never changes under its user while it or a [`Hold`] of it lives; a worker may
//! be killed at any moment and the host goes on.
//!
//! ```no_run
//! use frameport::{Delivery, Worker, spec::{PixelFormat, VideoSpec}};
//!
//! # fn main() -> Result<(), frameport::Error> {
//! let spec = VideoSpec::new(PixelFormat::Bgr24, 1920, 1080).fps(30, 1);
//! let worker = Worker::command("python3").arg("worker.py")
//!     .input("in", &spec, Delivery::Lossless).output("out", &spec, Delivery::Lossless)
//!     .spawn()?;
//! let mut frame = worker.loan()?;                 // exclusive; dropping it gives the slot back
//! frame.fill(&vec![0; 1920 * 1080 * 3])?;
//! worker.send(frame)?;                            // moves it away
//! let result = worker.recv()?;                    // a view of the worker's result, until dropped
//! # drop(result); Ok(())
//! # }
//! ```
//!
//! # Protocol
//! See `PROTOCOL.md`: two control regions with one writer each, rings of descriptors, release words, a futex as bell.
//!
//! # Guarantees
//! See `GUARANTEES.md`. In short: nothing a worker does panics the host, makes it wait without a deadline, or leaks a
//! slot, a descriptor or a process.
#![deny(unsafe_code)]

mod audience;
mod channel;
mod error;
mod frame;
mod group;
mod holders;
mod host;
mod link;
pub mod os;
mod pool;
mod restart;
mod select;
#[cfg(feature = "tokio")]
mod tokio;
mod trace;
mod worker;

pub use audience::{Audience, AudienceStats};
pub use channel::handle::{Receiver, RecvStats, SendStats, Sender};
pub use error::{Death, Error};
pub use frame::{Frame, FrameMut, Hold, Pin, Plane};
pub use frameport_mem::park::Until;
pub use frameport_mem::pixels::Bytes;
pub use frameport_sys::clock::now_ns as now;
pub use frameport_sys::isolation::Level as Isolation;
pub use frameport_sys::process::{Exit, signal_name};
pub use frameport_wire::control::{Delivery, WaitStrategy};
pub use frameport_wire::event::Level;
pub use frameport_wire::spec;
pub use group::{Group, GroupBuilder, GroupStats, MemberStats, Outcome, Redeliver, Step};
pub use holders::{Exhausted, Holder, Peer, SlotHolder};
pub use host::{Event, Params, Stall, Stats, Worker, WorkerBuilder};
#[doc(hidden)]
pub use pool::PoolNote;
pub use restart::Restart;
pub use select::select;
pub use trace::traces_views;
pub use worker::{Link, LinkBuilder};

/// The README's program, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
