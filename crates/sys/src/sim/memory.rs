//! Shared memory: the heap, under one address for all.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;

use super::handle::{Handle, Means, check};
use super::kernel::What;
use super::sched;

pub use crate::writers::Writers;

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a page: small, for many worlds.
#[must_use]
pub fn page_size() -> usize {
    256
}

/// A region's bytes, until the world ends.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    writers: Writers,
}

impl Memory {
    fn new(len: usize, writers: Writers) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let layout = Layout::from_size_align(len, page_size()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout has a size, just checked.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Ok(Self { base, layout, writers })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the world is over, so nobody uses it any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Memory to share.
#[derive(Debug)]
pub struct Region {
    handle: Handle,
    len: usize,
}

impl Region {
    /// Makes a region, and this process's mapping of it.
    ///
    /// # Errors
    /// As the world's faults say; no length.
    pub fn create(_name: &str, len: usize, writers: Writers) -> io::Result<(Self, Map)> {
        sched::point("region create");
        check(|state| state.faults.regions)?;
        let memory = Memory::new(len, writers)?;
        let base = memory.base;
        let handle = Handle::new(|state| {
            state.memory.push(memory);
            What::Region { memory: state.memory.len() - 1 }
        });
        Ok((Self { handle, len }, Map::new(base, len, true)))
    }

    /// [`create`](Self::create), for workers that are given it by these means: there is but one.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_for(_: Means, name: &str, len: usize, writers: Writers) -> io::Result<(Self, Map)> {
        Self::create(name, len, writers)
    }

    /// Takes over a region that came from the peer, after checking that it is what was announced.
    ///
    /// # Errors
    /// `InvalidData` when it is not.
    pub fn adopt(handle: Handle, len: usize, writers: Writers) -> io::Result<Self> {
        let region = Self { handle, len };
        let same = region.look(|memory| memory.layout.size() == len && memory.writers == writers);
        if same == Some(true) { Ok(region) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn look<T>(&self, look: impl FnOnce(&Memory) -> T) -> Option<T> {
        let Some(What::Region { memory }) = self.handle.what() else { return None };
        sched::inside(|state| state.memory.get(memory).map(look))
    }

    /// Another handle of the region.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn try_clone(&self) -> io::Result<Self> {
        sched::point("region clone");
        check(|state| state.faults.handles)?;
        let what = self.handle.what().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { handle: Handle::new(|_| what), len: self.len })
    }

    /// The right to the region, for a peer to adopt.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        self.handle
    }

    /// Maps the region, writable if asked.
    ///
    /// # Errors
    /// `PermissionDenied` for a writable mapping of a region only its creator may write.
    pub fn map(&self, writable: bool) -> io::Result<Map> {
        sched::point("map");
        match self.look(|memory| (memory.base, memory.writers)) {
            Some((_, Writers::Creator)) if writable => Err(io::ErrorKind::PermissionDenied.into()),
            Some((base, _)) => Ok(Map::new(base, self.len, writable)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A process's view of a region.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    process: u32,
}

// SAFETY: all tasks run on one thread.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(base: NonNull<u8>, len: usize, writable: bool) -> Self {
        let process = sched::inside(|state| {
            state.current().into_iter().for_each(|process| process.maps += 1);
            state.current_process()
        });
        Self { base, len, writable, process }
    }

    /// First byte.
    #[must_use]
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether this process may write through it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        sched::with(|state| {
            let process = state.processes.get_mut(&self.process);
            process.into_iter().for_each(|process| process.maps = process.maps.saturating_sub(1));
        });
    }
}

/// There are no forks here.
#[derive(Debug)]
pub struct ForkStamp;

impl ForkStamp {
    /// A stamp.
    ///
    /// # Errors
    /// Never.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Whether a fork lies between the creation and this call: no.
    #[must_use]
    #[inline]
    pub fn forked(&self) -> bool {
        false
    }
}
