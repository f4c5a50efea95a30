//! Surfaces as CoreVideo's pixel buffers, for VideoToolbox, AVFoundation and Core Image: no copy. Not run: no Mac was at hand.
//!
//! *Who calls it*: applications, by `frameport::os::macos`. *Invariants*: a buffer keeps the surface's memory, not the slot.
//! *A hostile peer* that may write the surface may change what the buffer shows.

use std::ptr::NonNull;

pub use objc2_core_foundation::CFRetained;
pub use objc2_core_video::CVPixelBuffer;
use objc2_core_video::CVPixelBufferCreateWithIOSurface;

use super::surface::Surface;

/// A pixel buffer that is the surface.
///
/// # Errors
/// CoreVideo's answer (CVReturn.h).
pub fn pixel_buffer(surface: &Surface) -> Result<CFRetained<CVPixelBuffer>, i32> {
    let mut made = std::ptr::null_mut();
    // SAFETY: the pointer is valid for the call; the usual allocator and no attribute are asked for.
    let answer =
        unsafe { CVPixelBufferCreateWithIOSurface(None, surface.as_io_surface(), None, NonNull::from(&mut made)) };
    // What is not zero is an error (kCVReturnSuccess), and an answer of success without a buffer one of ours.
    let made = NonNull::new(made).filter(|_| answer == 0).ok_or(answer)?;
    // SAFETY: by the rule of functions that create, the one reference is ours.
    Ok(unsafe { CFRetained::from_raw(made) })
}
