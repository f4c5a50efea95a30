//! What a worker inherits from its host.

use std::io;

use super::sched;
use super::socket::Control;

/// The environment variable that names the link elsewhere.
pub const VARIABLE: &str = "FRAMEPORT_LINK";

/// Why a process has no link to take.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It was not given one, or somebody took it before.
    #[error("{VARIABLE} is not set: this process was not started by a frameport host, or it has connected already")]
    Absent,
    /// Never here.
    #[error("{VARIABLE}={value:?} names no open socket: {source}")]
    Invalid {
        /// The variable's value.
        value: String,
        /// What the system said of it.
        source: io::Error,
    },
}

/// Takes the worker's end of the control channel.
///
/// # Errors
/// There is none.
pub fn take_link() -> Result<Control, InheritError> {
    sched::point("take link");
    let link = sched::inside(|state| state.current().and_then(|process| process.link.take()));
    link.map(Control::adopt).ok_or(InheritError::Absent)
}
