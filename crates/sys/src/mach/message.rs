//! The messages this side sends: what they look like in memory, and whose the rights in them are at each outcome.
//!
//! *Who calls it*: check-in, welcome and registration. *Invariants*: inline port descriptors only, at most
//! [`MAX_PORTS`]; the destination is a copied send right; there is no reply port; a moved right comes last, so that a
//! message refused for one of its rights has not consumed it (ipc_kmsg.c, ipc_kmsg_copyin_body takes descriptors in order
//! and undoes only those before the one it refuses); every send has a time limit.

use std::fmt;
use std::time::Duration;

use super::received::Received;
use super::right::{Forked, ReceiveRight, SendRight};
use super::task::{Kern, Name, Task};

/// Most bytes of a message, its trailer aside.
pub const MAX_MESSAGE: usize = 256;
/// `MAX_TRAILER_SIZE`: room the kernel may need behind a message.
pub const MAX_TRAILER: usize = 68;
/// Most port rights in a message.
pub const MAX_PORTS: usize = 8;

/// How often a send that a signal interrupted is begun anew, each time with its whole limit.
const INTERRUPTIONS: usize = 8;

/// `MACH_MSGH_BITS_COMPLEX`: descriptors follow the header.
pub const COMPLEX: u32 = 0x8000_0000;
/// `MACH_MSG_TYPE_MOVE_SEND`, and what any send right is once it arrived (`MACH_MSG_TYPE_PORT_SEND`).
pub const MOVE_SEND: u32 = 17;
/// `MACH_MSG_TYPE_COPY_SEND`.
pub const COPY_SEND: u32 = 19;
/// `MACH_MSG_TYPE_MAKE_SEND`.
pub const MAKE_SEND: u32 = 20;
/// `MACH_MSG_PORT_DESCRIPTOR`.
pub const PORT_DESCRIPTOR: u32 = 0;
/// `MACH_MSG_OOL_DESCRIPTOR`: memory.
pub const MEMORY_DESCRIPTOR: u32 = 1;
/// `MACH_MSG_OOL_PORTS_DESCRIPTOR`: an array of names in memory.
pub const PORTS_DESCRIPTOR: u32 = 2;
/// `MACH_MSG_OOL_VOLATILE_DESCRIPTOR`: memory, again.
pub const VOLATILE_DESCRIPTOR: u32 = 3;
/// `MACH_MSG_GUARDED_PORT_DESCRIPTOR`.
pub const GUARDED_DESCRIPTOR: u32 = 4;

/// Words of `mach_msg_header_t`: bits, size, remote port, local port, voucher, id.
pub const HEADER_WORDS: usize = 6;
/// Words of `mach_msg_body_t`: the number of descriptors.
pub const BODY_WORDS: usize = 1;
/// Words of `mach_msg_port_descriptor_t`: name, padding, and padding:16 | disposition:8 | type:8.
pub const PORT_WORDS: usize = 3;
/// Words of any other descriptor. Of memory: address, deallocate:8 | copy:8 | padding:8 | type:8, and size; of an array the
/// number of names in its place.
pub const OTHER_WORDS: usize = 4;

/// Places of the header's words.
pub mod at {
    /// `msgh_bits`.
    pub const BITS: usize = 0;
    /// `msgh_size`.
    pub const SIZE: usize = 1;
    /// `msgh_remote_port`: the destination of a sent message, the reply right of a received one.
    pub const REMOTE: usize = 2;
    /// `msgh_local_port`: the reply right of a sent message, the name of the port it came to of a received one.
    pub const LOCAL: usize = 3;
    /// `msgh_id`.
    pub const ID: usize = 5;
    /// `msgh_descriptor_count`, of a complex message.
    pub const DESCRIPTORS: usize = 6;
    /// The first descriptor.
    pub const FIRST: usize = 7;
}

const WORDS: usize = (MAX_MESSAGE + MAX_TRAILER) / 4;

/// Room for one message and its trailer, in the kernel's layout: words of the machine, which is little-endian on every Mac.
#[derive(Clone)]
#[repr(C, align(8))]
pub struct Buffer {
    words: [u32; WORDS],
}

impl Buffer {
    /// Bytes a receive may write.
    pub const BYTES: u32 = (WORDS * 4) as u32;

    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self { words: [0; WORDS] }
    }

    /// A word; zero beyond the end.
    #[must_use]
    pub fn word(&self, at: usize) -> u32 {
        self.words.get(at).copied().unwrap_or(0)
    }

    /// Sets a word; nothing beyond the end.
    pub fn set(&mut self, at: usize, word: u32) {
        if let Some(place) = self.words.get_mut(at) {
            *place = word;
        }
    }

    /// Where the kernel reads and writes; [`Self::BYTES`] long.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {:#x} of {} bytes", self.word(at::ID), self.word(at::SIZE))
    }
}

/// Time in whole milliseconds, rounded up: zero means not to wait at all.
#[must_use]
pub fn milliseconds(limit: Duration) -> u32 {
    u32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// Why a message was not sent. Nothing of it is left anywhere, and rights that were to move are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver is gone.
    #[error("the receiver's port is gone")]
    Gone,
    /// The queue had no room within the time limit.
    #[error("the receiver's queue had no room within the time limit")]
    Full,
    /// Too many words or rights for one message.
    #[error("the message is longer than {MAX_MESSAGE} bytes or has more than {MAX_PORTS} rights")]
    TooLong,
    /// A right of another process.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// What else the kernel answered.
    #[error("mach_msg answered {0}")]
    Refused(Kern),
}

/// A right a message lends or makes; its owner keeps it.
#[derive(Debug)]
enum Lent<'r, T: Task> {
    Copied(&'r SendRight<T>),
    Made(&'r ReceiveRight<T>),
}

/// A message to send.
#[derive(Debug)]
pub struct Outgoing<'r, T: Task> {
    id: i32,
    lent: Vec<Lent<'r, T>>,
    moved: Option<SendRight<T>>,
    payload: Vec<u32>,
}

impl<'r, T: Task> Outgoing<'r, T> {
    /// A message without rights. `payload` follows them.
    #[must_use]
    pub fn new(id: i32, payload: Vec<u32>) -> Self {
        Self { id, lent: Vec::new(), moved: None, payload }
    }

    /// With another reference of a send right.
    #[must_use]
    pub fn copying(mut self, right: &'r SendRight<T>) -> Self {
        self.lent.push(Lent::Copied(right));
        self
    }

    /// With a new right to send to a port of this process.
    #[must_use]
    pub fn making(mut self, right: &'r ReceiveRight<T>) -> Self {
        self.lent.push(Lent::Made(right));
        self
    }

    /// With `right` itself, after all others. Gone afterwards, whether or not the message is sent.
    #[must_use]
    pub fn moving(mut self, right: SendRight<T>) -> Self {
        self.moved = Some(right);
        self
    }

    /// Sends it, waiting `limit` at most for room.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(self, to: &SendRight<T>, limit: Duration) -> Result<(), SendError> {
        let (mut buffer, size) = self.encode(to)?;
        let mut answer = Kern::SEND_INTERRUPTED;
        for _ in 0..INTERRUPTIONS {
            // SAFETY: `encode` writes port descriptors only. What an interruption brought back is sent as it is: each right in
            // it is one that came back, and is moved now.
            answer = unsafe { to.task().send(&mut buffer, size, milliseconds(limit)) };
            if answer.message_code() != Kern::SEND_INTERRUPTED {
                break;
            }
        }
        // Whatever the code: the kernel gave the message back with every right turned into one of ours to release, the
        // copied destination too (ipc_kmsg.c, ipc_kmsg_copyout_pseudo). The moved right may have another name by now.
        let came_back = answer != Kern::SUCCESS && buffer.word(at::BITS) & 0x1f == MOVE_SEND;
        if let Some(moved) = self.moved.filter(|_| answer == Kern::SUCCESS || came_back) {
            moved.consumed();
        }
        if came_back {
            drop(Received::returned(to.task(), buffer));
        }
        match answer.message_code() {
            Kern::SUCCESS => Ok(()),
            Kern::SEND_INVALID_DEST => Err(SendError::Gone),
            Kern::SEND_TIMED_OUT | Kern::SEND_INTERRUPTED => Err(SendError::Full),
            other => Err(SendError::Refused(other)),
        }
    }

    fn encode(&self, to: &SendRight<T>) -> Result<(Buffer, u32), SendError> {
        let mut rights: Vec<(Name, u32)> = Vec::with_capacity(MAX_PORTS);
        for lent in &self.lent {
            rights.push(match lent {
                Lent::Copied(right) => (right.name()?, COPY_SEND),
                Lent::Made(right) => (right.name()?, MAKE_SEND),
            });
        }
        if let Some(moved) = &self.moved {
            rights.push((moved.name()?, MOVE_SEND));
        }
        let body = if rights.is_empty() { 0 } else { BODY_WORDS + rights.len() * PORT_WORDS };
        let words = HEADER_WORDS + body + self.payload.len();
        if rights.len() > MAX_PORTS || words * 4 > MAX_MESSAGE {
            return Err(SendError::TooLong);
        }
        let size = (words * 4) as u32;
        let mut buffer = Buffer::new();
        let complex = if rights.is_empty() { 0 } else { COMPLEX };
        // The disposition of the reply port, in bits 8 to 12, stays zero: there is none.
        buffer.set(at::BITS, COPY_SEND | complex);
        buffer.set(at::SIZE, size);
        buffer.set(at::REMOTE, to.name()?.0);
        buffer.set(at::ID, self.id.cast_unsigned());
        if !rights.is_empty() {
            buffer.set(at::DESCRIPTORS, rights.len() as u32);
        }
        for (index, (name, disposition)) in rights.iter().enumerate() {
            let place = at::FIRST + index * PORT_WORDS;
            buffer.set(place, name.0);
            buffer.set(place + 2, PORT_DESCRIPTOR << 24 | disposition << 16);
        }
        for (index, word) in self.payload.iter().enumerate() {
            buffer.set(HEADER_WORDS + body + index, *word);
        }
        Ok((buffer, size))
    }
}
