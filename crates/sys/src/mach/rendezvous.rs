//! Which check-in is whose: the host's side of the one port that strangers can send to.
//!
//! *Who calls it*: the host's service thread, with the messages of both rendezvous ports and the time. *Invariants*: a nonce
//! is good once and until its deadline; a check-in is believed only after every look of [`Rendezvous::accept`], in that
//! order; what is refused is destroyed, counted, and changes nothing else. *A hostile peer*, a stranger included, may send
//! anything at any rate: each message costs one comparison with each worker that is expected.
//!
//! A worker can be faster than the call that started it: its check-in may come before its host knows its pid. Where the pid
//! must be the spawned one, such a check-in waits here until [`Rendezvous::spawned`] tells it.

use std::time::Duration;

use super::check_in::{CHECK_IN, Nonce, VERSION};
use super::error::Check;
use super::received::{AuditToken, ReceiveError, Received};
use super::right::SendRight;
use super::task::Task;

/// A worker, as its host counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// Whose check-in it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Any process of the same user that has the nonce: the worker may be a child of what was spawned, as under `uv run`.
    Anyone,
    /// Only the spawned process.
    Spawned,
}

/// A worker that was believed.
#[derive(Debug)]
pub struct Accepted<T: Task> {
    /// Which.
    pub worker: WorkerId,
    /// The right to send to it.
    pub port: SendRight<T>,
    /// Its process.
    pub audit: AuditToken,
}

#[derive(Debug)]
struct Expected<T: Task> {
    worker: WorkerId,
    nonce: Nonce,
    deadline: Duration,
    sender: Sender,
    pid: Option<u32>,
    /// A check-in that came before the pid was known; its nonce is burnt.
    early: Option<Accepted<T>>,
}

/// The workers that may still check in.
#[derive(Debug)]
pub struct Rendezvous<T: Task> {
    uid: u32,
    expected: Vec<Expected<T>>,
    refused: u64,
}

impl<T: Task> Rendezvous<T> {
    /// For workers of user `uid`.
    #[must_use]
    pub fn new(uid: u32) -> Self {
        Self { uid, expected: Vec::new(), refused: 0 }
    }

    /// Expects a worker until `deadline`. To be called before it is spawned.
    pub fn expect(&mut self, worker: WorkerId, nonce: Nonce, deadline: Duration, sender: Sender) {
        self.expected.push(Expected { worker, nonce, deadline, sender, pid: None, early: None });
    }

    /// Tells the pid of a spawned worker, and learns of a check-in that was faster than that.
    ///
    /// # Errors
    /// The check-in that came had another sender; the nonce is burnt.
    pub fn spawned(&mut self, worker: WorkerId, pid: u32) -> Result<Option<Accepted<T>>, Check> {
        let Some(index) = self.expected.iter().position(|expected| expected.worker == worker) else { return Ok(None) };
        let expected = &mut self.expected[index];
        expected.pid = Some(pid);
        let Some(early) = expected.early.take() else { return Ok(None) };
        self.expected.swap_remove(index);
        if early.audit.pid() != pid {
            return Err(self.refuse(Check::Process { found: early.audit.pid(), expected: pid }));
        }
        Ok(Some(early))
    }

    /// Looks at a message. `None`: a check-in that waits for [`Self::spawned`].
    ///
    /// # Errors
    /// What was wrong. The message is gone, and counted.
    pub fn accept(&mut self, message: Received<T>, now: Duration) -> Result<Option<Accepted<T>>, Check> {
        self.look_at(message, now).map_err(|check| self.refuse(check))
    }

    fn look_at(&mut self, message: Received<T>, now: Duration) -> Result<Option<Accepted<T>>, Check> {
        let mut message = message.check(CHECK_IN)?;
        let nonce = Nonce::of(&message);
        // All are compared, whichever it is.
        let is_expected = |e: &Expected<T>| e.nonce.is(&nonce) & (now < e.deadline) & e.early.is_none();
        let found =
            self.expected.iter().enumerate().fold(None, |found, (i, e)| if is_expected(e) { Some(i) } else { found });
        let (index, audit) = (found.ok_or(Check::Nonce)?, message.sender());
        if audit.euid() != self.uid {
            return Err(Check::User { found: audit.euid() });
        }
        let expected = self.expected.get(index).ok_or(Check::Nonce)?;
        let (worker, sender, pid) = (expected.worker, expected.sender, expected.pid);
        if let (Sender::Spawned, Some(pid)) = (sender, pid)
            && audit.pid() != pid
        {
            return Err(Check::Process { found: audit.pid(), expected: pid });
        }
        if message.word(0) != VERSION {
            return Err(Check::Version { found: message.word(0) });
        }
        // A right this process has besides, its own ports among them: what is asked of it here would be asked of others'.
        if message.names().any(|name| !message.task().is_sole_send(name)) {
            return Err(Check::Shared);
        }
        let port = message.take().ok_or(Check::DeadRight)?;
        let accepted = Accepted { worker, port, audit };
        if sender == Sender::Spawned && pid.is_none() {
            if let Some(expected) = self.expected.get_mut(index) {
                expected.early = Some(accepted);
            }
            return Ok(None);
        }
        // Burns the nonce.
        self.expected.swap_remove(index);
        Ok(Some(accepted))
    }

    /// Counts a message the guard could not even take charge of.
    pub fn unfit(&mut self, error: ReceiveError) {
        if let ReceiveError::Unfit(check) = error {
            self.refuse(check);
        }
    }

    fn refuse(&mut self, check: Check) -> Check {
        self.refused += 1;
        check
    }

    /// The workers whose time is over; their nonces are no good any more.
    pub fn expire(&mut self, now: Duration) -> Vec<WorkerId> {
        self.expected.extract_if(.., |expected| expected.deadline <= now).map(|late| late.worker).collect()
    }

    /// The earliest time [`Self::expire`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.expected.iter().map(|expected| expected.deadline).min()
    }

    /// A worker is gone, or given up: its nonce is no good any more.
    pub fn forget(&mut self, worker: WorkerId) {
        self.expected.retain(|expected| expected.worker != worker);
    }

    /// Messages refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
