//! Small values a host sets while its worker runs.
//!
//! *Invariants*: a set replaces the one before as a whole; its version is in the host's control region before the call
//! returns, so that whoever receives a frame sent after it knows what to wait for. *A hostile worker* can ignore them.

use std::sync::PoisonError;

use frameport_sys::sync::MutexGuard;
use frameport_wire::control::{self, ToWorker};
use frameport_wire::event::{MAX_DEPTH, is_flat};
use serde_json::{Map, Value};

use super::supervised::Supervised;
use crate::error::Error;

/// All values, and how often they have changed.
#[derive(Debug, Default)]
pub(super) struct Values {
    version: u64,
    values: Map<String, Value>,
}

/// A worker's parameters: values by name that it sees with the next frame it takes. Made by
/// [`Worker::params`](super::Worker::params); may be used from any thread, and never waits for the worker.
///
/// Together they are one control message: 64 KiB of JSON at most.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    worker: &'a Supervised,
}

impl<'a> Params<'a> {
    pub(super) fn new(worker: &'a Supervised) -> Self {
        Self { worker }
    }

    fn lock(&self) -> MutexGuard<'a, Values> {
        self.worker.params.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets one value. A frame that is sent after this comes with it.
    ///
    /// # Errors
    /// [`Error::Params`] when all values together get too long, [`Error::Forked`]. The values are then as before.
    pub fn set(&self, name: impl Into<String>, value: impl Into<Value>) -> Result<(), Error> {
        self.extend([(name, value)])
    }

    /// Sets several values at once: the worker never sees one of them without the others.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn extend<K: Into<String>, V: Into<Value>>(
        &self,
        values: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Error> {
        let values: Vec<(String, Value)> =
            values.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.change(|all| all.extend(values))
    }

    /// Removes a value and returns it.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn remove(&self, name: &str) -> Result<Option<Value>, Error> {
        let mut removed = None;
        self.change(|all| removed = all.remove(name))?;
        Ok(removed)
    }

    /// A value as it was set last.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        self.worker.state.check_fork()?;
        Ok(self.lock().values.get(name).cloned())
    }

    /// All values as they were set last.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn all(&self) -> Result<Map<String, Value>, Error> {
        self.worker.state.check_fork()?;
        Ok(self.lock().values.clone())
    }

    /// Says that the first values follow, before the worker can look.
    pub(super) fn announce(&self) {
        self.worker.state.set_params(self.lock().version + 1);
    }

    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
        self.worker.state.check_fork()?;
        let mut now = self.lock();
        let mut values = now.values.clone();
        change(&mut values);
        if values == now.values {
            return Ok(());
        }
        let version = now.version + 1;
        let (message, values) = encode(self.worker.state.name(), version, values)?;
        *now = Values { version, values };
        // Under the lock: of two sets the newer one's message is the later one.
        self.worker.outbox.params(&self.worker.control, message);
        self.worker.state.set_params(version);
        Ok(())
    }
}

/// Whether a worker could get these values.
pub(super) fn check(link: &str, values: &Map<String, Value>) -> Result<(), Error> {
    encode(link, 1, values.clone()).map(|_| ())
}

fn encode(link: &str, version: u64, values: Map<String, Value>) -> Result<(Vec<u8>, Map<String, Value>), Error> {
    let refused = |what| Error::Params { link: link.to_owned(), what };
    if !is_flat(&values) {
        return Err(refused(format!("they nest deeper than {MAX_DEPTH} levels")));
    }
    let message = ToWorker::Params { version, values };
    let bytes = control::encode(&message).map_err(|error| refused(error.to_string()))?;
    let ToWorker::Params { values, .. } = message else { return Ok((bytes, Map::new())) };
    Ok((bytes, values))
}
