//! A received message, its one guard, and the checks before anything of it is believed.
//!
//! *Who calls it*: rendezvous, worker, surfaces and death. *Invariants*: the guard owns every right in the message until
//! one is taken out, and its name in the buffer is null from then on; dropping the guard releases the rest, once, and unmaps
//! all memory, whatever its sender said of it. A right can be taken, and a word read, only from a message whose shape was
//! found to be exactly the expected one.
//! *A hostile peer* decides everything in a message but its local port and its trailer, which the kernel writes.

use std::time::Duration;

use super::error::Check;
use super::message::{
    BODY_WORDS, Buffer, COMPLEX, GUARDED_DESCRIPTOR, HEADER_WORDS, MEMORY_DESCRIPTOR, MOVE_SEND, OTHER_WORDS,
    PORT_DESCRIPTOR, PORT_WORDS, PORTS_DESCRIPTOR, VOLATILE_DESCRIPTOR, at, milliseconds,
};
use super::right::{Forked, ReceiveRight, SendRight};
use super::task::{Kern, Name, Task};

/// Bytes of a trailer with the audit token (`mach_msg_audit_trailer_t`).
const AUDIT_TRAILER: u32 = 52;
/// Words of a trailer before the audit token: type, size, sequence number, and the old token of two words.
const BEFORE_TOKEN: usize = 5;

/// Who sent a message, written by the kernel (`audit_token_t`). Zero for what the kernel itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditToken(pub [u32; 8]);

impl AuditToken {
    /// The sender's effective user.
    #[must_use]
    pub fn euid(&self) -> u32 {
        self.0[1]
    }

    /// The sender's process; 0 is the kernel.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0[5]
    }
}

/// The one form a message must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `msgh_id`.
    pub id: i32,
    /// Send rights in inline descriptors; with none the message must not be complex.
    pub ports: usize,
    /// Words after them.
    pub payload: usize,
}

impl Shape {
    fn body_words(self) -> usize {
        if self.ports == 0 { 0 } else { BODY_WORDS + self.ports * PORT_WORDS }
    }

    fn size(self) -> u32 {
        ((HEADER_WORDS + self.body_words() + self.payload) * 4) as u32
    }
}

/// Why there is no message to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// One came, but not whole: it did not fit, or some of its rights found no room. Nothing of it is left.
    #[error("a message was destroyed on arrival: {0}")]
    Unfit(Check),
    /// The port cannot be received from.
    #[error("mach_msg answered {0}")]
    Failed(Kern),
    /// The port is another process's.
    #[error(transparent)]
    Forked(#[from] Forked),
}

/// The guard of one message.
#[derive(Debug)]
#[must_use = "dropping a message destroys it"]
pub struct Received<T: Task> {
    task: T,
    owner: u32,
    buffer: Buffer,
}

impl<T: Task> Received<T> {
    /// The next message of a port, waiting `limit` at most; none if none came.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub fn next(from: &ReceiveRight<T>, limit: Duration) -> Result<Option<Self>, ReceiveError> {
        let (task, name) = (from.task(), from.name()?);
        let mut buffer = Buffer::new();
        let answer = task.receive(name, &mut buffer, milliseconds(limit));
        match answer.message_code() {
            Kern::SUCCESS => Ok(Some(Self::returned(task, buffer))),
            // Part of it has arrived, and is destroyed here (mach_msg.c, mach_msg_receive_results).
            Kern::RCV_BODY_ERROR => {
                drop(Self::returned(task, buffer));
                Err(ReceiveError::Unfit(Check::Incomplete))
            }
            // Destroyed by the kernel; the buffer has a bare header (mach_msg.c, mach_msg_receive_error).
            Kern::RCV_HEADER_ERROR => Err(ReceiveError::Unfit(Check::Incomplete)),
            // The same, for MACH_RCV_LARGE is never asked for.
            Kern::RCV_TOO_LARGE => Err(ReceiveError::Unfit(Check::TooLarge)),
            Kern::RCV_TIMED_OUT | Kern::RCV_INTERRUPTED => Ok(None),
            other => Err(ReceiveError::Failed(other)),
        }
    }

    /// Takes charge of a buffer the kernel has filled.
    pub(super) fn returned(task: &T, buffer: Buffer) -> Self {
        Self { task: task.clone(), owner: task.pid(), buffer }
    }

    /// `msgh_id`, before any check: to tell messages apart, not to believe them.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.buffer.word(at::ID).cast_signed()
    }

    /// How many descriptors it says it has, before any check; none if it is not complex.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        if self.buffer.word(at::BITS) & COMPLEX == 0 { 0 } else { self.buffer.word(at::DESCRIPTORS) as usize }
    }

    /// Checks that the message is what it must be, before anything of it is used.
    ///
    /// # Errors
    /// The first thing that was wrong, in the order of [`Check`]; the message is destroyed.
    pub fn check(self, shape: Shape) -> Result<Checked<T>, Check> {
        let word = |at| self.buffer.word(at);
        let bits = word(at::BITS);
        if self.id() != shape.id {
            return Err(Check::Id { found: self.id() });
        }
        if (bits & COMPLEX != 0) != (shape.ports > 0) {
            return Err(Check::Complex);
        }
        if word(at::SIZE) != shape.size() {
            return Err(Check::Size { found: word(at::SIZE), expected: shape.size() });
        }
        if shape.ports > 0 && word(at::DESCRIPTORS) as usize != shape.ports {
            return Err(Check::Descriptors { found: word(at::DESCRIPTORS) });
        }
        for index in 0..shape.ports {
            let place = at::FIRST + index * PORT_WORDS;
            let (kind, disposition) = (word(place + 2) >> 24, word(place + 2) >> 16 & 0xff);
            if kind != PORT_DESCRIPTOR {
                return Err(Check::Kind { found: kind });
            }
            if disposition != MOVE_SEND {
                return Err(Check::Disposition { found: disposition });
            }
            // A right that died on its way arrives as the dead name (ipc_kmsg.c, ipc_kmsg_copyout_port).
            if !Name(word(place)).is_valid() {
                return Err(Check::DeadRight);
            }
        }
        // The kernel has turned round what was the sender's local port, with its disposition.
        if word(at::REMOTE) != Name::NULL.0 || bits & 0x1f != 0 {
            return Err(Check::ReplyPort);
        }
        let trailer = shape.size() as usize / 4;
        if word(trailer) != 0 || word(trailer + 1) < AUDIT_TRAILER {
            return Err(Check::Trailer);
        }
        let sender = AuditToken(std::array::from_fn(|index| word(trailer + BEFORE_TOKEN + index)));
        Ok(Checked { message: self, shape, sender })
    }
}

/// Has `mach_msg_destroy` unmap all memory of a message. It would pass over memory that is volatile or whose `deallocate` is
/// not set (mach_msg.c, mach_msg_destroy), and both are the sender's to choose: `deallocate` says whether it called its
/// copy a virtual one (ipc_kmsg.c, ipc_kmsg_deflate_memory_descriptor). For an array, it is always set. An array that found
/// no room has lost its address but not its count (ipc_kmsg_copyout_ool_ports_descriptor): its names would be read at null.
fn claim_memory(buffer: &mut Buffer) {
    let complex = buffer.word(at::BITS) & COMPLEX != 0;
    let (count, mut place) = (if complex { buffer.word(at::DESCRIPTORS) } else { 0 }, at::FIRST);
    for _ in 0..count.min(Buffer::BYTES) {
        let how = buffer.word(place + 2);
        place += match how >> 24 {
            PORT_DESCRIPTOR => PORT_WORDS,
            MEMORY_DESCRIPTOR | VOLATILE_DESCRIPTOR => {
                buffer.set(place + 2, MEMORY_DESCRIPTOR << 24 | how & 0xff_ff00 | 1);
                OTHER_WORDS
            }
            PORTS_DESCRIPTOR => {
                if (buffer.word(place), buffer.word(place + 1)) == (0, 0) {
                    buffer.set(place + 3, 0);
                }
                OTHER_WORDS
            }
            GUARDED_DESCRIPTOR => OTHER_WORDS,
            _ => return,
        };
    }
}

impl<T: Task> Drop for Received<T> {
    fn drop(&mut self) {
        if self.task.pid() == self.owner {
            // What came back from a send has no memory.
            claim_memory(&mut self.buffer);
            // SAFETY: the kernel wrote the buffer, and nobody has changed it since but `Checked::take`, which sets names to
            // null, and the line above, which has memory unmapped that the kernel has mapped for this message and nobody
            // looked at; a guard is dropped once.
            unsafe { self.task.destroy(&mut self.buffer) };
        }
    }
}

/// A message of the expected shape, from a known sender.
#[derive(Debug)]
pub struct Checked<T: Task> {
    message: Received<T>,
    shape: Shape,
    sender: AuditToken,
}

impl<T: Task> Checked<T> {
    pub(super) fn task(&self) -> &T {
        &self.message.task
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> AuditToken {
        self.sender
    }

    /// A word of the payload; zero beyond its end.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        if index >= self.shape.payload {
            return 0;
        }
        self.message.buffer.word(HEADER_WORDS + self.shape.body_words() + index)
    }

    /// The names of its rights, still the message's.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        (0..self.shape.ports).map(|index| Name(self.message.buffer.word(at::FIRST + index * PORT_WORDS)))
    }

    /// Takes the next right out of the message: the caller owns it, the guard no longer does.
    pub fn take(&mut self) -> Option<SendRight<T>> {
        let place = |index| at::FIRST + index * PORT_WORDS;
        let next = (0..self.shape.ports).map(place).find(|&at| Name(self.message.buffer.word(at)).is_valid())?;
        let name = Name(self.message.buffer.word(next));
        self.message.buffer.set(next, Name::NULL.0);
        SendRight::own(&self.message.task, name)
    }
}
