//! The thread that notices when the host closes the link or dies, and brings the parameters it sets.
//!
//! *Invariants*: it ends every wait of the worker at once; a worker that does not leave by itself within half a second
//! of its host's death is ended with its whole process group, so that no worker outlives its host by a second, whatever
//! its code is doing. *The host* is trusted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use frameport_sys::handle::Handle;
use frameport_sys::{process, thread};
use frameport_wire::control::{Decoder, NewPool, ToHost, ToWorker};

use super::outgoing::Outgoing;
use crate::channel::lot::Lot;
use crate::channel::state::{End, LinkState};
use crate::error::Error;
use crate::link::{self, Ends};
use crate::pool::Pool;

/// How long a worker whose host is dead may take to leave.
const GRACE: Duration = Duration::from_millis(500);

/// The thread's part of the link.
struct Watcher {
    state: Arc<LinkState>,
    outgoing: Arc<Outgoing>,
    /// Weak, for it outlives the link.
    ends: Weak<Ends>,
    /// Handles that came before the messages they belong to were whole.
    handles: Vec<Handle>,
}

/// Starts the thread.
pub(super) fn start(
    state: &Arc<LinkState>,
    outgoing: &Arc<Outgoing>,
    ends: &Arc<Ends>,
    decoder: Decoder,
    group: u32,
) -> Result<(), Error> {
    let system = Error::system("starting the watcher thread");
    outgoing.control.limit_reads(Duration::ZERO).map_err(&system)?;
    // From here on a frame's parameters are waited for.
    state.newest();
    let (state, outgoing, ends) = (Arc::clone(state), Arc::clone(outgoing), Arc::downgrade(ends));
    let watcher = Watcher { state, outgoing, ends, handles: Vec::new() };
    let thread = thread::Builder::new().name("frameport".into());
    thread.spawn(move || watcher.watch(decoder, group)).map(|_| ()).map_err(&system)
}

impl Watcher {
    fn watch(mut self, mut decoder: Decoder, group: u32) {
        let mut bytes = [0; 4096];
        loop {
            while let Ok(Some(message)) = decoder.decode::<ToWorker>() {
                self.on_message(message);
            }
            match self.outgoing.control.recv_with_handles(&mut bytes, &mut self.handles) {
                Ok(read) if read > 0 => decoder.push(bytes.get(..read).unwrap_or_default()),
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    self.give_up(&Error::system("taking what the host gives")(error));
                    break;
                }
                Err(_) => break,
            }
        }
        self.state.newest().end();
        self.state.finish(End::HostGone);
        thread::sleep(GRACE);
        process::end_own_group(group);
    }

    fn on_message(&mut self, message: ToWorker) {
        let ends = self.ends.upgrade();
        let ends = ends.as_deref();
        match message {
            ToWorker::Close => drop(self.state.finish(End::PeerClosed)),
            ToWorker::Params { version, values } => self.state.newest().arrive(version, values),
            ToWorker::Pool(news) => {
                let id = news.pool.id;
                match ends.map_or(Ok(()), |ends| self.join(ends, news)) {
                    Ok(()) => self.outgoing.tell(&ToHost::Joined { pool: id }),
                    Err(error) => self.give_up(&error),
                }
            }
            ToWorker::Retire { pool } => {
                let (send, recv) = ends.map_or((&[][..], &[][..]), |ends| (&ends.send, &ends.recv));
                recv.iter().for_each(|end| end.drop_pool(pool));
                send.iter().for_each(|end| end.leave(pool));
            }
            ToWorker::Denied { channel, reason } => {
                let asked = ends.and_then(|ends| ends.send.iter().find(|end| end.channel() == channel));
                asked.into_iter().for_each(|end| end.deny(reason.clone()));
            }
            ToWorker::Welcome(_) | ToWorker::Refuse { .. } | ToWorker::Unknown => {}
        }
    }

    /// What the host has sent is not to be had: the link is over, and the host learns why.
    fn give_up(&self, error: &Error) {
        let _ = self.state.violation(error);
        self.outgoing.give_up(error);
    }

    /// Maps a new pool and lets frames come in it.
    fn join(&mut self, ends: &Ends, news: NewPool) -> Result<(), Error> {
        let NewPool { channel, spec, pool, answers, returns } = news;
        let came = self.handles.len();
        let mut handles = self.handles.drain(..came.min(3));
        let (Some(pixels), Some(host_page), Some(worker_page)) = (handles.next(), handles.next(), handles.next())
        else {
            return Err(Error::Protocol { what: format!("pool {} came with {came} handles", pool.id) });
        };
        drop(handles);
        let pool = Arc::new(Pool::join(pool, &spec, [pixels, host_page, worker_page])?);
        if let Some(end) = ends.recv.iter().find(|end| end.channel() == channel) {
            end.add_pool(pool, link::bits(returns));
        } else if let Some(end) = ends.send.iter().find(|end| end.channel() == channel) {
            end.add_lot(Lot::new(pool), None, answers, true);
        } else {
            return Err(Error::Protocol {
                what: format!("pool {} is of channel {channel}, which is not there", pool.decl.id),
            });
        }
        Ok(())
    }
}
