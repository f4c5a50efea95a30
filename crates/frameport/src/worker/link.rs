//! A worker's link with its host.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::handle::Handle;
use frameport_sys::{inherit, process, socket, thread};
use frameport_wire::PROTOCOL;
use frameport_wire::control::{Decoder, Hello, ToHost, ToWorker, Welcome};
use frameport_wire::event::{Event, Level};
use frameport_wire::layout::SIZES;
use frameport_wire::spec::Spec;
use serde_json::{Map, Value};

use super::outgoing::{LAST_WORDS, Outgoing};
use super::watch;
use crate::channel::handle::{Receiver, Sender};
use crate::channel::state::{End, LinkState};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::holders::{Peer, SlotHolder};
use crate::link::{self, Control, Ends, Side, Terms};
use crate::pool::Pool;

/// How long the host may take to answer a hello: it allocates memory meanwhile.
const WELCOME_LIMIT: Duration = Duration::from_secs(60);

/// How a worker introduces itself.
#[derive(Clone, Debug)]
pub struct LinkBuilder {
    output: Option<Spec>,
    library: String,
}

impl LinkBuilder {
    /// States what this worker will send, where that is not what the host announced.
    #[must_use]
    pub fn output(mut self, spec: impl Into<Spec>) -> Self {
        self.output = Some(spec.into());
        self
    }

    /// Names the library for the host's messages to people; the crate's own name unless set.
    #[must_use]
    pub fn library(mut self, library: impl Into<String>) -> Self {
        self.library = library.into();
        self
    }

    /// Connects to the host that started this process. Call it once, at start-up: it takes the link out of the
    /// environment.
    ///
    /// # Errors
    /// [`Error::Inherit`] without a host; [`Error::Refused`] and [`Error::LinkClosed`] when the host does not go on;
    /// [`Error::Denied`] when a sandbox keeps it out of reach. The host learns of whatever it is.
    pub fn connect(self) -> Result<Link, Error> {
        Link::open(self)
    }
}

/// A worker's link with its host. May be used from any thread.
///
/// Dropping it says goodbye: the host's `recv` ends after the last frame sent. Where a panic drops it, the host's `recv`
/// ends with this process's death instead, and says so.
#[derive(Debug)]
pub struct Link {
    state: Arc<LinkState>,
    outgoing: Arc<Outgoing>,
    ends: Arc<Ends>,
    input: Option<Receiver>,
    output: Option<Sender>,
    /// This worker's own code failed: the link does not end in order.
    failed: AtomicBool,
}

impl Link {
    /// Connects to the host that started this process. Call it once, at start-up.
    ///
    /// # Errors
    /// As [`LinkBuilder::connect`].
    pub fn from_env() -> Result<Self, Error> {
        Self::builder().connect()
    }

    /// Begins to say more than [`from_env`](Self::from_env) does.
    #[must_use]
    pub fn builder() -> LinkBuilder {
        LinkBuilder { output: None, library: format!("frameport {}", env!("CARGO_PKG_VERSION")) }
    }

    fn open(builder: LinkBuilder) -> Result<Self, Error> {
        let outgoing = Arc::new(Outgoing::new(inherit::take_link()?));
        Self::join(builder, &outgoing).inspect_err(|error| outgoing.give_up(error))
    }

    fn join(builder: LinkBuilder, outgoing: &Arc<Outgoing>) -> Result<Self, Error> {
        outgoing.control.met().map_err(Error::system("coming to the host"))?;
        let LinkBuilder { output, library } = builder;
        let hello = Hello { protocol: (PROTOCOL, PROTOCOL), layout: SIZES, pid: process::id(), library, output };
        outgoing.say(&ToHost::Hello(hello))?;
        let (welcome, handles, decoder) = await_welcome(&outgoing.control)?;
        let state = LinkState::new(&welcome.name)?;
        let ends = Arc::new(join(&state, &welcome, handles)?);
        watch::start(&state, outgoing, &ends, decoder, welcome.group)?;
        let to_host = Arc::clone(outgoing);
        state.on_home(Box::new(move |pool| to_host.tell(&ToHost::Left { pool })));
        let (to_host, all) = (Arc::clone(outgoing), Arc::downgrade(&ends));
        state.set_changer(Box::new(move |channel, spec, until| {
            let Some(ends) = all.upgrade() else { return Ok(()) };
            let Some(end) = ends.send.iter().find(|end| end.channel() == channel) else {
                return Err(Error::config("a host decides what it sends: this side receives here"));
            };
            end.request(spec, || to_host.tell(&ToHost::Respec { channel, spec: spec.clone() }), until)
        }));
        let to_host = Arc::clone(outgoing);
        // A host that is gone ends the wait that follows.
        state.on_first_use(Box::new(move || drop(to_host.say(&ToHost::Ready))));
        let (input, output) = (ends.receiver(None), ends.sender(None));
        let outgoing = Arc::clone(outgoing);
        Ok(Self { state, outgoing, ends, input, output, failed: AtomicBool::new(false) })
    }

    /// The sending end of the channel `name`, as its host named it.
    ///
    /// # Errors
    /// [`Error::Config`] names the channels there are.
    pub fn sender(&self, name: &str) -> Result<Sender, Error> {
        self.ends.sender(Some(name)).ok_or_else(|| self.ends.missing(self.name(), "outgoing", name))
    }

    /// The receiving end of the channel `name`, as its host named it.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn receiver(&self, name: &str) -> Result<Receiver, Error> {
        self.ends.receiver(Some(name)).ok_or_else(|| self.ends.missing(self.name(), "incoming", name))
    }

    /// All sending ends, in the order of the channels.
    pub fn senders(&self) -> impl Iterator<Item = Sender> {
        self.ends.send.iter().map(Sender::new)
    }

    /// All receiving ends, in the order of the channels.
    pub fn receivers(&self) -> impl Iterator<Item = Receiver> {
        self.ends.recv.iter().map(Receiver::new)
    }

    /// The descriptor for event loops of all channels: see [`Receiver::event`].
    ///
    /// # Errors
    /// Too many open files; [`Error::Forked`].
    pub fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        Ok(self.state.event()?.as_fd())
    }

    /// The first channel to the host.
    fn output(&self) -> Result<&Sender, Error> {
        self.output.as_ref().ok_or_else(|| Error::config("the host wants nothing back from this worker"))
    }

    /// The first channel from the host.
    fn input(&self) -> Result<&Receiver, Error> {
        self.input.as_ref().ok_or_else(|| Error::config("the host sends nothing to this worker"))
    }

    /// The next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed or finished: leave the loop.
    pub fn recv(&self) -> Result<Frame, Error> {
        self.input()?.recv()
    }

    /// The next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.input()?.recv_timeout(limit)
    }

    /// The next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, until: Until<'_>) -> Result<Frame, Error> {
        self.input()?.recv_until(until)
    }

    /// The next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        self.input()?.try_recv()
    }

    /// A slot of the return pool, waiting for one.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed.
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.output()?.loan()
    }

    /// A slot of the return pool, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::PoolExhausted`] or [`Error::Interrupted`].
    pub fn loan_until(&self, until: Until<'_>) -> Result<FrameMut, Error> {
        self.output()?.loan_until(until)
    }

    /// A slot of the return pool, if one is free now.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed.
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.output()?.loan_if_free()
    }

    /// A slot of the return pool that carries the sequence number and times of `frame`, waiting for one.
    ///
    /// # Errors
    /// As [`loan`](Self::loan).
    pub fn reply(&self, frame: &Frame) -> Result<FrameMut, Error> {
        self.reply_until(frame, Until::forever())
    }

    /// [`reply`](Self::reply), waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan_until`](Self::loan_until).
    pub fn reply_until(&self, frame: &Frame, until: Until<'_>) -> Result<FrameMut, Error> {
        self.output()?.reply_until(frame, until)
    }

    /// Sends a filled slot, over the channel it was loaned from, and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::LinkClosed`], [`Error::MetaTooLong`]. The frame is gone either way.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.ends.send_out(&self.state, frame)
    }

    /// Sends the very slot of `frame` back: see [`Sender::send_back_until`].
    ///
    /// # Errors
    /// [`Error::Format`] when what comes in is not what goes out; [`Error::LinkClosed`].
    pub fn send_back(&self, frame: Frame) -> Result<(), Error> {
        self.send_back_until(frame, Until::forever())
    }

    /// [`send_back`](Self::send_back); should it have to copy, it waits for a slot until `until` gives up.
    ///
    /// # Errors
    /// As [`send_back`](Self::send_back) and [`loan_until`](Self::loan_until).
    pub fn send_back_until(&self, frame: Frame, until: Until<'_>) -> Result<(), Error> {
        self.output()?.send_back_until(frame, until)
    }

    /// Replies that had to be copied because a view of the frame was alive.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.ends.send.iter().map(|end| end.copied()).sum()
    }

    /// Who has which slot now, of all channels: those of the return pools, then the received frames not released here, with
    /// the views that keep them.
    #[must_use]
    pub fn holders(&self) -> Vec<SlotHolder> {
        self.ends.holders()
    }

    /// This worker's name at its host.
    #[must_use]
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// What comes in on the first channel.
    #[must_use]
    pub fn input_spec(&self) -> Option<Spec> {
        self.input.as_ref().map(Receiver::spec)
    }

    /// What goes out on the first channel.
    #[must_use]
    pub fn output_spec(&self) -> Option<Spec> {
        self.output.as_ref().map(Sender::spec)
    }

    /// Whether the link is over: closed by either side, finished by the host, or the host is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let finished = || !self.ends.recv.is_empty() && self.ends.recv.iter().all(|end| end.is_finished());
        self.state.end().is_some() || (!self.state.forked() && finished())
    }

    /// What the host has set for this worker, as it is now: a set that came before the `send` of a frame is in it when that
    /// frame is here. It may take as long as a thread takes to wake up, when something was set since the last look; only a
    /// host that is stopped in between can withhold it, and is waited for a second. [`Frame::params`] stays the same for as
    /// long as a frame is worked on.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn params(&self) -> Result<Arc<Map<String, Value>>, Error> {
        self.state.params()
    }

    /// [`params`](Self::params) without waiting: `None` while the newest are on their way.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub fn params_if_here(&self) -> Result<Option<Arc<Map<String, Value>>>, Error> {
        self.state.params_if_here()
    }

    /// Reports something to the host, for its log. Never waits: false when the host does not keep up, or the link is over.
    /// What was dropped is counted, and the number told with the next report that gets through. Long texts and fields are
    /// cut: 4096 characters, 8 KiB of JSON.
    pub fn report<K: Into<String>, V: Into<Value>>(
        &self,
        level: Level,
        message: impl Into<String>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> bool {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.report_as("", level, message, fields)
    }

    /// [`report`](Self::report) in the name of a part of the worker, such as a logger.
    pub fn report_as(
        &self,
        source: impl Into<String>,
        level: Level,
        message: impl Into<String>,
        fields: Map<String, Value>,
    ) -> bool {
        let event = Event { level, message: message.into(), source: source.into(), fields, dropped: 0 };
        !self.state.forked() && self.outgoing.report(event)
    }

    /// Tells the host in one line why this worker is about to exit, for its error: what its `recv` answers after the last
    /// frame sent, as soon as this process is dead.
    pub fn fail(&self, message: &str) {
        if self.state.forked() {
            return;
        }
        self.failed.store(true, Ordering::Relaxed);
        let short: String = message.chars().take(LAST_WORDS).collect();
        let _ = self.outgoing.say(&ToHost::Failed { message: short });
    }

    /// Closes the link: every wait ends, the host's `recv` ends after the last frame sent.
    pub fn close(&self) {
        if self.state.forked() {
            return;
        }
        self.close_senders();
        if self.state.finish(End::Closed) {
            self.say_bye();
        }
    }

    /// Ends every wait of this side and says goodbye, but leaves it to this process's exit status whether that was in
    /// order: the host's `recv` ends when the process is dead. For those who cannot tell yet how it will exit.
    pub fn leave(&self) {
        if !self.state.forked() {
            // Also after the host said to stop, as on drop.
            self.state.finish(End::Closed);
            self.say_bye();
        }
    }

    /// A failed worker's results have no orderly end: its host learns of the failure instead.
    fn close_senders(&self) {
        if !self.failed.load(Ordering::Relaxed) {
            self.ends.send.iter().for_each(|end| end.close());
        }
    }

    fn say_bye(&self) {
        if !self.failed.load(Ordering::Relaxed) {
            let _ = self.outgoing.say(&ToHost::Bye);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.state.forked() {
            return;
        }
        if thread::panicking() && !self.failed.load(Ordering::Relaxed) {
            self.fail("a thread of the worker panicked");
        }
        self.close_senders();
        // Also after the host said to stop: leaving in order is worth saying.
        self.state.finish(End::Closed);
        self.say_bye();
    }
}

fn await_welcome(control: &socket::Control) -> Result<(Welcome, Vec<Handle>, Decoder), Error> {
    let system = Error::system("reading the host's welcome");
    control.limit_reads(WELCOME_LIMIT).map_err(&system)?;
    let (mut decoder, mut handles, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        let read = control.recv_with_handles(&mut bytes, &mut handles).map_err(&system)?;
        if read == 0 {
            return Err(Error::LinkClosed { link: "frameport".into(), why: "the host is gone" });
        }
        decoder.push(bytes.get(..read).unwrap_or_default());
        let message = decoder.decode().map_err(|error| Error::Protocol { what: error.to_string() })?;
        match message {
            Some(ToWorker::Welcome(welcome)) => return Ok((welcome, handles, decoder)),
            Some(ToWorker::Refuse { reason }) => return Err(Error::Refused { reason }),
            Some(ToWorker::Close) => {
                return Err(Error::LinkClosed { link: "frameport".into(), why: "the host closed it" });
            }
            _ => {}
        }
    }
}

fn join(state: &Arc<LinkState>, welcome: &Welcome, handles: Vec<Handle>) -> Result<Ends, Error> {
    let (promised, came) = (welcome.handles(), handles.len());
    let broken = |what: String| Error::Protocol { what };
    if welcome.protocol != PROTOCOL {
        return Err(broken(format!(
            "the host answered in protocol {}, this worker speaks {PROTOCOL}",
            welcome.protocol
        )));
    }
    if promised != came {
        return Err(broken(format!("the welcome has {} channels and {came} handles", welcome.channels.len())));
    }
    let mut handles = handles.into_iter();
    let mut next = || handles.next().ok_or_else(|| Error::Protocol { what: "the welcome lacks handles".into() });
    let regions = [next()?, next()?];
    let mut pools = Vec::new();
    for channel in &welcome.channels {
        let pool = Pool::join(channel.pool.clone(), &channel.spec, [next()?, next()?, next()?])?;
        pools.push(Arc::new(pool));
    }
    let control = Control::join(&welcome.channels, regions, next()?)?;
    let peer = Peer::Host;
    let (channels, wait) = (&welcome.channels, welcome.wait);
    let terms = Terms {
        side: Side::Worker,
        channels,
        pools: &pools,
        audiences: &[],
        wait,
        peer,
        deadline: None,
        earlier: None,
    };
    link::connect(state, control, &terms)
}
