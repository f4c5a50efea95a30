//! Passing on what workers write to stderr, and what they report, without letting a slow terminal hold up the service thread.
//!
//! *Invariants*: bounded for each worker; what does not fit is dropped and counted. *A hostile worker* can flood it and
//! loses only its own words.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_sys::sync::Mutex;
use frameport_sys::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use frameport_sys::{process, process_local, thread};

/// Gets chunks of a worker's stderr.
pub(super) type LineSink = dyn Fn(&[u8]) + Send + Sync;

/// Chunks of one worker that may wait to be written.
const WAITING: usize = 64;

/// Where one worker's words go.
#[derive(Clone)]
pub(super) struct Outlet {
    sink: Option<Arc<LineSink>>,
    waiting: Arc<AtomicUsize>,
}

enum Job {
    Write(Outlet, Vec<u8>),
    Run(Box<dyn FnOnce() + Send>),
    Flush(SyncSender<()>),
}

/// The queue of this process's forwarding thread, which is started when first needed; a fork has none of its parent's.
fn queue() -> Option<Sender<Job>> {
    process_local! {
        /// The process the thread runs in, and its queue.
        static QUEUE: Mutex<Option<(u32, Sender<Job>)>> = Mutex::new(None);
    }
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = process::id();
    if let Some((_, sender)) = queue.as_ref().filter(|(of, _)| *of == process) {
        return Some(sender.clone());
    }
    let (sender, jobs) = channel();
    let builder = thread::Builder::new().name("frameport-stderr".into());
    builder.spawn(move || run(&jobs)).ok()?;
    // What a fork left behind may be locked for ever: it is not dropped.
    std::mem::forget(queue.replace((process, sender.clone())));
    Some(sender)
}

fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Write(outlet, bytes) => {
                // An application's panic is its own: the words of other workers still go on.
                let _ = catch_unwind(AssertUnwindSafe(|| outlet.write(&bytes)));
                outlet.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            Job::Run(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Job::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

impl Outlet {
    /// To `sink`, or to this process's stderr.
    pub(super) fn new(sink: Option<Arc<LineSink>>) -> Self {
        Self { sink, waiting: Arc::default() }
    }

    /// Passes bytes on; false when they were dropped because the receiver is too slow.
    pub(super) fn forward(&self, bytes: &[u8]) -> bool {
        let Some(queue) = queue() else { return false };
        // One thread forwards a worker's words, so nothing comes between the look and the addition.
        self.waiting.load(Ordering::Relaxed) < WAITING && {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            queue.send(Job::Write(self.clone(), bytes.to_vec())).is_ok()
        }
    }

    fn write(&self, bytes: &[u8]) {
        match &self.sink {
            Some(sink) => sink(bytes),
            None => drop(std::io::stderr().write_all(bytes)),
        }
    }
}

/// Runs the application's code on the forwarding thread; false when there is none. The caller bounds how much waits.
pub(super) fn later(job: Box<dyn FnOnce() + Send>) -> bool {
    queue().is_some_and(|queue| queue.send(Job::Run(job)).is_ok())
}

/// Waits until all that was passed on before has been written, 200 ms at most.
pub(super) fn flush() {
    let (done, written) = sync_channel(1);
    if queue().is_some_and(|queue| queue.send(Job::Flush(done)).is_ok()) {
        let _ = written.recv_timeout(Duration::from_millis(200));
    }
}
