//! One frame on the ring: eight 64-bit words.
//!
//! *Who calls it*: the channel ends of the `frameport` crate, once per frame. *Invariants*: `decode(encode(d)) == d`;
//! reserved bits are zero. *A hostile peer* can put anything into the words: [`Descriptor::decode`] checks what can be
//! checked without the ledger, the ledger checks pool, slot and generation.
//!
//! | word | bits | meaning |
//! | --- | --- | --- |
//! | 0 | 0–63 | ring sequence of this entry plus 1; 0: never written |
//! | 1 | 0–7 kind, 8 has pts, 9 has duration, 10–31 reserved (0), 32–63 duration | |
//! | 2 | 0–31 pool, 32–63 slot | where the frame lies |
//! | 3 | 0–63 | generation of the slot |
//! | 4 | 0–63 | frame sequence: gaps tell the receiver what it missed |
//! | 5 | 0–63 | timestamp, ns on the host's monotonic clock |
//! | 6 | 0–63 | pts in the spec's time base, two's complement |
//! | 7 | 0–39 payload bytes, 40–63 metadata bytes | |

use crate::layout::ticket;

/// Words in one ring entry.
pub const WORDS: usize = 8;
/// Largest payload a descriptor can state, in bytes.
pub const MAX_PAYLOAD: u64 = (1 << 40) - 1;
/// Largest metadata length a descriptor can state, in bytes.
pub const MAX_META: u32 = (1 << 24) - 1;

const KIND_FRAME: u64 = 0;
const HAS_PTS: u64 = 1 << 8;
const HAS_DURATION: u64 = 1 << 9;
const RESERVED: u64 = 0xffff_fc00;

/// What one ring entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Position on the ring: the entry is current when its word 0 is this plus 1.
    pub ring_seq: u64,
    /// Pool the frame lies in.
    pub pool: u32,
    /// Slot of that pool.
    pub slot: u32,
    /// Generation of the slot's content.
    pub generation: u64,
    /// The frame's own sequence number.
    pub seq: u64,
    /// Nanoseconds on the host's monotonic clock.
    pub timestamp_ns: u64,
    /// Presentation time in the spec's time base.
    pub pts: Option<i64>,
    /// Duration in the spec's time base.
    pub duration: Option<u32>,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// Bytes of the metadata.
    pub meta_len: u32,
}

/// Why eight words are no descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// The kind byte is not one this version knows.
    #[error("descriptor kind {0} is unknown")]
    Kind(u8),
    /// A reserved bit is set.
    #[error("reserved bits are set in descriptor word {0:#x}")]
    Reserved(u64),
}

impl Descriptor {
    /// The eight words; lengths beyond [`MAX_PAYLOAD`] and [`MAX_META`] are cut by their bit width, so callers check
    /// them against the slot first.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u64; WORDS] {
        let mut head = KIND_FRAME;
        if self.pts.is_some() {
            head |= HAS_PTS;
        }
        if let Some(duration) = self.duration {
            head |= HAS_DURATION | u64::from(duration) << 32;
        }
        [
            ticket(self.ring_seq),
            head,
            u64::from(self.pool) | u64::from(self.slot) << 32,
            self.generation,
            self.seq,
            self.timestamp_ns,
            self.pts.unwrap_or(0).cast_unsigned(),
            (self.payload_len & MAX_PAYLOAD) | u64::from(self.meta_len & MAX_META) << 40,
        ]
    }

    /// Reads eight words, each already loaded once.
    ///
    /// # Errors
    /// An unknown kind or a reserved bit; the words are then a peer's fault, never a frame.
    #[inline]
    pub fn decode(words: [u64; WORDS]) -> Result<Self, DescriptorError> {
        let [ticket, head, place, generation, seq, timestamp_ns, pts, lengths] = words;
        let low = |word: u64| (word & 0xffff_ffff) as u32;
        if head & 0xff != KIND_FRAME {
            return Err(DescriptorError::Kind((head & 0xff) as u8));
        }
        if head & RESERVED != 0 || (head & HAS_DURATION == 0 && head >> 32 != 0) {
            return Err(DescriptorError::Reserved(head));
        }
        Ok(Self {
            ring_seq: ticket.wrapping_sub(1),
            pool: low(place),
            slot: low(place >> 32),
            generation,
            seq,
            timestamp_ns,
            pts: (head & HAS_PTS != 0).then_some(pts.cast_signed()),
            duration: (head & HAS_DURATION != 0).then_some(low(head >> 32)),
            payload_len: lengths & MAX_PAYLOAD,
            meta_len: low(lengths >> 40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Descriptor {
        Descriptor {
            ring_seq: u64::MAX - 3,
            pool: 7,
            slot: u32::MAX,
            generation: 11,
            seq: 1042,
            timestamp_ns: 1 << 62,
            pts: Some(-5),
            duration: Some(u32::MAX),
            payload_len: MAX_PAYLOAD,
            meta_len: MAX_META,
        }
    }

    #[test]
    fn words_survive_a_round_trip() {
        let bare = Descriptor { seq: 3, ..Descriptor::default() };
        for one in [full(), bare, Descriptor { pts: Some(0), ..bare }, Descriptor { duration: Some(0), ..bare }] {
            assert_eq!(Descriptor::decode(one.encode()), Ok(one));
        }
    }

    #[test]
    fn words_keep_their_golden_values() {
        let words = Descriptor {
            ring_seq: 1,
            pool: 2,
            slot: 3,
            generation: 4,
            seq: 5,
            timestamp_ns: 6,
            pts: Some(-1),
            duration: Some(8),
            payload_len: 9,
            meta_len: 10,
        }
        .encode();
        assert_eq!(words, [2, 0x8_0000_0300, 0x3_0000_0002, 4, 5, 6, u64::MAX, 0xa00_0000_0009]);
    }

    #[test]
    fn unknown_kinds_and_reserved_bits_are_refused() {
        let mut words = full().encode();
        words[1] |= 9;
        assert_eq!(Descriptor::decode(words), Err(DescriptorError::Kind(9)));
        for bit in 10..32 {
            let mut words = Descriptor::default().encode();
            words[1] |= 1 << bit;
            assert!(matches!(Descriptor::decode(words), Err(DescriptorError::Reserved(_))), "bit {bit}");
        }
        let mut words = Descriptor::default().encode();
        words[1] |= 1 << 40;
        assert!(matches!(Descriptor::decode(words), Err(DescriptorError::Reserved(_))), "duration without its flag");
    }
}
