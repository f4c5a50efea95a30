//! What a worker inherits from its host: one environment variable and two pipes, the first of which says how to find the host,
//! unless there is a socket besides, by which handles come.
//!
//! *Who calls it*: the worker's `Link`, once, before this process forks. *Invariants*: the variable is taken out of the
//! environment and the descriptors made close-on-exec, so that the worker's own children see neither. A worker that does not
//! come to its host can still tell it so: it has the pipes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::poll::Queue;
use super::socket::{self, Control, PIPE, PORTS};
use super::task::ThisTask;
use crate::mach::check_in::Hello;
use crate::mach::error::Sign;
use crate::mach::worker::{CheckedIn, WorkerLink};
use crate::mach::{Kern, SetupError};
use crate::passing::Taker;

/// The environment variable that names the link: `fd:R,W`, or `fd:R,W,S` for a worker that is not met.
pub const VARIABLE: &str = "FRAMEPORT_LINK";
/// How long the host may take for each step.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the check-in may wait for room in the host's queue.
const ROOM: Duration = Duration::from_secs(5);

/// Why a process has no link to take.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The variable is not set, or somebody took the link before.
    #[error("{VARIABLE} is not set: this process was not started by a frameport host, or it has connected already")]
    Absent,
    /// The variable is set but leads to no host.
    #[error("{VARIABLE}={value:?} leads to no host: {source}")]
    Invalid {
        /// The variable's value.
        value: String,
        /// What the system said of it.
        source: io::Error,
    },
}

static TAKING: Mutex<()> = Mutex::new(());

/// Takes the worker's end of the control channel, and meets the host, if it is to: [`Control::met`] says whether it did.
///
/// # Errors
/// No variable, or one that leads to no host.
pub fn take_link() -> Result<Control, InheritError> {
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let value = std::env::var(VARIABLE).map_err(|_| InheritError::Absent)?;
    let invalid = |source: io::Error| InheritError::Invalid { value: value.clone(), source };
    let number = |text: &str| text.parse::<i32>().ok().filter(|&fd| fd > 2);
    let numbers: Option<Vec<i32>> = value.strip_prefix("fd:").and_then(|text| text.split(',').map(number).collect());
    let numbers = numbers.filter(|numbers| {
        let different: BTreeSet<_> = numbers.iter().collect();
        (2..=3).contains(&numbers.len()) && different.len() == numbers.len()
    });
    let Some(numbers) = numbers else { return Err(invalid(io::ErrorKind::InvalidInput.into())) };
    for number in numbers.iter().copied() {
        // SAFETY: borrowed for one call that answers EBADF if the number is not open.
        let probe = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_getfd(probe).map_err(|errno| invalid(errno.into()))?;
    }
    // SAFETY: the lock above keeps frameport's own threads out. Other threads that read the environment through the
    // C library at this very moment are the process's own: connecting is documented as a start-up action.
    unsafe { std::env::remove_var(VARIABLE) };
    let ends = numbers.into_iter().map(|number| {
        // SAFETY: the host left this descriptor open for us alone; with the variable gone nobody takes it twice, and no two of
        // the numbers are the same.
        unsafe { OwnedFd::from_raw_fd(number) }
    });
    meet(ends.collect()).map_err(invalid)
}

fn meet(ends: Vec<OwnedFd>) -> io::Result<Control> {
    ends.iter().try_for_each(socket::make_ours)?;
    let mut ends = ends.into_iter();
    let (Some(read), Some(write), socket) = (ends.next(), ends.next(), ends.next()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if let Some(socket) = socket {
        return Control::of_taker(read, write, Taker::adopt(socket)?);
    }
    let hello = Hello::from_bytes(&read_hello(&read)?)?;
    let link = CheckedIn::new(&ThisTask, &hello, 0, ROOM).and_then(|checked_in| await_welcome(checked_in, &read));
    Control::of_worker(read, write, link)
}

/// Waits for the host's answer, and for all that tells that none will come: its refusal, its death, the end of its pipe.
fn await_welcome(checked_in: CheckedIn<ThisTask>, pipe: &OwnedFd) -> Result<WorkerLink<ThisTask>, SetupError> {
    // No memory.
    let failed = |_| SetupError::Kernel(Kern::FAILURE);
    let queue = Queue::new().map_err(failed)?;
    for port in checked_in.watched()? {
        queue.watch_port(port, PORTS).map_err(failed)?;
    }
    queue.watch_end(pipe.as_fd(), PIPE).map_err(failed)?;
    let end = Instant::now() + LIMIT;
    checked_in.welcomed(|| match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(SetupError::RendezvousTimeout),
        left if queue.has_ended(PIPE, left).map_err(failed)? => Err(SetupError::Died(Sign::EndOfFile)),
        _ => Ok(()),
    })
}

/// Reads exactly the hello: what follows is the channel's.
fn read_hello(pipe: &OwnedFd) -> io::Result<[u8; Hello::LEN]> {
    let (mut bytes, mut got, end) = ([0; Hello::LEN], 0, Instant::now() + LIMIT);
    while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(pipe, rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(some) => got += some,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
                // Interrupted or over: the next round tells.
                let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
