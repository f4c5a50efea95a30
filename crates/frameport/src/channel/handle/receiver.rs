//! The receiving side: see [`super`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::event::Event;
use frameport_wire::control::Delivery;
use frameport_wire::spec::Spec;

use super::{Way, lead};
use crate::channel::lives::Lives;
use crate::channel::port::RecvPort;
use crate::channel::recv::RecvEnd;
use crate::error::Error;
use crate::frame::Frame;
use crate::holders::SlotHolder;

/// The receiving end of a channel.
#[derive(Clone, Debug)]
pub struct Receiver(Way<RecvEnd, RecvPort>);

impl Receiver {
    pub(crate) fn new(end: &Arc<RecvEnd>) -> Self {
        Self(Way::End(Arc::clone(end)))
    }

    /// Those of a worker over all its lives.
    pub(crate) fn all_of(lives: &Arc<Lives>) -> impl Iterator<Item = Self> {
        lives.receivers.iter().map(|port| Self(Way::Lives(Arc::clone(lives), Arc::clone(port))))
    }

    /// The end of a channel whose worker has one life.
    pub(crate) fn only_end(&self) -> Option<&Arc<RecvEnd>> {
        match &self.0 {
            Way::End(end) => Some(end),
            Way::Lives(..) => None,
        }
    }

    /// The worker's name, or this one's at its host.
    pub(crate) fn link_name(&self) -> &str {
        lead!(self, end => end.state.name(), (lives, _) => lives.name())
    }

    /// The event of the link.
    pub(crate) fn link_event(&self) -> Result<&Event, Error> {
        lead!(self, end => end.state.event(), (lives, _) => lives.event())
    }

    /// Nothing was found: the event is readable when something may be.
    pub(crate) fn arm(&self) {
        lead!(self, end => drop(end.state.arm(end.bit())), (lives, port) => lives.arm_port(port));
    }

    /// Something was found.
    pub(crate) fn disarm(&self) {
        lead!(self, end => end.state.disarm(), (lives, port) => lives.disarm(port));
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        lead!(self, end => end.name(), (_, port) => &port.name)
    }

    /// What travels now, but for replies in place, which are what they were sent as. A frame's own
    /// [`spec`](crate::Frame::spec) tells what it is: it may change, and a worker that is restarted may state another.
    #[must_use]
    pub fn spec(&self) -> Spec {
        lead!(self, end => end.spec(), (_, port) => port.newest().spec())
    }

    /// Has the worker send frames of another spec from now on, those it answers older ones with aside: see
    /// [`Sender::change_spec`](crate::Sender::change_spec).
    ///
    /// # Errors
    /// As [`Sender::change_spec`](crate::Sender::change_spec); [`Error::Config`] at a worker, whose host decides what it sends.
    pub fn change_spec_until(&self, spec: impl Into<Spec>, mut until: Until<'_>) -> Result<(), Error> {
        let spec = spec.into();
        lead!(self, end => end.state.change(end.channel(), &spec, &mut until), (lives, port) => {
            lives.change(&mut until, |until| {
                let end = port.newest();
                end.state.change(end.channel(), &spec, until)
            })
        })
    }

    /// What happens when this side is slower.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        lead!(self, end => end.delivery(), (_, port) => port.delivery)
    }

    /// The next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the other side has finished: leave the loop; [`Error::WorkerDied`],
    /// [`Error::Violation`].
    pub fn recv(&self) -> Result<Frame, Error> {
        self.recv_until(Until::forever())
    }

    /// The next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.recv_until(Until::after(limit))
    }

    /// The next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, mut until: Until<'_>) -> Result<Frame, Error> {
        lead!(self, end => {
            end.state.touch();
            end.recv(&mut until)
        }, (lives, port) => lives.recv(port, &mut until))
    }

    /// The next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        let found = lead!(self, end => {
            end.state.touch();
            end.try_recv()
        }, (lives, port) => lives.try_recv(port));
        // For those who wait in an event loop; nobody else pays for it.
        match found {
            Ok(None) => self.arm(),
            _ => self.disarm(),
        }
        found
    }

    /// Whether a receive would not wait: a frame is there, or none will come any more.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        lead!(self, end => {
            end.state.touch();
            end.is_ready()
        }, (lives, port) => lives.is_ready(port))
    }

    /// The link's descriptor for event loops: level-triggered, readable while a [`try_recv`](Self::try_recv) of one of its
    /// channels may find something or fail. A frame is announced only after a `try_recv` of its channel that found none, so
    /// call that of every channel you care for until then. Only poll it: it is not to be read.
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        self.only_end().inspect(|end| end.state.touch());
        Ok(self.link_event()?.as_fd())
    }

    /// The received frames not released here, with the views that keep them.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        lead!(self, end => end.holders(), (lives, port) => {
            if lives.forked() { Vec::new() } else { port.holders() }
        })
    }

    /// This end's counters.
    #[must_use]
    pub fn stats(&self) -> RecvStats {
        lead!(self, end => {
            let (received, skipped) = end.counts();
            RecvStats { received, skipped, held: end.held() as u64 }
        }, (lives, port) => if lives.forked() { RecvStats::default() } else { port.stats() })
    }
}

/// Counters of a receiving end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvStats {
    /// Frames received.
    pub received: u64,
    /// Frames of a live channel that the sender took back before this side came to them.
    pub skipped: u64,
    /// Frames in this side's hands.
    pub held: u64,
}
