//! Surfaces: handed over once each, opened, compared with what was agreed, and counted while in use.
//!
//! *Who calls it*: pools, on both sides. *Invariants*: a surface's port exists from its creation to the end of one message:
//! moved to the worker, or released where that fails; the worker opens the surface and releases the port at once, whatever
//! came of it, for a living port keeps the surface in use for ever. A surface is used by a worker only through [`Hold`]. No
//! more than [`MAX_SURFACES`] belong to one peer. *A hostile peer*: a worker sends no surfaces; what it says of one is a slot
//! and a generation the host has announced, or nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::check_in::id;
use super::error::{Check, SetupError, Sign};
use super::message::{Outgoing, SendError};
use super::received::{Received, Shape};
use super::right::SendRight;
use super::task::{Surface, Task};

/// Most surfaces one peer may have, all pools together.
pub const MAX_SURFACES: usize = 64;
/// Most planes of a surface.
pub const MAX_PLANES: usize = 4;

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
    const WORDS: usize = 6 + 4 * MAX_PLANES;

    fn words(&self) -> [u32; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let planes = self.planes.iter().flat_map(|plane| [plane.width, plane.height, plane.stride, plane.offset]);
        let head = [self.format, self.width, self.height, self.plane_count, self.len as u32, (self.len >> 32) as u32];
        words.iter_mut().zip(head.into_iter().chain(planes)).for_each(|(word, value)| *word = value);
        words
    }

    fn of(word: impl Fn(usize) -> u32) -> Self {
        let plane = |index: usize| {
            let at = 6 + 4 * index;
            Plane { width: word(at), height: word(at + 1), stride: word(at + 2), offset: word(at + 3) }
        };
        Self {
            format: word(0),
            width: word(1),
            height: word(2),
            plane_count: word(3),
            len: u64::from(word(4)) | u64::from(word(5)) << 32,
            planes: std::array::from_fn(plane),
        }
    }

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

/// Which surface: its pool, its slot there, and the pool's generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The pool.
    pub pool: u32,
    /// The slot.
    pub slot: u32,
    /// Counts the surfaces this slot has had.
    pub generation: u64,
}

const KEY_WORDS: usize = 4;

/// The form of a registration: the surface's port; key and geometry.
pub const REGISTER: Shape = Shape { id: id::REGISTER, ports: 1, payload: KEY_WORDS + Geometry::WORDS };

/// How far a surface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Sent,
    Open,
}

/// The host's record of one worker's surfaces.
#[derive(Debug, Default)]
pub struct Registrar(Vec<(Key, Progress)>);

impl Registrar {
    /// Hands a surface to the worker.
    ///
    /// # Errors
    /// Too many; the same one twice; the worker's queue is full ([`SetupError::QueueFull`]) or it is gone; the system makes no
    /// port. The surface is the host's alone again then.
    pub fn register<T: Task>(
        &mut self,
        to: &SendRight<T>,
        key: Key,
        surface: &T::Surface,
        limit: Duration,
    ) -> Result<(), SetupError> {
        if self.0.len() >= MAX_SURFACES {
            return Err(SetupError::TooManySurfaces { slot: key.slot, limit: MAX_SURFACES });
        }
        if self.0.iter().any(|(known, _)| (known.pool, known.slot) == (key.pool, key.slot)) {
            return Err(Check::Content.into());
        }
        let mut payload = vec![key.pool, key.slot, key.generation as u32, (key.generation >> 32) as u32];
        payload.extend(surface.geometry().words());
        let name = to.task().surface_port(surface)?;
        let port = SendRight::own(to.task(), name).ok_or(super::Kern::FAILURE)?;
        Outgoing::new(id::REGISTER, payload).moving(port).send(to, limit).map_err(|error| match error {
            SendError::Full => SetupError::QueueFull { slot: key.slot },
            SendError::Gone => SetupError::Died(Sign::DeadName),
            other => SetupError::Send(other),
        })?;
        self.0.push((key, Progress::Sent));
        Ok(())
    }

    /// The worker says that it has opened a surface. Frames may travel in its slot from now on.
    ///
    /// # Errors
    /// A surface it was not sent, or has opened before: a violation.
    pub fn opened(&mut self, key: Key) -> Result<(), Check> {
        let known = self.0.iter_mut().find(|(known, progress)| *known == key && *progress == Progress::Sent);
        known.map(|(_, progress)| *progress = Progress::Open).ok_or(Check::Content)
    }

    /// Whether the worker has opened the surface of a slot.
    #[must_use]
    pub fn is_open(&self, key: Key) -> bool {
        self.0.contains(&(key, Progress::Open))
    }

    /// Forgets the surfaces of a pool.
    pub fn retire(&mut self, pool: u32) {
        self.0.retain(|(key, _)| key.pool != pool);
    }
}

/// The worker's surfaces.
#[derive(Debug)]
pub struct Opened<S> {
    surfaces: Vec<(Key, Arc<S>)>,
}

impl<S: Surface> Opened<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { surfaces: Vec::new() }
    }

    /// Opens the surface that `message` hands over, if it comes from process `host` and is what `agreed` says of its pool.
    ///
    /// # Errors
    /// What is wrong with the message or the surface; nothing of either is kept.
    pub fn open<T: Task<Surface = S>>(
        &mut self,
        task: &T,
        message: Received<T>,
        host: u32,
        agreed: impl FnOnce(Key) -> Option<Geometry>,
    ) -> Result<Key, SetupError> {
        let mut message = message.check(REGISTER)?;
        let sender = message.sender().pid();
        if sender != host {
            return Err(Check::Process { found: sender, expected: host }.into());
        }
        let generation = u64::from(message.word(2)) | u64::from(message.word(3)) << 32;
        let key = Key { pool: message.word(0), slot: message.word(1), generation };
        let announced = Geometry::of(|index| message.word(KEY_WORDS + index));
        let port = message.take().ok_or(Check::DeadRight)?;
        let surface = task.surface_from_port(port.name()?);
        // Before any look at what came of it: as long as the port lives, the surface is in use.
        drop(port);
        if self.surfaces.len() >= MAX_SURFACES {
            return Err(SetupError::TooManySurfaces { slot: key.slot, limit: MAX_SURFACES });
        }
        if self.surfaces.iter().any(|(known, _)| (known.pool, known.slot) == (key.pool, key.slot)) {
            return Err(Check::Content.into());
        }
        let agreed = agreed(key).ok_or(Check::Content)?;
        let surface = surface.ok_or(SetupError::SurfaceLookupFailed { slot: key.slot })?;
        let differs = |mismatch| SetupError::SurfaceMismatch { slot: key.slot, mismatch };
        announced.check(&agreed).map_err(differs)?;
        surface.geometry().check(&announced).map_err(differs)?;
        self.surfaces.push((key, Arc::new(surface)));
        Ok(key)
    }

    /// Begins to use a surface.
    #[must_use]
    pub fn hold(&self, key: Key) -> Option<Hold<S>> {
        self.surfaces.iter().find(|(known, _)| *known == key).map(|(_, surface)| Hold::new(surface.clone()))
    }

    /// Gives up the surfaces of a pool; those held stay until their holds end.
    pub fn retire(&mut self, pool: u32) {
        self.surfaces.retain(|(key, _)| key.pool != pool);
    }
}

impl<S: Surface> Default for Opened<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// A surface in use: its count is raised for as long as this lives. A process's share of it ends with the process.
#[derive(Debug)]
pub struct Hold<S: Surface>(Arc<S>);

impl<S: Surface> Hold<S> {
    /// Raises the count.
    pub fn new(surface: Arc<S>) -> Self {
        surface.begin_use();
        Self(surface)
    }

    /// The surface.
    #[must_use]
    pub fn surface(&self) -> &S {
        &self.0
    }
}

impl<S: Surface> Drop for Hold<S> {
    fn drop(&mut self) {
        self.0.end_use();
    }
}
