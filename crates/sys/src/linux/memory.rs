//! Shared memory without a name: sealed memfds and their mappings.
//!
//! *Who calls it*: the host creates regions, the worker adopts them; `frameport-mem` gives the mappings types.
//! *Invariants*: a region has its final size from birth and every page of it is allocated, so that no access can end
//! in SIGBUS; its size is sealed before it leaves the process; a mapping is never inherited by a forked child.
//! *A hostile peer* can write what it may write, and punch holes into a region it may write: the holes read as zeros
//! ([memfd_create(2)], [fcntl(2)] `F_ADD_SEALS`).
//!
//! [memfd_create(2)]: https://man7.org/linux/man-pages/man2/memfd_create.2.html
//! [fcntl(2)]: https://man7.org/linux/man-pages/man2/fcntl.2.html

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::handle::{Handle, Means};

pub use crate::writers::Writers;

/// Bytes of a huge page: frames this large and larger get them.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a page.
#[must_use]
pub fn page_size() -> usize {
    rustix::param::page_size()
}

fn seals(writers: Writers) -> SealFlags {
    let size = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    match writers {
        Writers::All => size,
        Writers::Creator => size | SealFlags::FUTURE_WRITE,
    }
}

/// A sealed memfd. Its size can never change.
#[derive(Debug)]
pub struct Region {
    fd: OwnedFd,
    len: usize,
}

impl Region {
    /// Creates a region, allocates every page of it, maps it writable and then seals it.
    ///
    /// `name` is shown in `/proc/PID/maps` only; nothing can be opened by it.
    ///
    /// # Errors
    /// What memfd_create, fallocate or mmap answer: too many open files, no memory.
    pub fn create(name: &str, len: usize, writers: Writers) -> io::Result<(Self, Map)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Linux before 6.3 does not know NOEXEC_SEAL.
        let fd = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create(name, flags))?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        let map = Map::new(fd.as_fd(), len, true)?;
        map.allocate(fd.as_fd())?;
        rustix::fs::fcntl_add_seals(&fd, seals(writers))?;
        Ok((Self { fd, len }, map))
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
    /// `InvalidData` when it is no memfd, has another size, or lacks a seal.
    pub fn adopt(handle: Handle, len: usize, writers: Writers) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let found = rustix::fs::fcntl_get_seals(&handle).map_err(|_| wrong("the region is no memfd".into()))?;
        if !found.contains(seals(writers)) || (writers == Writers::All && found.contains(SealFlags::FUTURE_WRITE)) {
            return Err(wrong(format!("the region's seals are {found:?}, not {:?}", seals(writers))));
        }
        let size = rustix::fs::fstat(&handle)?.st_size;
        if usize::try_from(size).ok() != Some(len) {
            return Err(wrong(format!("the region has {size} bytes, {len} were announced")));
        }
        Ok(Self { fd: handle, len })
    }

    /// Another handle of the region.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, len: self.len })
    }

    /// The right to the region, for a peer to adopt.
    #[must_use]
    pub fn into_handle(self) -> Handle {
        self.fd
    }

    /// Maps the region, writable if asked, and faults every page in, so that no frame pays for a page fault.
    ///
    /// # Errors
    /// What mmap answers; `PermissionDenied` for a writable mapping of a region only its creator may write.
    pub fn map(&self, writable: bool) -> io::Result<Map> {
        let map = Map::new(self.fd.as_fd(), self.len, writable)?;
        map.populate();
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

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A shared mapping of a whole region. Unmapped on drop; absent in forked children.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: a mapping belongs to the process, not to a thread; this type only owns the address range.
unsafe impl Send for Map {}
// SAFETY: as above; every access through the pointer carries its own argument.
unsafe impl Sync for Map {}

impl Map {
    fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let base = if len >= HUGE_PAGE {
            Self::map_aligned(fd, len, writable)?
        } else {
            Self::map_at(None, fd, len, writable)?
        };
        let map = Self { base, len, writable };
        // SAFETY: the range is the mapping just made; DONTFORK changes what children get, not this process.
        unsafe { rustix::mm::madvise(map.base.as_ptr().cast(), len, Advice::LinuxDontFork) }?;
        Ok(map)
    }

    fn map_at(at: Option<NonNull<u8>>, fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<NonNull<u8>> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let (hint, fixed) = match at {
            Some(at) => (at.as_ptr().cast(), MapFlags::FIXED),
            None => (std::ptr::null_mut(), MapFlags::empty()),
        };
        // SAFETY: without FIXED the kernel picks unused addresses; with it, `at` lies in a reservation of our own.
        let base = unsafe { rustix::mm::mmap(hint, len, prot, MapFlags::SHARED | fixed, fd, 0) }?;
        NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Maps at an address that is a multiple of a huge page, as huge pages need.
    fn map_aligned(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<NonNull<u8>> {
        let rounded = len.checked_next_multiple_of(page_size()).ok_or(io::ErrorKind::OutOfMemory)?;
        let span = rounded.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel picks unused addresses for this reservation.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                span,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let skip = start.addr().wrapping_neg() % HUGE_PAGE;
        let at = start.wrapping_byte_add(skip);
        let made = NonNull::new(at.cast())
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
            .and_then(|at| Self::map_at(Some(at), fd, len, writable));
        let tail = at.wrapping_byte_add(rounded);
        let mut spare = vec![(start, skip), (tail, span - skip - rounded)];
        if made.is_err() {
            spare.push((at, rounded));
        }
        for (from, len) in spare.into_iter().filter(|&(_, len)| len > 0) {
            // SAFETY: the range is a part of the reservation above that the mapping does not use.
            let _ = unsafe { rustix::mm::munmap(from, len) };
        }
        made
    }

    /// Allocates every page: huge ones where that helps and works, else ordinary ones.
    fn allocate(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.len >= HUGE_PAGE {
            // One page in each huge page must be there before the kernel can collapse it.
            for at in (0..self.len - self.len % HUGE_PAGE).step_by(HUGE_PAGE) {
                rustix::fs::fallocate(fd, FallocateFlags::empty(), at as u64, page_size() as u64)?;
            }
            // Best effort: needs no privilege and no setting, but a kernel from 6.1 on and free huge pages.
            // SAFETY: the range is this mapping; collapsing does not change its content.
            let _ = unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_COLLAPSE) };
        }
        rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, self.len as u64)?;
        self.populate();
        Ok(())
    }

    /// Faults every page in. Best effort: kernels before 5.14 fault at the first access instead.
    fn populate(&self) {
        let advice = if self.writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: the range is this mapping; populating does not change its content.
        let _ = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, advice) };
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
        self.len == 0
    }

    /// Whether this process may write through it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and whoever holds pointers into it holds the `Map` too.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Tells at no cost whether this process is a forked child of the one that made the stamp.
#[derive(Debug)]
pub struct ForkStamp(NonNull<u8>);

// SAFETY: the page is only read after its creation.
unsafe impl Send for ForkStamp {}
// SAFETY: as above.
unsafe impl Sync for ForkStamp {}

impl ForkStamp {
    /// A page that the kernel wipes in forked children (`MADV_WIPEONFORK`).
    ///
    /// # Errors
    /// What mmap or madvise answer.
    pub fn new() -> io::Result<Self> {
        let len = page_size();
        // SAFETY: the kernel picks unused addresses.
        let page = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        // SAFETY: the page was just made and is writable.
        unsafe { page.cast::<u8>().write(1) };
        // SAFETY: the range is that page.
        unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) }?;
        // SAFETY: the range is that page, which is not written again.
        unsafe { rustix::mm::mprotect(page, len, MprotectFlags::READ) }?;
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Whether a fork lies between the creation and this call.
    #[must_use]
    #[inline]
    pub fn forked(&self) -> bool {
        // SAFETY: the page is mapped readable for as long as `self` lives. Volatile: a fork changes it unseen.
        unsafe { self.0.read_volatile() == 0 }
    }
}

impl Drop for ForkStamp {
    fn drop(&mut self) {
        // SAFETY: the range is the page made in `new`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), page_size()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poke(map: &Map, at: usize, value: u8) {
        assert!(at < map.len() && map.is_writable());
        // SAFETY: in bounds, just checked.
        let place = unsafe { map.base().add(at) };
        // SAFETY: writable, just checked; no other thread of the test uses it.
        unsafe { place.write_volatile(value) };
    }

    fn peek(map: &Map, at: usize) -> u8 {
        assert!(at < map.len());
        // SAFETY: in bounds, just checked.
        let place = unsafe { map.base().add(at) };
        // SAFETY: mapped readable for as long as `map` lives.
        unsafe { place.read_volatile() }
    }

    #[test]
    fn a_region_only_its_creator_may_write_refuses_everybody_else() {
        let (region, map) = Region::create("test", 8192, Writers::Creator).unwrap();
        assert!(region.map(true).is_err(), "a writable mapping after the seal");
        assert!(rustix::io::pwrite(&region, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&region, 0).is_err());
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&region, punch, 0, 4096).is_err());
        let reader = region.map(false).unwrap();
        poke(&map, 4097, 7);
        assert_eq!(peek(&reader, 4097), 7, "the creator's earlier mapping still writes");
    }

    #[test]
    fn a_region_for_all_keeps_its_size() {
        let (region, map) = Region::create("test", 3 * HUGE_PAGE + 5, Writers::All).unwrap();
        assert!(rustix::fs::ftruncate(&region, 1).is_err());
        assert!(rustix::fs::ftruncate(&region, 1 << 30).is_err());
        assert!(rustix::fs::fcntl_add_seals(&region, SealFlags::WRITE).is_err(), "no further seal");
        let other = region.map(true).unwrap();
        assert_eq!(map.base().addr().get() % HUGE_PAGE, 0);
        poke(&other, 3 * HUGE_PAGE + 4, 9);
        assert_eq!(peek(&map, 3 * HUGE_PAGE + 4), 9);
    }

    #[test]
    fn adopting_checks_kind_size_and_seals() {
        let dup = |region: &Region| region.as_fd().try_clone_to_owned().unwrap();
        let (sealed, _map) = Region::create("test", 4096, Writers::All).unwrap();
        assert!(Region::adopt(dup(&sealed), 4096, Writers::All).is_ok());
        assert!(Region::adopt(dup(&sealed), 4095, Writers::All).unwrap_err().to_string().contains("4096 bytes"));
        assert!(Region::adopt(dup(&sealed), 4096, Writers::Creator).is_err());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Region::adopt(file.into(), 4096, Writers::All).unwrap_err().to_string().contains("no memfd"));
        let bare = rustix::fs::memfd_create("bare", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&bare, 4096).unwrap();
        assert!(Region::adopt(bare, 4096, Writers::All).is_err());
    }
}
