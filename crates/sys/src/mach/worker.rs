//! A worker's side: the way to the host's port, the check-in, and the welcome.
//!
//! *Who calls it*: the worker's connect, once, before the process forks or starts threads that might. *Invariants*: the
//! right to the rendezvous port is released as soon as the check-in is sent; nothing is waited for without a limit; the
//! welcome is believed only from the host's process. *A hostile peer*: the worker trusts its host, but not whoever else might
//! have got hold of its port.

use std::time::Duration;

use super::check_in::{Hello, MAX_REGIONS, VERSION, id, welcome};
use super::death::{Fate, News};
use super::error::{Check, Denied, Operation, SetupError, Sign, Slot};
use super::message::{Outgoing, SendError};
use super::received::Received;
use super::right::{Forked, ReceiveRight, SendRight};
use super::slot;
use super::task::{Kern, Name, Task};

/// Messages the worker's port can hold, the most there may be (`MACH_PORT_QLIMIT_LARGE`, osfmk/mach/port.h): the welcome, and of 31
/// channels' pools sixteen surfaces and two pages each; what follows waits until the worker has taken those.
const QUEUE: u32 = 1024;

/// Finds the port of the host: by name, else in the registered port.
///
/// # Errors
/// [`SetupError::RendezvousDenied`] with both answers.
pub fn find_host<T: Task>(task: &T, hello: &Hello) -> Result<SendRight<T>, SetupError> {
    // Taken out in any case: it is nothing for the worker's own children.
    let lent = if hello.lent { slot::take(task) } else { Err(Slot::Unseen) };
    // A host without a name was denied it itself.
    let (operation, looked_up) = match &hello.service {
        Some(service) => (Operation::LookUp, task.look_up(service)),
        None => (Operation::Register, Err(Kern::NOT_PRIVILEGED)),
    };
    let answer = match looked_up.map(|name| SendRight::own(task, name)) {
        Ok(Some(right)) => return Ok(right),
        Ok(None) => Kern::UNKNOWN_SERVICE,
        Err(answer) => answer,
    };
    lent.map_err(|slot| SetupError::RendezvousDenied(Denied { operation, answer, slot }))
}

/// A worker that has checked in, and waits.
#[derive(Debug)]
pub struct CheckedIn<T: Task> {
    host: u32,
    regions: usize,
    port: ReceiveRight<T>,
    news: News<T>,
}

impl<T: Task> CheckedIn<T> {
    /// Checks in with the host; the link will have `regions` control regions.
    ///
    /// # Errors
    /// No way to the host; it is gone; it speaks another version; what the kernel answers.
    pub fn new(task: &T, hello: &Hello, regions: usize, limit: Duration) -> Result<Self, SetupError> {
        // First, for it takes what the host lent out of the registered ports, whatever comes next.
        let found = find_host(task, hello);
        if hello.version != VERSION {
            return Err(Check::Version { found: hello.version }.into());
        }
        if regions > MAX_REGIONS {
            return Err(Check::Content.into());
        }
        let found = found?;
        let news = News::new(task)?;
        let port = ReceiveRight::new(task, QUEUE)?;
        port.tell_when_unreachable(news.port())?;
        let message = Outgoing::new(id::CHECK_IN, hello.nonce.payload()).making(&port);
        message.send(&found, limit).map_err(|error| match error {
            SendError::Gone => SetupError::Died(Sign::DeadName),
            other => SetupError::Send(other),
        })?;
        drop(found);
        Ok(Self { host: hello.host, regions, port, news })
    }

    /// Waits for the host's answer by `wait`, which returns when one of the [watched](Self::watched) ports has something to
    /// tell. Its error says that nothing is to be waited for any longer; an answer that has come by then still counts.
    ///
    /// # Errors
    /// The host refused the check-in or is gone, which looks the same: nobody has our right; the answer is not what it must be;
    /// the error of `wait`.
    pub fn welcomed(self, mut wait: impl FnMut() -> Result<(), SetupError>) -> Result<WorkerLink<T>, SetupError> {
        let message = loop {
            let waited = wait();
            if let Some(message) = Received::next(&self.port, Duration::ZERO)? {
                break message;
            }
            if let Some(Fate::Died(sign)) = self.news.fate()? {
                return Err(SetupError::Died(sign));
            }
            waited?;
        };
        let mut message = message.check(welcome(self.regions))?;
        let sender = message.sender().pid();
        if sender != self.host {
            return Err(Check::Process { found: sender, expected: self.host }.into());
        }
        if message.word(0) != VERSION {
            return Err(Check::Version { found: message.word(0) }.into());
        }
        let host = message.take().ok_or(Check::DeadRight)?;
        let size = |index: usize| u64::from(message.word(1 + 2 * index)) | u64::from(message.word(2 + 2 * index)) << 32;
        let sizes: Vec<u64> = (0..self.regions).map(size).collect();
        let mut regions = Vec::with_capacity(self.regions);
        for len in sizes {
            regions.push((message.take().ok_or(Check::DeadRight)?, len));
        }
        match self.news.port().told_of_death(&host) {
            Ok(()) => Ok(WorkerLink { host: self.host, peer: host, regions, port: self.port, news: self.news }),
            Err(Kern::INVALID_ARGUMENT) => Err(SetupError::Died(Sign::DeadName)),
            Err(other) => Err(other.into()),
        }
    }

    /// The port the welcome comes to.
    pub fn port(&self) -> &ReceiveRight<T> {
        &self.port
    }

    /// The port that tells that the check-in was refused.
    pub fn news(&self) -> &News<T> {
        &self.news
    }

    /// The names of both, to wait until one has a message.
    ///
    /// # Errors
    /// In a fork of the worker.
    pub fn watched(&self) -> Result<[Name; 2], Forked> {
        Ok([self.port.name()?, self.news.port().name()?])
    }
}

/// What a worker holds of its host.
#[derive(Debug)]
pub struct WorkerLink<T: Task> {
    host: u32,
    // Its loss tells the host of this worker's death; nothing is ever sent to it.
    peer: SendRight<T>,
    regions: Vec<(SendRight<T>, u64)>,
    port: ReceiveRight<T>,
    news: News<T>,
}

impl<T: Task> WorkerLink<T> {
    /// The memory entries of the control regions with their sizes in bytes, once: to be mapped and dropped.
    pub fn take_regions(&mut self) -> Vec<(SendRight<T>, u64)> {
        std::mem::take(&mut self.regions)
    }

    /// The host's process.
    #[must_use]
    pub fn host(&self) -> u32 {
        self.host
    }

    /// The right that shows the host that this worker lives.
    pub fn peer(&self) -> &SendRight<T> {
        &self.peer
    }

    /// The port surfaces come to.
    pub fn port(&self) -> &ReceiveRight<T> {
        &self.port
    }

    /// The port that tells of the host's death.
    pub fn news(&self) -> &News<T> {
        &self.news
    }

    /// The name of the port that tells of the host: [`fate`](Self::fate) is to be asked while it has a message.
    ///
    /// # Errors
    /// In a fork of the worker.
    pub fn watched(&self) -> Result<[Name; 1], Forked> {
        Ok([self.news.port().name()?])
    }

    /// What has become of the host, as far as the ports tell.
    ///
    /// # Errors
    /// A port cannot be received from.
    pub fn fate(&self) -> Result<Option<Fate>, SetupError> {
        self.news.fate()
    }
}
