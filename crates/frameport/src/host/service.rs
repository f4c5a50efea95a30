//! The one thread that serves all of a host's workers.
//!
//! *Who calls it*: bring-up registers a worker; the thread sleeps until one of them says, writes or dies. *Invariants*:
//! nothing here waits for a worker; a forked child of the host starts its own service. *A hostile worker* gets a
//! bounded share of each turn.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use frameport_sys::memory::ForkStamp;
use frameport_sys::poll::Poller;
use frameport_sys::socket::Control;
use frameport_sys::sync::Mutex;
use frameport_sys::{process_local, thread};

use super::supervised::{Supervised, TURN_CHUNKS};
use crate::error::Error;

const CONTROL: u64 = 0;
const STDERR: u64 = 1;
const DEATH: u64 = 2;
/// Tokens of one worker: its number times this, plus one of the above.
const KINDS: u64 = 4;

#[derive(Debug)]
pub(super) struct Service {
    poller: Poller,
    workers: Mutex<Workers>,
    fork: ForkStamp,
}

#[derive(Debug, Default)]
struct Workers {
    next: u64,
    known: HashMap<u64, Arc<Supervised>>,
}

impl Service {
    /// This process's service, started when first needed.
    pub(super) fn get() -> Result<Arc<Self>, Error> {
        process_local! {
            static SERVICE: Mutex<Option<Arc<Service>>> = Mutex::new(None);
        }
        let mut service = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = service.as_ref().filter(|service| !service.fork.forked()) {
            return Ok(Arc::clone(service));
        }
        let system = Error::system("starting the service thread");
        let new = Arc::new(Self {
            poller: Poller::new().map_err(&system)?,
            workers: Mutex::default(),
            fork: ForkStamp::new().map_err(&system)?,
        });
        let on_thread = Arc::clone(&new);
        let builder = thread::Builder::new().name("frameport".into());
        builder.spawn(move || on_thread.run()).map_err(&system)?;
        // What a fork left behind may be locked for ever: it is not dropped.
        std::mem::forget(service.replace(Arc::clone(&new)));
        Ok(new)
    }

    /// Serves `worker` from now on, until it is dead.
    pub(super) fn register(&self, worker: &Arc<Supervised>) -> Result<(), Error> {
        let number = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.next += 1;
            let number = workers.next;
            workers.known.insert(number, Arc::clone(worker));
            number
        };
        self.watch(worker, number * KINDS).inspect_err(|_| {
            self.unwatch(worker);
            self.workers.lock().unwrap_or_else(PoisonError::into_inner).known.remove(&number);
        })
    }

    fn watch(&self, worker: &Supervised, token: u64) -> Result<(), Error> {
        let system = Error::system("watching a worker");
        worker.outbox.set_token(token + CONTROL);
        self.poller.add(&worker.control, token + CONTROL).map_err(&system)?;
        if let Some(stderr) = &worker.stderr {
            self.poller.add(stderr, token + STDERR).map_err(&system)?;
        }
        let child = worker.child.lock().unwrap_or_else(PoisonError::into_inner);
        self.poller.add(&*child, token + DEATH).map_err(&system)
    }

    /// Whether a worker's control channel, known as `token`, is watched for room to write.
    pub(super) fn watch_room(&self, control: &Control, token: u64, yes: bool) {
        self.poller.watch_room(control, token, yes);
    }

    fn run(&self) {
        loop {
            let tokens = match self.poller.wait() {
                Ok(tokens) => tokens,
                Err(error) => {
                    tracing::error!("the service thread cannot wait: {error}");
                    return;
                }
            };
            for token in tokens {
                let known = |workers: &Workers| workers.known.get(&(token / KINDS)).map(Arc::clone);
                let worker = known(&self.workers.lock().unwrap_or_else(PoisonError::into_inner));
                // Dead since this turn's events were collected.
                let Some(worker) = worker else { continue };
                match token % KINDS {
                    CONTROL if !worker.on_control(TURN_CHUNKS) => self.poller.remove(&worker.control),
                    CONTROL => worker.on_room(),
                    STDERR if !worker.on_stderr(TURN_CHUNKS) => {
                        worker.stderr.iter().for_each(|stderr| self.poller.remove(stderr));
                    }
                    DEATH => self.bury(token / KINDS, &worker),
                    _ => {}
                }
            }
        }
    }

    fn unwatch(&self, worker: &Supervised) {
        self.poller.remove(&worker.control);
        if let Some(stderr) = &worker.stderr {
            self.poller.remove(stderr);
        }
        self.poller.remove(&*worker.child.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn bury(&self, number: u64, worker: &Arc<Supervised>) {
        self.unwatch(worker);
        worker.on_death();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).known.remove(&number);
    }
}
