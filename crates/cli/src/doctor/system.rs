//! The kernel and its limits.
//!
//! *Who calls it*: the doctor. *Invariants*: what is reserved for a look is given back at its end.

use std::fs;
use std::io;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport_sys::isolation::{self, Level};
use frameport_sys::limits::{self, KERNEL};
use frameport_sys::memory::{HUGE_PAGE, Region, Writers, page_size};

use super::Finding;
use crate::words;

/// What is looked at, in the order it is shown.
pub(super) const CHECKS: [fn() -> Finding; 6] = [kernel, memfd, memory, open_files, huge_pages, isolation_level];

/// Descriptors one worker costs its host, with room.
const FILES_PER_WORKER: u64 = 8;
/// Workers a host should be able to have.
const WORKERS: u64 = 16;

fn kernel() -> Finding {
    let release = limits::kernel_release();
    let version = |text: &str| {
        let mut numbers = text.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let name = format!("{KERNEL} {release}");
    match version(&release) {
        Some(found) if found < (5, 4) => Finding::fail("kernel", name, "Linux 5.4 or newer is needed (pidfd, seals)"),
        Some(found) if found < (5, 14) => Finding::warn(
            "kernel",
            name,
            "Linux 5.14 and newer fault pools in before the first frame; 6.12 isolates workers",
        ),
        _ => Finding::ok("kernel", name),
    }
}

/// A region only its creator may write, as control regions are.
fn memfd() -> Finding {
    const NAME: &str = "memfd";
    let made = Region::create("frameport-doctor", page_size(), Writers::Creator);
    match made.map(|(region, map)| (region.map(true), map)) {
        Ok((Err(error), _)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::ok(NAME, "sealed memory: only its creator can write it")
        }
        Ok((Err(error), _)) => Finding::fail(NAME, format!("mapping sealed memory: {error}"), CONTAINER),
        Ok((Ok(_), _)) => {
            Finding::fail(NAME, "sealed memory can still be mapped writable", "Linux 5.1 or newer has the seal for it")
        }
        Err(error) => Finding::fail(NAME, format!("creating sealed memory: {error}"), CONTAINER),
    }
}

/// What to do where a container forbids a system call.
const CONTAINER: &str = "in a container its seccomp profile forbids it: use Docker's default profile, or a newer one";

/// Memory left against the pools of 4K video.
fn memory() -> Finding {
    const NAME: &str = "memory";
    const SLOTS: u64 = 4;
    let need = |width, height| {
        let frame =
            VideoSpec::new(PixelFormat::Rgba, width, height).layout().map_or(u64::MAX, |layout| layout.size as u64);
        frame.saturating_mul(2 * SLOTS)
    };
    let (large, small) = (need(3840, 2160), need(1920, 1080));
    let left = limits::available_memory();
    let said = format!("{} left by {}", words::bytes(left.bytes), left.source);
    let pools = format!("4K rgba there and back takes {}", words::bytes(large));
    if left.bytes > large {
        Finding::ok(NAME, format!("{said}; {pools}"))
    } else if left.bytes > small {
        Finding::warn(NAME, said, format!("{pools}: use fewer slots or smaller frames, or raise the limit"))
    } else {
        Finding::fail(
            NAME,
            said,
            format!("1920x1080 already takes {}: raise the limit (docker run --memory)", words::bytes(small)),
        )
    }
}

fn open_files() -> Finding {
    let limits::OpenFiles { soft, hard, used } = limits::open_files();
    let said =
        format!("{used} open of {}", if soft == u64::MAX { "any number".to_owned() } else { words::count(soft) });
    let left = soft.saturating_sub(used);
    let raise = match hard.min(4096) {
        possible if possible > soft => format!("ulimit -n {possible}"),
        _ => "an administrator has to raise the hard limit (limits.conf, docker run --ulimit nofile=4096)".to_owned(),
    };
    if left < FILES_PER_WORKER {
        Finding::fail("open files", said, format!("not enough for one worker: {raise}"))
    } else if left < FILES_PER_WORKER * WORKERS {
        Finding::warn("open files", said, format!("enough for {} workers: {raise}", left / FILES_PER_WORKER))
    } else {
        Finding::ok("open files", said)
    }
}

/// Makes a region of one huge page and asks the kernel what it made of it.
fn huge_pages() -> Finding {
    const NAME: &str = "huge pages";
    const TAG: &str = "frameport-doctor-huge";
    let slower = "Linux 6.1 and free memory give them; without, a frame's first touch is slower and nothing else";
    let region = match Region::create(TAG, HUGE_PAGE, Writers::All) {
        Ok(region) => region,
        Err(error) => return Finding::warn(NAME, format!("cannot be tried: {error}"), CONTAINER),
    };
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    drop(region);
    let of_region = maps.lines().skip_while(|line| !line.contains(TAG)).skip(1);
    let huge = of_region
        .take_while(|line| !line.contains("VmFlags"))
        .filter_map(|line| line.strip_prefix("ShmemPmdMapped:").or_else(|| line.strip_prefix("FilePmdMapped:")))
        .any(|figure| figure.split_whitespace().next().is_some_and(|kib| kib != "0"));
    if huge {
        Finding::ok(NAME, "frames of 2 MiB and more get them, without any setting")
    } else {
        Finding::warn(NAME, "frames get ordinary pages", slower)
    }
}

fn isolation_level() -> Finding {
    let level = isolation::level(isolation::best_scope().is_some());
    let landlock = isolation::landlock_abi().map_or("no Landlock".to_owned(), |abi| format!("Landlock ABI {abi}"));
    match level {
        Level::Scoped => {
            Finding::ok("isolation", format!("{level}: workers reach neither host nor siblings ({landlock})"))
        }
        Level::HostHidden | Level::None => Finding::warn(
            "isolation",
            format!("{level} ({landlock})"),
            "Linux 6.12 with Landlock switched on (lsm=landlock,…) keeps workers from the host's memory",
        ),
    }
}
