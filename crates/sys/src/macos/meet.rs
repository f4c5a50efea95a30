//! Where a host waits for its workers: the two rendezvous ports, their thread, and the meetings that are still to come.
//!
//! *Who calls it*: spawn and the control channel. *Invariants*: a worker is expected before it is spawned; whoever is believed
//! is welcomed at once, by the thread that believed it; a meeting takes place, fails with a reason, or is given up by whoever
//! waits for it, and then nothing of it is left: there is no time limit here, for a worker checks in when it connects, which
//! may be after it has loaded what takes minutes. The entrance lives as long as the process: its name goes with it.
//! *A hostile peer*: see [`crate::mach::rendezvous`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::poll::Queue;
use super::socket::PORTS;
use super::task::ThisTask;
use crate::mach::check_in::{Hello, Nonce, VERSION};
use crate::mach::entrance::Entrance;
use crate::mach::host::{HostLink, Offer};
use crate::mach::received::{ReceiveError, Received};
use crate::mach::rendezvous::{Accepted, Rendezvous, WorkerId};
use crate::mach::{Kern, ReceiveRight, SendError, SetupError};

/// How long a welcome may wait for room: not at all, for the queue is new and empty. One that is not is a worker's that wants
/// the others to wait.
const WELCOME: Duration = Duration::ZERO;
/// Most messages taken from one port before the other has its turn.
const TURN: usize = 64;
/// The pause after a receive that failed, so that one that always fails costs little.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Waiting,
    Met(Arc<HostLink<ThisTask>>),
    Failed(SetupError),
}

/// One worker's meeting with its host.
#[derive(Debug)]
pub(super) struct Meeting {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// The host's end of the pipe to the worker, until the hello is in it.
    down: Mutex<Option<OwnedFd>>,
    /// Watches the worker's ports from the meeting on.
    queue: Arc<Queue>,
    /// Where the worker is expected.
    expected: OnceLock<(Arc<Host>, WorkerId)>,
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if let Some((host, worker)) = self.expected.get() {
            host.forget(*worker);
        }
    }
}

impl Meeting {
    /// A meeting to come; `down` leads to the worker, whose ports `queue` will watch.
    pub(super) fn new(down: OwnedFd, queue: Arc<Queue>) -> Self {
        Self {
            progress: Mutex::default(),
            changed: Condvar::new(),
            down: Mutex::new(Some(down)),
            queue,
            expected: OnceLock::new(),
        }
    }

    /// Writes the hello, before anything else goes through that pipe.
    pub(super) fn greet(&self, hello: &[u8; Hello::LEN]) -> io::Result<()> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A pipe takes up to PIPE_BUF bytes, which is more, whole or not at all.
        down.map_or(Ok(()), |down| Ok(rustix::io::write(&down, hello).map(drop)?))
    }

    fn end(&self, result: Result<HostLink<ThisTask>, SetupError>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Waiting = *progress {
            let watched = result.and_then(|link| self.watch(&link).map(|()| Arc::new(link)));
            *progress = watched.map_or_else(Progress::Failed, Progress::Met);
        }
        self.changed.notify_all();
    }

    /// What has come to the ports by now is told too.
    fn watch(&self, link: &HostLink<ThisTask>) -> Result<(), SetupError> {
        for port in link.watched()? {
            // No memory.
            self.queue.watch_port(port, PORTS).map_err(|_| Kern::FAILURE)?;
        }
        Ok(())
    }

    /// The link with the worker. Waits for it to come, `limit` at most.
    ///
    /// # Errors
    /// `WouldBlock` when it has not; why it cannot any more.
    pub(super) fn link(&self, limit: Duration) -> io::Result<Arc<HostLink<ThisTask>>> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |progress: &mut Progress| matches!(progress, Progress::Waiting);
        let waited = self.changed.wait_timeout_while(progress, limit, waits).unwrap_or_else(PoisonError::into_inner);
        match &*waited.0 {
            Progress::Met(link) => Ok(link.clone()),
            Progress::Failed(why) => Err(failed(why.clone())),
            Progress::Waiting => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// `TimedOut` for a queue that stays full, `BrokenPipe` for a worker that is gone.
pub(super) fn failed(why: SetupError) -> io::Error {
    match why {
        SetupError::Send(SendError::Full) | SetupError::QueueFull { .. } => io::ErrorKind::TimedOut.into(),
        SetupError::Died(_) => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

/// What awaits a worker's check-in.
type Awaited = (Offer<ThisTask>, Weak<Meeting>);

/// The host's side, one for a process.
#[derive(Debug)]
struct Host {
    entrance: Entrance<ThisTask>,
    books: Mutex<Books>,
    /// The process it belongs to: in a fork of it the threads are gone, and so are the ports.
    process: u32,
}

#[derive(Debug)]
struct Books {
    rendezvous: Rendezvous,
    awaited: HashMap<WorkerId, Awaited>,
    workers: u64,
}

/// As the kernel makes it, for names and nonces.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: all of `bytes` may be written, and it is shorter than the 256 the call takes.
    match unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), N) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Host {
    /// This process's, made by the first call.
    fn get() -> io::Result<Arc<Self>> {
        static HOST: Mutex<Option<Arc<Host>>> = Mutex::new(None);
        let mut host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*host {
            return if host.process == std::process::id() {
                Ok(host.clone())
            } else {
                Err(io::Error::other(crate::mach::Forked { owner: host.process }))
            };
        }
        let entrance =
            Entrance::open(&ThisTask, random()?).map_err(|code| io::Error::other(SetupError::Kernel(code)))?;
        let uid = rustix::process::geteuid().as_raw();
        let books = Books { rendezvous: Rendezvous::new(uid), awaited: HashMap::new(), workers: 0 };
        let new = Arc::new(Self { entrance, books: Mutex::new(books), process: std::process::id() });
        let queue = Queue::new()?;
        for (index, port) in (0..).zip(new.entrance.ports()) {
            queue.watch_port(port.name().map_err(io::Error::other)?, index)?;
        }
        let serving = new.clone();
        // The last step: an error leaves nobody who has the entrance, and no name.
        std::thread::Builder::new().name("frameport-meet".to_owned()).spawn(move || serving.serve(&queue))?;
        *host = Some(new.clone());
        Ok(new)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the entrance until the process ends. A port that is gone leaves the queue, and the other remains.
    fn serve(&self, queue: &Queue) {
        while let Ok(told) = queue.ready(None) {
            let told = |(index, _): &(u64, _)| told.contains(index);
            (0..).zip(self.entrance.ports()).filter(told).for_each(|(_, port)| self.take(port));
        }
    }

    /// Takes what has come to a port.
    fn take(&self, port: &ReceiveRight<ThisTask>) {
        for _ in 0..TURN {
            match Received::next(port, Duration::ZERO) {
                Ok(Some(message)) => {
                    let accepted = self.books().rendezvous.accept(message);
                    if let Ok(accepted) = accepted {
                        self.welcome(accepted);
                    }
                }
                Ok(None) => return,
                Err(ReceiveError::Unfit(check)) => self.books().rendezvous.unfit(check),
                Err(ReceiveError::Failed(_) | ReceiveError::Forked(_)) => return std::thread::sleep(PAUSE),
            }
        }
    }

    fn welcome(&self, accepted: Accepted<ThisTask>) {
        let awaited = self.books().awaited.remove(&accepted.worker);
        if let Some((offer, meeting)) = awaited
            && let Some(meeting) = meeting.upgrade()
        {
            meeting.end(offer.welcome(accepted, &[], WELCOME));
        }
    }

    fn forget(&self, worker: WorkerId) {
        let mut books = self.books();
        books.rendezvous.forget(worker);
        books.awaited.remove(&worker);
    }
}

/// Spawns a worker that will find its host, and returns what it must read in its pipe.
pub(super) fn introduce<R>(
    meeting: &Arc<Meeting>,
    spawn: impl FnOnce() -> io::Result<R>,
) -> io::Result<(R, [u8; Hello::LEN])> {
    let host = Host::get()?;
    let offer = Offer::new(&ThisTask).map_err(|code| io::Error::other(SetupError::Kernel(code)))?;
    let nonce = Nonce::new(random()?);
    let service = host.entrance.service().map(str::to_owned);
    let mut hello = Hello { version: VERSION, service, lent: false, nonce: nonce.clone(), host: host.process };
    // Now, for an error after the spawn would leave a process behind.
    hello.to_bytes()?;
    let worker = {
        let mut books = host.books();
        books.workers += 1;
        let worker = WorkerId(books.workers);
        books.rendezvous.expect(worker, nonce);
        books.awaited.insert(worker, (offer, Arc::downgrade(meeting)));
        worker
    };
    // So that whoever gives up the meeting gives up the worker.
    let _ = meeting.expected.set((host.clone(), worker));
    let (spawned, lent) = host.entrance.admit(spawn).map_err(io::Error::other)?;
    hello.lent = lent;
    Ok((spawned?, hello.to_bytes()?))
}
