//! A link's shared memory and channel ends, put together the same way on both sides.
//!
//! *Who calls it*: bring-up of the host ([`crate::host`]) and of the worker ([`crate::worker`]). *Invariants*: both
//! sides compute the same offsets from the channel list of the welcome; what one side owns the other only loads.
//! *A hostile peer* has no part in it: the host decides every number.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use frameport_mem::park::Bells;
use frameport_mem::ring;
use frameport_sys::memory::{Map, Region, Writers};
use frameport_wire::control::{Channel, Direction, WaitStrategy};
use frameport_wire::layout::blocks;

use crate::channel::recv::{self, RecvEnd, Source};
use crate::channel::send::{self, SendEnd};
use crate::channel::state::LinkState;
use crate::error::Error;
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
}

impl Control {
    /// Makes both regions; the handles go to the worker, the host's first.
    pub(crate) fn create(channels: &[Channel]) -> Result<(Self, [Region; 2]), Error> {
        let system = Error::system("making the control regions");
        let (_, len) = blocks(&capacities(channels));
        let (host, own) = Region::create("frameport-host", len, Writers::Creator).map_err(&system)?;
        let (worker, peer) = Region::create("frameport-worker", len, Writers::All).map_err(&system)?;
        Ok((Self { own: Arc::new(own), peer: Arc::new(peer) }, [host, worker]))
    }

    /// Joins both regions on the worker's side.
    pub(crate) fn join(channels: &[Channel], [host, worker]: [OwnedFd; 2]) -> Result<Self, Error> {
        let system = Error::system("joining the control regions");
        let (_, len) = blocks(&capacities(channels));
        let peer = Region::adopt(host, len, Writers::Creator).and_then(|region| region.map(false)).map_err(&system)?;
        let own = Region::adopt(worker, len, Writers::All).and_then(|region| region.map(true)).map_err(&system)?;
        Ok(Self { own: Arc::new(own), peer: Arc::new(peer) })
    }
}

fn capacities(channels: &[Channel]) -> Vec<usize> {
    channels.iter().map(|channel| channel.capacity).collect()
}

/// A link's channel ends: at most one in each direction so far.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) send: Option<Arc<SendEnd>>,
    pub(crate) recv: Option<Arc<RecvEnd>>,
}

/// What [`connect`] needs beside the memory.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) side: Side,
    pub(crate) channels: &'a [Channel],
    pub(crate) pools: &'a [Arc<Pool>],
    pub(crate) wait: WaitStrategy,
    /// The other side, for messages: "worker 'x' (pid 7)", "the host".
    pub(crate) peer: String,
}

/// Puts the ends together and ties them to the link's state.
pub(crate) fn connect(state: &Arc<LinkState>, control: &Control, terms: &Terms<'_>) -> Result<Ends, Error> {
    let broken = || Error::Protocol { what: "the channels of the welcome do not fit its regions".into() };
    let Control { own, peer } = control;
    let bells = Arc::new(Bells::new(own, peer, terms.wait).ok_or_else(broken)?);
    let (offsets, _) = blocks(&capacities(terms.channels));
    let all = || terms.channels.iter().zip(terms.pools).zip(offsets.iter().copied()).enumerate();

    let mut ends = Ends { send: None, recv: None };
    for (index, ((channel, pool), offset)) in all().filter(|(_, ((channel, _), _))| terms.side.sends(channel.direction))
    {
        ends.send = Some(SendEnd::new(send::Parts {
            name: channel.name.clone(),
            channel: index,
            peer: terms.peer.clone(),
            pool: Arc::clone(pool),
            state: Arc::clone(state),
            bells: Arc::clone(&bells),
            ring: ring::Sender::new(own, peer, offset, channel.capacity).ok_or_else(broken)?,
        }));
    }
    for (index, ((channel, pool), offset)) in
        all().filter(|(_, ((channel, _), _))| !terms.side.sends(channel.direction))
    {
        let mut sources = vec![Source::new(Arc::clone(pool), None)];
        // The host also gets its own slots back here, edited in place.
        let in_place = ends.send.as_ref().filter(|_| terms.side == Side::Host);
        sources.extend(in_place.map(|sent_by| Source::new(Arc::clone(&sent_by.pool), Some(Arc::clone(sent_by)))));
        ends.recv = Some(RecvEnd::new(recv::Parts {
            name: channel.name.clone(),
            channel: index,
            state: Arc::clone(state),
            bells: Arc::clone(&bells),
            ring: ring::Receiver::new(own, peer, offset, channel.capacity).ok_or_else(broken)?,
            sources,
        }));
    }
    state.attach(&bells);
    Ok(ends)
}
