//! How each side learns that the other is gone, and which sign counts.
//!
//! *Who calls it*: host and worker, for the port only the kernel can send to; the control channel, for what becomes of a peer.
//! *Invariants*: that port's right is given out as MAKE_SEND_ONCE in requests for notifications and in no other way; what came
//! to it is believed only if the kernel sent it; the first sign of death or violation decides, the others change nothing, and
//! nothing a peer wrote before it died is lost. *A hostile peer* has no right to that port. If it had one, its message would
//! name it as the sender.

use std::io;
use std::time::Duration;

use super::error::{Check, SetupError, Sign};
use super::received::{ReceiveError, Received, Shape};
use super::right::{ReceiveRight, SendRight};
use super::task::{Name, Notify, Task};

/// Messages a notification port can hold: no-senders, dead name, and what each says when it is withdrawn.
const NEWS: u32 = 16;
/// `MACH_NOTIFY_PORT_DELETED`: a send right with a pending dead-name request was released, by us.
const PORT_DELETED: i32 = 65;
/// `MACH_NOTIFY_SEND_ONCE`: a send-once right was released unused, as when the port it waited on is destroyed by us.
const SEND_ONCE: i32 = 71;
/// Words of an `NDR_record_t`, before a notification's one word.
const NDR: usize = 2;

/// A port only the kernel can send to.
#[derive(Debug)]
pub struct News<T: Task>(ReceiveRight<T>);

impl<T: Task> News<T> {
    /// A new one.
    ///
    /// # Errors
    /// No space for a name.
    pub fn new(task: &T) -> Result<Self, super::Kern> {
        ReceiveRight::new(task, NEWS).map(Self)
    }

    /// The port, to ask for notifications with and to wait on.
    pub fn port(&self) -> &ReceiveRight<T> {
        &self.0
    }

    /// The next sign of death that has come, waiting `limit` at most.
    ///
    /// # Errors
    /// See [`ReceiveError`]; [`ReceiveError::Unfit`] for what the kernel did not send.
    pub fn next(&self, limit: Duration) -> Result<Option<Sign>, ReceiveError> {
        let mut limit = limit;
        while let Some(message) = Received::next(&self.0, limit)? {
            if let Some(sign) = sign_of(message, self.0.task()).map_err(ReceiveError::Unfit)? {
                return Ok(Some(sign));
            }
            limit = Duration::ZERO;
        }
        Ok(None)
    }

    /// The peer's fate, if its death has been told.
    ///
    /// # Errors
    /// The port cannot be received from.
    pub fn fate(&self) -> Result<Option<Fate>, SetupError> {
        match self.next(Duration::ZERO) {
            Ok(sign) => Ok(sign.map(Fate::Died)),
            // Nobody but the kernel has a right to send here: whoever did is not known to be the peer.
            Err(ReceiveError::Unfit(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl<T: Task> Drop for News<T> {
    fn drop(&mut self) {
        // A dead name's notification that nobody has read keeps its reference. Whoever had it watched has released the right
        // before this, so that no more can come. Should somebody have filled the queue, the kernel's own are behind that: the
        // limit does not hold for them.
        for _ in 0..2 * NEWS {
            if let Ok(None) | Err(ReceiveError::Failed(_) | ReceiveError::Forked(_)) = self.next(Duration::ZERO) {
                break;
            }
        }
    }
}

/// What a notification says; nothing for those that only report a release of our own.
fn sign_of<T: Task>(message: Received<T>, task: &T) -> Result<Option<Sign>, Check> {
    let id = message.id();
    let payload = if id == SEND_ONCE { 0 } else { NDR + 1 };
    let message = message.check(Shape { id, ports: 0, payload })?;
    if message.sender().pid() != 0 {
        return Err(Check::Process { found: message.sender().pid(), expected: 0 });
    }
    if id == Notify::NoSenders.id() {
        return Ok(Some(Sign::NoSenders));
    }
    if id == Notify::DeadName.id() {
        // The notification brings a reference of the dead name (ipc_right.c, ipc_right_check): it is released here, by
        // deallocate, for mod_refs(SEND) fails on dead names.
        drop(SendRight::own(task, Name(message.word(NDR))));
        return Ok(Some(Sign::DeadName));
    }
    if id == PORT_DELETED || id == SEND_ONCE { Ok(None) } else { Err(Check::Id { found: id }) }
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Died(Sign),
    /// It sent what no peer sends.
    Lied(Check),
}

/// What a link's ports and its pipe have told of the peer: what came first.
#[derive(Debug, Default)]
pub struct Watch(Option<Fate>);

impl Watch {
    /// Takes note of a peer's fate. True for the first: now everything of the peer's is to be given up.
    pub fn is_news(&mut self, fate: Fate) -> bool {
        let first = self.0.is_none();
        if first {
            self.0 = Some(fate);
        }
        first
    }

    /// The fate that came first.
    #[must_use]
    pub fn fate(&self) -> Option<Fate> {
        self.0
    }

    /// Reads from the pipe by `read`, which does not wait, after it has asked the ports by `ask`, in that order: a peer wrote
    /// before it died, so that a pipe that is empty after a sign stays empty. `Ok(0)` is the end, whichever sign it came by.
    ///
    /// # Errors
    /// `InvalidData` for a violation, from then on; what `ask` and `read` answer.
    pub fn read(
        &mut self,
        ask: impl FnOnce() -> Result<Option<Fate>, SetupError>,
        read: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.0.is_none()
            && let Some(fate) = ask().map_err(io::Error::other)?
        {
            self.is_news(fate);
        }
        if let Some(Fate::Lied(check)) = self.0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, SetupError::from(check)));
        }
        match read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.0.is_some() => Ok(0),
            Ok(0) => {
                self.is_news(Fate::Died(Sign::EndOfFile));
                Ok(0)
            }
            answer => answer,
        }
    }
}
