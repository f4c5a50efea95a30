//! Ctrl-C, `kill` and a closed terminal, as something to ask for.
//!
//! *Who calls it*: the run loop and its waits. *Invariants*: the first signal is only noted, so that everything can end
//! in order; the second ends this process at once, and the kernel then ends the worker and, by their closed pipes,
//! ffmpeg's processes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Notes signals until it is dropped.
#[derive(Debug)]
pub(super) struct Interrupt {
    signal: Signal,
    ids: Vec<SigId>,
}

/// The signal that came, for any thread to ask.
#[derive(Clone, Debug)]
pub(super) struct Signal(Arc<AtomicUsize>);

impl Signal {
    /// Whether one came.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The exit status a process has that this signal ended, if one came.
    pub(super) fn status(&self) -> Option<i32> {
        let signal = i32::try_from(self.0.load(Ordering::Relaxed)).ok()?;
        (signal != 0).then_some(128 + signal)
    }
}

impl Interrupt {
    /// Begins to note signals.
    ///
    /// # Errors
    /// What sigaction answers.
    pub(super) fn watch() -> io::Result<Self> {
        let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut watched = Self { signal: Signal(Arc::clone(&signal)), ids: Vec::new() };
        for number in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal finds `again` not yet set.
            watched.ids.push(flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?);
            watched.ids.push(flag::register(number, Arc::clone(&again))?);
            let value = usize::try_from(number).unwrap_or(usize::MAX);
            watched.ids.push(flag::register_usize(number, Arc::clone(&signal), value)?);
        }
        Ok(watched)
    }

    /// What to ask.
    pub(super) fn signal(&self) -> &Signal {
        &self.signal
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
