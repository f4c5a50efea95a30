//! A view of a slot on its way out of this library: where it lies, its shape, and what keeps the slot.
//!
//! *Who calls it*: [`crate::pixels`] makes one for each buffer or DLPack capsule, [`crate::raw`] hands it to Python.
//! *Invariants*: every element lies inside the payload of the slot that `keep` keeps from reuse, and `keep` also keeps
//! the mapping; both are taken from one and the same frame here. *A hostile worker* can change the values, never the
//! geometry: that is the spec's.

use frameport::spec::{DType, ImageView, MAX_RANK};
use frameport::{Bytes, Frame, FrameMut, Hold, Pin, Plane};

/// What keeps the memory of an [`Export`] valid and its slot from reuse.
#[derive(Debug)]
pub(crate) enum Keep {
    /// A received frame's slot.
    Hold(#[expect(dead_code, reason = "dropped with the export")] Hold),
    /// The slot of a loan, sent or not.
    Pin(#[expect(dead_code, reason = "dropped with the export")] Pin),
    /// A copy of its own.
    Copy(#[expect(dead_code, reason = "dropped with the export")] Box<[u64]>),
}

/// See the module. Boxed from the start: what Python gets points into it.
#[derive(Debug)]
pub(crate) struct Export {
    data: *mut u8,
    item: DType,
    rank: usize,
    shape: [isize; MAX_RANK],
    /// In bytes.
    strides: [isize; MAX_RANK],
    len: usize,
    writable: bool,
    _keep: Keep,
}

impl Export {
    /// A received frame as one array, or one plane of it; `None` where it is none.
    pub(crate) fn of_frame(frame: &Frame, plane: Option<usize>, made_at: Option<String>) -> Option<Box<Self>> {
        let geometry = match plane {
            Some(index) => Geometry::of_plane(frame.plane(index)?),
            None => Geometry::of_view(frame.image_view()?, frame.payload()),
        };
        geometry.export(|| Keep::Hold(frame.hold_made_at(|| made_at.unwrap_or_default())))
    }

    /// A loan as one array, or one plane of it; `None` where it is none.
    pub(crate) fn of_loan(loan: &mut FrameMut, plane: Option<usize>, made_at: Option<String>) -> Option<Box<Self>> {
        let pin = loan.pin_made_at(|| made_at.unwrap_or_default());
        let geometry = match plane {
            Some(index) => Geometry::of_plane(loan.plane_mut(index)?),
            None => Geometry::of_view(loan.image_view()?, loan.payload()),
        };
        geometry.export(|| Keep::Pin(pin))
    }

    /// The same values in memory of their own, C-contiguous.
    pub(crate) fn copied(&self, copy: impl FnOnce(*mut u8)) -> Box<Self> {
        let mut memory = vec![0_u64; self.len.div_ceil(8)].into_boxed_slice();
        let data = memory.as_mut_ptr().cast::<u8>();
        copy(data);
        let mut strides = self.strides;
        let mut step = self.itemsize();
        for (stride, length) in strides.iter_mut().zip(self.shape).take(self.rank).rev() {
            *stride = step;
            step = step.saturating_mul(length);
        }
        Box::new(Self { data, strides, writable: true, _keep: Keep::Copy(memory), ..*self })
    }

    /// Whether its values may be written: not those of an audience's frame at a worker.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(crate) fn data(&self) -> *mut u8 {
        self.data
    }

    pub(crate) fn item(&self) -> DType {
        self.item
    }

    /// Bytes of one value.
    pub(crate) fn itemsize(&self) -> isize {
        self.item.size().cast_signed()
    }

    /// Bytes of all values, gaps not counted.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn shape(&self) -> &[isize] {
        self.shape.get(..self.rank).unwrap_or_default()
    }

    /// From one value to the next along each axis, in bytes.
    pub(crate) fn strides(&self) -> &[isize] {
        self.strides.get(..self.rank).unwrap_or_default()
    }

    /// Both, as a C structure wants them; valid while the export stays where it is.
    pub(crate) fn axes(&mut self) -> (*mut isize, *mut isize) {
        (self.shape.as_mut_ptr(), self.strides.as_mut_ptr())
    }

    pub(crate) fn is_c_contiguous(&self) -> bool {
        is_dense(self.shape().iter().zip(self.strides()).rev(), self.itemsize())
    }

    pub(crate) fn is_f_contiguous(&self) -> bool {
        is_dense(self.shape().iter().zip(self.strides()), self.itemsize())
    }
}

/// Whether each axis steps over exactly what the axes before it cover. Axes of one value may step anyhow.
fn is_dense<'a>(axes: impl Iterator<Item = (&'a isize, &'a isize)>, itemsize: isize) -> bool {
    let mut step = itemsize;
    for (&length, &stride) in axes {
        if length != 1 && stride != step {
            return false;
        }
        step = step.saturating_mul(length);
    }
    true
}

/// An array inside `bytes`, from their first on.
struct Geometry<'a> {
    bytes: Option<Bytes<'a>>,
    item: DType,
    shape: ([isize; MAX_RANK], usize),
    strides: [isize; MAX_RANK],
}

impl<'a> Geometry<'a> {
    fn of_view(view: &ImageView, payload: Bytes<'a>) -> Self {
        let ImageView { offset, shape, strides, sample } = view;
        // A frame of bytes uses the first of them only.
        let short = matches!(shape.as_slice(), [all] if *sample == DType::U8 && payload.len() < *all);
        let used = [payload.len()];
        let shape = if short { &used } else { shape.as_slice() };
        let rest = payload.len().checked_sub(*offset);
        Self::new(rest.and_then(|rest| payload.part(*offset, rest)), *sample, shape, strides)
    }

    fn of_plane(plane: Plane<'a>) -> Self {
        let layout = plane.layout();
        let (item, pixel) = (layout.sample.size(), layout.components.saturating_mul(layout.sample.size()));
        // A frame of bytes may be shorter than its one plane.
        let width = layout.width.min(plane.bytes().len() / pixel.max(1));
        let (shape, strides) = ([layout.rows, width, layout.components], [layout.stride, pixel, item]);
        let rank = if layout.components == 1 { 2 } else { 3 };
        let cut = |axes: &'_ [usize; 3]| axes.iter().copied().take(rank).collect::<Vec<_>>();
        Self::new(Some(plane.bytes()), layout.sample, &cut(&shape), &cut(&strides))
    }

    fn new(bytes: Option<Bytes<'a>>, item: DType, shape: &[usize], strides: &[usize]) -> Self {
        let fixed = |axes: &[usize]| {
            let mut fixed = [0; MAX_RANK];
            fixed.iter_mut().zip(axes).for_each(|(to, from)| *to = from.cast_signed());
            fixed
        };
        Self { bytes, item, shape: (fixed(shape), shape.len()), strides: fixed(strides) }
    }

    /// Proves that the array's last value ends inside `bytes`.
    fn export(self, keep: impl FnOnce() -> Keep) -> Option<Box<Export>> {
        let Self { bytes, item, shape: (shape, rank), strides } = self;
        let (mut values, mut end) = (1_usize, item.size());
        for (&length, &stride) in shape.get(..rank)?.iter().zip(&strides) {
            let length = usize::try_from(length).ok()?;
            values = values.checked_mul(length)?;
            end = end.checked_add(usize::try_from(stride).ok()?.checked_mul(length.saturating_sub(1))?)?;
        }
        let end = if values == 0 { 0 } else { end };
        let bytes = bytes?.part(0, end)?;
        let (data, writable) = (bytes.as_ptr(), bytes.is_writable());
        let len = values.checked_mul(item.size())?;
        Some(Box::new(Export { data, item, rank, shape, strides, len, writable, _keep: keep() }))
    }
}
