//! What the host has set for this worker.
//!
//! *Who calls it*: the watcher thread brings what arrives, links and frames ask. *Invariants*: a snapshot never changes;
//! versions rise. Parameters come by the control channel and frames by a ring: the version in the host's region, which the
//! host writes before it publishes a frame, tells what the watcher has yet to bring. *The host* is trusted, but may be
//! stopped at any moment: who waits for it goes on with older values after [`LAG`].

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_sys::clock::Instant;
use frameport_sys::sync::{Condvar, Mutex, MutexGuard};
use serde_json::{Map, Value};

/// How long parameters may be on their way after the frame they were set before.
pub(crate) const LAG: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    arrived: Mutex<Arrived>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Arrived {
    version: u64,
    values: Arc<Map<String, Value>>,
    /// Nothing more will come.
    over: bool,
}

impl Newest {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn arrive(&self, version: u64, values: Map<String, Value>) {
        let mut arrived = self.lock();
        arrived.version = version;
        arrived.values = Arc::new(values);
        drop(arrived);
        self.changed.notify_all();
    }

    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// The newest values, if they are `version` or newer.
    pub(crate) fn if_here(&self, version: u64) -> Option<Arc<Map<String, Value>>> {
        let arrived = self.lock();
        (arrived.version >= version || arrived.over).then(|| Arc::clone(&arrived.values))
    }

    /// The newest values, waiting until they are `version` or newer, [`LAG`] at most.
    pub(crate) fn at_least(&self, version: u64) -> Arc<Map<String, Value>> {
        if let Some(values) = self.if_here(version) {
            return values;
        }
        let deadline = Instant::now() + LAG;
        let mut arrived = self.lock();
        while arrived.version < version && !arrived.over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            arrived = self.changed.wait_timeout(arrived, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Arc::clone(&arrived.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_version_gets_it_or_newer_or_goes_on_without() {
        let newest = Newest::default();
        let values = |n: u64| Map::from_iter([("n".into(), n.into())]);
        newest.arrive(3, values(3));
        assert_eq!(*newest.at_least(2), values(3));
        assert!(newest.if_here(4).is_none());
        assert_eq!(*newest.at_least(4), values(3), "a host that is stopped holds nobody up");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| newest.at_least(5));
            newest.arrive(6, values(6));
            assert_eq!(*waiting.join().unwrap(), values(6));
        });
        newest.end();
        assert_eq!(newest.if_here(99).as_deref(), Some(&values(6)));
    }
}
