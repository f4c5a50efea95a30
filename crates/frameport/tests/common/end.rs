//! One side of a link that counts what it slept over: see `stress.rs`. Both its hosts and its workers are made of these.

use std::time::{Duration, Instant};

use frameport::{Delivery, Error, Frame, FrameMut, Receiver, Sender, Until, now, select};

use crate::common::{Random, picture, readable};

/// Thousands of times as long as anybody here is stopped or kept waiting for a core.
const TICK: Duration = Duration::from_secs(10);
pub(crate) const SIZE: usize = 31 * 7;
/// Bytes of a [`Note`].
const NOTE: usize = 24;

/// How a side waits for a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Recv,
    Select,
    Event,
}

pub(crate) const WAYS: [Way; 3] = [Way::Recv, Way::Select, Way::Event];

/// What a frame says beside its pattern.
pub(crate) struct Note {
    sent_ns: u64,
    /// When its sender had last let go of a frame before it received the one this answers.
    released_ns: u64,
    /// How often its sender has slept over something.
    pub(crate) slept_over: u64,
}

/// One side of one link.
pub(crate) struct End {
    pub(crate) rx: Receiver,
    pub(crate) tx: Sender,
    way: Way,
    pub(crate) slots: u32,
    pub(crate) random: Random,
    pub(crate) slept_over: u64,
    pub(crate) released_ns: u64,
    /// An event loop's own: whether the next look need not wait for the event.
    looks: bool,
    /// When a slot was found that had been waited for until the tick: the next note tells since when it was free.
    doubt: Option<u64>,
}

fn is_tick(since_ns: u64) -> bool {
    now() - since_ns >= TICK.as_nanos() as u64
}

fn is_half_a_tick(from_ns: u64, to_ns: u64) -> bool {
    to_ns.saturating_sub(from_ns) >= TICK.as_nanos() as u64 / 2
}

/// Nothing for what ended by its tick.
fn unless_late<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Timeout { .. } | Error::PoolExhausted(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl End {
    pub(crate) fn new(rx: Receiver, tx: Sender, way: Way, slots: u32, seed: u64) -> Self {
        Self { rx, tx, way, slots, random: Random(seed), slept_over: 0, released_ns: 0, looks: true, doubt: None }
    }

    /// Lets the peer go to sleep, or not quite, before something is published.
    pub(crate) fn dawdle(&mut self) {
        let pause = match self.random.below(8) {
            0..4 => return,
            4..6 => self.random.below(4_000),
            6 => self.random.below(90_000),
            _ => return std::thread::yield_now(),
        };
        let start = Instant::now();
        while start.elapsed().as_nanos() < pause.into() {
            std::hint::spin_loop();
        }
    }

    pub(crate) fn loan(&mut self) -> Result<FrameMut, Error> {
        loop {
            let since = now();
            let found = match self.way {
                // Which never waits.
                _ if self.tx.delivery() != Delivery::Lossless => Some(self.tx.loan()?),
                Way::Event => match self.tx.loan_if_free()? {
                    None => {
                        readable(&[self.tx.event()?], Some(TICK));
                        self.tx.loan_if_free()?
                    }
                    found => found,
                },
                _ => match unless_late(self.tx.loan_until(Until::after(TICK)))? {
                    None => self.tx.loan_if_free()?,
                    found => found,
                },
            };
            if let Some(frame) = found {
                self.doubt = is_tick(since).then(now);
                return Ok(frame);
            }
        }
    }

    pub(crate) fn write(&self, seq: u64, released_ns: u64) -> Vec<u8> {
        let mut bytes = picture(seq, SIZE);
        let note = [now(), released_ns, self.slept_over].map(u64::to_le_bytes).concat();
        bytes[..NOTE].copy_from_slice(&note);
        bytes
    }

    pub(crate) fn send(&mut self, mut frame: FrameMut, seq: u64, released_ns: u64) -> Result<(), Error> {
        frame.set_seq(seq);
        self.dawdle();
        frame.fill(&self.write(seq, released_ns))?;
        self.tx.send(frame).map(drop)
    }

    /// Checks a frame that was waited for since then, and judges that wait and the one for a slot before.
    fn read(&mut self, frame: &Frame, since_ns: u64) -> Note {
        let bytes = frame.snapshot();
        assert!(bytes[NOTE..] == picture(frame.seq(), SIZE)[NOTE..], "frame {}", frame.seq());
        let word = |index: usize| u64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap());
        let note = Note { sent_ns: word(0), released_ns: word(1), slept_over: word(2) };
        self.slept_over += u64::from(is_tick(since_ns) && is_half_a_tick(note.sent_ns, now()));
        let doubt = self.doubt.take();
        self.slept_over += u64::from(doubt.is_some_and(|found| is_half_a_tick(note.released_ns, found)));
        note
    }

    pub(crate) fn release(&mut self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            self.dawdle();
            drop(frame);
            self.released_ns = now();
        }
    }

    fn try_recv(&mut self) -> Result<Option<Frame>, Error> {
        let found = self.rx.try_recv()?;
        self.looks = found.is_some();
        Ok(found)
    }
}

/// Waits until some of the `pending` ends have a frame: their places, the frames and what they say.
pub(crate) fn recv_any(ends: &mut [End], pending: &[usize]) -> Result<Vec<(usize, Frame, Note)>, Error> {
    loop {
        let since = now();
        // Where to look; nowhere else, for there a lost wake-up would be made good for.
        let look: Vec<usize> = match ends[pending[0]].way {
            Way::Recv => match unless_late(ends[pending[0]].rx.recv_timeout(TICK))? {
                Some(frame) => {
                    let note = ends[pending[0]].read(&frame, since);
                    return Ok(vec![(pending[0], frame, note)]);
                }
                None => pending.to_vec(),
            },
            Way::Select => {
                let receivers: Vec<_> = pending.iter().map(|&at| &ends[at].rx).collect();
                match unless_late(select(&receivers, Until::after(TICK)))? {
                    Some(ready) => ready.into_iter().map(|place| pending[place]).collect(),
                    None => pending.to_vec(),
                }
            }
            Way::Event => match pending.iter().copied().filter(|&at| ends[at].looks).collect::<Vec<_>>() {
                none if none.is_empty() => {
                    let events = pending.iter().map(|&at| ends[at].rx.event()).collect::<Result<Vec<_>, _>>()?;
                    match readable(&events, Some(TICK)) {
                        none if none.is_empty() => pending.to_vec(),
                        places => places.into_iter().map(|place| pending[place]).collect(),
                    }
                }
                unread => unread,
            },
        };
        let mut found = Vec::new();
        for at in look {
            if let Some(frame) = ends[at].try_recv()? {
                let note = ends[at].read(&frame, since);
                found.push((at, frame, note));
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
}
