//! What a worker can reach of its host and of other workers besides the channels it was given.
//!
//! Called by the host when it starts a worker. A [`Scope`] is made before the fork, because making it allocates, and entered
//! by the child between fork and exec. It restricts no file and no network access: a scoped program runs as before, but
//! cannot trace, read, signal or take descriptors from any process outside its own domain. Every child gets a domain of its
//! own, so siblings are separated too, while the host, which is outside, still controls them all.
//!
//! A hostile worker cannot leave its domain: it is inherited over fork and exec, and no system call removes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitySet;

pub use crate::level::Level;

/// A Landlock domain to start a worker in. One scope serves any number of workers: each that enters gets its own domain.
#[derive(Debug)]
pub struct Scope {
    ruleset: OwnedFd,
}

impl AsFd for Scope {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ruleset.as_fd()
    }
}

impl Scope {
    /// Puts the calling thread into a new domain for good, and gives up gaining privileges by `exec`.
    ///
    /// Two system calls and nothing else: allowed between fork and exec.
    pub(super) fn enter(&self) -> std::io::Result<()> {
        use std::os::fd::AsRawFd as _;
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: landlock_restrict_self takes two integers and touches no memory of this process; the descriptor is open
        // because `self` owns it.
        let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.ruleset.as_raw_fd(), 0) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

/// The strongest scope this kernel offers to an unprivileged process; `None` before Linux 6.12 (Landlock ABI 6), where
/// Landlock is switched off, or where no descriptor is free.
pub fn best_scope() -> Option<Scope> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(landlock::Scope::Signal | landlock::Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .ok()?;
    Option::<OwnedFd>::from(ruleset).map(|ruleset| Scope { ruleset })
}

/// The kernel's Landlock ABI version; `None` if it has no Landlock or it is switched off.
pub fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    let no_ruleset = std::ptr::null::<libc::c_void>();
    // SAFETY: with the version flag the kernel demands a null pointer and size 0 and reads no memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_ruleset, 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// The level reached by a worker that entered a scope, or did not, given what this process is now.
///
/// It speaks of workers only: an unrelated process of the same user can attach to any dumpable process, scope or not.
pub fn level(scoped: bool) -> Level {
    if scoped {
        Level::Scoped
    } else if is_hidden() {
        Level::HostHidden
    } else {
        Level::None
    }
}

/// Whether another process with this one's credentials is refused its memory. What cannot be found out counts as no.
fn is_hidden() -> bool {
    // Every value but "dumpable" makes the kernel demand CAP_SYS_PTRACE.
    let hidden = rustix::process::dumpable_behavior().is_ok_and(|dumpable| dumpable != DumpableBehavior::Dumpable);
    let has_now = || rustix::thread::capabilities(None).map(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    // Root gets back by exec whatever the bounding set still holds.
    let may_regain = || rustix::thread::capability_is_in_bounding_set(CapabilitySet::SYS_PTRACE);
    hidden && has_now() == Ok(false) && (!rustix::process::geteuid().is_root() || may_regain() == Ok(false))
}
