//! What a worker says to its host, and that reporting never holds it up.
//!
//! *Who calls it*: the link, from any thread. *Invariants*: a message that was begun is finished before the next begins;
//! what the protocol needs (ready, failed, bye) waits for room, a second at most; an event does not: it is queued, and
//! dropped and counted where the queue is full. A thread flushes it, which is there only while the socket is full. *The host* is trusted, but may be stopped at any moment.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use frameport_sys::clock::Instant;
use frameport_sys::socket::Control;
use frameport_sys::sync::{Mutex, MutexGuard};
use frameport_sys::thread;
use frameport_wire::control::{self, ToHost};
use frameport_wire::event::Event;

use crate::error::Error;

/// How long the host may take to make room for a message of the protocol.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that may wait beside what the socket holds, which is some two hundred short messages.
const WAITING: usize = 256 * 1024;

/// Characters of a worker's reason to fail.
pub(super) const LAST_WORDS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) control: Arc<Control>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// What has not left yet.
    rest: Vec<u8>,
    /// Events dropped since the last that got through.
    dropped: u64,
    /// A thread waits for room.
    flushed: bool,
}

impl Outgoing {
    pub(super) fn new(control: Control) -> Self {
        Self { control: Arc::new(control), queue: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something the protocol needs.
    pub(super) fn say(&self, message: &ToHost) -> Result<(), Error> {
        let system = Error::system("writing to the control channel");
        let bytes = control::encode(message).map_err(|error| Error::Protocol { what: error.to_string() })?;
        // Queued first: no event comes in between.
        self.lock().rest.extend(bytes);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let written = self.lock().write(&self.control);
            let left = deadline.saturating_duration_since(Instant::now());
            match written {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !left.is_zero() => {
                    self.control.await_room(left).map_err(&system)?;
                }
                other => return other.map_err(&system),
            }
        }
    }

    /// Tells the host why this worker does not come to it, or not any further, unless that was the host's word.
    pub(super) fn give_up(&self, error: &Error) {
        let short = |text: &str| text.chars().take(LAST_WORDS).collect();
        let message = match error {
            Error::Refused { .. } | Error::LinkClosed { .. } => return,
            Error::Denied { operation, what, .. } => {
                ToHost::Sandboxed { operation: (*operation).to_owned(), message: short(what) }
            }
            other => ToHost::Failed { message: short(&other.to_string()) },
        };
        let _ = self.say(&message);
    }

    /// Reports an event; false when it was dropped.
    pub(super) fn report(self: &Arc<Self>, event: Event) -> bool {
        let mut queue = self.lock();
        let Ok(bytes) = control::encode(&ToHost::Event(Event { dropped: queue.dropped, ..event.cut() })) else {
            return false;
        };
        if queue.rest.len() + bytes.len() > WAITING {
            queue.dropped = queue.dropped.saturating_add(1);
            return false;
        }
        queue.dropped = 0;
        self.post(queue, bytes)
    }

    /// Says something the protocol needs without waiting for room.
    pub(super) fn tell(self: &Arc<Self>, message: &ToHost) {
        // A message of numbers is never too long; a host that is gone needs none.
        if let Ok(bytes) = control::encode(message) {
            self.post(self.lock(), bytes);
        }
    }

    /// Queues bytes and sends what there is room for; false when the host is gone.
    fn post(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>, bytes: Vec<u8>) -> bool {
        queue.rest.extend(bytes);
        match queue.write(&self.control) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !queue.flushed {
                    let outgoing = Arc::clone(self);
                    let thread = thread::Builder::new().name("frameport-report".into());
                    // Without a thread what waits leaves with whatever is said next.
                    queue.flushed = thread.spawn(move || outgoing.flush()).is_ok();
                }
                true
            }
            written => written.is_ok(),
        }
    }

    /// Waits for the host in place of those who report, until nothing is left.
    fn flush(&self) {
        loop {
            let waited = self.control.await_room(PATIENCE);
            let mut queue = self.lock();
            match queue.write(&self.control) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && waited.is_ok() => {}
                _ => {
                    queue.flushed = false;
                    return;
                }
            }
        }
    }
}

impl Queue {
    /// Writes what there is room for; `WouldBlock` when something is left.
    fn write(&mut self, control: &Control) -> std::io::Result<()> {
        while !self.rest.is_empty() {
            let sent = control.send_some(&self.rest, &[])?;
            self.rest.drain(..sent.min(self.rest.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frameport_sys::mach::Kern;
    use frameport_sys::mach::error::{Denied, Operation, SetupError, Slot};
    use frameport_wire::control::Decoder;
    use frameport_wire::event::Level;

    #[test]
    fn a_host_learns_what_keeps_its_worker_away() {
        let (host, worker) = Control::pair().unwrap();
        let outgoing = Outgoing::new(worker);
        let denied = Denied { operation: Operation::LookUp, answer: Kern::NOT_PRIVILEGED, slot: Slot::Empty };
        let why = std::io::Error::other(SetupError::RendezvousDenied(denied));
        outgoing.give_up(&Error::system("coming to the host")(why));
        outgoing.give_up(&Error::Protocol { what: "no handles".to_owned() });
        outgoing.give_up(&Error::Refused { reason: "its own words".to_owned() });
        drop(outgoing);
        let (mut decoder, mut bytes, mut told) = (Decoder::default(), [0; 4096], Vec::new());
        while let Some(got) = host.recv(&mut bytes, true).ok().filter(|got| *got > 0) {
            decoder.push(&bytes[..got]);
            told.extend(std::iter::from_fn(|| decoder.decode::<ToHost>().unwrap()));
        }
        let [ToHost::Sandboxed { operation, message }, ToHost::Failed { .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(operation, "mach-lookup");
        assert!(message.contains("(allow mach-lookup") && message.contains("registered port is empty"), "{message}");
    }

    #[test]
    fn a_host_that_does_not_read_holds_nobody_up_and_learns_how_much_it_missed() {
        let (host, worker) = Control::pair().unwrap();
        let outgoing = Arc::new(Outgoing::new(worker));
        let event = |n: usize| Event {
            level: Level::Info,
            message: format!("{n} {}", "x".repeat(n * 37 % 4096)),
            source: String::new(),
            fields: serde_json::Map::new(),
            dropped: 0,
        };
        let told = (0..2000).filter(|&n| outgoing.report(event(n))).count();
        assert!((1..2000).contains(&told));
        assert!(outgoing.say(&ToHost::Bye).is_err(), "nobody makes room");
        let (mut decoder, mut bytes, mut through) = (Decoder::default(), [0; 4096], Vec::new());
        let mut read_until = |enough: usize| {
            while through.len() < enough {
                let got = host.recv(&mut bytes, true).unwrap();
                decoder.push(&bytes[..got]);
                while let Some(message) = decoder.decode::<ToHost>().unwrap() {
                    through.push(message);
                }
            }
        };
        // Nobody reports while they leave.
        read_until(told + 1);
        assert!(outgoing.report(event(1)));
        read_until(told + 2);
        assert_eq!(through.get(told), Some(&ToHost::Bye), "whole, and after all before it");
        let dropped = through.iter().map(|message| if let ToHost::Event(event) = message { event.dropped } else { 0 });
        assert_eq!(dropped.sum::<u64>() as usize, 2000 - told);
    }
}
