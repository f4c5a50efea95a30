//! The control channel: length-prefixed JSON, off the frame path.
//!
//! *Who calls it*: the host's service thread and the worker's watcher thread. *Invariants*: a message is a 32-bit
//! little-endian length and that many bytes of UTF-8 JSON, [`MAX_MESSAGE`] at most; unknown fields are ignored and an
//! unknown `type` decodes to `Unknown`, so that later versions can add both. *A hostile peer* can send anything: the
//! decoder holds at most one message's bytes and answers with an error that ends the link.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::event::Event;
use crate::layout::Sizes;
use crate::spec::Spec;

/// Largest message, in bytes without its length.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What a worker says to its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToHost {
    /// The first message.
    Hello(Hello),
    /// The worker has come to its first `recv`.
    Ready,
    /// The worker's own code failed; it is about to exit.
    Failed {
        /// One line: the exception's type and text.
        message: String,
    },
    /// Something the worker needs to come to its host is denied to it, as a sandbox does; it is about to exit.
    Sandboxed {
        /// The operation's name in a sandbox profile.
        operation: String,
        /// What was wrong and what to do.
        message: String,
    },
    /// The worker has closed its channels and is leaving in order.
    Bye,
    /// Something for the host's log.
    Event(Event),
    /// The worker has a [`NewPool`]: frames may come in it.
    Joined {
        /// Its number.
        pool: u32,
    },
    /// No frame will come any more in this older pool of the worker's, whose slots are all home.
    Left {
        /// Its number.
        pool: u32,
    },
    /// The worker wants to send something else from now on.
    Respec {
        /// Index of an out channel.
        channel: usize,
        /// What it wants to send there.
        spec: Spec,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// What a host says to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// The answer to a hello; carries the file descriptors of [`Welcome::handles`] with its first byte.
    Welcome(Welcome),
    /// The host will not go on; the worker should print the reason and exit.
    Refuse {
        /// What was wrong and what to do.
        reason: String,
    },
    /// Every wait of the worker ends now.
    Close,
    /// The newest parameters, whole.
    Params {
        /// Rises with each; also in the word `params` of the host's region.
        version: u64,
        /// All of them.
        values: Map<String, Value>,
    },
    /// From now on a channel has frames of another spec; carries the file descriptors of the pool's pixels, the host's page
    /// and the worker's page with its first byte.
    Pool(NewPool),
    /// An older pool of the host's is home: no frame will come in it. For one of the worker's: nothing more is to be loaned
    /// from it.
    Retire {
        /// Its number.
        pool: u32,
    },
    /// The answer to a [`ToHost::Respec`] that is not granted.
    Denied {
        /// Index of the channel.
        channel: usize,
        /// What was wrong and what to do.
        reason: String,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// A pool for frames of another spec, beside those a channel has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewPool {
    /// Index of the channel in the welcome.
    pub channel: usize,
    /// What travels in it.
    pub spec: Spec,
    /// Its memory; numbers rise.
    pub pool: Pool,
    /// Of an out channel: the first pool whose frames are answered from it; 0 for at once.
    #[serde(default)]
    pub answers: u32,
    /// Of an in channel: indices of the out channels on which its slots may go back in place.
    #[serde(default)]
    pub returns: Vec<usize>,
}

/// A worker's introduction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest and newest protocol version the worker speaks.
    pub protocol: (u32, u32),
    /// The shared structures' sizes in the worker's build. Fields other than `protocol` may be gone in a later version,
    /// which is to be told by its number.
    #[serde(default)]
    pub layout: Sizes,
    /// For display: under a launcher it is not the process the host spawned.
    #[serde(default)]
    pub pid: u32,
    /// Library and version, for messages to people.
    #[serde(default)]
    pub library: String,
    /// What the worker will send, if that is not what the host announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Spec>,
}

/// Everything a worker needs to join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this link.
    pub protocol: u32,
    /// The worker's name at the host.
    pub name: String,
    /// The process group the host made for the worker.
    pub group: u32,
    /// How waits behave.
    pub wait: WaitStrategy,
    /// The link's channels, in the order of their blocks.
    pub channels: Vec<Channel>,
}

impl Welcome {
    /// How many handles come with the message: two control regions, then per pool its pixels, the host's page and
    /// the worker's page, then the worker's end of the doorbell.
    #[must_use]
    pub fn handles(&self) -> usize {
        self.channels.len().saturating_mul(3).saturating_add(3)
    }
}

/// One channel and the pool its frames lie in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Unique in the link.
    pub name: String,
    /// Who sends.
    pub direction: Direction,
    /// Entries of the ring, a power of two.
    pub capacity: usize,
    /// What travels.
    pub spec: Spec,
    /// What happens when the receiver is slower than the sender.
    #[serde(default)]
    pub delivery: Delivery,
    /// The pool.
    pub pool: Pool,
}

/// Who sends on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Host to worker.
    In,
    /// Worker to host.
    Out,
}

/// What a channel does when the receiver is slower than the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every frame arrives: the sender waits for a slot, up to its deadline.
    #[default]
    Lossless,
    /// The newest frame only: the sender never waits, and takes back what was not received when it sends the next.
    Latest,
    /// The newest frames, this many of them.
    Newest(u32),
}

impl Delivery {
    /// How many frames may wait to be received; `None` for all that there are slots for.
    #[must_use]
    pub fn depth(self) -> Option<u32> {
        match self {
            Self::Lossless => None,
            Self::Latest => Some(1),
            Self::Newest(depth) => Some(depth),
        }
    }
}

/// The memory behind a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Unique in the link.
    pub id: u32,
    /// Places for frames.
    pub slots: u32,
    /// Bytes from one slot to the next.
    pub stride: usize,
    /// Bytes of the whole region.
    pub len: usize,
    /// Bytes of metadata a frame may carry.
    pub meta: u32,
    /// The pool of an audience: other workers receive the same frames, and only the host may write their pixels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// How a side waits for the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStrategy {
    /// Spin and yield for as long as past waits make it worth while, 50 µs at most, then sleep.
    #[default]
    Adaptive,
    /// Never sleep. Lowest latency while both sides have a core of their own, and a core burnt on each side.
    Spin,
    /// Sleep at once.
    Park,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The length is beyond [`MAX_MESSAGE`].
    #[error("a control message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    /// The bytes are not the JSON of a message.
    #[error("a control message is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes of one message, its length first.
///
/// # Errors
/// A message over [`MAX_MESSAGE`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, ControlError> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len()).ok().filter(|&len| len as usize <= MAX_MESSAGE);
    let Some(len) = len else { return Err(ControlError::TooLong(body.len())) };
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Puts a stream of bytes back together into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// A length over [`MAX_MESSAGE`] or JSON that is no message; the stream has no further use then.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let Some((&len, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(len) as usize;
        if len > MAX_MESSAGE {
            return Err(ControlError::TooLong(len));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + len);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::SIZES;

    fn hello() -> ToHost {
        ToHost::Hello(Hello { protocol: (1, 1), layout: SIZES, pid: 812, library: "test".into(), output: None })
    }

    #[test]
    fn messages_arrive_whole_when_read_byte_by_byte() {
        let mut bytes = encode(&hello()).unwrap();
        bytes.extend(encode(&ToHost::Bye).unwrap());
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        for byte in bytes {
            decoder.push(&[byte]);
            while let Some(message) = decoder.decode::<ToHost>().unwrap() {
                got.push(message);
            }
        }
        assert_eq!(got, [hello(), ToHost::Bye]);
    }

    #[test]
    fn a_hello_keeps_its_golden_text() {
        let text = r#"{"type":"hello","protocol":[1,1],"layout":{"descriptor":64,"header":128,"block":128},"pid":812,"library":"test"}"#;
        assert_eq!(encode(&hello()).unwrap()[4..], *text.as_bytes());
    }

    #[test]
    fn later_versions_may_add_fields_and_messages() {
        let mut decoder = Decoder::default();
        for text in [r#"{"type":"ready","mood":"good"}"#, r#"{"type":"telepathy","volume":11}"#] {
            decoder.push(&u32::try_from(text.len()).unwrap().to_le_bytes());
            decoder.push(text.as_bytes());
        }
        assert_eq!(decoder.decode::<ToHost>().unwrap(), Some(ToHost::Ready));
        assert_eq!(decoder.decode::<ToHost>().unwrap(), Some(ToHost::Unknown));
    }

    #[test]
    fn a_huge_length_and_foreign_bytes_are_errors() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.decode::<ToHost>(), Err(ControlError::TooLong(_))));
        let mut decoder = Decoder::default();
        decoder.push(&[3, 0, 0, 0, 0xff, 0, 1]);
        assert!(matches!(decoder.decode::<ToHost>(), Err(ControlError::Json(_))));
    }
}
