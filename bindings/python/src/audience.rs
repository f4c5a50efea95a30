//! `Audience`: one pool of frames for many workers.
//!
//! *Who calls it*: host programs; workers join by `frameport.spawn(command, audience)`. *Invariants*: sending lets go of the
//! interpreter lock, for it may wait for a lossless member. *A hostile worker* can keep its quota, no more.

use frameport::AudienceStats as Counted;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::to_py;
use crate::holders::SlotHolder;
use crate::loan::{Lender, Loan, send};
use crate::spec::Spec;

/// One pool of `slots` frames that many workers receive: written once, read in place, by nobody to be changed. With
/// `shared_memory` the workers of a spawn() in shared memory can join it, too, which matters on macOS.
#[pyclass(frozen, weakref, module = "frameport")]
#[derive(Debug)]
pub(crate) struct Audience {
    core: frameport::Audience,
}

impl Audience {
    pub(crate) fn core(&self) -> &frameport::Audience {
        &self.core
    }

    fn lend(slf: &Bound<'_, Self>) -> PyResult<Py<Loan>> {
        let (py, this) = (slf.py(), slf.get());
        let loan = this.core.loan().map_err(|error| to_py(py, &error))?;
        Loan::make(py, loan, Lender::Audience(slf.clone().unbind()), None)
    }
}

#[pymethods]
impl Audience {
    #[new]
    #[pyo3(signature = (spec, slots, *, shared_memory=false))]
    fn new(py: Python<'_>, spec: &Spec, slots: u32, shared_memory: bool) -> PyResult<Self> {
        let make = if shared_memory { frameport::Audience::by_descriptors } else { frameport::Audience::new };
        let made = py.detach(|| make(&spec.core, slots));
        Ok(Self { core: made.map_err(|error| to_py(py, &error))? })
    }

    /// What the frames are that are loaned now.
    #[getter]
    fn spec(&self, py: Python<'_>) -> PyResult<Spec> {
        Spec::of(py, self.core.spec())
    }

    /// Frames of another spec from now on: a new pool. Each member goes over to it at its own pace; what was loaned or sent
    /// before stays what it is.
    fn change_spec(&self, py: Python<'_>, spec: &Spec) -> PyResult<()> {
        py.detach(|| self.core.change_spec(spec.core.clone())).map_err(|error| to_py(py, &error))
    }

    /// A slot to fill: `with audience.loan() as frame: ...` sends it to every member. Never waits.
    fn loan(slf: &Bound<'_, Self>) -> PyResult<Py<Loan>> {
        Self::lend(slf)
    }

    /// Sends a loan, or an array by way of one, to every member, and returns the frame's number.
    fn send(slf: &Bound<'_, Self>, frame: &Bound<'_, PyAny>) -> PyResult<u64> {
        send(&Lender::Audience(slf.clone().unbind()), frame, || Self::lend(slf))
    }

    /// Who has which slot now: this side's own loans and views, then each member what it was sent.
    fn holders(&self) -> Vec<SlotHolder> {
        SlotHolder::all(self.core.holders())
    }

    /// Counters; those of each member are its worker's.
    fn stats(&self) -> AudienceStats {
        let Counted { sent, no_slot, members, free, copied, .. } = self.core.stats();
        AudienceStats { sent, no_slot, members, free, copied }
    }

    fn __repr__(&self) -> String {
        format!("<frameport.Audience of {}, {} members>", self.core.spec(), self.stats().members)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("an audience cannot be pickled: it belongs to this process"))
    }
}

/// Counters of an audience.
#[pyclass(frozen, get_all, module = "frameport")]
#[derive(Debug)]
pub(crate) struct AudienceStats {
    /// Frames sent.
    sent: u64,
    /// Loans that found no slot.
    no_slot: u64,
    /// Workers that receive them now.
    members: u64,
    /// Slots nobody has.
    free: u64,
    /// Frames whose pixels were copied: none, ever.
    copied: u64,
}

#[pymethods]
impl AudienceStats {
    fn __repr__(&self) -> String {
        format!("{self:?}")
    }
}
