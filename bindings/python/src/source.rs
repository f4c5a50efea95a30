//! Where a Python object's pixels are, and for how long.
//!
//! *Who calls it*: [`crate::pixels`], [`crate::frame`], [`crate::loan`]. *Invariants*: a source gives out exports while
//! it has its frame; once that is gone every new export is `FrameReleased`, in a forked child `ForkedError` (the pool is
//! not mapped there).

use frameport::{Error, Frame, FrameMut};
use pyo3::prelude::*;

use crate::error::{exception, to_py};
use crate::export::Export;
use crate::pixels::Pixels;

/// See the module.
#[derive(Debug)]
pub(crate) enum Source {
    /// A received frame.
    Received(Frame),
    /// A loan not sent yet.
    Loaned(FrameMut),
    /// One plane of another object.
    Plane(Py<Pixels>, usize),
    /// Nothing any more, and since when.
    Gone(&'static str),
}

/// Why there is no export. Made into an exception only when no lock is held.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The frame is gone, and since when.
    Gone(&'static str),
    /// The crate said no.
    Crate(Box<Error>),
}

impl Refused {
    pub(crate) fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Crate(error) => to_py(py, error),
            Self::Gone(since) => {
                let message =
                    format!("this frame {since}: its pixels are not yours any more; make views and copies before that");
                exception(py, "FrameReleased", &message)
            }
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Crate(Box::new(error))
    }
}

impl Source {
    /// The whole as one array, or one plane of it; `None` where that is no array. `made_at` is there if it is recorded.
    pub(crate) fn export(
        &mut self,
        plane: Option<usize>,
        made_at: Option<String>,
    ) -> Result<Option<Box<Export>>, Refused> {
        match self {
            Self::Received(frame) => {
                frame.check_fork()?;
                Ok(Export::of_frame(frame, plane, made_at))
            }
            Self::Loaned(loan) => {
                loan.check_fork()?;
                Ok(Export::of_loan(loan, plane, made_at))
            }
            Self::Plane(owner, index) => owner.get().source().export(Some(*index), made_at),
            Self::Gone(since) => Err(Refused::Gone(since)),
        }
    }

    /// "held", "being filled", or since when it is neither.
    pub(crate) fn state(&self) -> &'static str {
        match self {
            Self::Received(_) => "held",
            Self::Loaned(_) => "being filled",
            Self::Plane(..) => "a plane",
            Self::Gone(since) => since,
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }

    /// Takes the frame out, if it is a received one still held.
    pub(crate) fn take_received(&mut self, since: &'static str) -> Result<Frame, Refused> {
        match std::mem::replace(self, Self::Gone(since)) {
            Self::Received(frame) => Ok(frame),
            other => Err(self.put_back(other)),
        }
    }

    /// Takes the loan out, if it is one not sent yet.
    pub(crate) fn take_loan(&mut self, since: &'static str) -> Result<FrameMut, Refused> {
        match std::mem::replace(self, Self::Gone(since)) {
            Self::Loaned(loan) => Ok(loan),
            other => Err(self.put_back(other)),
        }
    }

    fn put_back(&mut self, other: Self) -> Refused {
        let since = if let Self::Gone(since) = other { since } else { "is another kind of frame" };
        *self = other;
        Refused::Gone(since)
    }
}
