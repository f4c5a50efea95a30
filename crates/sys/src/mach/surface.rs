//! Surfaces: handed over once each, opened, and compared with what was agreed.
//!
//! *Who calls it*: the control channel on both sides, and [`pool`](super::pool). *Invariants*: a surface's port exists from its
//! creation to the end of one message: moved to the worker, or released where that fails; the worker opens the surface and
//! releases the port at once, whatever came of it, for a living port keeps the surface in use for ever. The surfaces of a pool
//! cross in the order of their slots. A worker has [`MAX_SURFACES`] at most. *A hostile peer*: a worker sends no
//! surfaces, and the worker believes its host's process alone.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::check_in::id;
use super::error::{Check, SetupError, Sign};
use super::message::{Outgoing, SendError};
use super::received::{Received, Shape};
use super::right::SendRight;
use super::task::{Kern, Surface, Task};
use crate::plan::Picture;

/// Most surfaces a worker opens: all of two pools of sixteen slots, as many as a pool of surfaces has, for each of 31 channels.
pub const MAX_SURFACES: usize = 31 * 2 * 16;
/// Most planes of a surface.
pub const MAX_PLANES: usize = 4;

/// The system's pixel format for FFmpeg's, and what of it has which range; none where IOSurface has no such format, or the
/// system's frameworks are not known to read it (CVPixelBuffer.h).
#[must_use]
pub fn pixel_format(picture: &Picture) -> Option<u32> {
    let name = match (picture.format, picture.full_range) {
        ("nv12", false) => b"420v",
        ("nv12", true) => b"420f",
        ("p010le", false) => b"x420",
        ("p010le", true) => b"xf20",
        ("bgra", _) => b"BGRA",
        ("rgba", _) => b"RGBA",
        ("rgbaf16le", _) => b"RGhA",
        ("gray", _) => b"L008",
        ("gray16le", _) => b"L016",
        _ => return None,
    };
    Some(u32::from_be_bytes(*name))
}

/// One plane, as the system laid it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from row to row.
    pub stride: u32,
    /// Bytes from the surface's first to the plane's first.
    pub offset: u32,
}

/// Size and layout of a surface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// The pixel format's four characters.
    pub format: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How many of `planes` there are; 1 for formats with one, for which IOSurface itself says 0.
    pub plane_count: u32,
    /// The planes; all zero beyond `plane_count`.
    pub planes: [Plane; MAX_PLANES],
    /// Bytes of the whole.
    pub len: u64,
}

/// What of a surface differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which property; planes are counted from 0.
    pub what: &'static str,
    /// What was agreed.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, not {}", self.what, self.found, self.expected)
    }
}

impl Geometry {
    /// Where `self`, found, is not `agreed`, and where its planes do not lie inside it.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, agreed: &Self) -> Result<(), Mismatch> {
        let same = |what, expected: u64, found: u64| {
            if expected == found { Ok(()) } else { Err(Mismatch { what, expected, found }) }
        };
        same("pixel format", agreed.format.into(), self.format.into())?;
        same("width", agreed.width.into(), self.width.into())?;
        same("height", agreed.height.into(), self.height.into())?;
        same("number of planes", agreed.plane_count.into(), self.plane_count.into())?;
        same("size", agreed.len, self.len)?;
        if self.plane_count == 0 || self.plane_count as usize > MAX_PLANES {
            return Err(Mismatch { what: "number of planes", expected: 1, found: self.plane_count.into() });
        }
        for (found, agreed) in self.planes.iter().zip(&agreed.planes) {
            same("width of a plane", agreed.width.into(), found.width.into())?;
            same("height of a plane", agreed.height.into(), found.height.into())?;
            same("stride", agreed.stride.into(), found.stride.into())?;
            same("offset of a plane", agreed.offset.into(), found.offset.into())?;
            // No overflow: 2^32 rows of 2^32 bytes and an offset of 2^32 fit only if computed wider.
            let end = u128::from(found.offset) + u128::from(found.stride) * u128::from(found.height);
            if end > u128::from(self.len) {
                return Err(Mismatch { what: "end of a plane", expected: self.len, found: end as u64 });
            }
        }
        Ok(())
    }
}

/// Which surface: its pool, by the number its handle has on this link, and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The pool.
    pub pool: u32,
    /// The slot.
    pub slot: u32,
    /// How many slots the pool has.
    pub of: u32,
}

/// The form of a registration: the surface's port; its key.
pub const REGISTER: Shape = Shape { id: id::REGISTER, ports: 1, payload: 3 };

/// Hands a surface to the worker.
///
/// # Errors
/// The worker's queue is full ([`SetupError::QueueFull`]) or it is gone; the system makes no port. No right of it is left then.
pub fn register<T: Task>(
    to: &SendRight<T>,
    key: Key,
    surface: &Arc<T::Surface>,
    limit: Duration,
) -> Result<(), SetupError> {
    let name = to.task().surface_port(surface)?;
    let port = SendRight::own(to.task(), name).ok_or(Kern::FAILURE)?;
    let message = Outgoing::new(id::REGISTER, vec![key.pool, key.slot, key.of]).moving(port);
    message.send(to, limit).map_err(|error| match error {
        SendError::Full => SetupError::QueueFull { slot: key.slot },
        SendError::Gone => SetupError::Died(Sign::DeadName),
        other => SetupError::Send(other),
    })
}

/// The worker's record of its surfaces, and those of a pool of which some are still to come.
#[derive(Debug)]
pub struct Opened<S> {
    known: Vec<Weak<S>>,
    arriving: Vec<Arc<S>>,
}

impl<S: Surface> Opened<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { known: Vec::new(), arriving: Vec::new() }
    }

    /// Opens the surface that `message` hands over, if it comes from process `host` and is the next of pool `number`. All of
    /// them with the last; they are still to be compared with what was agreed, by [`Slots::adopt`](super::pool::Slots::adopt).
    ///
    /// # Errors
    /// What is wrong with the message or the surface; nothing of either is kept.
    pub fn open<T: Task<Surface = S>>(
        &mut self,
        task: &T,
        message: Received<T>,
        host: u32,
        number: u32,
    ) -> Result<Option<Vec<Arc<S>>>, SetupError> {
        let mut message = message.check(REGISTER)?;
        let sender = message.sender().pid();
        if sender != host {
            return Err(Check::Process { found: sender, expected: host }.into());
        }
        let key = Key { pool: message.word(0), slot: message.word(1), of: message.word(2) };
        let port = message.take().ok_or(Check::DeadRight)?;
        let surface = task.surface_from_port(port.name()?);
        // Before any look at what came of it: as long as the port lives, the surface is in use.
        drop(port);
        if key.pool != number || key.slot as usize != self.arriving.len() || key.slot >= key.of {
            return Err(Check::Content.into());
        }
        self.known.retain(|surface| surface.strong_count() > 0);
        if self.known.len() >= MAX_SURFACES {
            return Err(SetupError::TooManySurfaces { slot: key.slot, limit: MAX_SURFACES });
        }
        let surface = Arc::new(surface.ok_or(SetupError::SurfaceLookupFailed { slot: key.slot })?);
        self.known.push(Arc::downgrade(&surface));
        self.arriving.push(surface);
        Ok((self.arriving.len() == key.of as usize).then(|| std::mem::take(&mut self.arriving)))
    }

    /// Whether a pool has come in part.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.arriving.is_empty()
    }
}

impl<S: Surface> Default for Opened<S> {
    fn default() -> Self {
        Self::new()
    }
}
