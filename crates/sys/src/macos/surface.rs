//! IOSurfaces: made, opened, looked at. Not run: no Mac was at hand.
//!
//! *Who calls it*: [`crate::mach::surface`], and [`pixels`](super::pixels) to make them. *Invariants*: a surface's size and
//! layout are what the system says, not what was asked for; a use that was begun is ended in the process that began it.
//! *A hostile peer* that may map a surface may write it: no public read-only hand-over is known, so that what a fan-out's
//! surfaces promise is a convention.

use std::ptr::NonNull;

use objc2_core_foundation::{CFArray, CFDictionary, CFNumber, CFRetained, CFString, CFType};
pub use objc2_io_surface::IOSurfaceRef;
use objc2_io_surface::{
    IOSurfaceLockOptions, kIOSurfaceAllocSize, kIOSurfaceBytesPerElement, kIOSurfaceBytesPerRow, kIOSurfaceHeight,
    kIOSurfacePixelFormat, kIOSurfacePlaneBytesPerElement, kIOSurfacePlaneBytesPerRow, kIOSurfacePlaneHeight,
    kIOSurfacePlaneInfo, kIOSurfacePlaneOffset, kIOSurfacePlaneSize, kIOSurfacePlaneWidth, kIOSurfaceWidth,
};

use super::pixels::{self, Intent, Picture, Place};
use crate::mach::surface::{Geometry, MAX_PLANES, Plane, pixel_format};
use crate::mach::{Kern, Name};

// As IOSurfaceRef.h has them. objc2's panic where there is no address.
#[link(name = "IOSurface", kind = "framework")]
unsafe extern "C" {
    fn IOSurfaceGetBaseAddress(surface: &IOSurfaceRef) -> Option<NonNull<u8>>;
    fn IOSurfaceGetBaseAddressOfPlane(surface: &IOSurfaceRef, plane: usize) -> Option<NonNull<u8>>;
}

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

/// What surfaces of a picture are to be, laid out as `place` says of each plane and `len` of the whole.
pub(super) fn geometry(
    picture: &Picture,
    place: impl Fn(usize, &pixels::Plane) -> Place,
    len: u64,
) -> Option<Geometry> {
    let mut planes = [Plane::default(); MAX_PLANES];
    for (index, (plane, into)) in picture.planes.iter().zip(&mut planes).enumerate() {
        let (Place { offset, stride }, width, height) = (place(index, plane), plane.width, plane.rows);
        *into =
            Plane { width: fitting(width), height: fitting(height), stride: fitting(stride), offset: fitting(offset) };
    }
    let (width, height, plane_count) = (picture.width, picture.height, u32::try_from(picture.planes.len()).ok()?);
    Some(Geometry { format: pixel_format(picture)?, width, height, plane_count, planes, len })
}

type Numbers = CFDictionary<CFString, CFType>;

/// A dictionary of numbers.
fn numbers<const N: usize>(keys: &[&CFString; N], values: [usize; N]) -> CFRetained<Numbers> {
    let values = values.map(|value| CFNumber::new_i64(i64::try_from(value).unwrap_or(i64::MAX)));
    let values: [&CFType; N] = values.each_ref().map(|value| value.as_ref());
    CFDictionary::from_slices(keys, &values)
}

impl Surface {
    /// A surface for a picture, its rows and planes where the system likes them. None where it makes none: no memory, a format
    /// it does not have.
    #[must_use]
    pub fn create(picture: &Picture) -> Option<Self> {
        // SAFETY: the frameworks' constants are set when they are loaded, before any code of ours runs.
        let [width, height] = unsafe { [kIOSurfaceWidth, kIOSurfaceHeight] };
        // SAFETY: as above.
        let [row, element] = unsafe { [kIOSurfaceBytesPerRow, kIOSurfaceBytesPerElement] };
        // SAFETY: as above.
        let [pixels, all] = unsafe { [kIOSurfacePixelFormat, kIOSurfaceAllocSize] };
        let (format, across, down) = (pixel_format(picture)? as usize, picture.width as usize, picture.height as usize);
        let properties = match picture.planes.as_slice() {
            // No plane information for one plane.
            [plane] => {
                let stride = IOSurfaceRef::align_property(row, plane.width.checked_mul(plane.element)?);
                let len = IOSurfaceRef::align_property(all, stride.checked_mul(plane.rows)?);
                let keys = [width, height, pixels, element, row, all];
                numbers(&keys, [across, down, format, plane.element, stride, len])
            }
            planes => {
                let (planes, len) = Self::plane_info(planes)?;
                let head = [across, down, format, len].map(|value| CFNumber::new_i64(value as i64));
                let [a, b, c, d] = head.each_ref().map(|value| -> &CFType { value.as_ref() });
                // SAFETY: as above.
                let info = unsafe { kIOSurfacePlaneInfo };
                CFDictionary::from_slices(&[width, height, pixels, all, info], &[a, b, c, d, planes.as_ref()])
            }
        };
        // SAFETY: the dictionary has the types IOSurfaceRef.h asks for under those keys.
        let surface = unsafe { IOSurfaceRef::new(properties.as_opaque()) }?;
        Some(Self { surface, owner: std::process::id() })
    }

    /// Planes one after the other, as `kIOSurfacePlaneInfo` wants them, and the bytes of all.
    fn plane_info(planes: &[pixels::Plane]) -> Option<(CFRetained<CFArray<Numbers>>, usize)> {
        // SAFETY: as above.
        let [width, height, row] = unsafe { [kIOSurfacePlaneWidth, kIOSurfacePlaneHeight, kIOSurfacePlaneBytesPerRow] };
        // SAFETY: as above.
        let [at, len, element] =
            unsafe { [kIOSurfacePlaneOffset, kIOSurfacePlaneSize, kIOSurfacePlaneBytesPerElement] };
        // SAFETY: as above.
        let all = unsafe { kIOSurfaceAllocSize };
        let (mut end, mut made) = (0, Vec::with_capacity(planes.len()));
        for plane in planes {
            let stride = IOSurfaceRef::align_property(row, plane.width.checked_mul(plane.element)?);
            let offset = IOSurfaceRef::align_property(at, end);
            let size = IOSurfaceRef::align_property(len, stride.checked_mul(plane.rows)?);
            end = offset.checked_add(size)?;
            let keys = [width, height, row, at, len, element];
            made.push(numbers(&keys, [plane.width, plane.rows, stride, offset, size, plane.element]));
        }
        Some((CFArray::from_retained_objects(&made), IOSurfaceRef::align_property(all, end)))
    }

    /// The first byte, if this process can map it. To be asked for while it is locked, and used as long.
    pub(super) fn base(&self) -> Option<NonNull<u8>> {
        // SAFETY: the surface lives for the call.
        unsafe { IOSurfaceGetBaseAddress(&self.surface) }
    }

    /// The first byte of a plane it has, likewise.
    fn base_of_plane(&self, index: usize) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { IOSurfaceGetBaseAddressOfPlane(&self.surface, index) }
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

fn options(intent: Intent) -> IOSurfaceLockOptions {
    match intent {
        Intent::Read => IOSurfaceLockOptions::ReadOnly,
        Intent::Write => IOSurfaceLockOptions::empty(),
    }
}

impl crate::mach::Surface for Surface {
    fn geometry(&self) -> Geometry {
        let it = &self.surface;
        // Addresses are good while it is locked (IOSurfaceRef.h).
        let is_locked = self.lock(Intent::Read).is_ok();
        let (planes, base) = (it.plane_count(), self.base());
        let offset = |index| Some(self.base_of_plane(index)?.addr().get().wrapping_sub(base?.addr().get()));
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
                offset: fitting(offset(index).unwrap_or(usize::MAX)),
            }
        };
        let geometry = Geometry {
            format: it.pixel_format(),
            width: fitting(it.width()),
            height: fitting(it.height()),
            // One that cannot be mapped is nothing that was agreed.
            plane_count: base.map_or(0, |_| fitting(planes.max(1))),
            planes: std::array::from_fn::<_, MAX_PLANES, _>(plane),
            len: it.alloc_size() as u64,
        };
        if is_locked {
            self.unlock(Intent::Read);
        }
        geometry
    }

    fn lock(&self, intent: Intent) -> Result<(), Kern> {
        // SAFETY: no seed is asked for.
        match unsafe { self.surface.lock(options(intent), std::ptr::null_mut()) } {
            0 => Ok(()),
            code => Err(Kern(code)),
        }
    }

    fn unlock(&self, intent: Intent) {
        // A forked child has locked nothing.
        if self.owner == std::process::id() {
            // SAFETY: no seed is asked for.
            let _ = unsafe { self.surface.unlock(options(intent), std::ptr::null_mut()) };
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
