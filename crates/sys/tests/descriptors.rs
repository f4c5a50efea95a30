//! Descriptors from a host to its worker, and memory behind them, as macOS has them for workers without a Mach port. All of it
//! is portable, and so are these tests.
#![cfg(not(frameport_sim))]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use frameport_sys::memory::{Writers, page_size};
use frameport_sys::passing::{self, MAX_DESCRIPTORS, Taker};
use frameport_sys::shm::{self, PREFIX};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

const NOW: Duration = Duration::ZERO;

fn pipe() -> (File, OwnedFd) {
    let (read, write) = io::pipe().unwrap();
    (File::from(OwnedFd::from(read)), write.into())
}

#[test]
fn a_worker_takes_what_was_given_in_that_order_and_keeps_it_to_itself() {
    let (giver, taker) = passing::pair().unwrap();
    let ((mut first, one), (mut second, other)) = (pipe(), pipe());
    assert!(taker.take().unwrap().is_none(), "nothing is there, and nothing is waited for");
    giver.give(&[one], NOW).unwrap();
    giver.give(&[other.try_clone().unwrap(), other], NOW).unwrap();
    for (read, count) in [(&mut first, 1), (&mut second, 2)] {
        let came = taker.take().unwrap().unwrap();
        assert_eq!(came.len(), count);
        for write in came {
            assert!(fcntl_getfd(&write).unwrap().contains(FdFlags::CLOEXEC));
            File::from(write).write_all(b"!").unwrap();
        }
        let mut said = Vec::new();
        read.read_to_end(&mut said).unwrap();
        assert_eq!(said.len(), count, "to its end: the copies given are gone, too");
    }
    assert!(taker.take().unwrap().is_none());
}

#[test]
fn a_worker_cannot_write_to_the_socket_and_its_host_notices_its_end() {
    let (giver, taker) = passing::pair().unwrap();
    let (_read, write) = pipe();
    for bytes in [&b"x"[..], b""] {
        let sent = raw(&taker, bytes, std::slice::from_ref(&write));
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
    let taker = Taker::adopt(OwnedFd::from(taker)).unwrap();
    drop(taker);
    assert_eq!(giver.give(&[write], NOW).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let (giver, taker) = passing::pair().unwrap();
    drop(giver);
    assert!(taker.take().unwrap().is_none(), "the end, which the pipe tells");
    assert!(Taker::adopt(pipe().1).is_err());
}

/// Sends as no giver does.
fn raw(to: impl AsFd, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    Ok(rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
}

#[test]
fn another_number_of_descriptors_is_refused_and_none_is_kept() {
    // What was said, what was sent.
    for (said, sent) in [(2, 1), (1, 2), (2, 3), (3, 3), (1, 0), (0, 1), (0, 0)] {
        let (giver, taker) = passing::pair().unwrap();
        let (mut read, write) = pipe();
        let copies: Vec<OwnedFd> = (0..sent).map(|_| write.try_clone().unwrap()).collect();
        drop(write);
        assert_eq!(raw(&giver, &[said], &copies).unwrap(), 1);
        drop(copies);
        assert_eq!(taker.take().unwrap_err().kind(), io::ErrorKind::InvalidData, "{said}, {sent}");
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "{said}, {sent}: one is left open");
    }
    let (giver, _taker) = passing::pair().unwrap();
    let three: Vec<OwnedFd> = (0..=MAX_DESCRIPTORS).map(|_| pipe().1).collect();
    for wrong in [&three[..], &[]] {
        assert_eq!(giver.give(wrong, NOW).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn all_handles_of_a_message_fit_before_one_is_taken_and_a_full_socket_says_so() {
    let (giver, taker) = passing::pair().unwrap();
    let (mut read, write) = pipe();
    let both = [write.try_clone().unwrap(), write];
    for _ in 0..frameport_sys::socket::MAX_HANDLES {
        giver.give(&both, NOW).unwrap();
    }
    let full = (0..1 << 20).find_map(|_| giver.give(&both, NOW).err()).unwrap();
    // Or there are too many on their way.
    let is_full = |error: &io::Error| {
        error.kind() == io::ErrorKind::TimedOut
            || error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error())
    };
    assert!(is_full(&full), "{full}");
    let (before, limit) = (Instant::now(), Duration::from_millis(50));
    giver.give(&both, limit).unwrap_err();
    // No time is lost where it is not room that is lacking.
    assert!(full.kind() != io::ErrorKind::TimedOut || before.elapsed() >= limit);
    drop(both);
    while let Some(came) = taker.take().unwrap() {
        assert_eq!(came.len(), 2);
    }
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
}

fn map(object: impl AsFd, len: usize, prot: ProtFlags) -> io::Result<*mut u8> {
    // SAFETY: the kernel picks unused addresses; nobody unmaps them.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, object, 0) }?;
    Ok(base.cast())
}

#[test]
fn memory_has_no_name_and_shows_readers_what_its_creator_writes() {
    let random = u64::from(std::process::id()) << 32;
    let object = shm::create(random, 10_000, Writers::Creator).unwrap();
    assert!(fcntl_getfd(&object.theirs).unwrap().contains(FdFlags::CLOEXEC));
    shm::check(&object.theirs, 10_000, Writers::Creator).unwrap();
    assert!(shm::check(&object.own, 10_000, Writers::Creator).is_err(), "it could be written");
    assert!(shm::check(&object.theirs, 10_000, Writers::All).is_err(), "it could not");
    assert!(map(&object.theirs, 10_000, ProtFlags::READ | ProtFlags::WRITE).is_err());
    let own = map(&object.own, 10_000, ProtFlags::READ | ProtFlags::WRITE).unwrap().wrapping_add(9_999);
    let theirs = map(&object.theirs, 10_000, ProtFlags::READ).unwrap().wrapping_add(9_999);
    // SAFETY: inside the mapping, which may be written.
    unsafe { own.write_volatile(77) };
    // SAFETY: inside the mapping.
    assert_eq!(unsafe { theirs.read_volatile() }, 77);
    // SAFETY: the mapping is this test's.
    let made_writable = unsafe {
        rustix::mm::mprotect(
            theirs.wrapping_sub(9_999).cast(),
            10_000,
            rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
        )
    };
    assert!(made_writable.is_err());
    let all = shm::create(random + 1, 10_000, Writers::All).unwrap();
    shm::check(&all.theirs, 10_000, Writers::All).unwrap();
    map(&all.theirs, 10_000, ProtFlags::READ | ProtFlags::WRITE).unwrap();
    for name in [random, random + 1] {
        let name = format!("{PREFIX}{name:016x}");
        assert!(name.len() <= 31, "longer than macOS has it");
        assert!(rustix::shm::open(name, rustix::shm::OFlags::RDONLY, rustix::fs::Mode::empty()).is_err());
    }
}

#[test]
fn memory_of_another_size_is_refused_and_a_failure_leaves_no_name() {
    let object = shm::create(u64::MAX - u64::from(std::process::id()), page_size() + 1, Writers::All).unwrap();
    for (len, fits) in
        [(page_size() + 1, true), (page_size(), false), (1, false), (2 * page_size() + 1, false), (usize::MAX, false)]
    {
        assert_eq!(shm::check(&object.theirs, len, Writers::All).is_ok(), fits, "{len}");
    }
    let random = (u64::from(std::process::id()) << 32) + 2;
    for _ in 0..2 {
        let error = shm::create(random, usize::MAX, Writers::All).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::AlreadyExists, "the first attempt's name is gone");
    }
}
