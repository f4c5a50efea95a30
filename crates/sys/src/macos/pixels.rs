//! The memory of pools: one IOSurface a slot where the system has the pixel format and the workers have ports, else one region.
//! Not run: no Mac was at hand.
//!
//! *Who calls it*: pools, on both sides. *Invariants*: planes lie where the system said after a surface was made, and the worker
//! opens no other; a slot that somebody has is in use, and its address is given out while it is locked; regions are those of [`memory`](super::memory).
//! *A hostile peer* can write any surface it may map: that the workers of an audience only read is a convention.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::handle::{Handle, Kind, Means};
use super::memory::ForkStamp;
use super::surface::{Surface, geometry};
use crate::mach::SetupError;
use crate::mach::pool;
use crate::mach::surface::Geometry;
use crate::one_region as region;
pub use crate::plan::{Intent, Picture, Place, Plan, Plane};
use crate::writers::Writers;

/// Most slots of a pool of surfaces, for whose messages a worker has room ([`crate::mach::surface::MAX_SURFACES`]); with more it is
/// a region.
pub const MAX_SLOTS: u32 = 16;

type Slots = Arc<pool::Slots<Surface>>;

fn failed(why: SetupError) -> io::Error {
    match why {
        why @ (SetupError::SurfaceMismatch { .. } | SetupError::PeerRejected(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, why)
        }
        why => io::Error::other(why),
    }
}

/// The right to a pool's pixels, for as many workers as there are.
#[derive(Debug)]
pub enum Store {
    /// Of a region.
    Region(region::Store),
    /// Of surfaces.
    Surfaces(Vec<Arc<Surface>>),
}

impl Store {
    /// Makes the memory of a pool, whole, for workers that are given it by `means`, and maps it.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(plan: &Plan, means: Means) -> io::Result<(Self, Pixels)> {
        let has_surfaces = means == Means::Messages && plan.slots <= MAX_SLOTS;
        let surfaces = plan.picture.as_ref().filter(|_| has_surfaces);
        // A format or a size the system does not have is none that cannot travel.
        let made = surfaces.and_then(|picture| pool::Slots::create(plan.slots, || Surface::create(picture)).ok());
        let laid_out = |slots: &pool::Slots<Surface>, picture: &Picture| {
            let Some(as_made) = geometry(picture, |index, _| place(slots.geometry(), index), slots.geometry().len)
            else {
                return false;
            };
            slots.geometry().check(&as_made).is_ok()
        };
        match (made, surfaces) {
            (Some(slots), Some(picture)) if laid_out(&slots, picture) => {
                let rights = slots.surfaces().cloned().collect();
                let (is_writable, stamp) = (true, ForkStamp::new()?);
                Ok((Self::Surfaces(rights), Pixels(Memory::Surfaces { slots: Arc::new(slots), is_writable, stamp })))
            }
            _ => region::Store::create(plan, means)
                .map(|(store, pixels)| (Self::Region(store), Pixels(Memory::Region(Arc::new(pixels))))),
        }
    }

    /// Another of the same memory.
    ///
    /// # Errors
    /// None here.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Region(store) => store.try_clone().map(Self::Region),
            Self::Surfaces(surfaces) => Ok(Self::Surfaces(surfaces.clone())),
        }
    }

    /// What a worker makes its [`Pixels`] of.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        match self {
            Self::Region(store) => store.into_handle(),
            Self::Surfaces(surfaces) => Handle(Kind::Surfaces(surfaces)),
        }
    }
}

fn place(geometry: &Geometry, index: usize) -> Place {
    let plane = geometry.planes.get(index).copied().unwrap_or_default();
    Place { offset: plane.offset as usize, stride: plane.stride as usize }
}

/// A pool's pixels as this process has them.
#[derive(Debug)]
pub struct Pixels(Memory);

#[derive(Debug)]
enum Memory {
    Region(Arc<region::Pixels>),
    Surfaces { slots: Slots, is_writable: bool, stamp: ForkStamp },
}

impl Pixels {
    /// Takes over pixels that came from the host, after checking that they are what was announced.
    ///
    /// # Errors
    /// `InvalidData` when they are not ([`SetupError::SurfaceMismatch`]), or what the system answers.
    pub fn adopt(handle: Handle, plan: &Plan) -> io::Result<Self> {
        let surfaces = match handle.0 {
            Kind::Surfaces(surfaces) => surfaces,
            _ => return region::Pixels::adopt(handle, plan).map(|it| Self(Memory::Region(Arc::new(it)))),
        };
        let agreed = plan.picture.as_ref().and_then(|it| geometry(it, |_, plane| plane.place, plan.stride as u64));
        let agreed = agreed.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "surfaces came for frames that lie in shared memory")
        })?;
        let slots = pool::Slots::adopt(surfaces, plan.slots, &agreed).map_err(failed)?;
        let (is_writable, stamp) = (plan.writers == Writers::All, ForkStamp::new()?);
        Ok(Self(Memory::Surfaces { slots: Arc::new(slots), is_writable, stamp }))
    }

    /// Whole slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        match &self.0 {
            Memory::Region(pixels) => pixels.slots(),
            Memory::Surfaces { slots, .. } => slots.surfaces().count(),
        }
    }

    /// Bytes of a slot: to the next one, where they lie in one region.
    #[must_use]
    pub fn stride(&self) -> usize {
        match &self.0 {
            Memory::Region(pixels) => pixels.stride(),
            Memory::Surfaces { slots, .. } => usize::try_from(slots.geometry().len).unwrap_or(usize::MAX),
        }
    }

    /// Where the planes lie, where the system has laid them out itself.
    #[must_use]
    pub fn places(&self) -> Option<Vec<Place>> {
        match &self.0 {
            Memory::Region(_) => None,
            Memory::Surfaces { slots, .. } => {
                let geometry = slots.geometry();
                Some((0..geometry.plane_count as usize).map(|index| place(geometry, index)).collect())
            }
        }
    }

    /// The first byte of a slot, and how many there are; none beyond the last.
    #[must_use]
    pub fn slot(&self, slot: u32) -> Option<(NonNull<u8>, usize)> {
        match &self.0 {
            Memory::Region(pixels) => pixels.slot(slot),
            Memory::Surfaces { slots, .. } => Some((slots.look(slot)?.base()?, self.stride())),
        }
    }

    /// A slot's surface; none where the pool is a region.
    #[must_use]
    pub fn surface(&self, slot: u32) -> Option<&Arc<Surface>> {
        match &self.0 {
            Memory::Region(_) => None,
            Memory::Surfaces { slots, .. } => slots.surface(slot),
        }
    }

    /// Whether this process may write them.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        match &self.0 {
            Memory::Region(pixels) => pixels.is_writable(),
            Memory::Surfaces { is_writable, .. } => *is_writable,
        }
    }

    /// To be had while somebody has a slot: its surface is in use. None beyond the last.
    pub fn access(self: &Arc<Self>, slot: u32, intent: Intent) -> Option<Access> {
        let used = match &self.0 {
            Memory::Surfaces { slots, stamp, .. } if !stamp.forked() => Some(slots.access(slot, intent)?),
            // A region is in nobody's use, and a forked child has nothing to use.
            _ => None,
        };
        Some(Access { used, stamp: ForkStamp::new().ok()? })
    }
}

/// A slot that somebody has.
#[derive(Debug)]
pub struct Access {
    used: Option<pool::Access<Surface>>,
    stamp: ForkStamp,
}

impl Access {
    /// Ends the access of one who wrote and passes the slot on: views that are left only read from now on.
    pub fn pass_on(mut self) {
        if !self.stamp.forked() {
            self.used.take().into_iter().for_each(pool::Access::pass_on);
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.stamp.forked() {
            // What a fork left behind may be locked for ever, and the use is the parent's.
            std::mem::forget(self.used.take());
        }
    }
}
