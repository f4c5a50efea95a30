//! Passing on what workers write to stderr, without letting a slow terminal hold up the service thread.
//!
//! *Invariants*: bounded; what does not fit is dropped and counted. *A hostile worker* can flood it and loses only its
//! own words.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Gets chunks of a worker's stderr.
pub(super) type LineSink = dyn Fn(&[u8]) + Send + Sync;

enum Job {
    Write(Option<Arc<LineSink>>, Vec<u8>),
    Flush(SyncSender<()>),
}

fn queue() -> Option<&'static SyncSender<Job>> {
    static QUEUE: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();
    let start = || {
        let (sender, jobs) = sync_channel(256);
        let thread = std::thread::Builder::new().name("frameport-stderr".into());
        thread.spawn(move || run(&jobs)).ok().map(|_| sender)
    };
    QUEUE.get_or_init(start).as_ref()
}

fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Write(Some(sink), bytes) => {
                // An application's panic is its own: the words of other workers still go on.
                let _ = catch_unwind(AssertUnwindSafe(|| sink(&bytes)));
            }
            Job::Write(None, bytes) => {
                let _ = std::io::stderr().write_all(&bytes);
            }
            Job::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

/// Passes bytes on; false when they were dropped because the receiver is too slow.
pub(super) fn forward(sink: Option<&Arc<LineSink>>, bytes: &[u8]) -> bool {
    let Some(queue) = queue() else { return false };
    !matches!(queue.try_send(Job::Write(sink.cloned(), bytes.to_vec())), Err(TrySendError::Full(_)))
}

/// Waits until all that was passed on before has been written, 200 ms at most.
pub(super) fn flush() {
    let (done, written) = sync_channel(1);
    if queue().is_some_and(|queue| queue.try_send(Job::Flush(done)).is_ok()) {
        let _ = written.recv_timeout(Duration::from_millis(200));
    }
}
