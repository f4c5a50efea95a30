//! How a macOS host and its workers come to hold each other's Mach ports: portable code, run by tests on every system.
//!
//! *What it is*: owners of port rights, the few messages that carry them, and what becomes of them between spawn and
//! death. Everything a kernel answers comes through [`Task`], which the macOS backend implements with libSystem and the
//! tests with a strict simulation; there is no clock, no randomness and no thread in here. *Who calls it*: the macOS
//! backend. *Invariants*: a right has one owner, which releases it once, in the process that got it; a received message
//! belongs to one guard until each of its rights has an owner; no message names a reply port, carries out-of-line
//! memory, or is sent or waited for without a time limit, but for what libSystem asks launchd about a name; a port that
//! stands for a surface lives only as long as its message.
//! *A hostile peer* can send anything to a port it has: what is not exactly the one message expected is destroyed with
//! all it carries, and counted.
//!
//! File and function names in comments are those of XNU ([xnu-11417.101.15]). Nothing in here has been run on a Mac yet.
//!
//! [xnu-11417.101.15]: https://github.com/apple-oss-distributions/xnu/tree/xnu-11417.101.15

pub mod check_in;
pub mod death;
pub mod entrance;
pub mod error;
pub mod handover;
pub mod host;
pub mod message;
pub mod pool;
pub mod received;
pub mod rendezvous;
pub mod right;
pub mod slot;
pub mod surface;
pub mod task;
pub mod worker;

pub use error::{Check, Denied, Operation, SetupError};
pub use message::{Buffer, Outgoing, SendError};
pub use received::{AuditToken, Received};
pub use right::{Forked, ReceiveRight, SendOnce, SendRight};
pub use task::{Kern, Name, Surface, Task};
