//! Metal textures over surfaces: no copy, one for each plane. Not run: no Mac was at hand.
//!
//! *Who calls it*: applications, by `frameport::os::macos`. *Invariants*: a texture lies over one plane of one surface, is made
//! once, and forgotten when the surface is. *A hostile peer* that may write the surface may change what a texture shows, as it
//! may any pixels it has.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

pub use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLDevice, MTLPixelFormat, MTLStorageMode, MTLTexture, MTLTextureDescriptor, MTLTextureUsage};

use super::surface::Surface;
use crate::mach::Surface as _;

/// A device, as Metal has it.
pub type Device = ProtocolObject<dyn MTLDevice>;
/// A texture, as Metal has it.
pub type Texture = ProtocolObject<dyn MTLTexture>;

/// A surface's address, which is no other's while it is known here; a plane; whether it may be written.
type Key = (*const Surface, usize, bool);

/// The textures of one device. It belongs to one thread, as its textures do.
#[derive(Debug)]
pub struct Textures {
    device: Retained<Device>,
    made: HashMap<Key, (Weak<Surface>, Retained<Texture>)>,
}

impl Textures {
    /// None yet.
    #[must_use]
    pub fn new(device: Retained<Device>) -> Self {
        Self { device, made: HashMap::new() }
    }

    /// The texture over a plane of a surface. None for a plane it does not have, and where the device makes none.
    pub fn of(&mut self, surface: &Arc<Surface>, plane: usize, is_writable: bool) -> Option<Retained<Texture>> {
        let key = (Arc::as_ptr(surface), plane, is_writable);
        if let Some((_, texture)) = self.made.get(&key) {
            return Some(texture.clone());
        }
        self.made.retain(|_, (surface, _)| surface.strong_count() > 0);
        let geometry = surface.geometry();
        let at = geometry.planes.get(plane).filter(|_| plane < geometry.plane_count as usize)?;
        let descriptor = MTLTextureDescriptor::new();
        descriptor.setPixelFormat(pixel_format(geometry.format, plane)?);
        // SAFETY: the plane's own size, which is not zero: a texture has no more than its memory.
        unsafe { descriptor.setWidth(at.width as usize) };
        // SAFETY: as above.
        unsafe { descriptor.setHeight(at.height as usize) };
        let writes = MTLTextureUsage::ShaderWrite | MTLTextureUsage::RenderTarget;
        descriptor.setUsage(MTLTextureUsage::ShaderRead | if is_writable { writes } else { MTLTextureUsage::empty() });
        // A device with memory of its own keeps a copy there (Metal's documentation, "Choosing a resource storage mode").
        let unified = self.device.hasUnifiedMemory();
        descriptor.setStorageMode(if unified { MTLStorageMode::Shared } else { MTLStorageMode::Managed });
        let surface_ref = surface.as_io_surface();
        let texture = self.device.newTextureWithDescriptor_iosurface_plane(&descriptor, surface_ref, plane)?;
        self.made.insert(key, (Arc::downgrade(surface), texture.clone()));
        Some(texture)
    }
}

/// What a plane's pixels are to Metal.
fn pixel_format(format: u32, plane: usize) -> Option<MTLPixelFormat> {
    match (&format.to_be_bytes(), plane) {
        (b"420v" | b"420f" | b"L008", 0) => Some(MTLPixelFormat::R8Unorm),
        (b"420v" | b"420f", 1) => Some(MTLPixelFormat::RG8Unorm),
        (b"x420" | b"xf20" | b"L016", 0) => Some(MTLPixelFormat::R16Unorm),
        (b"x420" | b"xf20", 1) => Some(MTLPixelFormat::RG16Unorm),
        (b"BGRA", 0) => Some(MTLPixelFormat::BGRA8Unorm),
        (b"RGBA", 0) => Some(MTLPixelFormat::RGBA8Unorm),
        (b"RGhA", 0) => Some(MTLPixelFormat::RGBA16Float),
        _ => None,
    }
}
