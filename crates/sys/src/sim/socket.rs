//! The control channel: two queues of bytes, with handles beside them.

use std::io;
use std::time::Duration;

use super::clock::deadline;
use super::handle::{Handle, Means, check};
use super::kernel::{Flow, NOBODY, State, What};
use super::poll::Watched;
use super::sched::{self, Key};

/// Most handles one message carries.
pub const MAX_HANDLES: usize = 128;

/// One end of a control channel.
#[derive(Debug)]
pub struct Control(Handle);

impl Watched for Control {
    fn number(&self) -> (u8, u64) {
        (0, self.0.0)
    }
}

impl Control {
    /// Two connected ends.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn pair() -> io::Result<(Self, Self)> {
        sched::point("control pair");
        check(|state| state.faults.handles)?;
        let channel = sched::inside(|state| {
            let channel = state.new_id();
            let flow = || Flow { is_open: true, ..Flow::default() };
            state.channels.insert(channel, [flow(), flow()]);
            channel
        });
        let end = |side| Self(Handle::new(|_| What::Control { channel, side, limit: None }));
        Ok((end(0), end(1)))
    }

    pub(super) fn adopt(id: u64) -> Self {
        Self(Handle(id))
    }

    pub(super) fn into_id(self) -> u64 {
        let id = self.0.0;
        // Now the child's.
        std::mem::forget(self);
        id
    }

    fn parts(&self) -> io::Result<(u64, usize, Option<Duration>)> {
        match self.0.what() {
            Some(What::Control { channel, side, limit }) => Ok((channel, side, limit)),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// [`pair`](Self::pair), over which handles travel by these means: there is but one.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    pub fn pair_by(_: Means) -> io::Result<(Self, Self)> {
        Self::pair()
    }

    /// By which means handles travel.
    #[must_use]
    pub fn means(&self) -> Means {
        Means
    }

    /// Whether this worker has come to its host: it has, with its end of the channel.
    ///
    /// # Errors
    /// None here.
    pub fn met(&self) -> io::Result<()> {
        Ok(())
    }

    /// Sends all of `bytes`, the handles with the first of them.
    ///
    /// # Errors
    /// `WouldBlock` when the peer does not read; `BrokenPipe` when it is gone; `InvalidInput` for too many handles.
    pub fn send(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<()> {
        let sent = self.send_some(bytes, handles)?;
        if sent < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    /// Sends what there is room for and returns how much that was; the handles go with the first byte.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; `BrokenPipe` when the peer is gone; `InvalidInput` for too many handles.
    pub fn send_some(&self, bytes: &[u8], handles: &[Handle]) -> io::Result<usize> {
        sched::point("control send");
        if handles.len() > MAX_HANDLES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (channel, side, _) = self.parts()?;
        if side == 0 {
            // The host's.
            check(|state| state.faults.sends)?;
        }
        let copies: Vec<What> = handles.iter().filter_map(Handle::what).collect();
        sched::inside(|state| {
            let room = state.faults.control_room;
            let flows = state.channels.get(&channel).ok_or(io::ErrorKind::BrokenPipe)?;
            let is_open = flows.get(1 - side).is_some_and(|other| other.is_open);
            let (held, written) = flows.get(side).map_or((0, 0), |own| (own.bytes.len(), own.written));
            if !is_open {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let sent = bytes.len().min(room.saturating_sub(held));
            if sent == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let ids: Vec<(u64, u64)> = copies.into_iter().map(|what| (written, state.add(NOBODY, what))).collect();
            if let Some(own) = state.channels.get_mut(&channel).and_then(|flows| flows.get_mut(side)) {
                own.handles.extend(ids);
                own.bytes.extend(bytes.get(..sent).unwrap_or_default());
                own.written += sent as u64;
            }
            state.tasks.wake(Key::Object(channel));
            Ok(sent)
        })
    }

    /// Waits until there is room to send, or the peer is gone, `limit` at most.
    ///
    /// # Errors
    /// Never.
    pub fn await_room(&self, limit: Duration) -> io::Result<()> {
        sched::point("control room");
        let (channel, side, _) = self.parts()?;
        let deadline = deadline(Some(limit));
        loop {
            let has_room = sched::inside(|state| {
                let room = state.faults.control_room;
                state.channels.get(&channel).is_none_or(|flows| {
                    let gone = flows.get(1 - side).is_none_or(|other| !other.is_open);
                    gone || flows.get(side).is_none_or(|own| own.bytes.len() < room)
                })
            });
            if has_room || !sched::block(vec![Key::Object(channel)], deadline, "waits for room", false) {
                return Ok(());
            }
        }
    }

    /// Reads what is there, without room for handles. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there and `wait` is false, or nothing came in time; `InvalidData` when the other side has
    /// [trespassed](Self::trespass).
    pub fn recv(&self, bytes: &mut [u8], wait: bool) -> io::Result<usize> {
        let (read, handles) = self.read(bytes, wait)?;
        sched::inside(|state| handles.into_iter().for_each(|id| state.close(id)));
        Ok(read)
    }

    /// After the end: whether no process has the other end any more. That is what the end means here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        true
    }

    /// Sends beside the channel what no worker sends, as to a port that is for nobody.
    pub fn trespass(&self) {
        sched::point("control trespass");
        let Ok((channel, side, _)) = self.parts() else { return };
        sched::inside(|state| {
            let own = state.channels.get_mut(&channel).and_then(|flows| flows.get_mut(side));
            own.into_iter().for_each(|flow| flow.lied = true);
            state.tasks.wake(Key::Object(channel));
        });
    }

    /// Ends reads that wait longer than `limit` with `WouldBlock`; zero: never.
    ///
    /// # Errors
    /// Never.
    pub fn limit_reads(&self, time: Duration) -> io::Result<()> {
        sched::inside(|state| {
            if let Some(What::Control { limit, .. }) = state.objects.get_mut(&self.0.0).map(|object| &mut object.what) {
                *limit = (!time.is_zero()).then_some(time);
            }
        });
        Ok(())
    }

    /// Reads what is there, waiting for it, with the handles that came along. `Ok(0)` is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing came in time.
    pub fn recv_with_handles(&self, bytes: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<usize> {
        let (read, ids) = self.read(bytes, true)?;
        sched::inside(|state| {
            let process = state.current_process();
            for id in ids {
                state.objects.get_mut(&id).into_iter().for_each(|object| object.owner = process);
                handles.push(Handle(id));
            }
        });
        Ok(read)
    }

    fn read(&self, bytes: &mut [u8], wait: bool) -> io::Result<(usize, Vec<u64>)> {
        sched::point("control recv");
        let (channel, side, limit) = self.parts()?;
        let deadline = deadline(limit);
        loop {
            let lied = |state: &State| state.channels.get(&channel)?.get(1 - side).map(|flow| flow.lied);
            if sched::inside(|state| lied(state)).unwrap_or_default() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let read = sched::inside(|state| take(state, channel, 1 - side, bytes));
            match read {
                Some(found) => return Ok(found),
                None if !wait => return Err(io::ErrorKind::WouldBlock.into()),
                None if !sched::block(vec![Key::Object(channel)], deadline, "reads its control channel", false) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                None => {}
            }
        }
    }
}

/// What side `from` has written, and the handles with it; `None` if nothing is there.
fn take(state: &mut State, channel: u64, from: usize, bytes: &mut [u8]) -> Option<(usize, Vec<u64>)> {
    let short = state.chance(state.faults.short_reads);
    let most = if short { state.random.below(bytes.len().max(1) as u64) as usize + 1 } else { bytes.len() };
    let flow = state.channels.get_mut(&channel)?.get_mut(from)?;
    if flow.bytes.is_empty() {
        return (!flow.is_open).then(|| (0, Vec::new()));
    }
    // One read never brings the handles of two messages.
    let first = flow.handles.front().map(|(at, _)| *at);
    let second = flow.handles.iter().map(|(at, _)| *at).find(|at| Some(*at) != first);
    let before = second.map_or(usize::MAX, |at| (at - flow.read) as usize);
    let mut read = 0;
    for (byte, place) in flow.bytes.drain(..most.min(before).min(flow.bytes.len())).zip(bytes.iter_mut()) {
        *place = byte;
        read += 1;
    }
    flow.read += read as u64;
    let mut handles = Vec::new();
    while let Some((at, id)) = flow.handles.front().copied()
        && at < flow.read
    {
        handles.push(id);
        flow.handles.pop_front();
    }
    state.tasks.wake(Key::Object(channel));
    Some((read, handles))
}
