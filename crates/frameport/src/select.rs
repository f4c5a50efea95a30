//! Waiting for several channels at once, of one link or of many, from one thread.
//!
//! *Who calls it*: applications. *Invariants*: it takes nothing, it only says where a receive would not wait; it sleeps on the
//! links' events, so it costs nothing while nothing comes. *A hostile worker* can make its own link look ready: the receive
//! that follows finds nothing or its lie.

use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::clock::Instant;
use frameport_sys::event;
use frameport_sys::thread::yield_now;

use crate::channel::handle::Receiver;
use crate::error::Error;

/// How long it looks again before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// Waits until a receive on one of the channels would not wait, and says on which: their places in `receivers`, the lowest
/// first. A link that has ended is ready too: its receive says why.
///
/// # Errors
/// [`Error::Timeout`] or [`Error::Interrupted`] when `until` gives up; [`Error::Config`] for no channels.
pub fn select(receivers: &[&Receiver], mut until: Until<'_>) -> Result<Vec<usize>, Error> {
    let Some(first) = receivers.first() else { return Err(Error::config("select needs a channel to wait for")) };
    let ready = || -> Vec<usize> {
        receivers.iter().enumerate().filter(|(_, receiver)| receiver.is_ready()).map(|(index, _)| index).collect()
    };
    let mut found = ready();
    let start = Instant::now();
    while found.is_empty() && start.elapsed() < SPIN {
        yield_now();
        found = ready();
    }
    let mut waited = Ok(());
    while found.is_empty() && waited.is_ok() {
        let events = receivers.iter().map(|receiver| receiver.link_event()).collect::<Result<Vec<_>, _>>()?;
        for receiver in receivers {
            receiver.arm();
        }
        found = ready();
        if found.is_empty() {
            // What poll could fail for, bad memory or descriptors, cannot be.
            waited = until.step().map(|limit| event::wait_any(&events, limit).unwrap_or_default());
        }
    }
    receivers.iter().for_each(|receiver| receiver.disarm());
    match waited {
        Err(Ended::Interrupted) if found.is_empty() => Err(Error::Interrupted),
        Err(Ended::TimedOut { after }) if found.is_empty() => {
            let (link, channel) = (first.link_name().to_owned(), first.name().to_owned());
            Err(Error::Timeout { link, channel, after })
        }
        _ => Ok(found),
    }
}
