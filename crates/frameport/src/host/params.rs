//! Small values a host sets while its worker runs.
//!
//! *Invariants*: a set replaces the one before as a whole; its version is in the host's control region before the call
//! returns, so that whoever receives a frame sent after it knows what to wait for. *A hostile worker* can ignore them.

use std::sync::{Arc, PoisonError, Weak};

use frameport_sys::memory::ForkStamp;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_wire::control::{self, ToWorker};
use frameport_wire::event::{MAX_DEPTH, is_flat};
use serde_json::{Map, Value};

use super::supervised::Supervised;
use crate::error::Error;

/// A worker's parameters, over all its lives.
#[derive(Debug)]
pub(super) struct Parameters {
    link: String,
    fork: ForkStamp,
    now: Mutex<Values>,
}

/// All values, how often they have changed, and who gets them.
#[derive(Debug, Default)]
struct Values {
    version: u64,
    values: Map<String, Value>,
    /// The newest life, if there is one.
    to: Weak<Supervised>,
}

impl Parameters {
    /// Those a worker has from the start.
    pub(super) fn new(link: String, values: Map<String, Value>) -> Result<Self, Error> {
        let fork = ForkStamp::new().map_err(Error::system("marking the process against forks"))?;
        let version = u64::from(!values.is_empty());
        Ok(Self { link, fork, now: Mutex::new(Values { version, values, to: Weak::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_fork(&self) -> Result<(), Error> {
        if self.fork.forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Says which are set already, before `worker` can look.
    pub(super) fn announce(&self, worker: &Supervised) {
        worker.state.set_params(self.lock().version);
    }

    /// From now on `worker` gets them, those that are set already first.
    pub(super) fn attach(&self, worker: &Arc<Supervised>) -> Result<(), Error> {
        let mut now = self.lock();
        now.to = Arc::downgrade(worker);
        if now.version > 0 {
            let (message, _) = encode(&self.link, now.version, now.values.clone())?;
            worker.set_params(now.version, message);
        }
        Ok(())
    }
}

/// A worker's parameters: values by name that it sees with the next frame it takes. Made by
/// [`Worker::params`](super::Worker::params); may be used from any thread, and never waits for the worker. They outlive the
/// lives of a worker that is restarted.
///
/// Together they are one control message: 64 KiB of JSON at most.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a>(&'a Parameters);

impl<'a> Params<'a> {
    pub(super) fn new(all: &'a Parameters) -> Self {
        Self(all)
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
        self.0.check_fork()?;
        Ok(self.0.lock().values.get(name).cloned())
    }

    /// All values as they were set last.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn all(&self) -> Result<Map<String, Value>, Error> {
        self.0.check_fork()?;
        Ok(self.0.lock().values.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
        self.0.check_fork()?;
        let mut now = self.0.lock();
        let mut values = now.values.clone();
        change(&mut values);
        if values == now.values {
            return Ok(());
        }
        let version = now.version + 1;
        let (message, values) = encode(&self.0.link, version, values)?;
        (now.version, now.values) = (version, values);
        // Under the lock: of two sets the newer one's message is the later one.
        if let Some(worker) = now.to.upgrade() {
            worker.set_params(version, message);
        }
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
