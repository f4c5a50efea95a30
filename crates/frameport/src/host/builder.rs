//! What an application wants of a worker, checked before anything is started.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::Until;
use frameport_sys::handle::Means;
use frameport_sys::isolation::Level;
use frameport_wire::control::{Delivery, Direction, WaitStrategy};
use frameport_wire::layout::{MAX_CHANNELS, MAX_SLOTS};
use frameport_wire::spec::Spec;
use serde_json::{Map, Value};

use super::bring_up::Line;
use super::events::{Event, EventSink};
use super::forward::LineSink;
use super::stall::Stall;
use super::worker::Worker;
use super::{bring_up, params};
use crate::audience::{Audience, Core};
use crate::error::Error;
use crate::group::GroupBuilder;
use crate::restart::Restart;

/// One channel as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) direction: Direction,
    pub(super) spec: Spec,
    pub(super) delivery: Delivery,
    /// Whose frames it carries, if they are not the worker's alone, and how many it may have at once.
    pub(super) audience: Option<(Arc<Core>, u32)>,
}

/// A worker to be: a command, its channels, its limits.
pub struct WorkerBuilder {
    pub(super) command: Command,
    pub(super) name: Option<String>,
    pub(super) channels: Vec<Wanted>,
    pub(super) slots: u32,
    pub(super) meta_capacity: u32,
    pub(super) ready_timeout: Duration,
    pub(super) send_deadline: Duration,
    pub(super) grace: Duration,
    pub(super) wait: WaitStrategy,
    pub(super) output_limit: u64,
    pub(super) isolate: bool,
    pub(super) required: Level,
    pub(super) inherit_stderr: bool,
    pub(super) on_stderr: Option<Arc<LineSink>>,
    pub(super) on_event: Option<Arc<EventSink>>,
    pub(super) params: Map<String, Value>,
    pub(super) restart: Option<Restart>,
    pub(super) stall: Option<(Duration, Stall)>,
    /// By which the worker is given memory and bells.
    pub(super) means: Means,
}

impl std::fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("command", &self.command)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl Clone for WorkerBuilder {
    fn clone(&self) -> Self {
        let Self { name, channels, on_stderr, on_event, params, .. } = self;
        Self {
            command: self.copy_command(),
            name: name.clone(),
            channels: channels.clone(),
            on_stderr: on_stderr.clone(),
            on_event: on_event.clone(),
            params: params.clone(),
            ..*self
        }
    }
}

impl WorkerBuilder {
    pub(super) fn new(program: &OsStr) -> Self {
        Self {
            command: Command::new(program),
            name: None,
            channels: Vec::new(),
            slots: 4,
            meta_capacity: 4096,
            ready_timeout: Duration::from_secs(60),
            send_deadline: Duration::from_secs(30),
            grace: Duration::from_secs(2),
            wait: WaitStrategy::default(),
            output_limit: 1 << 30,
            isolate: true,
            required: Level::None,
            inherit_stderr: false,
            on_stderr: None,
            on_event: None,
            params: Map::new(),
            restart: None,
            stall: None,
            means: Means::USUAL,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable of the worker.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts the worker in this directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The worker's name in messages; the program's file name unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a channel to the worker. The first one is that of [`Worker::loan`] and [`Worker::send`], the others are had by
    /// [`Worker::sender`].
    #[must_use]
    pub fn input(self, name: &str, spec: impl Into<Spec>, delivery: Delivery) -> Self {
        self.channel(name, Direction::In, spec.into(), delivery)
    }

    /// Adds a channel back from the worker. The first one is that of [`Worker::recv`], the others are had by
    /// [`Worker::receiver`]. The worker may state another spec for the first when it connects ([`Worker::output_spec`]
    /// tells), within [`output_limit`](Self::output_limit).
    #[must_use]
    pub fn output(self, name: &str, spec: impl Into<Spec>, delivery: Delivery) -> Self {
        self.channel(name, Direction::Out, spec.into(), delivery)
    }

    /// Adds a channel to the worker that carries the frames of `audience`, which other workers receive too. It may have
    /// `quota` of them at once, received or not; with a live delivery older ones make room for newer ones, with
    /// [`Delivery::Lossless`] the audience's sender waits, and cuts it off after its deadline.
    #[must_use]
    pub fn share(mut self, name: &str, audience: &Audience, delivery: Delivery, quota: u32) -> Self {
        let (name, spec) = (name.to_owned(), audience.spec());
        let audience = Some((audience.core(), quota));
        self.channels.push(Wanted { name, direction: Direction::In, spec, delivery, audience });
        self
    }

    fn channel(mut self, name: &str, direction: Direction, spec: Spec, delivery: Delivery) -> Self {
        self.channels.push(Wanted { name: name.to_owned(), direction, spec, delivery, audience: None });
        self
    }

    /// Slots of each pool; 4 unless set.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Bytes of metadata a frame may carry; 4096 unless set.
    #[must_use]
    pub fn meta_capacity(mut self, bytes: u32) -> Self {
        self.meta_capacity = bytes;
        self
    }

    /// How long the worker may take to its first `recv`; 60 s unless set.
    #[must_use]
    pub fn ready_timeout(mut self, limit: Duration) -> Self {
        self.ready_timeout = limit;
        self
    }

    /// How long [`Worker::loan`] waits for a slot; 30 s unless set.
    #[must_use]
    pub fn send_deadline(mut self, limit: Duration) -> Self {
        self.send_deadline = limit;
        self
    }

    /// How long a stopped worker may take to leave by itself, and again after SIGTERM; 2 s unless set.
    #[must_use]
    pub fn grace(mut self, limit: Duration) -> Self {
        self.grace = limit;
        self
    }

    /// How both sides wait.
    #[must_use]
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// Largest pool in bytes a worker gets that states its own output spec; 1 GiB unless set.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Whether the worker starts in a Landlock domain that keeps it from other processes' memory and from signalling
    /// them, where the kernel has that (Linux 6.12); true unless set.
    #[must_use]
    pub fn isolate(mut self, yes: bool) -> Self {
        self.isolate = yes;
        self
    }

    /// The least isolation that will do; starting is an error otherwise.
    #[must_use]
    pub fn require_isolation(mut self, level: Level) -> Self {
        self.required = level;
        self
    }

    /// Lets the worker write straight to this process's stderr; errors then lack its last words.
    #[must_use]
    pub fn inherit_stderr(mut self) -> Self {
        self.inherit_stderr = true;
        self
    }

    /// Gets what the worker writes to stdout and stderr instead of this process's stderr: whole lines, one or more at a time,
    /// as they come (of a line longer than 8 KiB, and of one that never ends, parts).
    #[must_use]
    pub fn on_stderr(mut self, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.on_stderr = Some(Arc::new(sink));
        self
    }

    /// Gets what the worker reports ([`Link::report`](crate::Link::report) and its log), instead of this process's `tracing`,
    /// where each event is one of target `frameport::worker`. Called on the thread that passes on all workers' words: be quick.
    #[must_use]
    pub fn on_event(mut self, sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(sink));
        self
    }

    /// Sets a [parameter](Worker::params) from the start: the worker sees it as soon as it has connected.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Starts the worker again, in the background, whenever it has died: the [`Worker`], and every sender, receiver and
    /// parameter of it, goes on over all its lives. Frames a dead life had not taken are lost; each channel's receiver first
    /// gets what that life had sent, then its death, once ([`Error::WorkerDied`]), then what the next one sends. Meanwhile
    /// a loan waits on a lossless channel, and finds no slot on a live one. A loan made before a death cannot be sent after
    /// it ([`Error::Stale`]). A worker that leaves in order, or after [`finish`](Worker::finish), is not started again.
    /// The first start is [`spawn`](Self::spawn)'s own, and one that fails is its error.
    #[must_use]
    pub fn restart(mut self, policy: Restart) -> Self {
        self.restart = Some(policy);
        self
    }

    /// What to do with a worker that has had frames, received or not, for longer than `after` while it let go of none; it is
    /// noticed an eighth of that time later, or two. One that waits for a slot that this side has is not meant. Nothing
    /// unless set: how long a worker may think is its own business.
    #[must_use]
    pub fn stall(mut self, after: Duration, what: Stall) -> Self {
        self.stall = Some((after, what));
        self
    }

    /// Has the worker given everything by descriptors, whatever else the system has. For bindings; programs have
    /// `frameport::os::macos::WorkerBuilderExt`.
    #[doc(hidden)]
    #[must_use]
    pub fn by_descriptors(mut self) -> Self {
        self.means = Means::DESCRIPTORS;
        self
    }

    /// Starts the worker and waits until it is ready for its first frame.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Config`] and [`Error::Spec`] before anything is started; then [`Error::Spawn`],
    /// [`Error::WorkerDied`], [`Error::NotReady`], [`Error::Version`], [`Error::Denied`], with nothing left running.
    pub fn spawn(self) -> Result<Worker, Error> {
        self.spawn_until(Until::forever())
    }

    /// [`spawn`](Self::spawn) that also gives up when `until` does.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`Error::Interrupted`].
    pub fn spawn_until(self, until: Until<'_>) -> Result<Worker, Error> {
        self.check()?;
        let line = Line::new(&self)?;
        let life = bring_up::bring_up(&self, &line, None, until)?;
        Worker::new(self, line, life)
    }

    /// Begins to describe a group: `workers` workers of this command behind one queue.
    #[must_use]
    pub fn group(self, workers: usize) -> GroupBuilder {
        GroupBuilder::new(self, workers)
    }

    /// The command as it was described.
    pub(super) fn copy_command(&self) -> Command {
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        command
    }

    /// For a group: the names of its input and its output, if there are just these, both lossless.
    pub(crate) fn in_and_out(&self) -> Option<[&str; 2]> {
        let [one, other] = self.channels.as_slice() else { return None };
        let (input, output) = if one.direction == Direction::In { (one, other) } else { (other, one) };
        let fits = input.direction == Direction::In
            && output.direction == Direction::Out
            && [input, output].iter().all(|channel| channel.delivery == Delivery::Lossless);
        fits.then_some([&input.name, &output.name])
    }

    /// For a group: whether it has a policy for the death or the standstill of one worker.
    pub(crate) fn is_supervised(&self) -> bool {
        self.restart.is_some() || self.stall.is_some()
    }

    /// For a group: slots of each pool, and how long a loan waits for one.
    pub(crate) fn slots_and_deadline(&self) -> (u32, Duration) {
        (self.slots, self.send_deadline)
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_SLOTS).contains(&self.slots) {
            return Err(Error::config(format!("{} slots per pool: 1 to {MAX_SLOTS} are possible", self.slots)));
        }
        if self.meta_capacity > 1 << 20 {
            return Err(Error::config(format!(
                "{} bytes of metadata per frame: at most 1 MiB is possible",
                self.meta_capacity
            )));
        }
        for (index, channel) in self.channels.iter().enumerate() {
            if self.channels.iter().take(index).any(|other| other.name == channel.name) {
                return Err(Error::config(format!("two channels are named '{}'", channel.name)));
            }
            let slots = channel.audience.as_ref().map_or(self.slots, |(_, quota)| *quota);
            if let Some(depth) = channel.delivery.depth()
                && !(1..slots).contains(&depth)
            {
                return Err(Error::config(format!(
                    "channel '{}' is to keep the {depth} newest frames in {} slots: 1 or more are possible, with more slots \
                     than that (three more, one being filled, one held, one on its way back, never lack one)",
                    channel.name, slots
                )));
            }
        }
        if self.channels.len() > MAX_CHANNELS {
            let count = self.channels.len();
            return Err(Error::config(format!("{count} channels: a link can have {MAX_CHANNELS}")));
        }
        self.restart.map_or(Ok(()), |policy| policy.check())?;
        if self.stall.is_some_and(|(after, _)| after.is_zero()) {
            return Err(Error::config("a worker that may stall needs some time: call stall() with more than none"));
        }
        params::check(&self.display_name(), &self.params)?;
        if self.channels.is_empty() {
            return Err(Error::config("a worker needs a channel: call input(), output() or both"));
        }
        Ok(())
    }

    /// The name the worker goes by.
    pub(crate) fn display_name(&self) -> String {
        let of_program = || {
            let program: OsString = self.command.get_program().to_owned();
            Path::new(&program).file_name().map_or_else(|| "worker".into(), |name| name.to_string_lossy().into_owned())
        };
        self.name.clone().unwrap_or_else(of_program)
    }
}
