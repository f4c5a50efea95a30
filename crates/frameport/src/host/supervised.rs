//! A worker as the service thread sees it: messages, stderr, death.
//!
//! *Invariants*: progress only moves forward; the pidfd decides about death, an end of file says nothing; at death the
//! whole process group is killed, everything still readable is read, the process is reaped, the ledger reclaimed, and
//! then whoever waits is woken. *A hostile worker* can send nonsense on the control channel (a violation, it is
//! killed), flood stderr (the tail keeps 64 KiB) or its host's log (see [`super::events`]), or close everything (it is still there until the pidfd says so).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::clock::Instant;
use frameport_sys::mach::Operation;
use frameport_sys::process::{Child, Exit, Signal, StderrPipe};
use frameport_sys::socket::Control;
use frameport_sys::sync::{Condvar, Mutex, MutexGuard};
use frameport_sys::thread;
use frameport_wire::control::{self, Decoder, Hello, ToHost, ToWorker};

use super::change::Changes;
use super::events::{EventSink, Events};
use super::forward::{LineSink, Outlet};
use super::outbox::Outbox;
use crate::channel::send::SendEnd;
use crate::channel::state::{End, LinkState};
use crate::error::{Death, Error};
use crate::link::Ends;

/// Bytes of stderr kept for the error.
const TAIL: usize = 64 * 1024;
/// Bytes of a line that are passed on before its end has come.
const LINE: usize = 8 * 1024;

/// Reads from one worker's socket or stderr in one turn of the service thread.
pub(super) const TURN_CHUNKS: usize = 8;
/// Reads that empty any pipe or socket a dead worker left: the largest pipe an unprivileged process may have is 1 MiB.
const ALL_CHUNKS: usize = 128;
/// Characters of a worker's description of itself that reach an error's text.
const LIBRARY: usize = 100;
/// Characters of a worker's reason to fail.
const REASON: usize = 4096;

/// How far a worker has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) hello: Option<Hello>,
    pub(super) ready: bool,
    pub(super) bye: bool,
    /// The worker has not its end of the control channel any more: where it did not leave in order, it is about to be dead,
    /// or closed what it should not have.
    pub(super) hung_up: bool,
    pub(super) failed: Option<String>,
    /// That was for want of this.
    pub(super) denied: Option<Operation>,
    pub(super) exit: Option<Exit>,
}

/// See the module.
pub(super) struct Supervised {
    pub(super) state: Arc<LinkState>,
    pub(super) pid: u32,
    pub(super) control: Control,
    pub(super) stderr: Option<StderrPipe>,
    pub(super) child: Mutex<Child>,
    pub(super) ends: OnceLock<Ends>,
    pub(super) outbox: Outbox,
    /// When it was started.
    pub(super) born: Instant,
    pub(super) changes: Changes,
    /// Bytes of the largest pool it gets that it asks for.
    pub(super) output_limit: u64,
    outlet: Outlet,
    events: Events,
    progress: Mutex<Progress>,
    changed: Condvar,
    decoder: Mutex<Decoder>,
    tail: Mutex<VecDeque<u8>>,
    /// The beginning of a line whose end has not come.
    line: Mutex<Vec<u8>>,
    /// Bytes of stderr that were not passed on.
    dropped: AtomicU64,
}

impl std::fmt::Debug for Supervised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervised").field("pid", &self.pid).field("progress", &self.progress).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervised {
    pub(super) fn new(
        state: Arc<LinkState>,
        mut child: Child,
        control: Control,
        on_stderr: Option<Arc<LineSink>>,
        on_event: Option<Arc<EventSink>>,
        output_limit: u64,
    ) -> Self {
        Self {
            state,
            pid: child.pid(),
            control,
            stderr: child.take_stderr(),
            child: Mutex::new(child),
            ends: OnceLock::new(),
            outbox: Outbox::default(),
            born: Instant::now(),
            changes: Changes::default(),
            output_limit,
            outlet: Outlet::new(on_stderr),
            events: Events::new(on_event),
            progress: Mutex::default(),
            changed: Condvar::new(),
            decoder: Mutex::default(),
            tail: Mutex::default(),
            line: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Waits until `reached` says yes of the progress.
    pub(super) fn wait(&self, until: &mut Until<'_>, reached: impl Fn(&Progress) -> bool) -> Result<Progress, Ended> {
        let mut progress = lock(&self.progress);
        while !reached(&progress) {
            drop(progress);
            // The interrupt may be slow, or need the progress itself.
            let limit = until.step()?.unwrap_or(Duration::from_secs(1));
            progress = lock(&self.progress);
            if !reached(&progress) {
                progress = self.changed.wait_timeout(progress, limit).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Ok(progress.clone())
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    fn advance(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
        self.changed.notify_all();
    }

    /// Reads what the worker has sent, `chunks` reads at most. False at the end of the stream or after nonsense: do not
    /// watch it any longer.
    pub(super) fn on_control(self: &Arc<Self>, chunks: usize) -> bool {
        let mut bytes = [0; 4096];
        for _ in 0..chunks {
            match self.control.recv(&mut bytes, false) {
                Ok(read) if read > 0 => lock(&self.decoder).push(bytes.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                ended => {
                    // It did beside the channel what no worker does.
                    if let Err(lie) = ended
                        && lie.kind() == std::io::ErrorKind::InvalidData
                    {
                        let _ = self.state.violation(&lie);
                    }
                    self.advance(|progress| progress.hung_up = true);
                    return false;
                }
            }
            if let Err(lie) = self.on_messages() {
                let _ = self.state.violation(&lie);
                return false;
            }
        }
        true
    }

    fn on_messages(self: &Arc<Self>) -> Result<(), String> {
        loop {
            let decoded = lock(&self.decoder).decode::<ToHost>().map_err(|error| error.to_string())?;
            let Some(message) = decoded else { return Ok(()) };
            if !matches!(message, ToHost::Event(_)) {
                tracing::debug!(link = self.state.name(), pid = self.pid, ?message, "from worker");
            }
            match message {
                ToHost::Hello(_) if self.progress().hello.is_some() => return Err("it said hello twice".to_owned()),
                ToHost::Hello(mut hello) => {
                    hello.library = hello.library.chars().take(LIBRARY).collect();
                    self.advance(|progress| progress.hello = Some(hello));
                }
                ToHost::Ready => self.advance(|progress| progress.ready = true),
                ToHost::Failed { message } => self.on_failure(&message, None),
                ToHost::Sandboxed { operation, message } => {
                    self.on_failure(&message, Operation::from_name(&operation));
                }
                ToHost::Bye => self.advance(|progress| progress.bye = true),
                ToHost::Event(event) => self.events.deliver(self.state.name(), self.pid, event),
                ToHost::Joined { pool } => self.joined(pool),
                ToHost::Left { pool } => self.left(pool),
                ToHost::Respec { channel, spec } => self.respec(channel, spec),
                ToHost::Unknown => {}
            }
        }
    }

    fn on_failure(&self, message: &str, denied: Option<Operation>) {
        let failed = Some(message.chars().take(REASON).collect());
        self.advance(|progress| (progress.failed, progress.denied) = (failed, denied));
    }

    /// Reads what the worker has written, `chunks` reads at most, so that a flood starves nobody. False at the end of the
    /// stream.
    pub(super) fn on_stderr(&self, chunks: usize) -> bool {
        let Some(stderr) = &self.stderr else { return false };
        let mut bytes = [0; 8192];
        for _ in 0..chunks {
            match stderr.read(&mut bytes) {
                Ok(0) => {
                    self.end_line();
                    return false;
                }
                Ok(read) => self.keep(bytes.get(..read).unwrap_or_default()),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn keep(&self, bytes: &[u8]) {
        let mut tail = lock(&self.tail);
        tail.extend(bytes);
        let over = tail.len().saturating_sub(TAIL);
        tail.drain(..over);
        drop(tail);
        // In whole lines, so that those of several workers do not mix: a worker may write one in many pieces.
        let mut line = lock(&self.line);
        line.extend(bytes);
        let end = line.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map(|last| last + 1);
        let cut = end.unwrap_or(if line.len() >= LINE { line.len() } else { 0 });
        let whole: Vec<u8> = line.drain(..cut).collect();
        drop(line);
        self.forward(&whole);
    }

    /// Passes on the last line of one who wrote no end of it.
    fn end_line(&self) {
        self.forward(&std::mem::take(&mut *lock(&self.line)));
    }

    fn forward(&self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.outlet.forward(bytes) {
            // One line, however long the flood.
            if self.dropped.fetch_add(bytes.len() as u64, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    link = self.state.name(),
                    "stderr of the worker comes too fast: part of it is not passed on"
                );
            }
        }
    }

    /// The end of the worker's stderr as text.
    pub(super) fn stderr_tail(&self) -> String {
        let tail: Vec<u8> = lock(&self.tail).iter().copied().collect();
        String::from_utf8_lossy(&tail).into_owned()
    }

    /// Kills the worker and all it started, if it still lives.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(super) fn signal(&self, signal: Signal) {
        let _ = lock(&self.child).signal_group(signal);
    }

    /// The pidfd says that the worker is dead.
    pub(super) fn on_death(self: &Arc<Self>) {
        let exit = {
            let mut child = lock(&self.child);
            // The leader is dead but not reaped: its group cannot be somebody else's yet.
            let _ = child.signal_group(Signal::KILL);
            // Without waiting: a process that is traced is dead before it can be collected.
            child.try_reap().ok().flatten().unwrap_or(Exit::Unknown)
        };
        // Nothing more will be written: what is there is all there will be.
        self.on_control(ALL_CHUNKS);
        self.on_stderr(ALL_CHUNKS);
        self.end_line();
        let Progress { hello, bye, failed, .. } = self.progress();
        let left = bye && failed.is_none() && exit == Exit::Code(0);
        let death = Death {
            link: self.state.name().to_owned(),
            pid: self.pid,
            exit,
            message: failed,
            stderr_tail: self.stderr_tail(),
            connected: hello.is_some(),
        };
        let dropped = self.dropped.load(Ordering::Relaxed);
        tracing::debug!(link = self.state.name(), pid = self.pid, %exit, dropped, "worker ended");
        let end = if left { End::PeerClosed } else { End::Died(Arc::new(death)) };
        SendEnd::reclaim_all(self.ends.get().map_or(&[], |ends| &ends.send), &self.state, end);
        self.advance(|progress| progress.exit = Some(exit));
    }

    /// Waits until it is dead and everything it had is reclaimed, or `tick` is over: whether it is dead.
    pub(super) fn await_exit(&self, tick: Option<Duration>) -> bool {
        let progress = lock(&self.progress);
        let lives = |progress: &mut Progress| progress.exit.is_none();
        match tick {
            None => drop(self.changed.wait_while(progress, lives)),
            Some(tick) => drop(self.changed.wait_timeout_while(progress, tick, lives)),
        }
        self.progress().exit.is_some()
    }

    /// After the death: whether nobody can have what the worker was given: its process group is empty, and nobody has the
    /// other end of its control channel any more. Waits for that, `limit` at most.
    pub(super) fn is_gone_within(self: &Arc<Self>, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            // Nobody else reads it any more.
            self.on_control(ALL_CHUNKS);
            let is_gone = self.progress().hung_up && self.control.is_closed() && lock(&self.child).group_is_empty();
            if is_gone || Instant::now() >= deadline {
                return is_gone;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// There may be room for what it is yet to be told.
    pub(super) fn on_room(&self) {
        self.told(self.outbox.on_room(&self.control));
    }

    /// A worker that is not told what others know, or what it must use, is none to go on with.
    pub(super) fn told(&self, result: std::io::Result<()>) {
        if let Err(why) = result {
            self.state.give_up(End::Untold(why.to_string()));
        }
    }

    /// Says which parameters are the newest.
    pub(super) fn set_params(&self, version: u64, message: Vec<u8>) {
        self.told(self.outbox.params(&self.control, message));
        self.state.set_params(version);
    }

    /// Ends it now, as [`Worker::stop`](super::Worker::stop) says: SIGTERM and SIGKILL follow, each after `grace`.
    pub(super) fn end(&self, grace: Duration) -> Exit {
        self.ends.get().into_iter().flat_map(|ends| &ends.send).for_each(|end| end.close());
        if let Ok(close) = control::encode(&ToWorker::Close) {
            self.told(self.outbox.close(&self.control, close));
        }
        let mut steps = [Signal::TERM, Signal::KILL].into_iter();
        let mut limit = grace;
        loop {
            let ended = self.wait(&mut Until::after(limit), |progress| progress.exit.is_some());
            match (ended.ok().and_then(|progress| progress.exit), steps.next()) {
                (Some(exit), _) => return exit,
                (None, Some(signal)) => self.signal(signal),
                // A process that survives SIGKILL waits in the kernel; there is nothing more to do about it.
                (None, None) => return Exit::Unknown,
            }
            limit = grace.max(Duration::from_millis(500));
        }
    }

    /// After the death: waits until nothing of the worker's process group is left and nobody but its `owners` has this
    /// value, so that its descriptors close with theirs. A second at most.
    pub(super) fn settle(self: &Arc<Self>, owners: usize) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while (Arc::strong_count(self) > owners || !lock(&self.child).group_is_empty()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The link's end as an error, for a worker that never became ready.
    pub(super) fn end_error(&self) -> Option<Error> {
        let error = self.state.check().err()?;
        match (error, self.progress()) {
            (Error::WorkerDied(_), Progress { denied: Some(operation), failed: Some(what), .. }) => {
                let doing = format!("starting worker '{}' (pid {})", self.state.name(), self.pid);
                Some(Error::denied(doing, operation, what))
            }
            (error, _) => Some(error),
        }
    }
}
