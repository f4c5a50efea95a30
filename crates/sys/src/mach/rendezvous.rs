//! Which check-in is whose: the host's side of the one port that strangers can send to.
//!
//! *Who calls it*: the host's service thread, with the messages of both rendezvous ports. *Invariants*: a nonce is good once,
//! and until its worker is given up: how long that takes is the business of whoever waits for the worker, and no one guesses
//! 256 bits meanwhile; a check-in is believed only after every look of [`Rendezvous::accept`], in that order; what is refused
//! is destroyed, counted, and changes nothing else. *A hostile peer*, a stranger included, may send anything at any rate: each
//! message costs one comparison with each worker that is expected.
//! Any process of the same user that has the nonce is believed: the worker may be a child of what was spawned, as under
//! `uv run`, so that its pid says nothing.

use super::check_in::{CHECK_IN, Nonce, VERSION};
use super::error::Check;
use super::received::{AuditToken, Received};
use super::right::SendRight;
use super::task::Task;

/// A worker, as its host counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

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
struct Expected {
    worker: WorkerId,
    nonce: Nonce,
}

/// The workers that may still check in.
#[derive(Debug)]
pub struct Rendezvous {
    uid: u32,
    expected: Vec<Expected>,
    refused: u64,
}

impl Rendezvous {
    /// For workers of user `uid`.
    #[must_use]
    pub fn new(uid: u32) -> Self {
        Self { uid, expected: Vec::new(), refused: 0 }
    }

    /// Expects a worker until it is [forgotten](Self::forget). To be called before it is spawned.
    pub fn expect(&mut self, worker: WorkerId, nonce: Nonce) {
        self.expected.push(Expected { worker, nonce });
    }

    /// Whose check-in a message is.
    ///
    /// # Errors
    /// What was wrong. The message is gone, and counted.
    pub fn accept<T: Task>(&mut self, message: Received<T>) -> Result<Accepted<T>, Check> {
        self.look_at(message).map_err(|check| self.refuse(check))
    }

    fn look_at<T: Task>(&mut self, message: Received<T>) -> Result<Accepted<T>, Check> {
        let mut message = message.check(CHECK_IN)?;
        let nonce = Nonce::of(&message);
        // All are compared, whichever it is.
        let all = self.expected.iter().enumerate();
        let found =
            all.fold(None, |found, (index, expected)| if expected.nonce.is(&nonce) { Some(index) } else { found });
        let (index, audit) = (found.ok_or(Check::Nonce)?, message.sender());
        if audit.euid() != self.uid {
            return Err(Check::User { found: audit.euid() });
        }
        if message.word(0) != VERSION {
            return Err(Check::Version { found: message.word(0) });
        }
        // A right this process has besides, its own ports among them: what is asked of it here would be asked of others'.
        if message.names().any(|name| !message.task().is_sole_send(name)) {
            return Err(Check::Shared);
        }
        let port = message.take().ok_or(Check::DeadRight)?;
        // Burns the nonce.
        let Expected { worker, .. } = self.expected.swap_remove(index);
        Ok(Accepted { worker, port, audit })
    }

    /// Counts a message the guard could not even take charge of.
    pub fn unfit(&mut self, check: Check) {
        self.refuse(check);
    }

    fn refuse(&mut self, check: Check) -> Check {
        self.refused += 1;
        check
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
