//! A worker's link with its host.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::{inherit, socket};
use frameport_wire::PROTOCOL;
use frameport_wire::control::{self, Decoder, Direction, Hello, ToHost, ToWorker, Welcome};
use frameport_wire::layout::SIZES;
use frameport_wire::spec::Spec;

use super::watch;
use crate::channel::recv::RecvEnd;
use crate::channel::send::SendEnd;
use crate::channel::state::{End, LinkState};
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
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
    /// [`Error::Inherit`] without a host; [`Error::Refused`] and [`Error::LinkClosed`] when the host does not go on.
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
    control: Arc<OwnedFd>,
    ends: Ends,
    ready: AtomicBool,
    /// What comes in may go out in its own slot.
    in_place: bool,
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
        let control = inherit::take_link()?;
        let LinkBuilder { output, library } = builder;
        let hello = Hello { protocol: (PROTOCOL, PROTOCOL), layout: SIZES, pid: std::process::id(), library, output };
        say(&control, &ToHost::Hello(hello))?;
        let (welcome, handles, decoder) = await_welcome(&control)?;
        let state = LinkState::new(&welcome.name)?;
        let ends = join(&state, &welcome, handles)?;
        let control = Arc::new(control);
        watch::start(&state, &control, decoder, welcome.group)?;
        let pools = (ends.recv.as_ref().and_then(|end| end.pool()), ends.send.as_ref().map(|end| &end.pool));
        let in_place = matches!(pools, (Some(input), Some(output)) if input.spec.same_memory(&output.spec));
        let (ready, failed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { state, control, ends, ready, in_place, failed })
    }

    fn receiver(&self) -> Result<&Arc<RecvEnd>, Error> {
        self.be_ready();
        self.ends.recv.as_ref().ok_or_else(|| Error::config("the host sends nothing to this worker"))
    }

    fn sender(&self) -> Result<&Arc<SendEnd>, Error> {
        self.be_ready();
        self.ends.send.as_ref().ok_or_else(|| Error::config("the host wants nothing back from this worker"))
    }

    /// Tells the host once that this worker takes frames.
    fn be_ready(&self) {
        if !self.ready.load(Ordering::Relaxed) && !self.state.forked() && !self.ready.swap(true, Ordering::Relaxed) {
            // A host that is gone ends the wait that follows.
            let _ = say(&self.control, &ToHost::Ready);
        }
    }

    /// The next frame, waiting for it.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed or finished: leave the loop.
    pub fn recv(&self) -> Result<Frame, Error> {
        self.recv_until(Until::forever())
    }

    /// The next frame, waiting no longer than `limit`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<Frame, Error> {
        self.recv_until(Until::after(limit))
    }

    /// The next frame, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`Error::Timeout`] or [`Error::Interrupted`].
    pub fn recv_until(&self, mut until: Until<'_>) -> Result<Frame, Error> {
        self.receiver()?.recv(&mut until)
    }

    /// The next frame, if one is there.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<Frame>, Error> {
        self.receiver()?.try_recv()
    }

    /// A slot of the return pool, waiting for one.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed.
    pub fn loan(&self) -> Result<FrameMut, Error> {
        self.loan_until(Until::forever())
    }

    /// A slot of the return pool, waiting until `until` gives up.
    ///
    /// # Errors
    /// As [`loan`](Self::loan), and [`Error::PoolExhausted`] or [`Error::Interrupted`].
    pub fn loan_until(&self, mut until: Until<'_>) -> Result<FrameMut, Error> {
        self.sender()?.loan(&mut until)
    }

    /// A slot of the return pool, if one is free now.
    ///
    /// # Errors
    /// [`Error::LinkClosed`] when the host has closed.
    pub fn loan_if_free(&self) -> Result<Option<FrameMut>, Error> {
        self.sender()?.try_loan()
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
        let mut reply = self.loan_until(until)?;
        reply.stamp = frame.stamp();
        Ok(reply)
    }

    /// Sends a filled slot and returns the frame's number.
    ///
    /// # Errors
    /// [`Error::LinkClosed`], [`Error::MetaTooLong`]. The frame is gone either way.
    pub fn send(&self, frame: FrameMut) -> Result<u64, Error> {
        self.sender()?.send(frame)
    }

    /// Sends the very slot of `frame` back, edited in place, without copying a byte. While a view of the frame is still
    /// alive ([`Frame::is_viewed`]) its pixels must not change hands: the frame is then copied into the return pool,
    /// and counted.
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
        self.state.check_fork()?;
        let (sender, receiver) = (self.sender()?, self.receiver()?);
        let (input, output) = (frame.spec(), &sender.pool.spec);
        let Some(pool) = receiver.pool().filter(|_| frame.is_from(receiver)) else {
            return Err(Error::Format { what: "this frame came from another link".to_owned() });
        };
        if !self.in_place {
            let what =
                format!("a frame of {input} cannot go back in place on a channel of {output}: fill a reply instead");
            return Err(Error::Format { what });
        }
        if frame.is_viewed() {
            let mut reply = self.reply_until(&frame, until)?;
            let payload = frame.payload();
            reply.set_len(payload.len())?;
            if !reply.payload().copy_from_bytes(payload) {
                return Err(Error::Format { what: format!("a frame of {input} does not fit a slot of {output}") });
            }
            reply.set_meta_bytes(frame.own_meta());
            sender.count_copy();
            return sender.send(reply).map(|_| ());
        }
        self.state.check()?;
        // While the frame still is one: on an error its slot is released.
        sender.check_meta(&frame)?;
        match frame.into_parts() {
            Some((descriptor, meta)) => sender.send_back(pool, descriptor, &meta),
            None => Ok(()),
        }
    }

    /// Replies that had to be copied because a view of the frame was alive.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.ends.send.as_ref().map_or(0, |end| end.copied())
    }

    /// This worker's name at its host.
    #[must_use]
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// What comes in.
    #[must_use]
    pub fn input_spec(&self) -> Option<&Spec> {
        self.ends.recv.as_ref()?.pool().map(|pool| &pool.spec)
    }

    /// What goes out.
    #[must_use]
    pub fn output_spec(&self) -> Option<&Spec> {
        self.ends.send.as_ref().map(|end| &end.pool.spec)
    }

    /// Whether the link is over: closed by either side, finished by the host, or the host is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let finished = || self.ends.recv.as_ref().is_some_and(|end| end.is_finished());
        self.state.end().is_some() || (!self.state.forked() && finished())
    }

    /// Tells the host in one line why this worker is about to exit, for its error: what its `recv` answers after the last
    /// frame sent, as soon as this process is dead.
    pub fn fail(&self, message: &str) {
        if self.state.forked() {
            return;
        }
        self.failed.store(true, Ordering::Relaxed);
        let short: String = message.chars().take(4096).collect();
        let _ = say(&self.control, &ToHost::Failed { message: short });
    }

    /// Closes the link: every wait ends, the host's `recv` ends after the last frame sent.
    pub fn close(&self) {
        if self.state.forked() {
            return;
        }
        self.close_sender();
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
    fn close_sender(&self) {
        if let Some(send) = &self.ends.send
            && !self.failed.load(Ordering::Relaxed)
        {
            send.close();
        }
    }

    fn say_bye(&self) {
        if !self.failed.load(Ordering::Relaxed) {
            let _ = say(&self.control, &ToHost::Bye);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.state.forked() {
            return;
        }
        if std::thread::panicking() && !self.failed.load(Ordering::Relaxed) {
            self.fail("a thread of the worker panicked");
        }
        self.close_sender();
        // Also after the host said to stop: leaving in order is worth saying.
        self.state.finish(End::Closed);
        self.say_bye();
    }
}

fn say(control: &OwnedFd, message: &ToHost) -> Result<(), Error> {
    let bytes = control::encode(message).map_err(|error| Error::Protocol { what: error.to_string() })?;
    socket::send(control.as_fd(), &bytes, &[]).map_err(Error::system("writing to the control channel"))
}

fn await_welcome(control: &OwnedFd) -> Result<(Welcome, Vec<OwnedFd>, Decoder), Error> {
    let system = Error::system("reading the host's welcome");
    socket::limit_reads(control.as_fd(), WELCOME_LIMIT).map_err(&system)?;
    let (mut decoder, mut handles, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        let read = socket::recv_with_handles(control.as_fd(), &mut bytes, &mut handles).map_err(&system)?;
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
            Some(ToWorker::Unknown) | None => {}
        }
    }
}

fn join(state: &Arc<LinkState>, welcome: &Welcome, handles: Vec<OwnedFd>) -> Result<Ends, Error> {
    let (promised, came) = (welcome.handles(), handles.len());
    let broken = |what: String| Error::Protocol { what };
    if welcome.protocol != PROTOCOL {
        return Err(broken(format!(
            "the host answered in protocol {}, this worker speaks {PROTOCOL}",
            welcome.protocol
        )));
    }
    let twice = [Direction::In, Direction::Out]
        .iter()
        .any(|&direction| welcome.channels.iter().filter(|channel| channel.direction == direction).count() > 1);
    if promised != came || twice {
        return Err(broken(format!("the welcome has {} channels and {came} handles", welcome.channels.len())));
    }
    let mut handles = handles.into_iter();
    let mut next = || handles.next().ok_or_else(|| Error::Protocol { what: "the welcome lacks handles".into() });
    let control = Control::join(&welcome.channels, [next()?, next()?])?;
    let mut pools = Vec::new();
    for channel in &welcome.channels {
        let pool = Pool::join(channel.pool.clone(), &channel.spec, [next()?, next()?, next()?])?;
        pools.push(Arc::new(pool));
    }
    let peer = "the host".to_owned();
    let terms = Terms { side: Side::Worker, channels: &welcome.channels, pools: &pools, wait: welcome.wait, peer };
    link::connect(state, &control, &terms)
}
