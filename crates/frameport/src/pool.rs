//! A pool: the memory of one channel's frames.
//!
//! *Who calls it*: bring-up on both sides makes one; frames and channel ends read it. *Invariants*: complete, allocated
//! and sealed by the host before the worker starts to use it; where the system lays out planes itself, its word is in the
//! spec that both sides go by; slot numbers are checked against it before they become an address. *A hostile peer* can write
//! pixels at any time; it has no say in any size.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use frameport_mem::page::{OwnPage, PeerPage};
use frameport_mem::pixels::Bytes;
use frameport_sys::handle::{Handle, Means};
use frameport_sys::limits;
use frameport_sys::memory::{Map, Region, Writers, page_size};
use frameport_sys::pixels::{Access, Intent, Picture, Pixels, Place, Plan, Plane, Store};
use frameport_wire::control;
use frameport_wire::layout::page_len;
use frameport_wire::spec::{ImageView, Layout, PlaneGeometry, Spec};

use crate::error::Error;
use crate::link::Side;

/// A place for what a binding keeps for each pool, whose frames have one spec.
#[doc(hidden)]
pub type PoolNote = OnceLock<Box<dyn Any + Send + Sync>>;

/// See the module.
pub(crate) struct Pool {
    pub(crate) decl: control::Pool,
    /// As it was asked for.
    pub(crate) spec: Spec,
    /// The same, with the planes where they are: what a worker is told.
    pub(crate) placed: Spec,
    pub(crate) layout: Layout,
    pub(crate) view: Option<ImageView>,
    pub(crate) own: OwnPage,
    pub(crate) peer: PeerPage,
    pub(crate) pixels: Arc<Pixels>,
    /// What a binding keeps for it.
    pub(crate) note: PoolNote,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("decl", &self.decl).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The memory of an audience: one pool that many workers read.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    pub(crate) decl: control::Pool,
    pub(crate) spec: Spec,
    /// By which its members are given it, and those without a choice, too.
    pub(crate) means: Means,
    store: Store,
    pixels: Arc<Pixels>,
    host_page: (Region, Arc<Map>),
}

/// The handles a worker needs for a pool, in the order of the welcome.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) pixels: Store,
    pub(crate) host_page: Region,
    pub(crate) worker_page: Region,
}

impl Handles {
    /// In the order of the welcome.
    pub(crate) fn into_vec(self) -> Vec<Handle> {
        vec![self.pixels.into_handle(), self.host_page.into_handle(), self.worker_page.into_handle()]
    }
}

/// The sizes of a pool for `slots` frames of `spec`.
///
/// # Errors
/// A spec without a layout, or sizes beyond the address space.
pub(crate) fn declare(id: u32, spec: &Spec, slots: u32, meta: u32) -> Result<control::Pool, Error> {
    let size = spec.payload_capacity()?;
    let stride = size.max(1).checked_next_multiple_of(page_size());
    let len = stride.and_then(|stride| stride.checked_mul(slots as usize));
    match (stride, len) {
        (Some(stride), Some(len)) => Ok(control::Pool { id, slots, stride, len, meta, shared: false }),
        _ => Err(Error::TooLarge { what: format!("{slots} slots of {spec}") }),
    }
}

/// What the memory of `decl` is to be, or is.
fn plan(decl: &control::Pool, spec: &Spec, side: Side) -> Result<Plan, Error> {
    let layout = spec.layout()?;
    // Planes that somebody has placed stay there; a worker is told so by what it is handed.
    let video = spec.video().filter(|video| side == Side::Worker || video.planes.is_none());
    let picture = video.map(|video| Picture {
        format: video.format.name(),
        full_range: video.colour.full_range == Some(true),
        width: video.width,
        height: video.height,
        planes: layout
            .planes()
            .iter()
            .map(|plane| Plane {
                width: plane.width,
                rows: plane.rows,
                element: plane.components.saturating_mul(plane.sample.size()),
                place: Place { offset: plane.offset, stride: plane.stride },
            })
            .collect(),
    });
    let writers = if decl.shared { Writers::Creator } else { Writers::All };
    Ok(Plan { slots: decl.slots, stride: decl.stride, len: decl.len, writers, picture })
}

/// Makes the pixels of `decl`, which is changed to what they are.
fn make_pixels(decl: &mut control::Pool, spec: &Spec, means: Means) -> Result<(Store, Arc<Pixels>), Error> {
    let made = Store::create(&plan(decl, spec, Side::Host)?, means);
    let (store, pixels) = made.map_err(Error::system("making a pool"))?;
    decl.stride = pixels.stride();
    decl.len = decl.stride.saturating_mul(decl.slots as usize);
    Ok((store, Arc::new(pixels)))
}

/// Makes a page of `decl`.
fn make_page(decl: &control::Pool, writers: Writers, means: Means) -> Result<(Region, Arc<Map>), Error> {
    let made = Region::create_for(means, "frameport-page", page_len(decl.slots, decl.meta), writers);
    let (page, map) = made.map_err(Error::system("making a pool's pages"))?;
    Ok((page, Arc::new(map)))
}

/// `spec`, with the planes where the system has put them.
fn place(spec: &Spec, pixels: &Pixels) -> Spec {
    let mut placed = spec.clone();
    if let (Spec::Video(video), Some(places)) = (&mut placed, pixels.places()) {
        let place = |Place { offset, stride }| PlaneGeometry { offset, stride };
        video.planes = Some(places.into_iter().map(place).collect());
    }
    placed
}

/// Writes the metadata of a slot before it is sent.
///
/// # Errors
/// [`Error::MetaTooLong`].
pub(crate) fn write_meta(pool: &Pool, channel: &str, slot: u32, meta: &[u8]) -> Result<u32, Error> {
    if meta.is_empty() {
        return Ok(0);
    }
    let capacity = pool.decl.meta;
    let len = u32::try_from(meta.len()).ok().filter(|&len| len <= capacity);
    match len {
        Some(len) if pool.own.set_meta(slot, meta) => Ok(len),
        _ => Err(Error::MetaTooLong { channel: channel.to_owned(), len: meta.len(), capacity }),
    }
}

/// Bytes left alone beside the pools, for everything else the machine does.
const RESERVE: u64 = 16 << 20;

/// Whether `need` bytes of pools for `name` fit into what is left.
///
/// # Errors
/// [`Error::Memory`].
pub(crate) fn check_memory(name: &str, need: u64) -> Result<(), Error> {
    let left = limits::available_memory();
    if need.saturating_add(RESERVE) > left.bytes {
        return Err(Error::Memory { link: name.to_owned(), need, left: left.bytes, source_of: left.source });
    }
    Ok(())
}

impl SharedMemory {
    /// Makes the memory, which only this process may write.
    ///
    /// # Errors
    /// What the system answers.
    pub(crate) fn create(decl: control::Pool, spec: &Spec, means: Means) -> Result<Self, Error> {
        let mut decl = control::Pool { shared: true, ..decl };
        let (store, pixels) = make_pixels(&mut decl, spec, means)?;
        let host_page = make_page(&decl, Writers::Creator, means)?;
        Ok(Self { decl, spec: spec.clone(), means, store, pixels, host_page })
    }

    /// The pool as the audience itself fills it.
    pub(crate) fn pool(&self) -> Result<Pool, Error> {
        let page = &self.host_page.1;
        Pool::new(self.decl.clone(), &self.spec, Arc::clone(&self.pixels), page, page)
    }

    /// The pool as one member has it, which is given it by `means`, under the number `id` on its link, and the handles for it.
    ///
    /// # Errors
    /// [`Error::Config`] for a member that cannot be given it.
    pub(crate) fn member(&self, id: u32, means: Means) -> Result<(Pool, Handles), Error> {
        if let Some(why) = self.means.bar(means) {
            return Err(Error::config(why));
        }
        let system = Error::system("making a member's page");
        let decl = control::Pool { id, ..self.decl.clone() };
        let (worker_page, peer_map) = make_page(&decl, Writers::All, means)?;
        let pixels = self.store.try_clone().map_err(&system)?;
        let host_page = self.host_page.0.try_clone().map_err(&system)?;
        let own = &self.host_page.1;
        let pool = Pool::new(decl, &self.spec, Arc::clone(&self.pixels), own, &peer_map)?;
        Ok((pool, Handles { pixels, host_page, worker_page }))
    }
}

impl Pool {
    /// Makes the pool's memory, for a worker that is given it by `means`.
    ///
    /// # Errors
    /// What the system answers.
    pub(crate) fn create(mut decl: control::Pool, spec: &Spec, means: Means) -> Result<(Self, Handles), Error> {
        let (store, pixels) = make_pixels(&mut decl, spec, means)?;
        let (host_page, own) = make_page(&decl, Writers::Creator, means)?;
        let (worker_page, peer) = make_page(&decl, Writers::All, means)?;
        let pool = Self::new(decl, spec, pixels, &own, &peer)?;
        Ok((pool, Handles { pixels: store, host_page, worker_page }))
    }

    /// The same memory for a worker's next life, with fresh pages. `pixels` is its handle.
    ///
    /// # Errors
    /// What the system answers.
    pub(crate) fn again(&self, pixels: Store, means: Means) -> Result<(Self, Handles), Error> {
        let (host_page, own) = make_page(&self.decl, Writers::Creator, means)?;
        let (worker_page, peer) = make_page(&self.decl, Writers::All, means)?;
        let pool = Self::new(self.decl.clone(), &self.spec, Arc::clone(&self.pixels), &own, &peer)?;
        Ok((pool, Handles { pixels, host_page, worker_page }))
    }

    /// Joins a pool from its three handles.
    ///
    /// # Errors
    /// Handles that are not what was announced.
    pub(crate) fn join(decl: control::Pool, spec: &Spec, handles: [Handle; 3]) -> Result<Self, Error> {
        let system = Error::system("joining a pool");
        let [pixels, host_page, worker_page] = handles;
        let page = page_len(decl.slots, decl.meta);
        let map = |handle, len, writers, writable| Region::adopt(handle, len, writers)?.map(writable);
        let pixels = Pixels::adopt(pixels, &plan(&decl, spec, Side::Worker)?).map_err(&system)?;
        let peer = map(host_page, page, Writers::Creator, false).map_err(&system)?;
        let own = map(worker_page, page, Writers::All, true).map_err(&system)?;
        let mut asked_for = spec.clone();
        if let (Spec::Video(video), Some(_)) = (&mut asked_for, pixels.places()) {
            // Where the host's system has put them: adopted only if that is what was announced.
            video.planes = None;
        }
        Self::new(decl, &asked_for, Arc::new(pixels), &Arc::new(own), &Arc::new(peer))
    }

    fn new(
        decl: control::Pool,
        spec: &Spec,
        pixels: Arc<Pixels>,
        own: &Arc<Map>,
        peer: &Arc<Map>,
    ) -> Result<Self, Error> {
        let placed = place(spec, &pixels);
        let layout = placed.layout()?;
        let has_slots = (1..=pixels.slots()).contains(&(decl.slots as usize));
        let fits = has_slots && layout.size <= decl.stride && decl.stride == pixels.stride();
        let own = OwnPage::new(own, decl.slots, decl.meta);
        let peer = PeerPage::new(peer, decl.slots, decl.meta);
        match (own, peer) {
            (Some(own), Some(peer)) if fits => {
                let view = layout.image_view();
                Ok(Self { decl, spec: spec.clone(), placed, layout, view, own, peer, pixels, note: PoolNote::new() })
            }
            _ => Err(Error::Protocol { what: format!("the pool announced for {spec} does not hold it") }),
        }
    }

    /// The payload bytes of a slot, `len` of them; `None` out of range.
    pub(crate) fn bytes(&self, slot: u32, len: usize) -> Option<Bytes<'_>> {
        let inside = slot < self.decl.slots && len <= self.layout.size;
        inside.then(|| Bytes::of_slot(&self.pixels, slot, len)).flatten()
    }

    /// To be had by a loan, a received frame and a view for as long as they are there; none for a slot the pool does not have.
    pub(crate) fn access(&self, slot: u32, intent: Intent) -> Option<Access> {
        self.pixels.access(slot, intent)
    }

    /// Whether a slot of one can carry a frame of the other.
    pub(crate) fn same_memory(&self, other: &Self) -> bool {
        self.spec.same_values(&other.spec) && self.layout == other.layout
    }

    /// Whether a payload of `len` bytes is one of this pool's spec.
    pub(crate) fn accepts(&self, len: u64) -> bool {
        match self.spec {
            Spec::Bytes(_) => usize::try_from(len).is_ok_and(|len| len <= self.layout.size),
            _ => usize::try_from(len) == Ok(self.layout.size),
        }
    }
}
