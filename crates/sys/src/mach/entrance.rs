//! Where workers find their host: one name for all of them, and one port without a name.
//!
//! *Who calls it*: the host, once; its service thread receives from both. *Invariants*: a process has one name, a random one,
//! which ends with it or with this value, whichever is first; whoever knows it can send to it, so that nothing is believed
//! without a nonce; where a sandbox denies the name, the other port remains. *A hostile peer*, and anybody else of the same
//! login, can fill both queues: workers that start at that moment come too late.

use super::error::{Denied, Operation, SetupError, Slot};
use super::right::{ReceiveRight, SendRight};
use super::slot;
use super::task::{Kern, Task};

/// What every name begins with.
pub const PREFIX: &str = "io.github.frameport";
/// Messages each of the two ports can hold: check-ins of workers that start together.
const QUEUE: u32 = 64;

/// The host's two rendezvous ports.
#[derive(Debug)]
pub struct Entrance<T: Task> {
    named: Result<ReceiveRight<T>, Kern>,
    service: String,
    // Released before the port it sends to.
    to_unnamed: SendRight<T>,
    unnamed: ReceiveRight<T>,
}

impl<T: Task> Entrance<T> {
    /// Opens both, under a name made of `random` bytes.
    ///
    /// # Errors
    /// No port could be made at all. That the name is denied is no error: [`Self::denied`].
    pub fn open(task: &T, random: [u8; 16]) -> Result<Self, Kern> {
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let service = format!("{PREFIX}.{}.{hex}", task.pid());
        let named = task.check_in(&service).and_then(|name| ReceiveRight::own(task, name).ok_or(Kern::FAILURE));
        if let Ok(port) = &named {
            // launchd made it, with room for five.
            port.set_queue_limit(QUEUE)?;
        }
        let unnamed = ReceiveRight::new(task, QUEUE)?;
        let to_unnamed = unnamed.make_send()?;
        Ok(Self { named, service, to_unnamed, unnamed })
    }

    /// The name, for the hello of a worker; none where it is denied.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.named.is_ok().then_some(&*self.service)
    }

    /// What the name was denied with.
    #[must_use]
    pub fn denied(&self) -> Option<Kern> {
        self.named.as_ref().err().copied()
    }

    /// The ports to receive from.
    pub fn ports(&self) -> impl Iterator<Item = &ReceiveRight<T>> {
        self.named.iter().chain([&self.unnamed])
    }

    /// Spawns a worker that inherits a right to send to the port without a name.
    ///
    /// # Errors
    /// What the kernel answers before the spawn; then nothing was spawned.
    pub fn lend<R>(&self, spawn: impl FnOnce() -> R) -> Result<R, Kern> {
        slot::lend(self.unnamed.task(), &self.to_unnamed, spawn)
    }

    /// Spawns a worker that will find one of the two ports, the one without a name if that can be: what the spawn returned,
    /// and whether the worker inherits a right.
    ///
    /// # Errors
    /// [`SetupError::RendezvousDenied`] where the worker would find neither; then nothing was spawned.
    pub fn admit<R>(&self, spawn: impl FnOnce() -> R) -> Result<(R, bool), SetupError> {
        let mut spawn = Some(spawn);
        let mut once = || spawn.take().map(|spawn| spawn());
        let (spawned, lent) = match (self.lend(&mut once), self.denied()) {
            // A fork beside the spawn may have taken the port away; the worker looks for itself.
            (Ok(spawned), _) => (spawned, true),
            (Err(_), None) => (once(), false),
            (Err(answer), Some(denied)) => {
                let slot = Slot::Unreadable(answer);
                let denied = Denied { operation: Operation::Register, answer: denied, slot };
                return Err(SetupError::RendezvousDenied(denied));
            }
        };
        // Called once, here or there.
        spawned.map(|spawned| (spawned, lent)).ok_or(SetupError::Kernel(Kern::FAILURE))
    }
}
