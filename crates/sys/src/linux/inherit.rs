//! What a worker inherits from its host: one environment variable and one socket.
//!
//! *Who calls it*: the worker's `Link`, once. *Invariants*: the variable is taken out of the environment and the
//! descriptor made close-on-exec, so that the worker's own children see neither.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Mutex;

use rustix::io::FdFlags;

use super::socket::Control;

/// The environment variable that names the link: `fd:N`.
pub const VARIABLE: &str = "FRAMEPORT_LINK";

/// Why a process has no link to take.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The variable is not set, or somebody took the link before.
    #[error("{VARIABLE} is not set: this process was not started by a frameport host, or it has connected already")]
    Absent,
    /// The variable is set but names no open socket.
    #[error("{VARIABLE}={value:?} names no open socket: {source}")]
    Invalid {
        /// The variable's value.
        value: String,
        /// What the system said of it.
        source: io::Error,
    },
}

static TAKING: Mutex<()> = Mutex::new(());

/// Takes the worker's end of the control socket.
///
/// # Errors
/// No variable, or one that names no open socket.
pub fn take_link() -> Result<Control, InheritError> {
    let _one_at_a_time = TAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let value = std::env::var(VARIABLE).map_err(|_| InheritError::Absent)?;
    let invalid = |source: io::Error| InheritError::Invalid { value: value.clone(), source };
    let number = value.strip_prefix("fd:").and_then(|text| text.parse::<i32>().ok()).filter(|&fd| fd > 2);
    let Some(number) = number else { return Err(invalid(io::ErrorKind::InvalidInput.into())) };
    // SAFETY: borrowed for one call that answers EBADF if the number is not open.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_type(probe).map_err(|errno| invalid(errno.into()))?;
    rustix::io::fcntl_setfd(probe, FdFlags::CLOEXEC).map_err(|errno| invalid(errno.into()))?;
    // SAFETY: the lock above keeps frameport's own threads out. Other threads that read the environment through the
    // C library at this very moment are the process's own: connecting is documented as a start-up action.
    unsafe { std::env::remove_var(VARIABLE) };
    // SAFETY: the host left this descriptor open for us alone; with the variable gone nobody takes it twice.
    Ok(Control::from(unsafe { OwnedFd::from_raw_fd(number) }))
}
