//! One plane of a frame.

use frameport_mem::pixels::Bytes;
use frameport_wire::spec::PlaneLayout;

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

    /// A tightly packed copy of the plane.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        (0..self.layout.rows).filter_map(|y| self.row(y)).flat_map(|row| row.to_vec()).collect()
    }
}
