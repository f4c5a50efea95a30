//! The doorbell: a word in memory both processes see.
//!
//! *Who calls it*: `frameport-mem`'s parking. *Invariants*: always the shared kind, which finds the word by its memory object and
//! place there, so that both sides may map it anywhere and one of them read-only. *A hostile peer* can wake this side as often
//! as it likes, or never: callers look again after every return.
//!
//! `os_sync_wait_on_address` is there since macOS 14.4, and looked up by name because older ones lack it: there parking sleeps
//! by other means.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

type Wait = unsafe extern "C" fn(*mut c_void, u64, usize, u32) -> c_int;
type WaitFor = unsafe extern "C" fn(*mut c_void, u64, usize, u32, u32, u64) -> c_int;
type Wake = unsafe extern "C" fn(*mut c_void, usize, u32) -> c_int;

/// The calls of this system, if it has them.
#[derive(Clone, Copy)]
struct OsSync {
    wait: Wait,
    wait_for: WaitFor,
    wake_all: Wake,
}

impl OsSync {
    fn get() -> Option<Self> {
        static FOUND: OnceLock<Option<OsSync>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            // SAFETY: the name ends in zero.
            let wait = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"os_sync_wait_on_address".as_ptr()) };
            // SAFETY: as above.
            let wait_for = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"os_sync_wait_on_address_with_timeout".as_ptr()) };
            // SAFETY: as above.
            let wake_all = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"os_sync_wake_by_address_all".as_ptr()) };
            if wait.is_null() || wait_for.is_null() || wake_all.is_null() {
                return None;
            }
            // SAFETY: os/os_sync_wait_on_address.h gives the function by that name this type, and it is not null.
            let wait = unsafe { std::mem::transmute::<*mut c_void, Wait>(wait) };
            // SAFETY: as above.
            let wait_for = unsafe { std::mem::transmute::<*mut c_void, WaitFor>(wait_for) };
            // SAFETY: as above.
            let wake_all = unsafe { std::mem::transmute::<*mut c_void, Wake>(wake_all) };
            Some(Self { wait, wait_for, wake_all })
        })
    }
}

fn place(word: &AtomicU32) -> *mut c_void {
    word.as_ptr().cast()
}

/// Whether the system has it.
#[must_use]
pub fn is_there() -> bool {
    OsSync::get().is_some()
}

/// Sleeps until `word` differs from what was seen of it, somebody wakes it, a signal arrives, or `limit` is over. Returns
/// early at will: the caller looks again. Where it is not there, at once.
pub fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let (size, shared) = (size_of::<AtomicU32>(), libc::OS_SYNC_WAIT_ON_ADDRESS_SHARED);
    match (OsSync::get(), limit) {
        (Some(os), None) => {
            // SAFETY: the word is mapped for as long as it is borrowed, and read only.
            let _ = unsafe { (os.wait)(place(word), seen.into(), size, shared) };
        }
        (Some(os), Some(limit)) => {
            let clock = libc::OS_CLOCK_MACH_ABSOLUTE_TIME;
            // No time at all is refused there.
            let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
            // SAFETY: as above.
            let _ = unsafe { (os.wait_for)(place(word), seen.into(), size, shared, clock, nanoseconds) };
        }
        (None, _) => {}
    }
}

/// Wakes everybody who sleeps on `word`, in every process.
pub fn wake_all(word: &AtomicU32) {
    if let Some(os) = OsSync::get() {
        // SAFETY: the word is mapped for as long as it is borrowed; only its address is used.
        let _ = unsafe { (os.wake_all)(place(word), size_of::<AtomicU32>(), libc::OS_SYNC_WAKE_BY_ADDRESS_SHARED) };
    }
}
