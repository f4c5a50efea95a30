//! `Loan`: a slot to fill.
//!
//! *Who calls it*: users. *Invariants*: leaving `with` sends it, an exception or dropping it gives the slot back; it is
//! sent at most once; views made of it stay valid after that and keep the slot from reuse.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::audience::Audience;
use crate::error::{exception, is_link_closed, to_py};
use crate::frame::{Frame, Stamp};
use crate::group::Group;
use crate::meta;
use crate::pixels::{Pixels, buffer_of};
use crate::port::Owned;
use crate::source::{Refused, Source};
use crate::spec::Spec;

/// Who lent the slot and will send it.
#[derive(Debug)]
pub(crate) enum Lender {
    Channel(Owned),
    Group(Py<Group>),
    Audience(Py<Audience>),
}

impl Lender {
    fn is_of_worker(&self) -> bool {
        matches!(self, Self::Channel(owned) if owned.port.of_worker)
    }

    /// Whether what one lends the other may send.
    fn is_akin(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        match (self, other) {
            (Self::Channel(ours), Self::Channel(theirs)) => {
                Ok(ours.port.sender(py)?.same_link(theirs.port.sender(py)?))
            }
            (Self::Audience(ours), Self::Audience(theirs)) => Ok(ours.is(theirs)),
            _ => Ok(false),
        }
    }
}

/// A slot to fill, this side's alone until it is sent: `with worker.loan() as frame: ...`.
#[pyclass(frozen, extends = Pixels, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Loan {
    lender: Lender,
    stamp: Mutex<Fields>,
    meta: Mutex<Option<Py<PyDict>>>,
}

/// What goes along; what is not set is the sender's to choose.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    seq: Option<u64>,
    timestamp_ns: Option<u64>,
    pts: Option<i64>,
    duration: Option<u32>,
}

impl Loan {
    pub(crate) fn make(
        py: Python<'_>,
        loan: frameport::FrameMut,
        lender: Lender,
        stamp: Option<Stamp>,
    ) -> PyResult<Py<Self>> {
        let spec = Spec::of_pool(py, loan.pool_note(), loan.spec(), loan.layout())?;
        let copied = stamp.map(|Stamp { seq, timestamp_ns, pts, duration, .. }| Fields {
            seq: Some(seq),
            timestamp_ns: Some(timestamp_ns),
            pts,
            duration,
        });
        let stamp = Mutex::new(copied.unwrap_or_default());
        let base = PyClassInitializer::from(Pixels::new(Source::Loaned(loan), spec));
        Py::new(py, base.add_subclass(Self { lender, stamp, meta: Mutex::new(None) }))
    }

    fn fields(&self) -> MutexGuard<'_, Fields> {
        self.stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_meta(&self) -> MutexGuard<'_, Option<Py<PyDict>>> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it, over the link or worker it came from.
    pub(crate) fn commit(slf: &Bound<'_, Self>) -> PyResult<u64> {
        let py = slf.py();
        let this = slf.get();
        let dict = this.own_meta().as_ref().map(|dict| dict.clone_ref(py));
        let encoded = dict.map(|dict| meta::encode(dict.bind(py))).transpose()?;
        let taken = slf.as_super().get().source().take_loan("was sent");
        let mut loan = taken.map_err(|refused| refused.raise(py))?;
        let Fields { seq, timestamp_ns, pts, duration } = *this.fields();
        if let Some(seq) = seq {
            loan.set_seq(seq);
        }
        if let Some(timestamp_ns) = timestamp_ns {
            loan.set_timestamp_ns(timestamp_ns);
        }
        loan.set_pts(pts);
        loan.set_duration(duration);
        if let Some(encoded) = encoded {
            loan.set_meta_bytes(encoded);
        }
        let sent = match &this.lender {
            Lender::Channel(owned) => owned.port.sender(py)?.send(loan),
            // It may copy the frame.
            Lender::Group(group) => py.detach(|| group.get().core().send(loan)),
            // A lossless member may be waited for.
            Lender::Audience(audience) => {
                let core = audience.get().core();
                py.detach(|| core.send(loan))
            }
        };
        let seq = sent.map_err(|error| to_py(py, &error))?;
        this.fields().seq = Some(seq);
        Ok(seq)
    }

    fn drop_it(slf: &Bound<'_, Self>) {
        // The slot goes back with the loan, outside of the lock's statement or in it: no Python code runs.
        let _ = slf.as_super().get().source().take_loan("was discarded");
    }
}

/// Sends a loan, or an array by way of one.
pub(crate) fn send(
    lender: &Lender,
    value: &Bound<'_, PyAny>,
    loan: impl FnOnce() -> PyResult<Py<Loan>>,
) -> PyResult<u64> {
    let py = value.py();
    if let Ok(ready) = value.cast::<Loan>() {
        if !ready.get().lender.is_akin(py, lender)? {
            return Err(exception(py, "FormatError", "this loan came from another link: send it there"));
        }
        return Loan::commit(ready);
    }
    if value.is_instance_of::<Frame>() {
        let what = "send() takes a loan or an array; a received frame goes back with send_back(frame)";
        return Err(PyTypeError::new_err(what));
    }
    let loan = loan()?.into_bound(py);
    Loan::fill(&loan, value)?;
    Loan::commit(&loan)
}

#[pymethods]
impl Loan {
    /// Number of the frame; the next one unless set.
    #[getter]
    fn seq(&self) -> Option<u64> {
        self.fields().seq
    }

    #[setter]
    fn set_seq(&self, seq: Option<u64>) {
        self.fields().seq = seq;
    }

    /// Time stamp in ns on the host's monotonic clock (`frameport.now()`); the moment of sending unless set.
    #[getter]
    fn timestamp_ns(&self) -> Option<u64> {
        self.fields().timestamp_ns
    }

    #[setter]
    fn set_timestamp_ns(&self, ns: Option<u64>) {
        self.fields().timestamp_ns = ns;
    }

    /// Presentation time in the spec's time base.
    #[getter]
    fn pts(&self) -> Option<i64> {
        self.fields().pts
    }

    #[setter]
    fn set_pts(&self, pts: Option<i64>) {
        self.fields().pts = pts;
    }

    /// Duration in the spec's time base.
    #[getter]
    fn duration(&self) -> Option<u32> {
        self.fields().duration
    }

    #[setter]
    fn set_duration(&self, duration: Option<u32>) {
        self.fields().duration = duration;
    }

    /// The metadata to send: a dict of what JSON can say.
    #[getter(meta)]
    fn py_meta(&self, py: Python<'_>) -> Py<PyDict> {
        let empty = PyDict::new(py).unbind();
        self.own_meta().get_or_insert(empty).clone_ref(py)
    }

    #[setter(meta)]
    fn set_meta(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let dict = meta::assigned(value)?;
        let before = self.own_meta().replace(dict);
        drop(before);
        Ok(())
    }

    /// Bytes of the payload. On a channel of bytes it may be set, up to the spec's capacity.
    #[getter]
    fn nbytes(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let refused = match &mut *slf.as_super().get().source() {
            Source::Loaned(loan) => return Ok(loan.payload().len()),
            other => other.export(None, None).err(),
        };
        Err(refused.map_or_else(|| PyTypeError::new_err("not a loan"), |refused| refused.raise(slf.py())))
    }

    #[setter]
    fn set_nbytes(slf: &Bound<'_, Self>, nbytes: usize) -> PyResult<()> {
        let set = match &mut *slf.as_super().get().source() {
            Source::Loaned(loan) => loan.set_len(nbytes).map_err(Into::into),
            other => other.export(None, None).map(|_| ()),
        };
        set.map_err(|refused: Refused| refused.raise(slf.py()))
    }

    /// Copies an array in, whose shape and type must be the frame's; or a sequence with one array for each plane; on a
    /// channel of bytes, bytes up to its capacity.
    fn fill(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, base) = (slf.py(), slf.as_super());
        if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
            let planes = base.getattr("planes")?.cast_into::<PyTuple>()?;
            if planes.len() != value.len()? {
                let (spec, wanted) = (&base.get().spec().core, planes.len());
                let what = format!("{} arrays for the {wanted} planes of {spec}", value.len()?);
                return Err(exception(py, "FormatError", &what));
            }
            for (plane, array) in planes.iter().zip(value.try_iter()?) {
                plane.cast::<Pixels>()?.get().fill_with(py, &array?)?;
            }
            return Ok(());
        }
        if base.get().spec().is_bytes() {
            Self::set_nbytes(slf, buffer_of(value)?.len_bytes())?;
        }
        base.get().fill_with(py, value)
    }

    /// Gives the slot back unsent.
    fn discard(slf: &Bound<'_, Self>) {
        Self::drop_it(slf);
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let gone = match &*slf.as_super().get().source() {
            Source::Gone(since) => Some(Refused::Gone(since)),
            _ => None,
        };
        gone.map_or(Ok(()), |gone| Err(gone.raise(slf.py())))?;
        Ok(slf)
    }

    /// Sends it, unless an exception leaves the block, it was sent in it, or the host has closed.
    fn __exit__(
        slf: &Bound<'_, Self>,
        kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !kind.is_none() {
            Self::drop_it(slf);
            return Ok(());
        }
        let open = matches!(&*slf.as_super().get().source(), Source::Loaned(_));
        match if open { Self::commit(slf) } else { Ok(0) } {
            // A host that has closed wants no answer any more: the worker's loop ends by itself.
            Err(error) if slf.get().lender.is_of_worker() && is_link_closed(slf.py(), &error) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let base = slf.as_super().get();
        let number = slf.get().fields().seq.map_or_else(String::new, |seq| format!(" {seq}"));
        format!("<frameport.Loan{number} of {}, {}>", base.spec().core, base.source().state())
    }
}
