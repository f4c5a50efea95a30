//! What an application holds of a channel: a [`Sender`] or a [`Receiver`].
//!
//! *Who calls it*: applications, by name or through [`crate::Worker`] and [`crate::Link`], whose own methods are those of
//! their first channel in each direction. *Invariants*: both are cheap to clone and may be used from any thread; they keep
//! memory alive, but not the link: with the worker stopped or the link closed, every call says so. Those of a worker that is
//! restarted stay the same over all its lives; the others do not pay for that. *A hostile peer* is the
//! ends' matter.

mod receiver;
mod sender;

use std::sync::Arc;

use super::lives::Lives;

pub use receiver::{Receiver, RecvStats};
pub use sender::{SendStats, Sender};

/// Where a handle leads.
#[derive(Debug)]
enum Way<E, P> {
    End(Arc<E>),
    /// To a channel over all lives of its worker.
    Lives(Arc<Lives>, Arc<P>),
}

impl<E, P> Clone for Way<E, P> {
    fn clone(&self) -> Self {
        match self {
            Self::End(end) => Self::End(Arc::clone(end)),
            Self::Lives(lives, port) => Self::Lives(Arc::clone(lives), Arc::clone(port)),
        }
    }
}

/// Leads a call to the end, or to all lives.
macro_rules! lead {
    ($self:ident, $end:pat => $one:expr, ($lives:pat, $port:pat) => $many:expr) => {
        match &$self.0 {
            Way::End($end) => $one,
            Way::Lives($lives, $port) => $many,
        }
    };
}

use lead;
