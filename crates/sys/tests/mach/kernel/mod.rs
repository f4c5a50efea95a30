//! A simulated Mach kernel: as strict about rights as XNU, and stricter about whoever gets them wrong.
//!
//! What it keeps: ports with their queues and counts, each task's names with their references, launchd's names, registered
//! ports, memory entries, surfaces with use counts. A mistake of a task that is not hostile is a *fault*, and so is whatever is
//! left at the end: [`Kernel::verdict`] lists them all. Each rule names the function of XNU it follows; those of IOSurface, which
//! is not published, follow its headers. One thread runs all tasks, so a wait that nothing can end is over at once.

mod delivery;
mod launchd;
mod message;
mod port;
mod right;
mod surface;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frameport_sys::mach::Name;

pub(crate) use message::{Item, OutOfLine, Raw};
pub(crate) use surface::SimSurface;
pub(crate) use task::SimTask;

use port::{Entry, Port, PortId};
use surface::{Memory, SurfaceState};

/// A task, for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(u32);

/// What a task's sandbox denies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sandbox {
    pub(crate) register: bool,
    pub(crate) look_up: bool,
    pub(crate) surfaces: bool,
    /// The registered ports, which no sandbox is known to guard.
    pub(crate) registered: bool,
}

/// One task's part of the world.
#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) uid: u32,
    pub(crate) is_alive: bool,
    /// Its mistakes are no faults.
    pub(crate) is_hostile: bool,
    pub(crate) sandbox: Sandbox,
    names: BTreeMap<Name, Entry>,
    registered: [Option<PortId>; 3],
    /// Out-of-line memory mapped by messages: address, and the names in it.
    memory: BTreeMap<u64, Vec<Name>>,
    /// Calls made so far, and the call it dies at.
    pub(crate) calls: u64,
    pub(crate) dies_at: Option<u64>,
    /// Releases so far, and the one that is left out.
    releases: u64,
    omits: Option<u64>,
    confuses: Option<(u32, u32)>,
    /// How many more names fit in, where that is limited.
    pub(crate) room: Option<usize>,
    /// No more memory fits in.
    pub(crate) is_map_full: bool,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct State {
    ports: BTreeMap<PortId, Port>,
    pub(crate) spaces: BTreeMap<TaskId, Space>,
    services: BTreeMap<String, PortId>,
    surfaces: BTreeMap<u32, SurfaceState>,
    memories: BTreeMap<u32, Memory>,
    pub(crate) faults: Vec<String>,
    counter: u32,
    /// The kernel leaves the audit token out, as if it had not been asked for it.
    pub(crate) omits_audit: bool,
    /// libSystem's `fork` wipes registered ports 1 and 2, in parent and child (macos.md §3.2: reported, not source).
    pub(crate) fork_wipes: bool,
    /// A task that dies as soon as the next message was sent to anybody.
    pub(crate) dies_after_send: Option<TaskId>,
    /// A task that dies as soon as somebody's send was interrupted.
    pub(crate) dies_after_interruption: Option<TaskId>,
    /// So many sends of one task are interrupted by a signal.
    pub(crate) interrupts: Option<(TaskId, usize)>,
    /// Messages of one task are not sent but come back at once, as if the queue were full.
    pub(crate) is_full_for: Option<TaskId>,
    /// The framework locks no surface.
    pub(crate) refuses_locks: bool,
}

impl State {
    fn count(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    fn fault(&mut self, task: TaskId, what: String) {
        if self.spaces.get(&task).is_some_and(|space| space.is_alive && !space.is_hostile) {
            self.faults.push(format!("task {}: {what}", task.0));
        }
    }

    pub(crate) fn space(&mut self, task: TaskId) -> &mut Space {
        self.spaces.get_mut(&task).expect("the task exists")
    }
}

/// The kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel(Arc<Mutex<State>>);

impl Kernel {
    pub(crate) fn new() -> Self {
        let mut state = State { fork_wipes: true, ..State::default() };
        // launchd's own port, which libxpc keeps in every task's slot 0.
        let bootstrap = state.new_port(None, 1);
        state.ports.get_mut(&bootstrap).expect("just made").is_immortal = true;
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process started by launchd.
    pub(crate) fn boot(&self, uid: u32) -> SimTask {
        let mut state = self.state();
        let bootstrap = state.ports.keys().next().copied();
        let id = TaskId(state.count() + 100);
        let space = Space { uid, is_alive: true, registered: [bootstrap, None, None], ..Space::default() };
        state.spaces.insert(id, space);
        SimTask::new(self, id)
    }

    /// `posix_spawn`: a new task with its parent's registered ports and nothing else of its (ipc_tt.c, ipc_task_init).
    pub(crate) fn spawn(&self, parent: &SimTask) -> SimTask {
        let (uid, sandbox) = {
            let mut state = self.state();
            let space = state.space(parent.id());
            (space.uid, space.sandbox)
        };
        let child = self.boot(uid);
        let mut state = self.state();
        let inherited = state.space(parent.id()).registered;
        let inherited = inherited.map(|port| port.filter(|port| state.is_alive(*port)));
        inherited.iter().flatten().for_each(|port| state.add_send(*port));
        let space = state.space(child.id());
        (space.registered, space.sandbox) = (inherited, sandbox);
        drop(state);
        child
    }

    /// libSystem's `fork`, which lets libxpc register its bootstrap port alone, in the parent, before the child is made.
    pub(crate) fn fork(&self, parent: &SimTask) -> SimTask {
        let mut state = self.state();
        if state.fork_wipes {
            state.replace_registered(parent.id(), 1, None);
            state.replace_registered(parent.id(), 2, None);
        }
        drop(state);
        self.spawn(parent)
    }

    /// Faults, and what is left that nobody will release.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let state = self.state();
        let mut found = state.faults.clone();
        for (id, space) in state.spaces.iter().filter(|(_, space)| space.is_alive) {
            found.extend(space.names.iter().map(|(name, entry)| format!("task {}: {name:?} is left: {entry:?}", id.0)));
            found.extend(space.memory.keys().map(|at| format!("task {}: memory at {at:#x} is left", id.0)));
            let slots = space.registered.iter().enumerate().skip(1).filter(|(_, port)| port.is_some());
            found.extend(slots.map(|(slot, _)| format!("task {}: registered port {slot} is left", id.0)));
        }
        let ports = state.ports.iter().filter(|(_, port)| port.is_alive && !port.is_immortal);
        found.extend(ports.map(|(id, port)| format!("{id:?} is left: {port:?}")));
        found.extend(state.services.keys().map(|name| format!("the name {name} is left")));
        found.extend(state.surfaces.iter().map(|(id, surface)| format!("surface {id} is left: {surface:?}")));
        found
    }

    /// Nothing is wrong and nothing is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let found = self.verdict();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Some fault or remainder says `what`.
    #[track_caller]
    pub(crate) fn assert_found(&self, what: &str) {
        let found = self.verdict();
        assert!(found.iter().any(|line| line.contains(what)), "nothing says {what:?}: {found:#?}");
    }

    /// Whether a message waits in one of a task's ports: what a kqueue that watches them tells.
    pub(crate) fn is_readable(&self, task: &SimTask, ports: &[Name]) -> bool {
        let mut state = self.state();
        let watched = ports.iter().filter_map(|name| state.space(task.id()).names.get(name)?.port).collect::<Vec<_>>();
        watched.iter().any(|port| !state.port(*port).queue.is_empty())
    }

    /// Rights a task has, in names.
    pub(crate) fn names(&self, task: &SimTask) -> usize {
        self.state().space(task.id()).names.len()
    }
}
