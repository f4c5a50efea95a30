//! Who has which slot, said to the person who waits for one.
//!
//! *Who calls it*: channel ends make these, applications and the error of an exhausted pool show them. *Invariants*: what a
//! side cannot know (the views of the other one) it does not say. *A hostile worker* can appear as one that holds what it
//! does not need, never as somebody else.

use std::fmt;
use std::time::Duration;

/// The other side of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The process that started this one.
    Host,
    /// A worker of this process.
    Worker {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::Worker { name, pid } => write!(f, "worker '{name}' (pid {pid})"),
        }
    }
}

/// In whose hands a slot is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// This side's: a loan neither sent nor dropped.
    Loan,
    /// This side's: only views of its own are left, of a loan that was sent and came back, or was dropped.
    Views,
    /// On its way to the other side, which has not received it.
    Waiting(Peer),
    /// The other side has received it and not released it.
    Peer(Peer),
    /// Taken back while the other side was in the middle of its `recv`, and may have got it.
    InDoubt(Peer),
    /// The other side has received it, or may yet, and it was written off, for that side let go of nothing.
    WrittenOff(Peer),
    /// This side's: the other side has sent it back in place.
    Returned(Peer),
    /// This side's: received from the other side and not released.
    Received(Peer),
}

impl Holder {
    /// The other side, where it has part in it.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Loan | Self::Views => None,
            Self::Waiting(peer)
            | Self::Peer(peer)
            | Self::InDoubt(peer)
            | Self::WrittenOff(peer)
            | Self::Returned(peer)
            | Self::Received(peer) => Some(peer),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loan => f.write_str("being filled here (a loan neither sent nor dropped)"),
            Self::Views => f.write_str("kept here"),
            Self::Waiting(peer) => write!(f, "waiting to be received by {peer}"),
            Self::Peer(peer) => write!(f, "held by {peer}"),
            Self::InDoubt(peer) => write!(f, "taken back while {peer} was stopped in the middle of its recv"),
            Self::WrittenOff(peer) => write!(f, "written off while {peer} had it"),
            Self::Returned(peer) => write!(f, "sent back in place by {peer} and held here"),
            Self::Received(peer) => write!(f, "received from {peer} and held here"),
        }
    }
}

/// A slot that is not free, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotHolder {
    /// Which channel.
    pub channel: String,
    /// Number in the pool.
    pub slot: u32,
    /// Who has it.
    pub holder: Holder,
    /// Number of the frame in it; none before it is sent.
    pub seq: Option<u64>,
    /// How long ago that was sent; for a received frame, how long ago this side received it.
    pub age: Option<Duration>,
    /// Bytes of a frame.
    pub bytes: usize,
    /// Views of this process that keep it: Python arrays, [`Pin`](crate::Pin)s, [`Hold`](crate::Hold)s.
    pub views: u32,
    /// Where those were made, with `FRAMEPORT_TRACE_VIEWS=1` in the environment.
    pub made_at: Vec<String>,
}

/// "slot 3 held by worker 'detector' (pid 812) for 61 s, frame 1042, by a live array of 6.2 MB".
impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, holder, seq, age, bytes, views, made_at, .. } = self;
        write!(f, "slot {slot} {holder}")?;
        if let Some(age) = age {
            write!(f, " for {}", Seconds(*age))?;
        }
        if let Some(seq) = seq {
            write!(f, ", frame {seq}")?;
        }
        if *views > 0 {
            let here = if matches!(holder, Holder::Waiting(_) | Holder::Peer(_) | Holder::WrittenOff(_)) {
                " here"
            } else {
                ""
            };
            match views {
                1 => write!(f, ", by a live array{here} of {}", Size(*bytes))?,
                _ => write!(f, ", by {views} live arrays{here} of {}", Size(*bytes))?,
            }
        }
        for (index, place) in made_at.iter().enumerate() {
            write!(f, "{} made at {place}", if index == 0 { "" } else { " and one" })?;
        }
        Ok(())
    }
}

/// A pool without a free slot, and who has its slots.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exhausted {
    /// Which link.
    pub link: String,
    /// Which channel.
    pub channel: String,
    /// How long a free slot was waited for.
    pub waited: Duration,
    /// Every slot that is taken.
    pub holders: Vec<SlotHolder>,
    /// The link's other received frames that this side has not released: often what the other side waits for.
    pub received: Vec<SlotHolder>,
    /// What to do, where that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, channel, waited, holders, received, hint } = self;
        write!(f, "no free slot on channel '{channel}' of '{link}'")?;
        if !waited.is_zero() {
            write!(f, " for {}", Seconds(*waited))?;
        }
        for (index, holder) in holders.iter().enumerate() {
            write!(f, "{} {holder}", if index == 0 { ":" } else { ";" })?;
        }
        for holder in received {
            write!(f, "; of '{}' {holder}", holder.channel)?;
        }
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 10.0 { write!(f, "{seconds:.3} s") } else { write!(f, "{seconds:.0} s") }
    }
}

struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..10_000 => write!(f, "{bytes} bytes"),
            bytes @ ..1_000_000 => write!(f, "{} kB", bytes.div_ceil(1000)),
            bytes => write!(f, "{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
        }
    }
}
