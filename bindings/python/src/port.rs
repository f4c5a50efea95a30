//! One end of a channel, behind the methods of `Worker`, `Link` and `Channel`.
//!
//! *Who calls it*: those three. *Invariants*: every wait looks once before it lets go of the interpreter lock; whoever may
//! wait or send later holds the `Worker` or `Link` too, whose last reference ends it, but a port does not: that would be a
//! circle. *A hostile worker* meets the crate's checks.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use frameport::{Delivery, Error, Receiver, Sender};
use pyo3::prelude::*;

use crate::channel::Channel;
use crate::error::{exception, seconds, to_py};
use crate::frame::{Frame, Stamp};
use crate::loan::{Lender, Loan, send};
use crate::spec::Spec;
use crate::wait::{Patience, wait};

/// See the module.
#[derive(Debug)]
pub(crate) struct Port {
    end: End,
    /// This process is the worker.
    pub(crate) of_worker: bool,
    patience: Patience,
}

#[derive(Debug)]
enum End {
    Send(Sender),
    Recv(Receiver),
}

/// A port and the `Worker` or `Link` it belongs to.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) port: Arc<Port>,
    pub(crate) owner: Py<PyAny>,
}

impl Owned {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { port: Arc::clone(&self.port), owner: self.owner.clone_ref(py) }
    }
}

impl Port {
    pub(crate) fn sending(sender: Sender, of_worker: bool) -> Arc<Self> {
        Arc::new(Self { end: End::Send(sender), of_worker, patience: Patience::default() })
    }

    pub(crate) fn receiving(receiver: Receiver, of_worker: bool) -> Arc<Self> {
        Arc::new(Self { end: End::Recv(receiver), of_worker, patience: Patience::default() })
    }

    pub(crate) fn name(&self) -> &str {
        match &self.end {
            End::Send(sender) => sender.name(),
            End::Recv(receiver) => receiver.name(),
        }
    }

    pub(crate) fn event(&self) -> Result<BorrowedFd<'_>, Error> {
        match &self.end {
            End::Send(sender) => sender.event(),
            End::Recv(receiver) => receiver.event(),
        }
    }

    pub(crate) fn sends(&self) -> bool {
        matches!(self.end, End::Send(_))
    }

    /// "lossless", "latest" or the number of newest frames it keeps.
    pub(crate) fn delivery(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let delivery = match &self.end {
            End::Send(sender) => sender.delivery(),
            End::Recv(receiver) => receiver.delivery(),
        };
        shown(py, delivery)
    }

    /// Of a sending end all slots that are taken, of a receiving one the frames in this side's hands.
    pub(crate) fn holders(&self) -> Vec<frameport::SlotHolder> {
        match &self.end {
            End::Send(sender) => sender.holders(),
            End::Recv(receiver) => receiver.holders(),
        }
    }

    /// The channel's own spec.
    pub(crate) fn spec(&self, py: Python<'_>) -> PyResult<Spec> {
        let spec = match &self.end {
            End::Send(sender) => sender.spec(),
            End::Recv(receiver) => receiver.spec(),
        };
        Spec::of(py, spec)
    }

    /// Another spec for what travels from now on.
    pub(crate) fn change_spec(&self, py: Python<'_>, spec: &Spec, timeout: Option<f64>) -> PyResult<()> {
        let limit = seconds("timeout", timeout)?;
        match &self.end {
            End::Send(sender) => {
                wait(py, limit.or(sender.deadline()), |until| sender.change_spec_until(spec.core.clone(), until))
            }
            End::Recv(receiver) => wait(py, limit, |until| receiver.change_spec_until(spec.core.clone(), until)),
        }
    }

    pub(crate) fn sender(&self, py: Python<'_>) -> PyResult<&Sender> {
        match &self.end {
            End::Send(sender) => Ok(sender),
            End::Recv(_) => {
                let what = format!("this side receives on channel '{}': it cannot send there", self.name());
                Err(exception(py, "ConfigError", &what))
            }
        }
    }

    pub(crate) fn receiver(&self, py: Python<'_>) -> PyResult<&Receiver> {
        match &self.end {
            End::Recv(receiver) => Ok(receiver),
            End::Send(_) => {
                let what = format!("this side sends on channel '{}': it cannot receive there", self.name());
                Err(exception(py, "ConfigError", &what))
            }
        }
    }

    /// The next frame, waiting for it.
    pub(crate) fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<Frame>> {
        let receiver = self.receiver(py)?;
        let frame = match self.patience.look(py, || receiver.try_recv())? {
            Some(frame) => frame,
            None => {
                let limit = seconds("timeout", timeout)?;
                wait(py, limit, |until| receiver.recv_until(until))?
            }
        };
        Frame::make(py, frame)
    }

    /// The next frame, if one is there.
    pub(crate) fn try_receive(&self, py: Python<'_>) -> PyResult<Option<Py<Frame>>> {
        let frame = self.receiver(py)?.try_recv().map_err(|error| to_py(py, &error))?;
        frame.map(|frame| Frame::make(py, frame)).transpose()
    }

    /// Sends the very slot of a received frame back.
    pub(crate) fn send_back(&self, frame: &Bound<'_, Frame>) -> PyResult<()> {
        let py = frame.py();
        let sender = self.sender(py)?;
        let core = Frame::take(frame)?;
        if core.is_viewed() || !sender.returns(&core) {
            return wait(py, None, |until| sender.send_back_until(core, until));
        }
        sender.send_back(core).map_err(|error: Error| to_py(py, &error))
    }
}

impl Owned {
    /// A slot to fill, if one is free now; a live channel has one or raises PoolExhausted.
    pub(crate) fn try_lend(&self, py: Python<'_>) -> PyResult<Option<Py<Loan>>> {
        let sender = self.port.sender(py)?;
        let loan = match sender.delivery() {
            Delivery::Lossless => sender.loan_if_free(),
            Delivery::Latest | Delivery::Newest(_) => sender.loan().map(Some),
        };
        loan.map_err(|error| to_py(py, &error))?.map(|loan| self.show_loan(py, loan, None)).transpose()
    }

    fn show_loan(&self, py: Python<'_>, loan: frameport::FrameMut, stamp: Option<Stamp>) -> PyResult<Py<Loan>> {
        Loan::make(py, loan, Lender::Channel(self.clone_ref(py)), stamp)
    }

    /// A slot to fill, waiting for one as long as `timeout` or the sender's own deadline says.
    pub(crate) fn lend(&self, py: Python<'_>, timeout: Option<f64>, stamp: Option<Stamp>) -> PyResult<Py<Loan>> {
        let sender = self.port.sender(py)?;
        let answers = stamp.map(|stamp| stamp.pool);
        let free = answers.map_or_else(|| sender.loan_if_free(), |pool| sender.loan_for_if_free(pool));
        let loan = match free {
            Ok(Some(loan)) => loan,
            Ok(None) => {
                let limit = seconds("timeout", timeout)?.or(sender.deadline());
                wait(py, limit, |until| match answers {
                    Some(pool) => sender.loan_for_until(pool, until),
                    None => sender.loan_until(until),
                })?
            }
            Err(error) => return Err(to_py(py, &error)),
        };
        self.show_loan(py, loan, stamp)
    }

    /// Sends a loan of the same link, or an array by way of a loan of this channel, and returns the frame's number.
    pub(crate) fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<u64> {
        send(&Lender::Channel(self.clone_ref(value.py())), value, || self.lend(value.py(), None, None))
    }
}

/// A descriptor to poll.
pub(crate) fn fileno(py: Python<'_>, event: Result<BorrowedFd<'_>, Error>) -> PyResult<i32> {
    event.map(|event| event.as_raw_fd()).map_err(|error| to_py(py, &error))
}

/// The frames of a `Link`, `Worker` or `Channel` in an event loop.
pub(crate) fn aiter<'py>(of: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    of.py().import("frameport.aio")?.call_method1("frames", (of,))
}

/// The places of those whose receive would not wait, waiting until there are some.
#[pyfunction]
#[pyo3(signature = (channels, timeout=None))]
pub(crate) fn select_channels(
    py: Python<'_>,
    channels: Vec<Bound<'_, Channel>>,
    timeout: Option<f64>,
) -> PyResult<Vec<usize>> {
    let receivers =
        channels.iter().map(|channel| channel.get().owned.port.receiver(py)).collect::<PyResult<Vec<_>>>()?;
    let limit = seconds("timeout", timeout)?;
    wait(py, limit, |until| frameport::select(&receivers, until))
}

/// A delivery as Python says it.
fn shown(py: Python<'_>, delivery: Delivery) -> PyResult<Py<PyAny>> {
    Ok(match delivery {
        Delivery::Lossless => "lossless".into_pyobject(py)?.into_any().unbind(),
        Delivery::Latest => "latest".into_pyobject(py)?.into_any().unbind(),
        Delivery::Newest(depth) => py.import("frameport")?.call_method1("newest", (depth,))?.unbind(),
    })
}

/// A delivery from what Python says.
pub(crate) fn delivery_of(value: &Bound<'_, PyAny>) -> PyResult<Delivery> {
    if let Ok(depth) = value.getattr("depth").and_then(|depth| depth.extract()) {
        return Ok(Delivery::Newest(depth));
    }
    match value.extract::<&str>() {
        Ok("lossless") => Ok(Delivery::Lossless),
        Ok("latest") => Ok(Delivery::Latest),
        _ => {
            let what =
                format!("delivery is {}, must be \"lossless\", \"latest\" or frameport.newest(n)", value.repr()?);
            Err(exception(value.py(), "ConfigError", &what))
        }
    }
}
