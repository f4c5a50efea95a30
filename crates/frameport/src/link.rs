//! A link's shared memory and channel ends, put together the same way on both sides.
//!
//! *Who calls it*: bring-up of the host ([`crate::host`]) and of the worker ([`crate::worker`]). *Invariants*: both
//! sides compute the same offsets from the channel list of the welcome; what one side owns the other only loads.
//! *A hostile peer* has no part in it: the host decides every number.

use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Bells;
use frameport_mem::ring;
use frameport_sys::event::Doorbell;
use frameport_sys::handle::{Handle, Means};
use frameport_sys::memory::{Map, Region, Writers};
use frameport_wire::control::{Channel, Delivery, Direction, WaitStrategy};
use frameport_wire::layout::blocks;

use crate::channel::audience::Slots;
use crate::channel::handle::{Receiver, Sender};
use crate::channel::recv::{self, RecvEnd};
use crate::channel::send::{self, SendEnd};
use crate::channel::state::LinkState;
use crate::error::Error;
use crate::frame::{FrameMut, Home};
use crate::holders::{Holder, Peer, SlotHolder};
use crate::pool::Pool;

/// Which side of the link this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Worker,
}

impl Side {
    fn sends(self, direction: Direction) -> bool {
        (self == Self::Host) == (direction == Direction::In)
    }
}

/// The two control regions as this side maps them.
#[derive(Debug)]
pub(crate) struct Control {
    own: Arc<Map>,
    peer: Arc<Map>,
    doorbell: Doorbell,
}

impl Control {
    /// Makes both regions and the doorbell; the handles go to the worker, the host's region first.
    pub(crate) fn create(channels: &[Channel], means: Means) -> Result<(Self, [Region; 2], Handle), Error> {
        let system = Error::system("making the control regions");
        let (_, len) = blocks(&capacities(channels));
        let (host, own) = Region::create_for(means, "frameport-host", len, Writers::Creator).map_err(&system)?;
        let (worker, peer) = Region::create_for(means, "frameport-worker", len, Writers::All).map_err(&system)?;
        let (doorbell, theirs) = Doorbell::pair().map_err(&system)?;
        Ok((Self { own: Arc::new(own), peer: Arc::new(peer), doorbell }, [host, worker], theirs))
    }

    /// Joins both regions on the worker's side.
    pub(crate) fn join(channels: &[Channel], [host, worker]: [Handle; 2], doorbell: Handle) -> Result<Self, Error> {
        let system = Error::system("joining the control regions");
        let (_, len) = blocks(&capacities(channels));
        let peer = Region::adopt(host, len, Writers::Creator).and_then(|region| region.map(false)).map_err(&system)?;
        let own = Region::adopt(worker, len, Writers::All).and_then(|region| region.map(true)).map_err(&system)?;
        Ok(Self { own: Arc::new(own), peer: Arc::new(peer), doorbell: Doorbell::adopt(doorbell) })
    }
}

fn capacities(channels: &[Channel]) -> Vec<usize> {
    channels.iter().map(|channel| channel.capacity).collect()
}

/// A link's channel ends, in the order of its channels.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) send: Vec<Arc<SendEnd>>,
    pub(crate) recv: Vec<Arc<RecvEnd>>,
}

impl Ends {
    /// The sending end of that name, or the first one.
    pub(crate) fn sender(&self, name: Option<&str>) -> Option<Sender> {
        self.send.iter().find(|end| name.is_none_or(|name| end.name() == name)).map(Sender::new)
    }

    /// The receiving end of that name, or the first one.
    pub(crate) fn receiver(&self, name: Option<&str>) -> Option<Receiver> {
        self.recv.iter().find(|end| name.is_none_or(|name| end.name() == name)).map(Receiver::new)
    }

    /// Every slot that is taken: of what this side sends, then the received frames in its hands.
    pub(crate) fn holders(&self) -> Vec<SlotHolder> {
        let sent = self.send.iter().flat_map(|end| end.holders());
        // Those are received frames too, and told as such.
        let sent = sent.filter(|slot| !matches!(slot.holder, Holder::Returned(_)));
        sent.chain(self.recv.iter().flat_map(|end| end.holders())).collect()
    }

    /// Sends a filled slot over the channel it was loaned from.
    pub(crate) fn send_out(&self, state: &Arc<LinkState>, frame: FrameMut) -> Result<u64, Error> {
        let end = match &frame.home {
            Home::Channel { end, .. } if Arc::ptr_eq(&end.state, state) => Arc::clone(end),
            Home::Channel { end, .. } => {
                let what = format!("this frame was loaned from '{}', not from '{}'", end.state.name(), state.name());
                return Err(Error::Format { what });
            }
            Home::Audience { .. } => {
                return Err(Error::Format { what: "this frame is an audience's: send it there".to_owned() });
            }
        };
        end.send(frame)
    }

    /// The error for a channel that is not there.
    pub(crate) fn missing(&self, link: &str, direction: &str, name: &str) -> Error {
        let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let sent = list(self.send.iter().map(|end| end.name()).collect());
        let received = list(self.recv.iter().map(|end| end.name()).collect());
        let what = format!(
            "'{link}' has no {direction} channel '{name}': this side sends on {sent} and receives on {received}"
        );
        Error::config(what)
    }
}

/// Channels by index as bits: there are no more than 31.
pub(crate) fn bits(channels: impl IntoIterator<Item = usize>) -> u32 {
    let bit = |channel| u32::try_from(channel).ok().and_then(|channel| 1_u32.checked_shl(channel)).unwrap_or(0);
    channels.into_iter().fold(0, |bits, channel| bits | bit(channel))
}

/// What [`connect`] needs beside the memory.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) side: Side,
    pub(crate) channels: &'a [Channel],
    pub(crate) pools: &'a [Arc<Pool>],
    /// For each channel whose frames are an audience's, their slots; a worker needs none.
    pub(crate) audiences: &'a [Option<Arc<Slots>>],
    pub(crate) wait: WaitStrategy,
    pub(crate) peer: Peer,
    /// How long a loan waits unless told; `None` for ever.
    pub(crate) deadline: Option<Duration>,
    /// The ends of the worker's last life, which these go on from.
    pub(crate) earlier: Option<&'a Ends>,
}

/// Puts the ends together and ties them to the link's state.
pub(crate) fn connect(state: &Arc<LinkState>, control: Control, terms: &Terms<'_>) -> Result<Ends, Error> {
    let broken = || Error::Protocol { what: "the channels of the welcome do not fit its regions".into() };
    let Control { own, peer, doorbell } = control;
    let (own, peer) = (&own, &peer);
    let bells = Bells::new(own, peer, doorbell, terms.wait).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => broken(),
        _ => Error::system("making what waits sleep on")(error),
    })?;
    let bells = Arc::new(bells);
    let (offsets, _) = blocks(&capacities(terms.channels));
    let all = || terms.channels.iter().zip(terms.pools).zip(offsets.iter().copied()).enumerate();

    // An answer in place is a slot of another channel's pool. On a live channel it could be taken back, and is copied.
    let returns = |output: &Channel, input: &Channel| {
        output.delivery == Delivery::Lossless
            && output.direction != input.direction
            // The worker may only read what others read too.
            && !input.pool.shared
            && output.spec.same_memory(&input.spec)
    };
    let earlier = |name: &str| terms.earlier?.send.iter().find(|end| end.name() == name).cloned();
    let mut ends = Ends::default();
    for (index, ((channel, pool), offset)) in all().filter(|(_, ((channel, _), _))| terms.side.sends(channel.direction))
    {
        ends.send.push(SendEnd::new(send::Parts {
            name: channel.name.clone(),
            channel: index,
            peer: terms.peer.clone(),
            pool: Arc::clone(pool),
            state: Arc::clone(state),
            bells: Arc::clone(&bells),
            delivery: channel.delivery,
            deadline: terms.deadline,
            audience: terms.audiences.get(index).cloned().flatten(),
            earlier: earlier(&channel.name),
            ring: ring::Sender::new(own, peer, offset, channel.capacity).ok_or_else(broken)?,
        }));
    }
    for (index, ((channel, pool), offset)) in
        all().filter(|(_, ((channel, _), _))| !terms.side.sends(channel.direction))
    {
        let sent_by = |other: &Channel| ends.send.iter().find(|end| end.name() == other.name).map(Arc::clone);
        let in_place = all().filter(|(_, ((other, _), _))| terms.side == Side::Host && returns(channel, other));
        let goes_back = |other: &Channel| terms.side == Side::Worker && returns(other, channel);
        ends.recv.push(RecvEnd::new(recv::Parts {
            name: channel.name.clone(),
            channel: index,
            peer: terms.peer.clone(),
            state: Arc::clone(state),
            bells: Arc::clone(&bells),
            delivery: channel.delivery,
            ring: ring::Receiver::new(own, peer, offset, channel.capacity).ok_or_else(broken)?,
            pool: Arc::clone(pool),
            in_place: in_place.filter_map(|(_, ((other, _), _))| sent_by(other)).collect(),
            returns: bits(all().filter(|(_, ((other, _), _))| goes_back(other)).map(|(index, _)| index)),
        }));
    }
    state.attach(&bells);
    state.watch(&ends.recv);
    Ok(ends)
}
