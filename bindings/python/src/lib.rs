//! The native module behind the Python package `frameport`.
//!
//! *What it is*: frames, loans, workers and links of the `frameport` crate as Python classes; what is not on a frame's
//! way (the decorator, `spawn`'s arguments, exceptions) is Python. *Who calls it*: `frameport/__init__.py`.
//! *Invariants*: classes are frozen and hold plain values behind short private locks; no lock is held while Python code
//! may run or the interpreter lock is waited for; every wait lets go of the interpreter lock and answers signals; a
//! destructor never blocks on Python, so the garbage collector, the interpreter's exit and forked children may run any.
//! *A hostile worker* meets the crate's checks; nothing here reads shared control memory. Its pixels may change under a
//! view: the view stays inside its mapping whatever they are.
#![deny(unsafe_code)]

mod array;
mod audience;
mod channel;
mod error;
mod events;
mod export;
mod frame;
mod group;
mod holders;
mod link;
mod loan;
mod meta;
mod params;
mod pixels;
mod port;
mod raw;
mod source;
mod spec;
mod wait;
mod worker;

/// The native half of the package; import `frameport` instead.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    use std::ffi::OsString;

    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::audience::{Audience, AudienceStats};
    #[pymodule_export]
    use crate::channel::{Channel, ChannelStats};
    #[pymodule_export]
    use crate::events::Events;
    #[pymodule_export]
    use crate::frame::{Frame, Frames};
    #[pymodule_export]
    use crate::group::{Group, group};
    #[pymodule_export]
    use crate::holders::SlotHolder;
    #[pymodule_export]
    use crate::link::{Link, connect};
    #[pymodule_export]
    use crate::loan::Loan;
    #[pymodule_export]
    use crate::pixels::{Pixels, Plane};
    #[pymodule_export]
    use crate::port::select_channels;
    #[pymodule_export]
    use crate::spec::Spec;
    #[pymodule_export]
    use crate::worker::{Stats, Worker, spawn};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Read once, now.
        let _ = frameport::traces_views();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// The host's monotonic clock in ns: what `timestamp_ns` counts.
    #[pyfunction]
    fn now() -> u64 {
        frameport::now()
    }

    /// Runs the `frameport` command and returns its exit status.
    #[pyfunction]
    fn cli_main(py: Python<'_>, args: Vec<OsString>) -> i32 {
        py.detach(|| frameport_cli::main(args))
    }
}
