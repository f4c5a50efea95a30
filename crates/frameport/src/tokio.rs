//! Receives and loans for tokio, feature `tokio`.
//!
//! *Who calls it*: applications, inside a tokio runtime with its I/O driver on. *Invariants*: a frame or slot is only taken
//! in a step that returns it, so a cancelled future loses nothing; the link's event is armed only while a future waits.
//! *A hostile worker* can wake its own link's tasks at will.

use std::os::fd::BorrowedFd;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::channel::handle::{Receiver, Sender};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};

impl Receiver {
    /// The next frame, waiting for it without a thread. Cancel it at will.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::System`] without a descriptor to spare.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn recv_async(&self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.try_recv()? {
                return Ok(frame);
            }
            readable(self.event()?).await?;
        }
    }
}

impl Sender {
    /// A slot to fill, waiting for it without a thread. Cancel it at will. On a live channel it does not wait.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::System`] without a descriptor to spare.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn loan_async(&self) -> Result<FrameMut, Error> {
        loop {
            if self.delivery().depth().is_some() {
                return self.loan();
            }
            let event = self.event()?;
            if let Some(frame) = self.loan_if_free()? {
                return Ok(frame);
            }
            readable(event).await?;
        }
    }
}

async fn readable(event: BorrowedFd<'_>) -> Result<(), Error> {
    let system = Error::system("waiting in the event loop");
    // A copy: a runtime watches each descriptor once, and several tasks may wait for one link.
    let event = event.try_clone_to_owned().map_err(&system)?;
    #[expect(deprecated, reason = "an OwnedFd keeps its descriptor open, which is what the unsafe one asks for")]
    let event = AsyncFd::with_interest(event, Interest::READABLE).map_err(&system)?;
    event.readable().await.map(drop).map_err(&system)
}
