//! IOSurfaces: made, opened, looked at. Not run: no Mac was at hand.
//!
//! *Who calls it*: [`crate::mach::surface`]. *Invariants*: a surface's size and layout are what the system says, not what was
//! asked for; a use that was begun is ended in the process that began it. *A hostile peer* that may map a surface may write
//! it: no public read-only hand-over is known, so that what a fan-out's surfaces promise is a convention.

use objc2_core_foundation::{CFDictionary, CFNumber, CFRetained, CFString, CFType};
use objc2_io_surface::{
    IOSurfaceRef, kIOSurfaceBytesPerElement, kIOSurfaceHeight, kIOSurfacePixelFormat, kIOSurfaceWidth,
};

use crate::mach::Name;
use crate::mach::surface::{Geometry, MAX_PLANES, Plane};

/// A surface this process holds.
#[derive(Debug)]
pub struct Surface {
    surface: CFRetained<IOSurfaceRef>,
    owner: u32,
}

// SAFETY: IOSurfaceRef.h promises that its functions may be called from any thread, and CoreFoundation counts references
// atomically.
unsafe impl Send for Surface {}
// SAFETY: as above.
unsafe impl Sync for Surface {}

impl Surface {
    /// A surface of one plane, laid out as the system likes it. None where it makes none: no memory, an unknown format.
    ///
    /// `format` is the pixel format's four characters, `element` the bytes of a pixel.
    #[must_use]
    pub fn create(format: u32, width: u32, height: u32, element: u32) -> Option<Self> {
        // SAFETY: the frameworks' constants are set when they are loaded, before any code of ours runs.
        let (width_key, height_key) = unsafe { (kIOSurfaceWidth, kIOSurfaceHeight) };
        // SAFETY: as above.
        let (format_key, element_key) = unsafe { (kIOSurfacePixelFormat, kIOSurfaceBytesPerElement) };
        let number = |value: u32| CFNumber::new_i64(value.into());
        let values = [number(width), number(height), number(format), number(element)];
        let keys: [&CFString; 4] = [width_key, height_key, format_key, element_key];
        let values: [&CFType; 4] = values.each_ref().map(|value| value.as_ref());
        let properties = CFDictionary::<CFString, CFType>::from_slices(&keys, &values);
        // SAFETY: the dictionary has the types IOSurfaceRef.h asks for under those keys.
        let surface = unsafe { IOSurfaceRef::new(properties.as_opaque()) }?;
        Some(Self { surface, owner: std::process::id() })
    }

    /// The system's own object.
    #[must_use]
    pub fn as_io_surface(&self) -> &IOSurfaceRef {
        &self.surface
    }

    pub(super) fn create_port(&self) -> Name {
        Name(self.surface.create_mach_port())
    }

    pub(super) fn from_port(port: Name) -> Option<Self> {
        let surface = IOSurfaceRef::lookup_from_mach_port(port.0)?;
        Some(Self { surface, owner: std::process::id() })
    }
}

/// What a surface says, where it fits; a width or stride of more than 4 billion fails every comparison.
fn fitting(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl crate::mach::Surface for Surface {
    fn geometry(&self) -> Geometry {
        let it = &self.surface;
        let (planes, base) = (it.plane_count(), it.base_address().addr().get());
        let plane = |index: usize| {
            if planes == 0 && index == 0 {
                let (width, height) = (fitting(it.width()), fitting(it.height()));
                return Plane { width, height, stride: fitting(it.bytes_per_row()), offset: 0 };
            }
            if index >= planes {
                return Plane::default();
            }
            Plane {
                width: fitting(it.width_of_plane(index)),
                height: fitting(it.height_of_plane(index)),
                stride: fitting(it.bytes_per_row_of_plane(index)),
                offset: fitting(it.base_address_of_plane(index).addr().get().wrapping_sub(base)),
            }
        };
        Geometry {
            format: it.pixel_format(),
            width: fitting(it.width()),
            height: fitting(it.height()),
            plane_count: fitting(planes.max(1)),
            planes: std::array::from_fn::<_, MAX_PLANES, _>(plane),
            len: it.alloc_size() as u64,
        }
    }

    fn begin_use(&self) {
        self.surface.increment_use_count();
    }

    fn end_use(&self) {
        // A forked child has begun no use of its own.
        if self.owner == std::process::id() {
            self.surface.decrement_use_count();
        }
    }

    fn is_in_use(&self) -> bool {
        self.surface.is_in_use()
    }
}
