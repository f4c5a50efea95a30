//! What only macOS has. Not run: no Mac was at hand.
//!
//! # Frames as IOSurfaces
//! Slots of the formats IOSurface has (`nv12`, `p010le`, `bgra`, `rgba`, `rgbaf16le`, `gray`, `gray16le`) are surfaces:
//! [`FrameExt`] gives them to Core Animation, Metal and CoreVideo without a copy, on both sides. What is sent is finished: wait
//! for the command buffer that draws into a frame before you send it ([`MTLCommandBuffer`'s completion handler]), and keep a
//! received frame, or a [`hold`](crate::Frame::hold) of it, until the last command buffer that reads it is done: publication
//! implies completion, both ways, for nothing but the frame's own life tells the other side. A frame whose bytes nobody asks for
//! is never locked for the processor.
//!
//! [`MTLCommandBuffer`'s completion handler]: https://developer.apple.com/documentation/metal/mtlcommandbuffer/addcompletedhandler(_:)

use std::sync::Arc;

use frameport_sys::surface::Surface;
use frameport_wire::layout::MAX_CHANNELS;

use crate::audience::Audience;
use crate::error::Error;
use crate::frame::{Frame, FrameMut};
use crate::host::WorkerBuilder;
use crate::spec::Spec;

#[cfg(feature = "core-video")]
pub use frameport_sys::core_video::{CFRetained, CVPixelBuffer};
#[cfg(feature = "metal")]
pub use frameport_sys::metal::{Device, Retained, Texture};
pub use frameport_sys::surface::IOSurfaceRef;

const _: () = {
    // A worker has room for the surfaces of all its pools, two for each channel.
    let most = 2 * MAX_CHANNELS * frameport_sys::pixels::MAX_SLOTS as usize;
    assert!(most <= frameport_sys::mach::surface::MAX_SURFACES);
};

/// A frame as the system's frameworks have it. For those whose pool is in shared memory (other formats, planes you have placed
/// yourself, more than sixteen slots, workers and audiences in shared memory) there is nothing to give.
pub trait FrameExt: sealed::InSlot {
    /// The slot's surface; `None` where it lies in shared memory. A reference you retain beyond the frame shows whatever comes
    /// into the slot next.
    fn io_surface(&self) -> Option<&IOSurfaceRef> {
        self.surface().map(|surface| surface.as_io_surface())
    }

    /// The frame as a pixel buffer, which is the surface: for VideoToolbox, AVFoundation, Core Image. Keep the frame as long as
    /// they have it.
    ///
    /// # Errors
    /// [`Error::Format`] where the frame has no surface; [`Error::System`] with CoreVideo's answer.
    #[cfg(feature = "core-video")]
    fn pixel_buffer(&self) -> Result<CFRetained<CVPixelBuffer>, Error> {
        let surface = self.surface().ok_or_else(|| no_surface(self.spec()))?;
        frameport_sys::core_video::pixel_buffer(surface).map_err(|code| {
            let source = std::io::Error::other(format!("CoreVideo answered {code} (CVReturn.h)"));
            Error::System { doing: "making a pixel buffer of a frame", source }
        })
    }
}

impl FrameExt for Frame {}
impl FrameExt for FrameMut {}

#[cfg(any(feature = "metal", feature = "core-video"))]
fn no_surface(spec: &Spec) -> Error {
    Error::Format { what: format!("this frame of {spec} is in shared memory, not in an IOSurface: see os::macos") }
}

/// The textures of one Metal device over the slots of frames: one for each plane, made once and found again with each frame
/// that comes into the slot. It stays on its thread, as textures do.
#[cfg(feature = "metal")]
#[derive(Debug)]
pub struct TextureCache(frameport_sys::metal::Textures);

#[cfg(feature = "metal")]
impl TextureCache {
    /// For textures of `device`.
    #[must_use]
    pub fn new(device: Retained<Device>) -> Self {
        Self(frameport_sys::metal::Textures::new(device))
    }

    /// The texture over plane `plane` of a frame: `bgra` and the like have one, `nv12` has luma (`r8`) and chroma (`rg8`). It may
    /// be drawn into and written by shaders if this side may write the frame. Keep the frame until the device is done with it.
    ///
    /// # Errors
    /// [`Error::Format`] where the frame has no surface or no such plane, or the device makes no texture of it.
    pub fn texture(&mut self, frame: &impl FrameExt, plane: usize) -> Result<Retained<Texture>, Error> {
        let surface = frame.surface().ok_or_else(|| no_surface(frame.spec()))?;
        let texture = self.0.of(surface, plane, frame.is_writable());
        texture.ok_or_else(|| Error::Format {
            what: format!("there is no texture of plane {plane} of a frame of {}", frame.spec()),
        })
    }
}

/// What more a worker can be on macOS.
pub trait WorkerBuilderExt: sealed::Sealed {
    /// Does without Mach ports, for sandboxes that deny them ([`Error::Denied`]): the worker is not met; its memory and bells are
    /// descriptors that it gets over a socket it inherits. Frames are in shared memory, never in IOSurfaces, and the
    /// [`Audience`]s it joins must be [in shared memory](AudienceExt::in_shared_memory), too. The operation this needs is
    /// `ipc-posix-shm`. Restarts and changes of spec keep to it.
    #[must_use]
    fn in_shared_memory(self) -> Self;
}

impl WorkerBuilderExt for WorkerBuilder {
    fn in_shared_memory(self) -> Self {
        self.by_descriptors()
    }
}

/// What more an audience can be on macOS.
pub trait AudienceExt: sealed::Sealed + Sized {
    /// [`Audience::new`] that every worker can join, be it [in shared memory](WorkerBuilderExt::in_shared_memory) or not: frames
    /// are in shared memory, never in IOSurfaces.
    ///
    /// # Errors
    /// As [`Audience::new`], and [`Error::Denied`].
    fn in_shared_memory(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error>;
}

impl AudienceExt for Audience {
    fn in_shared_memory(spec: impl Into<Spec>, slots: u32) -> Result<Self, Error> {
        Self::by_descriptors(spec, slots)
    }
}

mod sealed {
    use super::{Arc, Frame, FrameMut, Spec, Surface};

    pub trait Sealed {}
    impl Sealed for super::WorkerBuilder {}
    impl Sealed for super::Audience {}

    /// What a frame lies in.
    pub trait InSlot {
        fn surface(&self) -> Option<&Arc<Surface>>;
        fn spec(&self) -> &Spec;
        fn is_writable(&self) -> bool;
    }

    impl InSlot for Frame {
        fn surface(&self) -> Option<&Arc<Surface>> {
            self.hold.source.pool.pixels.surface(self.hold.slot)
        }

        fn spec(&self) -> &Spec {
            self.spec()
        }

        fn is_writable(&self) -> bool {
            self.hold.source.pool.pixels.is_writable()
        }
    }

    impl InSlot for FrameMut {
        fn surface(&self) -> Option<&Arc<Surface>> {
            self.home.pool().pixels.surface(self.slot)
        }

        fn spec(&self) -> &Spec {
            self.spec()
        }

        fn is_writable(&self) -> bool {
            true
        }
    }
}

/// The page's program, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/macos.md")]
struct Page;
