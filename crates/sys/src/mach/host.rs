//! A host's side of one worker: the ports it makes before the spawn, and the welcome.
//!
//! *Who calls it*: the host's bring-up and service thread. *Invariants*: the worker's port in the host has no sender before
//! the welcome, and its loss is asked for before the spawn; it is never stashed anywhere a child could inherit it, so that
//! its senders are gone when the worker is; nothing may come to it, and what comes is a violation. *A hostile peer* can fill
//! that port's queue, never read its own, or pass its right on.

use std::time::Duration;

use super::check_in::{VERSION, id};
use super::death::{Fate, News};
use super::error::{Check, SetupError, Sign};
use super::message::{Outgoing, SendError};
use super::received::{AuditToken, ReceiveError, Received};
use super::rendezvous::{Accepted, WorkerId};
use super::right::{Forked, ReceiveRight, SendRight};
use super::task::{Kern, Name, Task};

/// Messages the worker's port can hold; none may come.
const QUEUE: u32 = 64;

/// A control region to hand over: its memory entry and its size in bytes.
#[derive(Debug)]
pub struct Region<'r, T: Task> {
    /// The memory entry, made with no more than the access the worker may have.
    pub entry: &'r SendRight<T>,
    /// Bytes.
    pub len: u64,
}

/// What is made for a worker before it is spawned.
#[derive(Debug)]
pub struct Offer<T: Task> {
    port: ReceiveRight<T>,
    news: News<T>,
}

impl<T: Task> Offer<T> {
    /// Makes the ports, and asks to be told when the worker's is out of reach.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(task: &T) -> Result<Self, Kern> {
        let news = News::new(task)?;
        let port = ReceiveRight::new(task, QUEUE)?;
        port.tell_when_unreachable(news.port())?;
        Ok(Self { port, news })
    }

    /// Answers a check-in: the worker gets its port and its control regions.
    ///
    /// # Errors
    /// The worker is gone, or does not read; then everything made for it is released.
    pub fn welcome(
        self,
        accepted: Accepted<T>,
        regions: &[Region<'_, T>],
        limit: Duration,
    ) -> Result<HostLink<T>, SetupError> {
        let Self { port, news } = self;
        let Accepted { worker, port: peer, audit } = accepted;
        let sizes = regions.iter().flat_map(|region| [region.len as u32, (region.len >> 32) as u32]);
        let message = Outgoing::new(id::WELCOME, [VERSION].into_iter().chain(sizes).collect()).making(&port);
        let message = regions.iter().fold(message, |message, region| message.copying(region.entry));
        message.send(&peer, limit).map_err(|error| match error {
            SendError::Gone => SetupError::Died(Sign::DeadName),
            other => SetupError::Send(other),
        })?;
        match news.port().told_of_death(&peer) {
            Ok(()) => Ok(HostLink { worker, audit, peer, port, news }),
            // What a name that has died is answered with: the kernel tells of a death to come only.
            Err(Kern::INVALID_ARGUMENT) => Err(SetupError::Died(Sign::DeadName)),
            Err(other) => Err(other.into()),
        }
    }
}

/// What a host holds of a worker that was welcomed.
#[derive(Debug)]
pub struct HostLink<T: Task> {
    worker: WorkerId,
    audit: AuditToken,
    // Released before the news it is watched with.
    peer: SendRight<T>,
    port: ReceiveRight<T>,
    news: News<T>,
}

impl<T: Task> HostLink<T> {
    /// Which worker.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The process that checked in.
    #[must_use]
    pub fn audit(&self) -> AuditToken {
        self.audit
    }

    /// The right to send to the worker.
    pub fn peer(&self) -> &SendRight<T> {
        &self.peer
    }

    /// The port that tells of its death.
    pub fn news(&self) -> &News<T> {
        &self.news
    }

    /// The port the worker has the right to send to: what comes is a violation.
    pub fn port(&self) -> &ReceiveRight<T> {
        &self.port
    }

    /// The names of the ports that tell of the worker: [`fate`](Self::fate) is to be asked while one has a message.
    ///
    /// # Errors
    /// In a fork of the host.
    pub fn watched(&self) -> Result<[Name; 2], Forked> {
        Ok([self.port.name()?, self.news.port().name()?])
    }

    /// What has become of the worker, as far as its ports tell. What came to its own is destroyed.
    ///
    /// # Errors
    /// A port cannot be received from.
    pub fn fate(&self) -> Result<Option<Fate>, SetupError> {
        match Received::next(&self.port, Duration::ZERO) {
            Ok(None) => self.news.fate(),
            Ok(Some(message)) => Ok(Some(Fate::Lied(Check::Id { found: message.id() }))),
            Err(ReceiveError::Unfit(check)) => Ok(Some(Fate::Lied(check))),
            Err(error) => Err(error.into()),
        }
    }
}
