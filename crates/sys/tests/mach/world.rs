//! A host and its workers.

use std::time::Duration;

use frameport_sys::mach::check_in::{Hello, Nonce, VERSION};
use frameport_sys::mach::entrance::Entrance;
use frameport_sys::mach::host::{HostLink, Offer, Region};
use frameport_sys::mach::rendezvous::{Accepted, Rendezvous, WorkerId};
use frameport_sys::mach::surface::{Geometry, Plane};
use frameport_sys::mach::worker::{CheckedIn, WorkerLink};
use frameport_sys::mach::{Check, Received, SendRight, SetupError, Task};

use crate::kernel::{Kernel, SimTask};

/// No wait is longer than nothing in a simulation of one thread.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
pub(crate) const UID: u32 = 501;
/// The control regions of every link: the host's, which its worker may only read, and the worker's.
pub(crate) const REGIONS: [u64; 2] = [16384, 32768];

/// A wait that nothing can end is over at once.
pub(crate) fn over() -> Result<(), SetupError> {
    Err(SetupError::RendezvousTimeout)
}

/// A nonce of its own for each worker.
pub(crate) fn nonce(worker: u64) -> Nonce {
    Nonce::new(random(worker))
}

fn random(worker: u64) -> [u8; 32] {
    std::array::from_fn(|index| (worker as u8).wrapping_mul(31).wrapping_add(index as u8))
}

/// A host.
pub(crate) struct Host {
    pub(crate) kernel: Kernel,
    pub(crate) task: SimTask,
    pub(crate) entrance: Entrance<SimTask>,
    pub(crate) rendezvous: Rendezvous,
}

/// A host and a worker that have met.
pub(crate) struct Pair {
    pub(crate) host: HostLink<SimTask>,
    pub(crate) worker: WorkerLink<SimTask>,
    pub(crate) task: SimTask,
}

impl Host {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self::of(kernel, kernel.boot(UID)).expect("the host lives")
    }

    pub(crate) fn of(kernel: &Kernel, task: SimTask) -> Result<Self, SetupError> {
        let entrance = Entrance::open(&task, [7; 16])?;
        let rendezvous = Rendezvous::new(UID);
        Ok(Self { kernel: kernel.clone(), task, entrance, rendezvous })
    }

    /// What a worker reads in its pipe.
    pub(crate) fn hello(&self, worker: u64) -> Hello {
        let service = self.entrance.service().map(str::to_owned);
        Hello { version: VERSION, service, lent: true, nonce: nonce(worker), host: self.task.pid() }
    }

    /// Steps 3 to 6: the offer, the expectation, the spawn.
    pub(crate) fn start(&mut self, worker: u64) -> Result<(Offer<SimTask>, SimTask), SetupError> {
        let offer = Offer::new(&self.task)?;
        self.rendezvous.expect(WorkerId(worker), nonce(worker));
        let spawned = self.entrance.lend(|| self.kernel.spawn(&self.task))?;
        Ok((offer, spawned))
    }

    /// Takes every message that has come to either port, and returns the last worker believed.
    pub(crate) fn serve(&mut self) -> (Option<Accepted<SimTask>>, Vec<Check>) {
        let (mut accepted, mut refused) = (None, Vec::new());
        for port in self.entrance.ports() {
            loop {
                match Received::next(port, Duration::ZERO) {
                    Ok(Some(message)) => match self.rendezvous.accept(message) {
                        Ok(one) => accepted = Some(one),
                        Err(check) => refused.push(check),
                    },
                    Ok(None) => break,
                    Err(frameport_sys::mach::received::ReceiveError::Unfit(check)) => {
                        self.rendezvous.unfit(check);
                        refused.push(check);
                    }
                    Err(_) => break,
                }
            }
        }
        (accepted, refused)
    }

    /// Steps 13 and 14, with both control regions.
    pub(crate) fn welcome(
        &self,
        offer: Offer<SimTask>,
        accepted: Accepted<SimTask>,
    ) -> Result<HostLink<SimTask>, SetupError> {
        let entry = |index: usize, is_writable| {
            let name = self.task.memory_entry(REGIONS[index], is_writable);
            SendRight::own(&self.task, name).ok_or(SetupError::Kernel(frameport_sys::mach::Kern::FAILURE))
        };
        let (ours, theirs) = (entry(0, false)?, entry(1, true)?);
        let regions = [Region { entry: &ours, len: REGIONS[0] }, Region { entry: &theirs, len: REGIONS[1] }];
        offer.welcome(accepted, &regions, LIMIT)
    }

    /// All of it.
    pub(crate) fn bring_up(&mut self, worker: u64) -> Result<Pair, SetupError> {
        let (offer, task) = self.start(worker)?;
        self.meet(worker, offer, task)
    }

    pub(crate) fn meet(&mut self, worker: u64, offer: Offer<SimTask>, task: SimTask) -> Result<Pair, SetupError> {
        let checked_in = CheckedIn::new(&task, &self.hello(worker), REGIONS.len(), LIMIT)?;
        let (accepted, refused) = self.serve();
        let accepted = accepted.ok_or_else(|| match refused.first() {
            Some(check) => SetupError::PeerRejected(*check),
            None => SetupError::RendezvousTimeout,
        })?;
        let host = self.welcome(offer, accepted)?;
        let mut worker = checked_in.welcomed(over)?;
        for (index, (entry, len)) in worker.take_regions().into_iter().enumerate() {
            assert_eq!(len, REGIONS[index]);
            task.map(entry.name()?, len, index == 1)?;
        }
        Ok(Pair { host, worker, task })
    }
}

/// Two planes, laid out as IOSurface might, with a stride of its own.
fn two_planes(format: [u8; 4], (width, height): (u32, u32), bytes: u32) -> Geometry {
    let stride = (width * bytes).next_multiple_of(64);
    let luma = Plane { width, height, stride, offset: 0 };
    let (across, down) = (width.div_ceil(2), height.div_ceil(2));
    let chroma = Plane { width: across, height: down, stride, offset: (stride * height).next_multiple_of(128) };
    let (none, len) = (Plane::default(), (chroma.offset + stride * down).next_multiple_of(16384).into());
    Geometry {
        format: u32::from_be_bytes(format),
        width,
        height,
        plane_count: 2,
        planes: [luma, chroma, none, none],
        len,
    }
}

/// NV12.
pub(crate) fn nv12() -> Geometry {
    two_planes(*b"420v", (1917, 1079), 1)
}

/// P010.
pub(crate) fn p010() -> Geometry {
    two_planes(*b"x420", (1920, 1080), 2)
}

/// One plane.
pub(crate) fn bgra() -> Geometry {
    let (none, plane) = (Plane::default(), Plane { width: 13, height: 7, stride: 64, offset: 0 });
    let planes = [plane, none, none, none];
    Geometry { format: u32::from_be_bytes(*b"BGRA"), width: 13, height: 7, plane_count: 1, planes, len: 16384 }
}

/// What a check-in with the nonce of worker 1 says.
pub(crate) fn payload() -> Vec<u32> {
    payload_of(1)
}

/// The same of any worker.
pub(crate) fn payload_of(worker: u64) -> Vec<u32> {
    let random = random(worker);
    let words = random.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    [VERSION].into_iter().chain(words).collect()
}
