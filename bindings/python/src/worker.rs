//! `Worker`: a host's side.
//!
//! *Who calls it*: host programs, by `frameport.spawn()`. *Invariants*: every wait looks once before it lets go of the
//! interpreter lock; the last reference to a worker stops it without that lock. *A hostile worker* shows as `WorkerDied`
//! or `Violation`; ending it takes its graces and no longer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use frameport::{Isolation, Restart, Stall, WaitStrategy, WorkerBuilder};
use pyo3::prelude::*;

use crate::audience::Audience;
use crate::channel::Channel;
use crate::error::{codes, exception, seconds, to_py};
use crate::events::{Events, Inlet};
use crate::frame::{Frame, Frames};
use crate::holders::SlotHolder;
use crate::loan::Loan;
use crate::port::{Owned, Port, aiter, delivery_of, fileno};
use crate::spec::Spec;
use crate::wait::wait;

/// A process this one started, and the frames that travel to it and back; may be used from any thread.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Worker {
    core: frameport::Worker,
    ports: Vec<Arc<Port>>,
}

/// What `frameport.spawn()` has made of its arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    slots: u32,
    name: Option<String>,
    cwd: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    ready_timeout: Option<f64>,
    deadline: Option<f64>,
    grace: Option<f64>,
    meta_capacity: u32,
    output_limit: u64,
    wait: String,
    isolate: bool,
    require_isolation: String,
    inherit_stderr: bool,
    /// JSON of an object.
    params: String,
    /// Where events go, and under which number.
    events: (Py<Events>, u64),
    /// Starts, first and longest pause.
    restart: Option<(u32, f64, f64)>,
    /// Seconds, and "kill" or "write-off".
    stall: Option<(f64, String)>,
    shared_memory: bool,
}

/// A channel as `frameport.spawn()` wants it: its name, whether this side sends, its spec and delivery.
#[derive(FromPyObject)]
pub(crate) struct Wanted(String, bool, Origin, Py<PyAny>);

/// Where a channel's frames lie.
#[derive(FromPyObject)]
pub(crate) enum Origin {
    /// In a pool of the worker's own.
    Own(Py<Spec>),
    /// In an audience's, of which it may have so many.
    Shared((Py<Audience>, u32)),
}

/// Starts a worker; `frameport.spawn()` is the way to call it.
#[pyfunction]
pub(crate) fn spawn(
    py: Python<'_>,
    command: Vec<OsString>,
    channels: Vec<Wanted>,
    options: Options,
) -> PyResult<Worker> {
    let builder = describe(py, &command, &channels, options)?;
    let core = wait(py, None, |until| builder.spawn_until(until))?;
    let sent = core.senders().map(|sender| Port::sending(sender, false));
    let received = core.receivers().map(|receiver| Port::receiving(receiver, false));
    let ports = sent.chain(received).collect();
    Ok(Worker { core, ports })
}

/// The worker that `frameport.spawn()` or `frameport.map()` was asked for.
pub(crate) fn describe(
    py: Python<'_>,
    command: &[OsString],
    channels: &[Wanted],
    options: Options,
) -> PyResult<WorkerBuilder> {
    // First: its end tells the listener to forget the number.
    let (events, number) = options.events;
    let inlet = Inlet::new(events.get(), number);
    let one_of = |what: &str, value: &str, known: &[&str]| {
        let message = format!("{what} is {value:?}, must be one of {}", known.join(", "));
        exception(py, "ConfigError", &message)
    };
    let (Some(program), arguments) = (command.first(), command.get(1..).unwrap_or_default()) else {
        return Err(exception(py, "ConfigError", "the command is empty"));
    };
    let strategy = match options.wait.as_str() {
        "adaptive" => WaitStrategy::Adaptive,
        "spin" => WaitStrategy::Spin,
        "park" => WaitStrategy::Park,
        other => return Err(one_of("wait", other, &["adaptive", "spin", "park"])),
    };
    let levels = [Isolation::None, Isolation::HostHidden, Isolation::Scoped];
    let required = levels.into_iter().find(|level| level.to_string() == options.require_isolation);
    let Some(required) = required else {
        let names = levels.map(|level| level.to_string());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return Err(one_of("require_isolation", &options.require_isolation, &names));
    };
    let limit = |what, value| Ok::<_, PyErr>(seconds(what, value)?.unwrap_or(FOREVER));
    let deadline = limit("deadline", options.deadline)?;
    let mut builder = frameport::Worker::command(program)
        .args(arguments)
        .slots(options.slots)
        .meta_capacity(options.meta_capacity)
        .output_limit(options.output_limit)
        .wait(strategy)
        .isolate(options.isolate)
        .require_isolation(required)
        .send_deadline(deadline)
        .ready_timeout(limit("ready_timeout", options.ready_timeout)?)
        .grace(limit("grace", options.grace)?);
    if let Some(name) = options.name {
        builder = builder.name(name);
    }
    if let Some(cwd) = options.cwd {
        builder = builder.current_dir(cwd);
    }
    for (key, value) in options.env {
        builder = builder.env(key, value);
    }
    if options.inherit_stderr {
        builder = builder.inherit_stderr();
    }
    if options.shared_memory {
        builder = builder.by_descriptors();
    }
    for (name, value) in read_params(py, &options.params)? {
        builder = builder.param(name, value);
    }
    builder = builder.on_event(move |event| inlet.put(event));
    if let Some((starts, first, longest)) = options.restart {
        let [first, longest] = [limit("backoff", Some(first))?, limit("backoff", Some(longest))?];
        builder = builder.restart(Restart::default().starts(starts).backoff(first, longest));
    }
    if let Some((after, action)) = options.stall {
        let what = match action.as_str() {
            "kill" => Stall::Kill,
            "write-off" => Stall::WriteOff,
            other => return Err(one_of("action", other, &["kill", "write-off"])),
        };
        builder = builder.stall(limit("after", Some(after))?, what);
    }
    for Wanted(name, sends, spec, delivery) in channels {
        let delivery = delivery_of(delivery.bind(py))?;
        builder = match spec {
            Origin::Own(spec) if *sends => builder.input(name, &spec.get().core, delivery),
            Origin::Own(spec) => builder.output(name, &spec.get().core, delivery),
            Origin::Shared((audience, quota)) => builder.share(name, audience.get().core(), delivery, *quota),
        };
    }
    Ok(builder)
}

/// What `frameport._params` has made of a mapping.
fn read_params(py: Python<'_>, text: &str) -> PyResult<serde_json::Map<String, serde_json::Value>> {
    let refused = |error| exception(py, "ParamsError", &format!("the parameters make no sense: {error}"));
    serde_json::from_str(text).map_err(refused)
}

/// Longer than any process lives, and short of what a clock can add.
const FOREVER: Duration = Duration::from_secs(1 << 32);

impl Worker {
    fn port(slf: &Bound<'_, Self>, sends: bool) -> PyResult<Owned> {
        let port = slf.get().first(slf.py(), sends)?;
        Ok(Owned { port: Arc::clone(port), owner: slf.clone().into_any().unbind() })
    }

    fn first(&self, py: Python<'_>, sends: bool) -> PyResult<&Arc<Port>> {
        self.ports.iter().find(|port| port.sends() == sends).ok_or_else(|| {
            let what = if sends {
                "no input channel: give spawn() an input spec"
            } else {
                "no output channel: give spawn() an output spec"
            };
            exception(py, "ConfigError", &format!("worker '{}' has {what}", self.core.name()))
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Stopping takes up to its graces: other Python threads may run meanwhile, and a worker may need them to.
        let stopped = Python::try_attach(|py| py.detach(|| self.core.stop().map(|_| ())));
        // The crate's own drop stops it where the interpreter is gone, and is quick after a stop.
        drop(stopped);
    }
}

#[pymethods]
impl Worker {
    /// A slot to fill: `with worker.loan() as frame: ...` sends it. On a lossless channel it waits for one up to `timeout`
    /// seconds, `deadline` of `spawn()` unless given; on a live one it takes that of the oldest frame not received.
    /// PoolExhausted names who has the slots.
    #[pyo3(signature = (timeout=None))]
    fn loan(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::port(slf, true)?.lend(slf.py(), timeout, None)
    }

    /// Sends a loan, or an array by way of one, and returns the frame's number.
    fn send(slf: &Bound<'_, Self>, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        Self::port(slf, true)?.send(frame)
    }

    /// The worker's next frame. `timeout` in seconds, None for ever; LinkClosed when the worker has finished,
    /// WorkerDied when it is dead: once for each death, where it is restarted.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        self.first(py, false)?.receive(py, timeout)
    }

    /// The worker's next frame, or None if none is there now.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        self.first(py, false)?.try_receive(py)
    }

    /// A loop over what the worker sends, which ends when it has finished: call `finish()` when all is sent.
    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<Frames> {
        Self::port(slf, false).map(Frames::new)
    }

    /// The descriptor for event loops, level-triggered: readable while a `try_recv()` may find something or raise. Call that
    /// until it finds nothing. Only poll it: it is not to be read or closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        fileno(py, self.core.event())
    }

    /// Frames in an event loop: `async for frame in link`.
    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        aiter(slf.as_any())
    }

    /// One channel by its name, where there are more than one in a direction.
    fn channel(slf: &Bound<'_, Self>, name: &str) -> PyResult<Channel> {
        Channel::named(&slf.get().ports, name, slf.as_any())
    }

    /// The names of the channels.
    #[getter]
    fn channels(&self) -> Vec<&str> {
        self.ports.iter().map(|port| port.name()).collect()
    }

    /// Small values the worker sees with the next frame it takes: `worker.params["threshold"] = 0.4`.
    #[getter]
    fn params<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("frameport._params")?.call_method1("Params", (slf,))
    }

    #[pyo3(name = "_params")]
    fn all_params(&self, py: Python<'_>) -> PyResult<String> {
        let all = self.core.params().all().map_err(|error| to_py(py, &error))?;
        Ok(serde_json::Value::Object(all).to_string())
    }

    #[pyo3(name = "_set_params")]
    fn set_params(&self, py: Python<'_>, values: &str) -> PyResult<()> {
        let values = read_params(py, values)?;
        self.core.params().extend(values).map_err(|error| to_py(py, &error))
    }

    #[pyo3(name = "_remove_param")]
    fn remove_param(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        let removed = self.core.params().remove(name).map_err(|error| to_py(py, &error))?;
        Ok(removed.is_some())
    }

    /// Says that no frame will follow: the worker's loop ends after those sent before, and so does a loop over what it
    /// sends.
    fn finish(&self) {
        self.core.finish();
    }

    /// Ends the worker: it has `grace` to leave, SIGTERM and as long again, then SIGKILL. Returns its exit status as
    /// `subprocess` does: a negative one is a signal; None if somebody else collected it.
    fn stop(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        let exit = py.detach(|| self.core.stop()).map_err(|error| to_py(py, &error))?;
        Ok(codes(exit).0)
    }

    /// Kills the worker and all it started, now. One that is restarted after a death is.
    fn kill(&self) {
        self.core.kill();
    }

    /// Waits until the worker has left by itself and returns its exit status, as `stop()` does.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        let limit = seconds("timeout", timeout)?;
        let exit = wait(py, limit, |until| {
            let mut until = until;
            loop {
                if let Some(exit) = self.core.wait_exit(Duration::from_millis(20)) {
                    return Ok(Some(exit));
                }
                match until.step() {
                    Ok(_) => {}
                    Err(_) => return Ok(None),
                }
            }
        })?;
        exit.map(|exit| codes(exit).0).ok_or_else(|| {
            let message = format!("worker '{}' (pid {}) has not left by itself", self.core.name(), self.core.pid());
            exception(py, "Timeout", &message)
        })
    }

    /// The worker's name in messages.
    #[getter]
    fn name(&self) -> &str {
        self.core.name()
    }

    /// The process this one started.
    #[getter]
    fn pid(&self) -> u32 {
        self.core.pid()
    }

    /// What goes to the worker; None if nothing does.
    #[getter]
    fn input_spec(&self, py: Python<'_>) -> Option<Spec> {
        self.first(py, true).ok()?.spec(py).ok()
    }

    /// What comes back, as asked for or as the worker stated; None if nothing does.
    #[getter]
    fn output_spec(&self, py: Python<'_>) -> Option<Spec> {
        self.first(py, false).ok()?.spec(py).ok()
    }

    /// Another spec for what goes to the worker from now on (on the first channel), and for what comes back where that had the
    /// same: new pools; what was sent before stays what it is. `channel(name).change_spec()` changes one channel.
    #[pyo3(signature = (spec, timeout=None))]
    fn change_spec(&self, py: Python<'_>, spec: &Spec, timeout: Option<f64>) -> PyResult<()> {
        let deadline = self.first(py, true)?.sender(py)?.deadline();
        let limit = seconds("timeout", timeout)?.or(deadline);
        wait(py, limit, |until| self.core.change_spec_until(spec.core.clone(), until))
    }

    /// How far the worker is kept from other processes: "none", "host-hidden" or "scoped".
    #[getter]
    fn isolation(&self) -> String {
        self.core.isolation().to_string()
    }

    /// The end of what the worker wrote to stdout and stderr, 64 KiB at most.
    #[getter]
    fn stderr_tail(&self) -> String {
        self.core.stderr_tail()
    }

    /// Who has which slot now, of all channels: those this side fills, then the received frames not released here.
    fn holders(&self) -> Vec<SlotHolder> {
        SlotHolder::all(self.core.holders())
    }

    /// The link's counters, those of all its channels together; `channel(name).stats()` tells them apart.
    fn stats(&self) -> Stats {
        Stats::from(self.core.stats())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Stops the worker; kills it where an exception leaves the block.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !kind.is_none() {
            self.core.kill();
        }
        self.stop(py).map(|_| ())
    }

    fn __repr__(&self) -> String {
        format!("<frameport.Worker {:?}, pid {}>", self.core.name(), self.core.pid())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(pyo3::exceptions::PyTypeError::new_err("a worker cannot be pickled: it belongs to this process"))
    }
}

/// Counters of one link. `offered == received + retracted + no_slot + refused + lost + in_flight` at every moment.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Stats {
    /// Frames that were to be sent to the worker.
    offered: u64,
    /// Of those, the ones sent.
    sent: u64,
    /// Of the sent ones, those it took.
    received: u64,
    /// Of the sent ones, those taken back before it took them, on live channels.
    retracted: u64,
    /// Of the sent ones, those it died before taking.
    lost: u64,
    /// Of the sent ones, those still on their way.
    in_flight: u64,
    /// Loans that found no slot in time.
    no_slot: u64,
    /// Filled slots that were not sent.
    refused: u64,
    /// Frames received from the worker.
    results: u64,
    /// Frames that the worker took back before this side came to them, on live channels.
    skipped: u64,
    /// Frames of the worker's in this side's hands.
    held: u64,
    /// How often it was started again after a death.
    restarts: u64,
}

impl From<frameport::Stats> for Stats {
    fn from(stats: frameport::Stats) -> Self {
        let frameport::Stats {
            offered,
            sent,
            received,
            retracted,
            lost,
            in_flight,
            no_slot,
            refused,
            results,
            skipped,
            held,
            restarts,
            ..
        } = stats;
        Self { offered, sent, received, retracted, lost, in_flight, no_slot, refused, results, skipped, held, restarts }
    }
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}
