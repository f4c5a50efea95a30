//! What a worker and its host say to each other first: the hello in the pipe, the check-in and the welcome.
//!
//! *Who calls it*: rendezvous, host and worker. *Invariants*: the nonce is the only thing that ties a check-in to a worker,
//! travels in the pipe alone, and is compared without a look at where it differs; it is never printed.

use std::fmt;
use std::hint::black_box;
use std::io::{self, Read as _};

use super::received::{Checked, Shape};
use super::task::Task;

/// The version of these messages.
pub const VERSION: u32 = 1;

/// Most bytes of a name (`BOOTSTRAP_MAX_NAME_LEN` without its zero).
const NAME: usize = 127;

/// Ids of our messages; beyond those the kernel uses for notifications and errors.
pub mod id {
    /// Worker to host: [`CHECK_IN`](super::CHECK_IN).
    pub const CHECK_IN: i32 = 0x4650_0001;
    /// Host to worker: [`welcome`](super::welcome).
    pub const WELCOME: i32 = 0x4650_0002;
    /// Host to worker: a surface.
    pub const REGISTER: i32 = 0x4650_0003;
    /// Host to worker: rights that go with bytes of the control channel.
    pub const HAND_OVER: i32 = 0x4650_0004;
}

/// Most control regions of a link.
pub const MAX_REGIONS: usize = 4;

/// The form of a check-in: the worker's port; version and nonce.
pub const CHECK_IN: Shape = Shape { id: id::CHECK_IN, ports: 1, payload: 1 + Nonce::WORDS };

/// The form of a welcome: the host's port and the entries of `regions` control regions; version and their sizes.
#[must_use]
pub fn welcome(regions: usize) -> Shape {
    Shape { id: id::WELCOME, ports: 1 + regions, payload: 1 + 2 * regions }
}

/// 256 random bits that are good for one check-in.
#[derive(Clone)]
pub struct Nonce([u32; Self::WORDS]);

impl Nonce {
    const WORDS: usize = 8;

    /// From random bytes of the caller's.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        let (words, _) = random.as_chunks::<4>();
        Self(std::array::from_fn(|index| words.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes))))
    }

    /// The payload of a check-in.
    pub(super) fn payload(&self) -> Vec<u32> {
        [VERSION].into_iter().chain(self.0).collect()
    }

    /// The nonce of a check-in.
    pub(super) fn of<T: Task>(message: &Checked<T>) -> Self {
        Self(std::array::from_fn(|index| message.word(1 + index)))
    }

    /// Whether both are the same. Takes the same time wherever they differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
        black_box(differing) == 0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// What a worker reads from its pipe before anything else.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version of the check-in the host speaks.
    pub version: u32,
    /// The name the host receives under; none where a sandbox denied it.
    pub service: Option<String>,
    /// Whether the third registered port is the host's: then the worker takes it out, whether or not it needs it.
    pub lent: bool,
    /// This worker's nonce.
    pub nonce: Nonce,
    /// The host's process: who may answer.
    pub host: u32,
}

impl Hello {
    /// Bytes of a hello in the pipe, whatever it says.
    pub const LEN: usize = 4 * 4 + 32 + NAME;

    /// As it goes through the pipe: version, host, length of the name, whether a port was lent, nonce, name; little-endian.
    ///
    /// # Errors
    /// `InvalidInput` for a name longer than launchd takes.
    pub fn to_bytes(&self) -> io::Result<[u8; Self::LEN]> {
        let name = self.service.as_deref().unwrap_or_default().as_bytes();
        if name.len() > NAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let head = [self.version, self.host, name.len() as u32, self.lent.into()];
        let words = head.into_iter().chain(self.nonce.0).flat_map(u32::to_le_bytes);
        let mut bytes = [0; Self::LEN];
        bytes.iter_mut().zip(words.chain(name.iter().copied())).for_each(|(place, byte)| *place = byte);
        Ok(bytes)
    }

    /// What was written by [`Self::to_bytes`].
    ///
    /// # Errors
    /// `InvalidData` for a name that is none.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> io::Result<Self> {
        let mut rest = &bytes[..];
        let mut word = || {
            let mut word = [0; 4];
            rest.read_exact(&mut word).map(|()| u32::from_le_bytes(word))
        };
        let [version, host, len, lent] = [word()?, word()?, word()?, word()?];
        let mut nonce = [0; 32];
        rest.read_exact(&mut nonce)?;
        let name = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(io::ErrorKind::InvalidData)?;
        let name = std::str::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData)?;
        let service = (!name.is_empty()).then(|| name.to_owned());
        Ok(Self { version, service, lent: lent != 0, nonce: Nonce::new(nonce), host })
    }
}
