//! What a host has to say to one worker, without ever waiting for it.
//!
//! *Who calls it*: setters of parameters and [`stop`](super::Worker::stop) from any thread, the service thread when the
//! control channel has room again. *Invariants*: a message that was begun is finished before the next begins; what tells of
//! pools goes in the order it was said; of parameters only the newest set waits. *A hostile worker* can refuse to read: nothing
//! waits for it but these, and there are few, for the next change of a spec waits until the worker has taken part in the last.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{OnceLock, PoisonError};

use frameport_sys::handle::Handle;
use frameport_sys::socket::Control;
use frameport_sys::sync::{Mutex, MutexGuard};

use super::service::Service;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    /// The control channel's token at the service.
    token: OnceLock<u64>,
}

#[derive(Debug, Default)]
struct Pending {
    /// What is left of a message that was begun, and its handles, if they are yet to go.
    begun: Vec<u8>,
    handles: Vec<Handle>,
    close: Option<Vec<u8>>,
    pools: VecDeque<(Vec<u8>, Vec<Handle>)>,
    params: Option<Vec<u8>>,
    /// The service thread watches for room.
    watched: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the service thread watches `control`: known from registration on.
    pub(super) fn set_token(&self, token: u64) {
        let _ = self.token.set(token);
    }

    /// Sends parameters, in place of those that have not left yet.
    ///
    /// # Errors
    /// What keeps anything from reaching the worker, here and below; not that it is gone, which its death tells.
    pub(super) fn params(&self, control: &Control, message: Vec<u8>) -> io::Result<()> {
        let mut pending = self.lock();
        pending.params = Some(message);
        if pending.watched { Ok(()) } else { self.write(pending, control) }
    }

    /// How much is still to be said about pools.
    pub(super) fn waiting(&self) -> usize {
        self.lock().pools.len()
    }

    /// Says something about pools, after all that was said before.
    pub(super) fn pool(&self, control: &Control, message: Vec<u8>, handles: Vec<Handle>) -> io::Result<()> {
        let mut pending = self.lock();
        pending.pools.push_back((message, handles));
        if pending.watched { Ok(()) } else { self.write(pending, control) }
    }

    /// Says that the link is over.
    pub(super) fn close(&self, control: &Control, message: Vec<u8>) -> io::Result<()> {
        let mut pending = self.lock();
        pending.close = Some(message);
        self.write(pending, control)
    }

    /// There may be room.
    pub(super) fn on_room(&self, control: &Control) -> io::Result<()> {
        let pending = self.lock();
        if pending.watched { self.write(pending, control) } else { Ok(()) }
    }

    fn write(&self, mut pending: MutexGuard<'_, Pending>, control: &Control) -> io::Result<()> {
        let written = pending.write(control);
        let stuck = *written.as_ref().unwrap_or(&false);
        if stuck != pending.watched
            && let (Some(&token), Ok(service)) = (self.token.get(), Service::get())
        {
            service.watch_room(control, token, stuck);
            pending.watched = stuck;
        }
        written.map(drop)
    }
}

impl Pending {
    /// Writes what there is room for; whether anything is left that room would help.
    fn write(&mut self, control: &Control) -> io::Result<bool> {
        loop {
            if self.begun.is_empty() {
                let next = self.close.take().map(|close| (close, Vec::new()));
                let next = next.or_else(|| self.pools.pop_front());
                let next = next.or_else(|| self.params.take().map(|params| (params, Vec::new())));
                let Some(next) = next else { return Ok(false) };
                (self.begun, self.handles) = next;
            }
            match control.send_some(&self.begun, &self.handles) {
                Ok(sent) => {
                    self.handles.clear();
                    self.begun.drain(..sent.min(self.begun.len()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => {
                    // What is left is for nobody.
                    *self = Self { watched: self.watched, ..Self::default() };
                    let is_gone = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                    return if is_gone { Ok(false) } else { Err(error) };
                }
            }
        }
    }
}
