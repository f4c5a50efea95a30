//! Shared memory without a name: memory entries, or objects whose name is gone, and their mappings.
//!
//! *Who calls it*: the host creates regions, the worker adopts them; `frameport-mem` gives the mappings types.
//! *Invariants*: a region has its final size from birth, and every page of it was touched; what leaves the process is an entry
//! that allows no more than the receiver may do; a mapping is never inherited by a forked child. *A hostile peer* can write
//! what it may write. An entry made for reading cannot be mapped for writing (vm_map.c, vm_map_enter_mem_object:
//! KERN_INVALID_RIGHT). [`crate::shm`] tells of the objects, which are for workers without a port.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use mach2::vm;
use mach2::vm_inherit::VM_INHERIT_NONE;
use mach2::vm_prot::{VM_PROT_READ, VM_PROT_WRITE};
use mach2::vm_statistics::VM_FLAGS_ANYWHERE;
use rustix::mm::{MapFlags, ProtFlags};

use super::handle::{Handle, Kind, Means};
use super::meet::random;
use super::raw;
use super::task::{ThisTask, answer, own};
use crate::mach::handover::Bundle;
use crate::mach::{Kern, Name, SendRight};
use crate::shm;

pub use crate::writers::Writers;

/// Bytes from which Linux uses huge pages; here only a size.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a page: 16 KiB on Apple silicon.
#[must_use]
pub fn page_size() -> usize {
    rustix::param::page_size()
}

fn failed(code: Kern) -> io::Error {
    let kind = match code {
        Kern::INVALID_RIGHT => io::ErrorKind::PermissionDenied,
        Kern::INVALID_ARGUMENT => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::OutOfMemory,
    };
    io::Error::new(kind, format!("the kernel answered {code}"))
}

/// An entry of `len` bytes: of new memory, or of what lies at `of`.
fn entry(len: usize, of: Option<NonNull<u8>>, protection: i32) -> io::Result<SendRight<ThisTask>> {
    let (mut size, mut name) = (len as u64, 0);
    let flags = if of.is_some() { protection } else { protection | raw::MAP_MEM_NAMED_CREATE };
    let offset = of.map_or(0, |base| base.addr().get() as u64);
    // SAFETY: both pointers are valid for the call, which maps and unmaps nothing.
    let code = unsafe { vm::mach_make_memory_entry_64(own(), &raw mut size, offset, flags, &raw mut name, 0) };
    answer(code).map_err(failed)?;
    let right = SendRight::own(&ThisTask, Name(name)).ok_or(io::ErrorKind::OutOfMemory)?;
    // Where a mapping is of more than one piece, the kernel makes an entry of the first alone.
    if size < len as u64 {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(right)
}

/// Memory to share. Its size can never change.
#[derive(Debug)]
pub struct Region {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Entry(Arc<SendRight<ThisTask>>),
    Object(OwnedFd),
}

impl Region {
    /// Creates a region, maps it writable and touches every page of it. The name is not used.
    ///
    /// # Errors
    /// No memory, no space for a right.
    pub fn create(name: &str, len: usize, writers: Writers) -> io::Result<(Self, Map)> {
        Self::create_for(Means::USUAL, name, len, writers)
    }

    /// [`create`](Self::create), for workers that are given it by these means.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`MemoryDenied`](crate::mach::SetupError::MemoryDenied).
    pub fn create_for(means: Means, _name: &str, len: usize, writers: Writers) -> io::Result<(Self, Map)> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if means == Means::Descriptors {
            let object = shm::create(u64::from_ne_bytes(random()?), len, writers)?;
            let map = Map::of_object(&object.own, len, true)?;
            map.touch();
            return Ok((Self { memory: Memory::Object(object.theirs), len }, map));
        }
        let whole = entry(len, None, VM_PROT_READ | VM_PROT_WRITE)?;
        let map = Map::of_entry(&whole, len, true)?;
        map.touch();
        let entry = match writers {
            Writers::All => whole,
            // From here on the mapping is the only thing that can write.
            Writers::Creator => entry(len, Some(map.base), VM_PROT_READ)?,
        };
        Ok((Self { memory: Memory::Entry(Arc::new(entry)), len }, map))
    }

    /// Takes over a region that came from the peer, after checking that it is what was announced.
    ///
    /// # Errors
    /// `InvalidData` when it has another size, or more may be done with it than should.
    pub fn adopt(handle: Handle, len: usize, writers: Writers) -> io::Result<Self> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let not_a_region = || wrong("the handle is not that of a region");
        let region = match handle.0 {
            // One without a size is no entry, but stands for a descriptor.
            Kind::Rights(Bundle { rights, len: found }) if found > 0 => {
                let mut rights = rights.into_iter();
                let (Some(entry), None) = (rights.next(), rights.next()) else { return Err(not_a_region()) };
                if found != len as u64 {
                    return Err(wrong("the region has another size than was announced"));
                }
                Self { memory: Memory::Entry(entry), len }
            }
            kind => {
                let mut objects = Handle(kind).into_descriptors().into_iter();
                let (Some(object), None) = (objects.next(), objects.next()) else { return Err(not_a_region()) };
                shm::check(&object, len, writers)?;
                Self { memory: Memory::Object(object), len }
            }
        };
        if writers == Writers::Creator && Map::new(&region.memory, len, true).is_ok() {
            return Err(wrong("the region can be written, and should not"));
        }
        Ok(region)
    }

    /// Another handle of the region.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        let memory = match &self.memory {
            Memory::Entry(entry) => Memory::Entry(entry.clone()),
            Memory::Object(object) => Memory::Object(object.try_clone()?),
        };
        Ok(Self { memory, len: self.len })
    }

    /// The right to the region, for a peer to adopt.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        Handle(match self.memory {
            Memory::Entry(entry) => Kind::Rights(Bundle { rights: vec![entry], len: self.len as u64 }),
            Memory::Object(object) => Kind::Descriptors(vec![object]),
        })
    }

    /// Maps the region, writable if asked, and touches every page, so that no frame pays for a page fault.
    ///
    /// # Errors
    /// What the kernel answers; `PermissionDenied` for a writable mapping of a region only its creator may write.
    pub fn map(&self, writable: bool) -> io::Result<Map> {
        let map = Map::new(&self.memory, self.len, writable)?;
        map.look();
        Ok(map)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A shared mapping of a whole region. Unmapped on drop; absent in forked children.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    stamp: ForkStamp,
}

// SAFETY: a mapping belongs to the process, not to a thread; this type only owns the address range.
unsafe impl Send for Map {}
// SAFETY: as above; every access through the pointer carries its own argument.
unsafe impl Sync for Map {}

impl Map {
    fn new(memory: &Memory, len: usize, writable: bool) -> io::Result<Self> {
        match memory {
            Memory::Entry(entry) => Self::of_entry(entry, len, writable),
            Memory::Object(object) => Self::of_object(object, len, writable),
        }
    }

    fn of_object(object: &OwnedFd, len: usize, writable: bool) -> io::Result<Self> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: the kernel picks unused addresses.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, object, 0) };
        // One for writing is refused where it should be, too.
        let base = base.map_err(|error| if writable { error.into() } else { shm::denied(error) })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Self { base, len, writable, stamp: ForkStamp::new()? };
        // SAFETY: the range is the mapping just made; this changes what forked children get, not this process.
        answer(unsafe { vm::mach_vm_inherit(own(), base.addr().get() as u64, len as u64, VM_INHERIT_NONE) })
            .map_err(failed)?;
        Ok(map)
    }

    fn of_entry(entry: &SendRight<ThisTask>, len: usize, writable: bool) -> io::Result<Self> {
        let name = entry.name().map_err(io::Error::other)?;
        let protection = if writable { VM_PROT_READ | VM_PROT_WRITE } else { VM_PROT_READ };
        let (mut address, none, anywhere) = (0, VM_INHERIT_NONE, VM_FLAGS_ANYWHERE);
        let size = len as u64;
        // SAFETY: the kernel picks unused addresses, and shares the entry's memory rather than copying it.
        let code = unsafe {
            vm::mach_vm_map(own(), &raw mut address, size, 0, anywhere, name.0, 0, 0, protection, protection, none)
        };
        answer(code).map_err(failed)?;
        let base = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, writable, stamp: ForkStamp::new()? })
    }

    /// Allocates every page by writing to it. Only for memory nobody else has yet.
    fn touch(&self) {
        for at in (0..self.len).step_by(page_size()) {
            // SAFETY: in bounds.
            let place = unsafe { self.base.add(at) };
            // SAFETY: mapped writable, and nobody else has it yet.
            unsafe { place.write_volatile(0) };
        }
    }

    /// Has every page there by reading it.
    fn look(&self) {
        for at in (0..self.len).step_by(page_size()) {
            // SAFETY: in bounds.
            let place = unsafe { self.base.add(at) };
            // SAFETY: mapped readable; what is read is not used.
            let _ = unsafe { place.read_volatile() };
        }
    }

    /// The first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // A forked child does not have it, and may have mapped something else there.
        if !self.stamp.forked() {
            // SAFETY: the range is this mapping, and whoever holds pointers into it holds the `Map` too.
            let _ = unsafe { vm::mach_vm_deallocate(own(), self.base.addr().get() as u64, self.len as u64) };
        }
    }
}

/// Forks that lie between the start of this program and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

fn forks() -> u32 {
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static COUNTED: Once = Once::new();
    COUNTED.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is safe after a fork. Refused without memory; rights look at the
        // pid besides.
        let _ = unsafe { raw::pthread_atfork(None, None, Some(count)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Tells at no cost whether this process is a forked child of the one that made the stamp.
#[derive(Debug)]
pub struct ForkStamp(u32);

impl ForkStamp {
    /// A stamp of this process.
    ///
    /// # Errors
    /// None here.
    pub fn new() -> io::Result<Self> {
        Ok(Self(forks()))
    }

    /// Whether a fork lies between the creation and this call.
    #[must_use]
    #[inline]
    pub fn forked(&self) -> bool {
        FORKS.load(Ordering::Relaxed) != self.0
    }
}
