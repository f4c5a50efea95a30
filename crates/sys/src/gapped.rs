//! Pools of pictures as IOSurfaces are, where there are none: the system lays out the planes itself, with gaps, and a slot may
//! be looked at only while somebody has access to it.
//!
//! *Who calls it*: the simulated system, and Linux where it is built with `--cfg frameport_gaps`, so that what is above runs as
//! it will on macOS. *Invariants*: those of [`one_region`](crate::one_region), which it is made of. *A hostile peer*: likewise.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::handle::{Handle, Means};
use crate::mach::surface::pixel_format;
use crate::memory::page_size;
use crate::one_region as region;
use crate::plan::{Intent, Place, Plan, Plane};

/// What rows and planes begin at a multiple of.
const UNIT: usize = 8;
/// What is left free behind each row, at least.
const GAP: usize = 8;

fn places(plan: &Plan) -> Option<Vec<Place>> {
    let picture = plan.picture.as_ref().filter(|picture| pixel_format(picture).is_some())?;
    let mut end = 0_usize;
    let place = |plane: &Plane| {
        let stride = (plane.width * plane.element + GAP).next_multiple_of(UNIT);
        let place = Place { offset: end, stride };
        end += stride * plane.rows + GAP;
        place
    };
    Some(picture.planes.iter().map(place).collect())
}

/// The plan with room for the planes where they are put.
fn laid_out(plan: &Plan) -> (Plan, Option<Vec<Place>>) {
    let places = places(plan);
    let ends = places.iter().flatten().zip(plan.picture.iter().flat_map(|picture| &picture.planes));
    let size = ends.map(|(place, plane)| place.offset + place.stride * plane.rows).max().unwrap_or_default();
    let stride = plan.stride.max(size).next_multiple_of(page_size());
    (Plan { stride, len: stride * plan.slots as usize, ..plan.clone() }, places)
}

/// The right to a pool's pixels, for as many workers as there are.
#[derive(Debug)]
pub struct Store(region::Store);

impl Store {
    /// Makes the memory of a pool.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(plan: &Plan, means: Means) -> io::Result<(Self, Pixels)> {
        let (plan, places) = laid_out(plan);
        let (store, pixels) = region::Store::create(&plan, means)?;
        Ok((Self(store), Pixels::new(pixels, plan.slots, places)))
    }

    /// Another of the same memory.
    ///
    /// # Errors
    /// What the system answers.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// What a worker makes its [`Pixels`] of.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        self.0.into_handle()
    }
}

/// A pool's pixels as a process has them.
#[derive(Debug)]
pub struct Pixels {
    region: region::Pixels,
    places: Option<Vec<Place>>,
    /// How many have access to each slot.
    users: Vec<AtomicU32>,
}

impl Pixels {
    fn new(region: region::Pixels, slots: u32, places: Option<Vec<Place>>) -> Self {
        Self { region, places, users: (0..slots).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Takes over pixels that came from the host, after checking that they are what was announced.
    ///
    /// # Errors
    /// `InvalidData` when they are not.
    pub fn adopt(handle: Handle, plan: &Plan) -> io::Result<Self> {
        // A handle does not tell here whether a user has placed them.
        let announced = plan.picture.iter().flat_map(|picture| &picture.planes).map(|plane| plane.place);
        let places = places(plan).filter(|places| announced.eq(places.iter().copied()));
        Ok(Self::new(region::Pixels::adopt(handle, plan)?, plan.slots, places))
    }

    /// Whole slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.region.slots()
    }

    /// Bytes from one slot to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.region.stride()
    }

    /// Where the planes of pictures lie.
    #[must_use]
    pub fn places(&self) -> Option<Vec<Place>> {
        self.places.clone()
    }

    /// The first byte of a slot, and how many there are; none beyond the last.
    ///
    /// # Panics
    /// Nobody has access to the slot.
    #[must_use]
    #[expect(clippy::panic, reason = "it is there to find this")]
    pub fn slot(&self, slot: u32) -> Option<(NonNull<u8>, usize)> {
        if self.users.get(slot as usize)?.load(Ordering::Relaxed) == 0 {
            panic!("slot {slot} is looked at without access to it");
        }
        self.region.slot(slot)
    }

    /// Whether this process may write them.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.region.is_writable()
    }

    /// To be had while somebody has a slot. None beyond the last.
    pub fn access(self: &Arc<Self>, slot: u32, _intent: Intent) -> Option<Access> {
        self.users.get(slot as usize)?.fetch_add(1, Ordering::Relaxed);
        Some(Access { pixels: self.clone(), slot })
    }
}

/// A slot that somebody has.
#[derive(Debug)]
pub struct Access {
    pixels: Arc<Pixels>,
    slot: u32,
}

impl Access {
    /// Ends the access of one who wrote and passes the slot on.
    pub fn pass_on(self) {}
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(users) = self.pixels.users.get(self.slot as usize) {
            users.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
