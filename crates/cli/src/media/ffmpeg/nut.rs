//! NUT, as ffmpeg writes it on a pipe: raw video frames with exact times.
//!
//! *What it is*: a reader for one stream. *Who calls it*: the decoder; NUT is the one container ffmpeg writes with any
//! time base, without seeking, and with the size before the first frame. *Invariants*: every length is checked before
//! it is used; headers are at most [`LARGEST_HEADER`] bytes. *A hostile ffmpeg* gets an error.

use std::io::{self, Read};

use frameport::spec::Rational;

const LARGEST_HEADER: u64 = 1 << 20;
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNCPOINT: u64 = 0x4E4B_E4AD_EECA_4569;

const CODED_PTS: u64 = 8;
const STREAM_ID: u64 = 16;
const SIZE_MSB: u64 = 32;
const CHECKSUM: u64 = 64;
const RESERVED: u64 = 128;
const SM_DATA: u64 = 256;
const HEADER_IDX: u64 = 1024;
const MATCH_TIME: u64 = 2048;
const CODED: u64 = 4096;
const INVALID: u64 = 8192;

/// What the stream header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct NutStream {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Width to height of a pixel, if known.
    pub(super) sample_aspect: Option<(u32, u32)>,
    pub(super) time_base: Rational,
}

/// What a frame code stands for.
#[derive(Clone, Copy, Default)]
struct Code {
    flags: u64,
    pts_delta: i64,
    size_mul: u64,
    size_lsb: u64,
    reserved: u64,
    header: u64,
}

pub(super) struct NutReader<R> {
    input: R,
    codes: Vec<Code>,
    /// Bytes left out of frames that begin with them.
    elided: Vec<Vec<u8>>,
    time_bases: Vec<Rational>,
    time_base_id: usize,
    msb_pts_shift: u32,
    last_pts: i64,
    stream: Option<NutStream>,
    /// The next byte, read already.
    ahead: Option<u8>,
}

/// One frame: its time, and the payload: first these bytes, then so many of the input.
pub(super) struct NutFrame {
    pub(super) pts: i64,
    pub(super) front: Vec<u8>,
    pub(super) rest: u64,
}

fn bad(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("ffmpeg's output cannot be read: {detail}"))
}

impl<R: Read> NutReader<R> {
    /// Reads up to the first frame. An end before that is `UnexpectedEof`.
    pub(super) fn open(mut input: R) -> io::Result<(Self, NutStream)> {
        let mut identity = [0; 25];
        input.read_exact(&mut identity)?;
        if &identity != b"nut/multimedia container\0" {
            return Err(bad("it is not NUT"));
        }
        let mut reader = Self {
            input,
            codes: Vec::new(),
            elided: Vec::new(),
            time_bases: Vec::new(),
            time_base_id: 0,
            msb_pts_shift: 0,
            last_pts: 0,
            stream: None,
            ahead: None,
        };
        reader.ahead = reader.skip_packets()?;
        let stream = reader.stream.ok_or_else(|| bad("there is no stream"))?;
        Ok((reader, stream))
    }

    /// The input, to read a frame's payload from.
    pub(super) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// The next frame, `None` at the end. The payload before it must have been read.
    pub(super) fn next(&mut self) -> io::Result<Option<NutFrame>> {
        let ahead = self.ahead.take();
        let code = if ahead.is_some() { ahead } else { self.skip_packets()? };
        let Some(code) = code else { return Ok(None) };
        let code = self.codes.get(usize::from(code)).copied().ok_or_else(|| bad("a frame comes before its header"))?;
        if code.flags & INVALID != 0 {
            return Err(bad("a frame code is invalid"));
        }
        let input = &mut self.input;
        let flags = if code.flags & CODED != 0 { code.flags ^ varlen(input)? } else { code.flags };
        if flags & STREAM_ID != 0 && varlen(input)? != 0 {
            return Err(bad("a frame is of another stream"));
        }
        self.last_pts = if flags & CODED_PTS != 0 {
            let coded = varlen(input)?.cast_signed();
            let span = 1_i64 << self.msb_pts_shift;
            if (0..span).contains(&coded) {
                let delta = self.last_pts.wrapping_sub((span - 1) / 2);
                (coded.wrapping_sub(delta) & (span - 1)).wrapping_add(delta)
            } else {
                coded.wrapping_sub(span)
            }
        } else {
            self.last_pts.wrapping_add(code.pts_delta)
        };
        let msb = if flags & SIZE_MSB != 0 { varlen(input)? } else { 0 };
        if flags & MATCH_TIME != 0 {
            varlen(input)?;
        }
        let header = if flags & HEADER_IDX != 0 { varlen(input)? } else { code.header };
        let reserved = if flags & RESERVED != 0 { varlen(input)? } else { code.reserved };
        for _ in 0..reserved {
            varlen(input)?;
        }
        if flags & CHECKSUM != 0 {
            input.read_exact(&mut [0; 4])?;
        }
        if flags & SM_DATA != 0 {
            return Err(bad("a frame has side data"));
        }
        let size = msb.checked_mul(code.size_mul).and_then(|high| high.checked_add(code.size_lsb));
        let front = match usize::try_from(header) {
            Ok(0) => Vec::new(),
            Ok(index) => self.elided.get(index - 1).cloned().ok_or_else(|| bad("an unknown header is left out"))?,
            Err(_) => return Err(bad("an unknown header is left out")),
        };
        let rest = size.zip(u64::try_from(front.len()).ok()).and_then(|(size, front)| size.checked_sub(front));
        Ok(Some(NutFrame { pts: self.last_pts, front, rest: rest.ok_or_else(|| bad("a frame's size is wrong"))? }))
    }

    /// Reads everything that is not a frame; gives the first byte of the next one.
    fn skip_packets(&mut self) -> io::Result<Option<u8>> {
        loop {
            let mut first = [0];
            loop {
                match self.input.read(&mut first) {
                    Ok(0) => return Ok(None),
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if first != *b"N" {
                return Ok(Some(first[0]));
            }
            let mut rest = [0; 7];
            self.input.read_exact(&mut rest)?;
            let startcode = rest.iter().fold(u64::from(first[0]), |code, &byte| code << 8 | u64::from(byte));
            let length = varlen(&mut self.input)?;
            if length > LARGEST_HEADER {
                return Err(bad("a header is too large"));
            }
            if length > 4096 {
                self.input.read_exact(&mut [0; 4])?;
            }
            let mut body = Vec::new();
            self.input.by_ref().take(length).read_to_end(&mut body)?;
            let body = &mut body.as_slice();
            match startcode {
                MAIN => self.main_header(body)?,
                STREAM => self.stream_header(body)?,
                SYNCPOINT => self.syncpoint(body)?,
                _ => {}
            }
        }
    }

    fn main_header(&mut self, body: &mut &[u8]) -> io::Result<()> {
        let version = varlen(body)?;
        if version > 3 {
            varlen(body)?;
        }
        if varlen(body)? != 1 {
            return Err(bad("there is more than one stream"));
        }
        varlen(body)?;
        let mut time_bases = Vec::new();
        for _ in 0..varlen(body)?.min(256) {
            let part = |value: u64| u32::try_from(value).ok().filter(|&value| value > 0);
            let (num, den) = (part(varlen(body)?), part(varlen(body)?));
            let (num, den) = num.zip(den).ok_or_else(|| bad("a time base is wrong"))?;
            time_bases.push(Rational { num, den });
        }
        let mut codes = Vec::with_capacity(256);
        let mut code = Code { size_mul: 1, ..Code::default() };
        while codes.len() < 256 {
            code.flags = varlen(body)?;
            let fields = varlen(body)?;
            if fields > 0 {
                code.pts_delta = signed(body)?;
            }
            if fields > 1 {
                code.size_mul = varlen(body)?;
            }
            if fields > 2 {
                varlen(body)?;
            }
            code.size_lsb = if fields > 3 { varlen(body)? } else { 0 };
            code.reserved = if fields > 4 { varlen(body)? } else { 0 };
            let count = if fields > 5 { varlen(body)? } else { code.size_mul.saturating_sub(code.size_lsb) };
            if fields > 6 {
                signed(body)?;
            }
            if fields > 7 {
                code.header = varlen(body)?;
            }
            for _ in 8..fields.min(256) {
                varlen(body)?;
            }
            if count == 0 {
                return Err(bad("its table of frame codes is wrong"));
            }
            let first = code.size_lsb;
            for step in 0..count.min(256) {
                if codes.len() == usize::from(b'N') {
                    codes.push(Code { flags: INVALID, ..Code::default() });
                }
                if codes.len() < 256 {
                    codes.push(Code { size_lsb: first.saturating_add(step), ..code });
                }
            }
        }
        let mut elided = Vec::new();
        for _ in 0..varlen(body)?.min(256) {
            let length = varlen(body)?;
            let mut bytes = Vec::new();
            body.by_ref().take(length.min(256)).read_to_end(&mut bytes)?;
            elided.push(bytes);
        }
        (self.time_bases, self.codes, self.elided) = (time_bases, codes, elided);
        Ok(())
    }

    fn stream_header(&mut self, body: &mut &[u8]) -> io::Result<()> {
        let (_id, class) = (varlen(body)?, varlen(body)?);
        if class != 0 {
            return Err(bad("its stream is not video"));
        }
        skip_bytes(body)?;
        self.time_base_id = usize::try_from(varlen(body)?).unwrap_or(usize::MAX);
        let shift = u32::try_from(varlen(body)?).ok().filter(|&shift| shift < 32);
        self.msb_pts_shift = shift.ok_or_else(|| bad("a pts shift is wrong"))?;
        let (_max_pts_distance, _decode_delay, _flags) = (varlen(body)?, varlen(body)?, varlen(body)?);
        skip_bytes(body)?;
        let mut number = || u32::try_from(varlen(body)?).map_err(|_| bad("a size is wrong"));
        let (width, height, across, down) = (number()?, number()?, number()?, number()?);
        let time_base = self.time_bases.get(self.time_base_id).copied().ok_or_else(|| bad("a time base is missing"))?;
        let sample_aspect = (across > 0 && down > 0).then_some((across, down));
        self.stream = Some(NutStream { width, height, sample_aspect, time_base });
        Ok(())
    }

    /// Sets the time later ones are relative to.
    fn syncpoint(&mut self, body: &mut &[u8]) -> io::Result<()> {
        let coded = varlen(body)?;
        let bases = u64::try_from(self.time_bases.len()).unwrap_or(0).max(1);
        let from = usize::try_from(coded % bases).ok().and_then(|index| self.time_bases.get(index));
        let to = self.time_bases.get(self.time_base_id);
        let (from, to) = from.zip(to).ok_or_else(|| bad("a time base is missing"))?;
        let value = i128::from(coded / bases) * i128::from(from.num) * i128::from(to.den);
        let value = value / (i128::from(from.den) * i128::from(to.num));
        self.last_pts = i64::try_from(value).map_err(|_| bad("a time is wrong"))?;
        Ok(())
    }
}

/// A number in groups of seven bits, most significant first.
fn varlen(input: &mut impl Read) -> io::Result<u64> {
    let mut value = 0_u64;
    for _ in 0..10 {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        value = value << 7 | u64::from(byte[0] & 0x7F);
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    Err(bad("a number is too long"))
}

/// As [`varlen`], the lowest bit telling the sign.
fn signed(input: &mut impl Read) -> io::Result<i64> {
    let coded = varlen(input)?.wrapping_add(1);
    let half = (coded >> 1).cast_signed();
    Ok(if coded & 1 == 1 { half.wrapping_neg() } else { half })
}

fn skip_bytes(body: &mut &[u8]) -> io::Result<()> {
    let length = usize::try_from(varlen(body)?).unwrap_or(usize::MAX);
    *body = body.get(length..).ok_or_else(|| bad("a header is too short"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_end_in_an_error_and_nothing_else() {
        let mut state = 0x2545_F491_u32;
        for _ in 0..2000 {
            let mut bytes = b"nut/multimedia container\0".to_vec();
            for start in [MAIN, STREAM, SYNCPOINT] {
                bytes.extend(start.to_be_bytes());
                bytes.push(60);
                for _ in 0..60 {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    bytes.push(u8::try_from(state & 0x1F).unwrap());
                }
            }
            if let Ok((mut reader, _)) = NutReader::open(bytes.as_slice()) {
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }

    #[test]
    fn numbers_follow_the_format() {
        assert_eq!(varlen(&mut [0x81, 0x00].as_slice()).unwrap(), 128);
        assert_eq!(signed(&mut [0x00].as_slice()).unwrap(), 0);
        assert_eq!(signed(&mut [0x01].as_slice()).unwrap(), 1);
        assert_eq!(signed(&mut [0x02].as_slice()).unwrap(), -1);
    }
}
