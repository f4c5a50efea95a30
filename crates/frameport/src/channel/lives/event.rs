//! The descriptor for event loops of a worker over all its lives: it stays the same.
//!
//! *Who calls it*: [`super::Lives`] and the handles. *Invariants*: readable at a death, at a new life, at the end, and while the
//! newest life's own descriptor is. *A hostile worker* can make it readable, at the cost of a look.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use frameport_sys::event::{Doorbell, Event};
use frameport_sys::handle::Handle;

use super::Lives;
use crate::channel::port::RecvPort;
use crate::channel::state::LinkState;
use crate::error::Error;

/// The descriptor for event loops: readable at a death, at a new life, at the end, and while the newest life's is.
#[derive(Debug)]
pub(super) struct Bell {
    pub(super) event: Event,
    own: Doorbell,
    _other: Handle,
}

impl Lives {
    /// From now on the descriptor for event loops says what the newest life's does.
    pub(in crate::channel) fn follow(&self, state: &LinkState) {
        let Some(bell) = self.bell.get() else { return };
        let followed = state.event().and_then(|event| {
            bell.event.follow(event).map_err(Error::system("watching a worker's next life in the event loop"))
        });
        if let Err(error) = followed {
            tracing::error!(link = self.name, "event loops are not told of its frames: {error}");
        }
    }

    /// The descriptor for event loops.
    pub(crate) fn event(&self) -> Result<&Event, Error> {
        self.check_fork()?;
        let mut inner = self.lock();
        if self.bell.get().is_none() {
            let system = Error::system("making a descriptor for event loops");
            let (own, other) = Doorbell::pair().map_err(&system)?;
            let event = Event::new(&own).map_err(&system)?;
            let _ = self.bell.set(Bell { event, own, _other: other });
            // A dead one's is readable for good.
            if inner.gap.is_none() {
                let newest = Arc::clone(&inner.newest);
                self.follow(&newest);
            }
            self.tell(&mut inner);
        }
        self.bell.get().map(|bell| &bell.event).ok_or_else(|| Error::config("this worker has no channels"))
    }

    /// Nothing was found at `bits`, which are those of the newest life: the event is readable when that may have changed.
    /// False if there is none.
    pub(in crate::channel) fn arm(&self, bits: u64) -> bool {
        let Some(bell) = self.bell.get() else { return false };
        let inner = self.lock();
        let newest = Arc::clone(&inner.newest);
        // First, for on macOS an event learns at its own clear that one it follows was cleared.
        if inner.gap.is_none() {
            newest.arm(bits);
        }
        bell.event.clear(&bell.own);
        // What waits of earlier lives is told once to those who do not care for it.
        let waits = |port: &&Arc<RecvPort>| {
            let of_newest = port.life().is_some_and(|end| Arc::ptr_eq(&end.state, &newest));
            (!of_newest || inner.gap.is_some()) && port.has_left(None) && port.armed.swap(false, Ordering::Relaxed)
        };
        if inner.over.is_some() || self.receivers.iter().filter(waits).count() > 0 {
            bell.event.signal();
        }
        true
    }

    /// The same for a receiver.
    pub(in crate::channel) fn arm_port(&self, port: &RecvPort) {
        if self.bell.get().is_some() {
            port.armed.store(true, Ordering::Relaxed);
            self.arm(port.life().map_or(0, |end| end.bit()));
        }
    }

    /// Something was found on channel `port`.
    pub(in crate::channel) fn disarm(&self, port: &RecvPort) {
        if self.bell.get().is_some() {
            port.armed.store(false, Ordering::Relaxed);
            let newest = Arc::clone(&self.lock().newest);
            newest.disarm();
        }
    }
}
