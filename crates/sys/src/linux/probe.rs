//! Whether the kernel has what frameport does without at a cost.
//!
//! *Who calls it*: the doctor. *Invariants*: looking changes nothing. A worker has no influence on the answers.

use std::io;

use rustix::io::Errno;
use rustix::thread::futex::{self, WaitvFlags};
use rustix::time::ClockId;

/// Whether one sleep can watch two futexes (Linux 5.16); without it [`crate::futex::wait_either`] looks at the second
/// every few milliseconds.
///
/// # Errors
/// What the system says where it has no such call, or a filter of system calls forbids it.
pub fn futex_waitv() -> io::Result<()> {
    match futex::waitv(&[], WaitvFlags::empty(), None, ClockId::Monotonic) {
        // It is there and has refused to sleep for nothing.
        Ok(_) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
