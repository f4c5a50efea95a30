//! `Worker`: a host's side.
//!
//! *Who calls it*: host programs, by `frameport.spawn()`. *Invariants*: every wait looks once before it lets go of the
//! interpreter lock; the last reference to a worker stops it without that lock. *A hostile worker* shows as `WorkerDied`
//! or `Violation`; ending it takes its graces and no longer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use frameport::{Delivery, Isolation, WaitStrategy};
use pyo3::prelude::*;

use crate::error::{codes, exception, seconds, to_py};
use crate::frame::{Frame, Frames, Origin};
use crate::loan::{Lender, Loan, send};
use crate::spec::Spec;
use crate::wait::{Patience, wait};

/// A process this one started, and the frames that travel to it and back; may be used from any thread.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Worker {
    core: frameport::Worker,
    deadline: Duration,
    input: Option<Py<Spec>>,
    output: Option<Py<Spec>>,
    patience: Patience,
}

/// What `frameport.spawn()` has made of its arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    slots: u32,
    delivery: String,
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
}

/// Starts a worker; `frameport.spawn()` is the way to call it.
#[pyfunction]
pub(crate) fn spawn(
    py: Python<'_>,
    command: Vec<OsString>,
    input: Option<Py<Spec>>,
    output: Option<Py<Spec>>,
    options: Options,
) -> PyResult<Worker> {
    let one_of = |what: &str, value: &str, known: &[&str]| {
        let message = format!("{what} is {value:?}, must be one of {}", known.join(", "));
        exception(py, "ConfigError", &message)
    };
    let (Some(program), arguments) = (command.first(), command.get(1..).unwrap_or_default()) else {
        return Err(exception(py, "ConfigError", "the command is empty"));
    };
    let delivery = match options.delivery.as_str() {
        "lossless" => Delivery::Lossless,
        other => return Err(one_of("delivery", other, &["lossless"])),
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
    if let Some(input) = &input {
        builder = builder.input("in", &input.get().core, delivery);
    }
    if let Some(output) = &output {
        builder = builder.output("out", &output.get().core, delivery);
    }
    let core = wait(py, None, |until| builder.spawn_until(until))?;
    // The worker may have stated another output.
    let stated = core.output_spec().map(|spec| Py::new(py, Spec::of(py, spec)?)).transpose()?;
    Ok(Worker { core, deadline, input, output: stated, patience: Patience::default() })
}

/// Longer than any process lives, and short of what a clock can add.
const FOREVER: Duration = Duration::from_secs(1 << 32);

impl Worker {
    pub(crate) fn core(&self) -> &frameport::Worker {
        &self.core
    }

    /// The worker's next frame, waiting for it.
    pub(crate) fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let frame = match self.patience.look(py, || self.core.try_recv())? {
            Some(frame) => frame,
            None => {
                let limit = seconds("timeout", timeout)?;
                wait(py, limit, |until| self.core.recv_until(until))?
            }
        };
        self.show(py, frame)
    }

    fn show(&self, py: Python<'_>, frame: frameport::Frame) -> PyResult<Py<Frame>> {
        // A reply in place is a slot of the input pool, and has its spec.
        let of_output = self.core.output_spec().is_some_and(|spec| std::ptr::eq(spec, frame.spec()));
        let spec = if of_output { &self.output } else { &self.input };
        match spec {
            Some(spec) => Frame::make(py, frame, spec.clone_ref(py)),
            None => Err(exception(py, "ConfigError", "this worker sends nothing back")),
        }
    }

    fn lend(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        let (py, this) = (slf.py(), slf.get());
        let loan = match this.core.loan_if_free() {
            Ok(Some(loan)) => loan,
            Ok(None) => {
                let limit = seconds("timeout", timeout)?.unwrap_or(this.deadline);
                wait(py, Some(limit), |until| this.core.loan_until(until))?
            }
            Err(error) => return Err(to_py(py, &error)),
        };
        let Some(spec) = &this.input else {
            return Err(exception(py, "ConfigError", "this worker has no input channel: give spawn() an input spec"));
        };
        Loan::make(py, loan, spec.clone_ref(py), Lender::Worker(slf.clone().unbind()), None)
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
    /// A slot to fill: `with worker.loan() as frame: ...` sends it. Waits for one up to `timeout` seconds, `deadline`
    /// of `spawn()` unless given; PoolExhausted names who has the slots.
    #[pyo3(signature = (timeout=None))]
    fn loan(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<Loan>> {
        Self::lend(slf, timeout)
    }

    /// Sends a loan, or an array by way of one, and returns the frame's number.
    fn send(slf: &Bound<'_, Self>, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        send(slf.as_any(), frame, || Self::lend(slf, None))
    }

    /// The worker's next frame. `timeout` in seconds, None for ever; LinkClosed when the worker has finished,
    /// WorkerDied when it is dead.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        self.receive(py, timeout)
    }

    /// The worker's next frame, or None if none is there now.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        let frame = self.core.try_recv().map_err(|error| to_py(py, &error))?;
        frame.map(|frame| self.show(py, frame)).transpose()
    }

    /// A loop over what the worker sends, which ends when it has finished: call `finish()` when all is sent.
    fn __iter__(slf: Bound<'_, Self>) -> Frames {
        Frames::new(Origin::Worker(slf.unbind()))
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

    /// Kills the worker and all it started, now.
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
    fn input_spec(&self, py: Python<'_>) -> Option<Py<Spec>> {
        self.input.as_ref().map(|spec| spec.clone_ref(py))
    }

    /// What comes back, as asked for or as the worker stated; None if nothing does.
    #[getter]
    fn output_spec(&self, py: Python<'_>) -> Option<Py<Spec>> {
        self.output.as_ref().map(|spec| spec.clone_ref(py))
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

    /// Who has which slot of the input pool now.
    fn holders(&self) -> Vec<SlotHolder> {
        self.core.holders().into_iter().map(SlotHolder::from).collect()
    }

    /// The link's counters.
    fn stats(&self) -> Stats {
        let frameport::Stats { sent, received, lost, in_flight, no_slot, results, held, .. } = self.core.stats();
        Stats { sent, received, lost, in_flight, no_slot, results, held }
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

/// Counters of one link. At every moment `sent == received + lost + in_flight`.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Stats {
    /// Frames sent to the worker.
    sent: u64,
    /// Of those, the ones it took.
    received: u64,
    /// Of those, the ones it died before taking.
    lost: u64,
    /// Of those, the ones still on their way.
    in_flight: u64,
    /// Loans that found no slot in time.
    no_slot: u64,
    /// Frames received from the worker.
    results: u64,
    /// Frames of the worker's in this side's hands.
    held: u64,
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}

/// Who has a slot.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug)]
pub(crate) struct SlotHolder {
    /// Number in the pool.
    slot: u32,
    /// Who has it, as a phrase: "held by worker 'detector' (pid 812)".
    who: String,
    /// Number of the frame in it, if it was sent.
    seq: Option<u64>,
    /// How many seconds ago that was sent.
    age: Option<f64>,
}

impl From<frameport::SlotHolder> for SlotHolder {
    fn from(holder: frameport::SlotHolder) -> Self {
        let frameport::SlotHolder { slot, who, seq, age, .. } = holder;
        Self { slot, who, seq, age: age.map(|age| age.as_secs_f64()) }
    }
}

#[pymethods]
impl SlotHolder {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}
