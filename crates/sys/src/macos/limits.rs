//! What the machine still has to give: memory, open files, the kernel's release. Snapshots all.

use std::mem::MaybeUninit;

/// Memory that can be reserved, and which limit says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can still be reserved; `u64::MAX` where nothing is known.
    pub bytes: u64,
    /// The limit behind the figure, for an error message.
    pub source: String,
}

/// Memory this process can still reserve: the machine's. What others use of it is compressed or written out where need be, so
/// that it is no limit of this call's.
#[must_use]
pub fn available_memory() -> Memory {
    let mut bytes = MaybeUninit::<u64>::uninit();
    let mut len = size_of::<u64>();
    // SAFETY: the name ends in zero, `bytes` has room for `len` bytes, and nothing is set.
    let code = unsafe {
        libc::sysctlbyname(c"hw.memsize".as_ptr(), bytes.as_mut_ptr().cast(), &raw mut len, std::ptr::null_mut(), 0)
    };
    if code != 0 || len != size_of::<u64>() {
        return Memory { bytes: u64::MAX, source: "no known limit".to_owned() };
    }
    // SAFETY: the call succeeded and wrote all eight bytes.
    Memory { bytes: unsafe { bytes.assume_init() }, source: "hw.memsize".to_owned() }
}

/// Open descriptors of this process and how many it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force, in descriptors; `u64::MAX` for none.
    pub soft: u64,
    /// What the process may raise the limit to, in descriptors; `u64::MAX` for no bound.
    pub hard: u64,
    /// Descriptors open now; 0 where it is not known.
    pub used: u64,
}

/// Descriptors in use by this process and its limits.
#[must_use]
pub fn open_files() -> OpenFiles {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // The listing itself holds one descriptor open.
    let used = std::fs::read_dir("/dev/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    OpenFiles { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX), used: used as u64 }
}

/// The kernel's name, as `uname -s` prints it.
pub const KERNEL: &str = "Darwin";

/// The release of the running kernel, as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
