//! From the source into slots, and from slots into the sink.
//!
//! *Who calls it*: the run loop, one thread for each of the two functions. *Invariants*: pixels go through one small
//! buffer between source and slot, and slot and sink, in the processor's cache; neither function waits without asking
//! for the signal. *A hostile worker* decides what is written out, and when it ends.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use frameport::{Bytes, Error, Frame, FrameMut, Until};

use super::crew::{Back, Crew};
use super::flight::Flight;
use super::interrupt::Signal;
use crate::media::{FrameInfo, Incoming, MediaError, Sink, Source};
use crate::words::count;

/// How often a wait asks for the signal.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// After a signal, how long the worker has for the frames it already got.
const DRAIN: Duration = Duration::from_secs(1);
/// Bytes of the buffer between pixels and files.
const CHUNK: usize = 128 << 10;

/// Sends what `source` has until it ends, the worker does or a signal comes. True when the input gave its last frame. When
/// it is `live`, nothing waits for the worker: a frame that finds no slot is missed, and what is left of it is skipped.
pub(super) fn feed(
    source: &mut dyn Source,
    live: bool,
    crew: &Crew,
    flight: &Flight,
    signal: &Signal,
) -> Result<bool, MediaError> {
    let mut chunk = vec![0; CHUNK];
    let mut seq = 0;
    while let Some(mut incoming) = source.next()? {
        let mut interrupted = || signal.came();
        let loaned = if live {
            crew.loan_if_free()
        } else {
            crew.loan_until(Until::forever().or_when(TICK, &mut interrupted)).map(Some)
        };
        let mut frame = match loaned {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                flight.miss();
                continue;
            }
            // The collecting side sees the same end, and says why.
            Err(_) => return Ok(false),
        };
        fill(&frame, &mut incoming, &mut chunk)?;
        // After the loan and before the send: of the life that gets it, if one does.
        let life = crew.life();
        frame.set_seq(seq);
        frame.set_pts(incoming.info.pts);
        frame.set_duration(incoming.info.duration);
        flight.depart(seq, incoming.info, frameport::now(), life);
        match crew.send(frame) {
            Ok(_) => {}
            Err(Error::Stale { .. }) => flight.lose_last(seq),
            Err(_) => {
                flight.recall(seq);
                return Ok(false);
            }
        }
        seq += 1;
    }
    Ok(true)
}

/// Reads a frame's values, which come without the gaps its slot may have.
fn fill(frame: &FrameMut, incoming: &mut Incoming<'_>, chunk: &mut [u8]) -> Result<(), MediaError> {
    let wrong = |what: String| MediaError::from(io::Error::other(what));
    let size = frame.packed_len();
    if incoming.bytes != size {
        return Err(wrong(format!("the input's frame has {} bytes, one of {} {size}", incoming.bytes, frame.spec())));
    }
    for piece in frame.pieces() {
        let mut at = 0;
        while at < piece.len() {
            let room = chunk.len().min(piece.len() - at);
            let part = chunk.get_mut(..room).unwrap_or_default();
            let read = match incoming.payload.read(part) {
                Ok(0) => return Err(MediaError::from(io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(MediaError::from(error)),
            };
            if !part.get(..read).is_some_and(|part| piece.copy_from(at, part)) {
                return Err(wrong(format!("{read} bytes do not fit at {at} of {}", piece.len())));
            }
            at += read;
        }
    }
    Ok(())
}

/// How collecting ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The worker sent its last.
    Finished,
    /// A signal came, and the worker did not finish soon after.
    Interrupted,
    /// The worker failed.
    Worker(Error),
    /// The output did.
    Sink(MediaError),
}

/// Receives results and puts them into `sink`, if there is one, until there are no more. `say` tells a person of each death
/// that is not the end.
pub(super) fn collect(
    mut sink: Option<&mut Box<dyn Sink>>,
    crew: &Crew,
    flight: &Flight,
    signal: &Signal,
    say: impl Fn(&str),
) -> Ended {
    let mut chunk = vec![0; CHUNK];
    let (mut signalled, mut spec, mut deaths) = (None, None, 0);
    loop {
        let mut interrupted = || signal.came() && signalled.get_or_insert_with(Instant::now).elapsed() > DRAIN;
        let frame = match crew.recv_until(Until::forever().or_when(TICK, &mut interrupted)) {
            Ok(Back::Result(frame)) => frame,
            Ok(Back::Lost(seq, why)) => {
                flight.lose(seq, &why);
                continue;
            }
            Ok(Back::Died(death)) => {
                let lost = flight.bury(deaths, crew.retracted());
                deaths += 1;
                let lost =
                    if lost == 1 { "1 frame is lost".to_owned() } else { format!("{} frames are lost", count(lost)) };
                say(&format!("{}; it is started again, {lost}", death.in_short()));
                continue;
            }
            Err(Error::LinkClosed { .. }) => return Ended::Finished,
            Err(Error::Interrupted) => return Ended::Interrupted,
            Err(error) => return Ended::Worker(error),
        };
        if spec.get_or_insert_with(|| frame.spec().clone()) != frame.spec() {
            let what = format!(
                "the worker sends {} since it was started again, which is not what it sent before",
                frame.spec()
            );
            return Ended::Worker(Error::Format { what });
        }
        let sent = flight.arrive(frame.seq(), frameport::now()).unwrap_or_default();
        if let Some(sink) = &mut sink {
            let info = FrameInfo {
                pts: frame.pts().or(sent.pts),
                duration: frame.duration().or(sent.duration),
                tag: sent.tag,
            };
            if let Err(error) = sink.put(&info, &mut |out| write_packed(&frame, out, &mut chunk)) {
                return Ended::Sink(error);
            }
        }
    }
}

/// Writes a frame's values without the gaps its slot may have.
fn write_packed(frame: &Frame, out: &mut dyn Write, chunk: &mut [u8]) -> io::Result<()> {
    frame.pieces().try_for_each(|piece| write_bytes(piece, out, chunk))
}

fn write_bytes(bytes: Bytes<'_>, out: &mut dyn Write, chunk: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let room = chunk.len().min(bytes.len() - at);
        let part = chunk.get_mut(..room).unwrap_or_default();
        if !bytes.copy_to(at, part) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(part)?;
        at += room;
    }
    Ok(())
}
