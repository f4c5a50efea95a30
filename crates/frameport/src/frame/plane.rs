//! One plane of a frame.

use frameport_mem::pixels::Bytes;
use frameport_wire::spec::{Layout, PlaneLayout, Spec};

use crate::error::Error;

/// One plane of a frame: rows of bytes, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    bytes: Bytes<'a>,
    layout: &'a PlaneLayout,
}

impl<'a> Plane<'a> {
    pub(super) fn new(payload: Bytes<'a>, layout: &'a PlaneLayout) -> Option<Self> {
        // A frame of a bytes channel may be shorter than its spec's one plane.
        let rest = payload.len().checked_sub(layout.offset)?;
        let last = layout.stride.checked_mul(layout.rows.checked_sub(1)?)?;
        let bytes = payload.part(layout.offset, last.checked_add(layout.row_bytes)?.min(rest))?;
        Some(Self { bytes, layout })
    }

    /// Rows, stride, bytes of a row, values per pixel and their type.
    #[must_use]
    pub fn layout(&self) -> &PlaneLayout {
        self.layout
    }

    /// All bytes from the first row's first to the last row's last, gaps included.
    #[must_use]
    pub fn bytes(&self) -> Bytes<'a> {
        self.bytes
    }

    /// Row `y` without its gap; `None` beyond the last.
    #[must_use]
    pub fn row(&self, y: usize) -> Option<Bytes<'a>> {
        let inside = y < self.layout.rows;
        inside.then(|| self.bytes.part(self.layout.stride.checked_mul(y)?, self.layout.row_bytes)).flatten()
    }

    /// Copies tightly packed rows into the plane.
    ///
    /// # Errors
    /// Another number of bytes than the plane has.
    pub fn copy_from(&self, pixels: &[u8]) -> Result<(), Error> {
        let PlaneLayout { rows, row_bytes, .. } = *self.layout;
        if pixels.len() == rows.saturating_mul(row_bytes) {
            let copied = pixels
                .chunks_exact(row_bytes)
                .enumerate()
                .all(|(y, from)| self.row(y).is_some_and(|row| row.copy_from(0, from)));
            if copied {
                return Ok(());
            }
        }
        Err(Error::Format { what: format!("{} bytes do not fill a plane of {rows} rows of {row_bytes}", pixels.len()) })
    }

    /// Copies the values of a plane of the same rows over this one's; false when it has others, or the memory may not be
    /// written.
    pub(crate) fn copy_from_plane(&self, from: &Plane<'_>) -> bool {
        let shape = |plane: &Plane<'_>| (plane.layout.rows, plane.layout.row_bytes);
        let row = |y| self.row(y).zip(from.row(y)).is_some_and(|(to, from)| to.copy_from_bytes(from));
        shape(self) == shape(from) && (0..self.layout.rows).all(row)
    }

    /// The values in order, gaps left out: one piece where there are none, else row by row.
    pub fn pieces(self) -> impl Iterator<Item = Bytes<'a>> + Clone {
        let (whole, rows) = if self.layout.is_tight() { (Some(self.bytes), 0) } else { (None, self.layout.rows) };
        whole.into_iter().chain((0..rows).filter_map(move |y| self.row(y)))
    }

    /// A tightly packed copy of the plane.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().flat_map(|piece| piece.to_vec()).collect()
    }
}

/// The values of a payload in the order of files and pipes, gaps left out: one piece where there are none.
pub(super) fn pieces<'a>(payload: Bytes<'a>, layout: &'a Layout) -> impl Iterator<Item = Bytes<'a>> + Clone {
    let (whole, planes) = if layout.is_packed() { (Some(payload), [].as_slice()) } else { (None, layout.planes()) };
    let planes = planes.iter().filter_map(move |layout| Plane::new(payload, layout));
    whole.into_iter().chain(planes.flat_map(Plane::pieces))
}

/// Copies `bytes` into `pieces`, which are those of a frame of `spec`.
///
/// # Errors
/// Another number of bytes than they have; memory that may not be written.
pub(super) fn fill<'a>(
    pieces: impl Iterator<Item = Bytes<'a>> + Clone,
    bytes: &[u8],
    spec: &Spec,
) -> Result<(), Error> {
    let size: usize = pieces.clone().map(|piece| piece.len()).sum();
    if bytes.len() != size {
        let what = format!("{} bytes do not fill a frame of {spec}, which has {size}", bytes.len());
        return Err(Error::Format { what });
    }
    let mut rest = bytes;
    for piece in pieces {
        let (part, behind) = rest.split_at_checked(piece.len()).unwrap_or_default();
        rest = behind;
        if !piece.copy_from(0, part) {
            return Err(Error::Format { what: format!("this frame of {spec} is others' too, and only to be read") });
        }
    }
    Ok(())
}
