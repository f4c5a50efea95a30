//! The thread that notices when the host closes the link or dies, and brings the parameters it sets.
//!
//! *Invariants*: it ends every wait of the worker at once; a worker that does not leave by itself within half a second
//! of its host's death is ended with its whole process group, so that no worker outlives its host by a second, whatever
//! its code is doing. *The host* is trusted.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::socket::Control;
use frameport_sys::{process, thread};
use frameport_wire::control::{Decoder, ToWorker};

use crate::channel::state::{End, LinkState};
use crate::error::Error;

/// How long a worker whose host is dead may take to leave.
const GRACE: Duration = Duration::from_millis(500);

/// Starts the thread.
pub(super) fn start(state: &Arc<LinkState>, control: &Arc<Control>, decoder: Decoder, group: u32) -> Result<(), Error> {
    let system = Error::system("starting the watcher thread");
    control.limit_reads(Duration::ZERO).map_err(&system)?;
    // From here on a frame's parameters are waited for.
    state.newest();
    let (state, control) = (Arc::clone(state), Arc::clone(control));
    let watcher = thread::Builder::new().name("frameport".into());
    watcher.spawn(move || watch(&state, &control, decoder, group)).map(|_| ()).map_err(&system)
}

fn watch(state: &LinkState, control: &Control, mut decoder: Decoder, group: u32) {
    let mut bytes = [0; 4096];
    loop {
        while let Ok(Some(message)) = decoder.decode::<ToWorker>() {
            match message {
                ToWorker::Close => drop(state.finish(End::PeerClosed)),
                ToWorker::Params { version, values } => state.newest().arrive(version, values),
                _ => {}
            }
        }
        match control.recv(&mut bytes, true) {
            Ok(read) if read > 0 => decoder.push(bytes.get(..read).unwrap_or_default()),
            _ => break,
        }
    }
    state.newest().end();
    state.finish(End::HostGone);
    thread::sleep(GRACE);
    process::end_own_group(group);
}
