//! The surfaces of one pool: all alike, in use while somebody has one, and locked once the processor looks at it.
//!
//! *Who calls it*: pools, on both sides. *Invariants*: a pool is whole, and each surface of it is what was agreed by the system's
//! own word; a surface is used only through [`Slots::access`]: its use count is raised from the first access of a kind to the
//! last. It is locked by the first look at its bytes ([`Slots::look`]) until they end, and not at all where a graphics processor
//! alone works on it: a lock fetches what other devices wrote, and its end may send them what the processor did not write.
//! *A hostile peer* sees and may change what it has a surface of; it cannot end another process's use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{Check, SetupError};
use super::surface::Geometry;
use super::task::{Kern, Surface};
use crate::plan::Intent;

/// The surfaces of one pool, and this process's use of each.
#[derive(Debug)]
pub struct Slots<S: Surface> {
    geometry: Geometry,
    slots: Vec<Slot<S>>,
}

#[derive(Debug)]
struct Slot<S: Surface> {
    surface: Arc<S>,
    /// Who reads it and who writes it here: how many, and what they have in common.
    users: Mutex<[Users<S>; 2]>,
}

type Users<S> = Option<(usize, Hold<S>)>;

impl<S: Surface> Slot<S> {
    fn users(&self) -> MutexGuard<'_, [Users<S>; 2]> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Surface> Slots<S> {
    /// `count` surfaces as `make` makes them, all alike.
    ///
    /// # Errors
    /// It makes none, or one that is unlike the first.
    pub fn create(count: u32, make: impl Fn() -> Option<S>) -> Result<Self, SetupError> {
        let surfaces = (0..count).map(|_| make().map(Arc::new).ok_or(SetupError::Kernel(Kern::FAILURE)));
        let surfaces: Vec<_> = surfaces.collect::<Result<_, _>>()?;
        let geometry = surfaces.first().ok_or(Check::Content)?.geometry();
        Self::adopt(surfaces, count, &geometry)
    }

    /// The surfaces that came for a pool of `count` slots, if each is what was agreed.
    ///
    /// # Errors
    /// Another number of them; [`SetupError::SurfaceMismatch`] names the first that is something else.
    pub fn adopt(surfaces: Vec<Arc<S>>, count: u32, agreed: &Geometry) -> Result<Self, SetupError> {
        if surfaces.len() != count as usize {
            return Err(Check::Content.into());
        }
        for (slot, surface) in (0..).zip(&surfaces) {
            // What the system says of it: no peer has a say in that.
            let checked = surface.geometry().check(agreed);
            checked.map_err(|mismatch| SetupError::SurfaceMismatch { slot, mismatch })?;
        }
        let slots = surfaces.into_iter().map(|surface| Slot { surface, users: Mutex::default() }).collect();
        Ok(Self { geometry: *agreed, slots })
    }

    /// What each of them is.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The surface of a slot.
    #[must_use]
    pub fn surface(&self, slot: u32) -> Option<&Arc<S>> {
        self.slots.get(slot as usize).map(|slot| &slot.surface)
    }

    /// All of them, in the order of their slots.
    pub fn surfaces(&self) -> impl Iterator<Item = &Arc<S>> {
        self.slots.iter().map(|slot| &slot.surface)
    }

    /// Begins to use a slot's surface. None beyond the last.
    pub fn access(self: &Arc<Self>, slot: u32, intent: Intent) -> Option<Access<S>> {
        let it = self.slots.get(slot as usize)?;
        let mut users = it.users();
        let [readers, writers] = &mut *users;
        let users = if intent == Intent::Read { readers } else { writers };
        match users {
            Some((count, _)) => *count += 1,
            None => *users = Some((1, Hold::new(it.surface.clone(), intent))),
        }
        Some(Access { slots: self.clone(), slot, intent })
    }

    /// The surface of a slot, for a look at its bytes: locked until all who write it now have given it up, or read it if nobody
    /// writes. None beyond the last slot.
    pub fn look(&self, slot: u32) -> Option<&Arc<S>> {
        let slot = self.slots.get(slot as usize)?;
        let [readers, writers] = &mut *slot.users();
        if let Some((_, hold)) = writers.as_mut().or(readers.as_mut()) {
            hold.lock();
        }
        Some(&slot.surface)
    }
}

/// A slot in use, until this is dropped.
#[derive(Debug)]
pub struct Access<S: Surface> {
    slots: Arc<Slots<S>>,
    slot: u32,
    intent: Intent,
}

impl<S: Surface> Access<S> {
    /// Ends the access of one who wrote and passes the slot on: views that are left only read from now on, so that nothing of
    /// theirs is written over what others write.
    pub fn pass_on(self) {
        if let Some(slot) = self.slots.slots.get(self.slot as usize)
            && let [_, Some((_, hold))] = &mut *slot.users()
        {
            hold.only_read();
        }
    }
}

impl<S: Surface> Drop for Access<S> {
    fn drop(&mut self) {
        let Some(slot) = self.slots.slots.get(self.slot as usize) else { return };
        let mut users = slot.users();
        let [readers, writers] = &mut *users;
        // A look that was a writer's lock may have been a reader's look: what it saw stays locked.
        if let (Intent::Write, Some((1, hold)), Some((_, read))) = (self.intent, &*writers, readers.as_mut())
            && hold.is_locked
        {
            read.lock();
        }
        let users = if self.intent == Intent::Read { readers } else { writers };
        match users {
            Some((count, _)) if *count > 1 => *count -= 1,
            _ => *users = None,
        }
    }
}

/// A surface in use, and locked if somebody has looked at it, for as long as this lives. A process's share of its use count ends
/// with the process.
#[derive(Debug)]
struct Hold<S: Surface> {
    surface: Arc<S>,
    intent: Intent,
    is_locked: bool,
}

impl<S: Surface> Hold<S> {
    fn new(surface: Arc<S>, intent: Intent) -> Self {
        surface.begin_use();
        Self { surface, intent, is_locked: false }
    }

    /// One that the system does not lock is looked at all the same, and tried again with the next look: it is as it was when it
    /// was locked last.
    fn lock(&mut self) {
        self.is_locked = self.is_locked || self.surface.lock(self.intent).is_ok();
    }

    /// Locked throughout, if it was: what is looked at stays where it is.
    fn only_read(&mut self) {
        if self.intent == Intent::Write && self.is_locked {
            let is_locked = self.surface.lock(Intent::Read).is_ok();
            self.surface.unlock(Intent::Write);
            self.is_locked = is_locked;
        }
        self.intent = Intent::Read;
    }
}

impl<S: Surface> Drop for Hold<S> {
    fn drop(&mut self) {
        // First, so that what was written is there for whoever sees that it is not in use.
        if self.is_locked {
            self.surface.unlock(self.intent);
        }
        self.surface.end_use();
    }
}
