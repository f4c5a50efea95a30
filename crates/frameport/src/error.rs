//! What can go wrong, said to the person who has to mend it.
//!
//! *Invariants*: a message names the worker, the frame or the slot, how long, and what to do next; lower case, no full
//! stop, the cause kept as source.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::inherit::InheritError;
use frameport_sys::mach::{Operation, SetupError};
use frameport_sys::process::Exit;
use frameport_wire::layout::Sizes;
use frameport_wire::spec::SpecError;

use crate::holders::Exhausted;

/// Everything frameport answers instead of a frame.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A spec that has no layout.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Two channels, too many slots and the like: the builder's arguments contradict each other.
    #[error("{what}")]
    Config {
        /// What is wrong and what to do.
        what: String,
    },
    /// More memory than numbers can say.
    #[error("{what} need more memory than this machine can address: use fewer slots or a smaller spec")]
    TooLarge {
        /// What was asked for.
        what: String,
    },
    /// The pools do not fit into the memory that is left. Nothing was started.
    #[error(
        "worker '{link}' needs {need_mib} MiB for its pools, {left_mib} MiB are left by {source_of}: \
         use fewer slots or a smaller spec, or raise the limit",
        need_mib = need.div_ceil(1 << 20), left_mib = left >> 20
    )]
    Memory {
        /// Which worker.
        link: String,
        /// Bytes needed.
        need: u64,
        /// Bytes left.
        left: u64,
        /// What sets the limit.
        source_of: String,
    },
    /// The program could not be started.
    #[error("cannot start worker '{link}' ({program}): {source}{}", hint(source))]
    Spawn {
        /// Which worker.
        link: String,
        /// The program as it was given.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A host and a worker do not come together, for something is denied to one of them: a sandbox's doing as a rule. On macOS
    /// only; `frameport::os::macos` has the way round it.
    #[error("{doing} failed: {what}")]
    Denied {
        /// What was being done.
        doing: String,
        /// The operation's name in a sandbox profile: `mach-register`, `mach-lookup`, `iokit-open`, `ipc-posix-shm`.
        operation: &'static str,
        /// The line of a profile that allows it.
        profile_line: &'static str,
        /// What was denied, by whom, and what to do.
        what: String,
    },
    /// The worker did not come to its first `recv` in time; it was killed.
    #[error("worker '{link}' (pid {pid}) {stage} within {} s{}", after.as_secs_f32(), tail(stderr_tail))]
    NotReady {
        /// Which worker.
        link: String,
        /// Its process.
        pid: u32,
        /// How far it came and what is missing.
        stage: &'static str,
        /// The deadline.
        after: Duration,
        /// The end of what it wrote to stderr.
        stderr_tail: String,
    },
    /// Host and worker have no protocol version in common.
    #[error(
        "worker '{link}' speaks frameport protocol {}..{} ({library}), this host {}..{} (frameport {}): \
         install the same version on both sides",
        worker.0, worker.1, host.0, host.1, env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// Which worker.
        link: String,
        /// Library and version of the worker.
        library: String,
        /// Oldest and newest version of the worker.
        worker: (u32, u32),
        /// Oldest and newest version of this host.
        host: (u32, u32),
    },
    /// Same protocol version, other sizes of the shared structures: one side's build is broken.
    #[error(
        "worker '{link}' ({library}) lays shared words out as {worker:?}, this host as {host:?}: rebuild one of them"
    )]
    LayoutMismatch {
        /// Which worker.
        link: String,
        /// Library and version of the worker.
        library: String,
        /// The worker's sizes.
        worker: Sizes,
        /// This host's sizes.
        host: Sizes,
    },
    /// The host would not go on with this worker.
    #[error("the host refused this worker: {reason}")]
    Refused {
        /// The host's words.
        reason: String,
    },
    /// The worker is dead.
    #[error("{0}")]
    WorkerDied(Arc<Death>),
    /// The link has ended in order.
    #[error("link '{link}' is closed: {why}")]
    LinkClosed {
        /// Which link.
        link: String,
        /// By whom.
        why: &'static str,
    },
    /// Nothing came in time.
    #[error("no frame on channel '{channel}' of '{link}' for {} s", after.as_secs_f32())]
    Timeout {
        /// Which link.
        link: String,
        /// Which channel.
        channel: String,
        /// How long was waited.
        after: Duration,
    },
    /// No slot is free.
    #[error("{0}")]
    PoolExhausted(Box<Exhausted>),
    /// The other side provably misbehaved; the link is over.
    #[error("'{link}' broke the protocol and was cut off: {what}")]
    Violation {
        /// Which link.
        link: String,
        /// What it did.
        what: String,
    },
    /// The worker was too slow for an audience it joined without leave to miss frames; it was killed.
    #[error("'{link}' was cut off from its audience: {what}; receive faster, or join it with a live delivery")]
    CutOff {
        /// Which link.
        link: String,
        /// What it did not do in time.
        what: String,
    },
    /// Its host could not hand something over to the worker, a pool or parameters, for want of what that takes: descriptors, memory,
    /// room in a queue that only the worker fills. It was killed.
    #[error("worker '{link}' could not be told what its host has changed, and was killed: {what}")]
    Untold {
        /// Which link.
        link: String,
        /// What the system said.
        what: String,
    },
    /// The worker let go of nothing for longer than [`stall`](crate::WorkerBuilder::stall) allows; it was killed.
    #[error("worker '{link}' has stalled and was killed: {what}; see what it does for so long, or allow more time")]
    Stalled {
        /// Which link.
        link: String,
        /// Which frame it had, and for how long.
        what: String,
    },
    /// The worker was started again too often in vain. The last start's error is the cause.
    #[error("worker '{link}' is not started again, for {starts} starts in a row have failed: {cause}")]
    GivenUp {
        /// Which worker.
        link: String,
        /// Starts that failed in a row.
        starts: u32,
        /// The last start's error.
        cause: Arc<Error>,
    },
    /// A slot that was loaned before its worker died cannot be sent to the worker's next life.
    #[error(
        "this frame was loaned on channel '{channel}' before worker '{link}' died, and cannot be sent after it: \
         loan another and fill that"
    )]
    Stale {
        /// Which worker.
        link: String,
        /// Which channel.
        channel: String,
    },
    /// Bytes of the control channel or of the welcome make no sense.
    #[error("the control channel carried something that makes no sense: {what}")]
    Protocol {
        /// What it was.
        what: String,
    },
    /// A frame or array that is not what the channel carries.
    #[error("{what}")]
    Format {
        /// What it is, what it should be.
        what: String,
    },
    /// Metadata larger than a slot has room for.
    #[error(
        "metadata of {len} bytes does not fit into the {capacity} bytes a frame of '{channel}' has: send less, or raise meta_capacity"
    )]
    MetaTooLong {
        /// Which channel.
        channel: String,
        /// Bytes of JSON.
        len: usize,
        /// Bytes there are.
        capacity: u32,
    },
    /// Metadata that is not one JSON object.
    #[error("the metadata of frame {seq} is not a JSON object: {source}")]
    Meta {
        /// Which frame.
        seq: u64,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// Parameters that are no control message together. They are as they were.
    #[error("the parameters of worker '{link}' cannot be set: {what}; send larger things as frames or metadata")]
    Params {
        /// Which worker.
        link: String,
        /// What is wrong with them.
        what: String,
    },
    /// This process has no host.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The workers of a group do not start.
    #[error("group '{group}' gave up after {starts} starts in a row that failed: {cause}")]
    Group {
        /// Which group.
        group: String,
        /// Starts that failed in a row.
        starts: u32,
        /// The last start's error.
        cause: Arc<Error>,
    },
    /// The caller's interrupt ended a wait.
    #[error("the wait was interrupted")]
    Interrupted,
    /// The link belongs to the process this one was forked from.
    #[error(
        "this process is a fork of the one the link belongs to: frames and links do not survive a fork; start helpers with the 'spawn' method, or fork before connecting"
    )]
    Forked,
    /// The host demands more isolation than this system gives.
    #[error("worker '{link}' would run at isolation level '{have}', '{need}' is required: {hint}")]
    Isolation {
        /// Which worker.
        link: String,
        /// What this system gives.
        have: String,
        /// What was asked for.
        need: String,
        /// What to do.
        hint: &'static str,
    },
    /// The system refused something frameport needs.
    #[error("{doing} failed: {source}{}", hint(source))]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The same words as `Display`: `unwrap` and `main() -> Result<…>` show this one to people.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// What the system said to something; [`Self::Denied`] where that is the matter.
    pub(crate) fn system(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::of_denied(doing, &source).unwrap_or(Self::System { doing, source })
    }

    /// The error for an operation that was denied, if that is what the system said.
    pub(crate) fn of_denied(doing: impl Into<String>, source: &std::io::Error) -> Option<Self> {
        let why = SetupError::of(source)?;
        Some(Self::denied(doing, why.operation()?, why.to_string()))
    }

    pub(crate) fn denied(doing: impl Into<String>, operation: Operation, what: String) -> Self {
        Self::Denied { doing: doing.into(), operation: operation.name(), profile_line: operation.profile_line(), what }
    }

    /// Whether it says that a worker is dead, or about to be: what another life follows where the worker has a policy for that
    /// ([`restart`](crate::WorkerBuilder::restart)).
    #[must_use]
    pub fn is_death(&self) -> bool {
        matches!(
            self,
            Self::WorkerDied(_)
                | Self::Violation { .. }
                | Self::CutOff { .. }
                | Self::Stalled { .. }
                | Self::Untold { .. }
        )
    }

    /// Its text without a dead worker's last words.
    #[must_use]
    pub fn in_short(&self) -> String {
        match self {
            Self::WorkerDied(death) => Death { stderr_tail: String::new(), ..Death::clone(death) }.to_string(),
            Self::NotReady { link, pid, stage, after, .. } => {
                let (link, stderr_tail) = (link.clone(), String::new());
                Self::NotReady { link, pid: *pid, stage, after: *after, stderr_tail }.to_string()
            }
            Self::Group { cause, .. } => cause.in_short(),
            Self::GivenUp { cause, .. } => self.to_string().replace(&cause.to_string(), &cause.in_short()),
            other => other.to_string(),
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }
}

/// What to do about the errors people meet most.
fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound => "; is it on PATH, and its working directory right?",
        std::io::ErrorKind::PermissionDenied => "; is it executable?",
        _ if source.raw_os_error() == Some(EMFILE) => "; raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

/// Too many open files in this process: the same number on Linux and macOS.
const EMFILE: i32 = 24;

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let Some(last) = lines.get(lines.len().saturating_sub(8)..).filter(|last| !last.is_empty()) else {
        return String::new();
    };
    format!("; its last words on stderr:\n    {}", last.join("\n    "))
}

/// A dead worker.
#[derive(Clone, Debug)]
pub struct Death {
    /// Which worker.
    pub link: String,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// What the worker said of itself before it went: the exception's type and text.
    pub message: Option<String>,
    /// The end of what it wrote to stderr, 64 KiB at most; empty where stderr was inherited.
    pub stderr_tail: String,
    /// Whether it had connected.
    pub connected: bool,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { link, pid, exit, message, stderr_tail, connected } = self;
        write!(f, "worker '{link}' (pid {pid}) ")?;
        match message {
            Some(message) => write!(f, "failed: {message} ({exit})")?,
            None => write!(f, "{exit}")?,
        }
        if !connected {
            f.write_str(" before it connected")?;
        }
        // A worker that failed has said why; one that left without a word never meant to connect.
        if !connected && *exit == Exit::Code(0) {
            f.write_str(": its code must call frameport.connect(), frameport.main() or Link::from_env()")?;
        }
        f.write_str(&tail(stderr_tail))
    }
}
