//! Surfaces and memory entries: objects of the kernel that a port stands for.
//!
//! IOSurface is not published: what is here follows IOSurfaceRef.h and IOSurfaceAPI.h, and macos.md §7 where those are silent.

use std::collections::BTreeMap;

use frameport_sys::mach::surface::Geometry;
use frameport_sys::mach::{Kern, Name, Surface};
use frameport_sys::pixels::Intent;

use super::port::{Carried, Kind};
use super::{Kernel, SimTask, State, TaskId};

/// What a port stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Object {
    Surface(u32),
    Memory(u32),
}

#[derive(Debug, Default)]
pub(crate) struct SurfaceState {
    geometry: Geometry,
    references: BTreeMap<TaskId, usize>,
    uses: BTreeMap<TaskId, usize>,
    /// Each task's locks: to read, to write. One is to be undone with the options it was made with (IOSurfaceRef.h).
    locks: BTreeMap<TaskId, [usize; 2]>,
    /// Ports that stand for it: each keeps it alive and in use.
    ports: usize,
}

/// A memory entry: what may be mapped of it (vm_user.c, mach_make_memory_entry_64).
#[derive(Debug)]
pub(crate) struct Memory {
    len: u64,
    is_writable: bool,
}

impl State {
    /// No send right is left (ipc_kobject.c, ipc_kobject_notify_no_senders).
    pub(crate) fn object_is_unreachable(&mut self, object: Object) {
        match object {
            Object::Surface(id) => {
                self.surfaces.get_mut(&id).expect("a port keeps its surface").ports -= 1;
                self.drop_surface_if_unused(id);
            }
            Object::Memory(id) => drop(self.memories.remove(&id)),
        }
    }

    fn drop_surface_if_unused(&mut self, id: u32) {
        if self.surfaces.get(&id).is_some_and(|it| it.ports == 0 && it.references.is_empty()) {
            self.surfaces.remove(&id);
        }
    }

    /// A dead process's references, its locks and its share of use counts are dropped.
    pub(crate) fn surfaces_of_dead(&mut self, task: TaskId) {
        let ids: Vec<u32> = self.surfaces.keys().copied().collect();
        for id in ids {
            let it = self.surfaces.get_mut(&id).expect("listed");
            it.references.remove(&task);
            it.uses.remove(&task);
            it.locks.remove(&task);
            self.drop_surface_if_unused(id);
        }
    }

    fn object_port(&mut self, task: TaskId, object: Object) -> Result<Name, Kern> {
        let port = self.new_port(None, 1);
        self.port(port).object = Some(object);
        self.make_send(port);
        self.copy_out(task, Carried { port: Some(port), kind: Kind::Send })
    }

    fn object_of(&mut self, task: TaskId, name: Name) -> Option<Object> {
        let port = self.space(task).names.get(&name)?.port?;
        self.port(port).object
    }

    pub(crate) fn surface_port(&mut self, task: TaskId, id: u32) -> Result<Name, Kern> {
        self.surfaces.get_mut(&id).ok_or(Kern::FAILURE)?.ports += 1;
        self.object_port(task, Object::Surface(id))
    }

    pub(crate) fn surface_from_port(&mut self, task: TaskId, name: Name) -> Option<u32> {
        if self.space(task).sandbox.surfaces {
            return None;
        }
        let Object::Surface(id) = self.object_of(task, name)? else { return None };
        *self.surfaces.get_mut(&id)?.references.entry(task).or_default() += 1;
        Some(id)
    }

    /// `mach_make_memory_entry_64`.
    pub(crate) fn memory_entry(&mut self, task: TaskId, len: u64, is_writable: bool) -> Name {
        let id = self.count();
        self.memories.insert(id, Memory { len, is_writable });
        self.object_port(task, Object::Memory(id)).expect("room")
    }

    /// `mach_vm_map` of an entry (vm_map.c, vm_map_enter_mem_object): no access its entry does not have.
    pub(crate) fn map(&mut self, task: TaskId, name: Name, len: u64, is_writable: bool) -> Result<(), Kern> {
        let Some(Object::Memory(id)) = self.object_of(task, name) else { return Err(Kern::INVALID_ARGUMENT) };
        let memory = self.memories.get(&id).ok_or(Kern::INVALID_ARGUMENT)?;
        if len > memory.len {
            return Err(Kern::INVALID_ARGUMENT);
        }
        if is_writable && !memory.is_writable { Err(Kern::INVALID_RIGHT) } else { Ok(()) }
    }
}

/// One reference of a surface.
#[derive(Debug)]
pub(crate) struct SimSurface {
    task: SimTask,
    pub(crate) id: u32,
}

impl SimSurface {
    pub(crate) fn create(kernel: &Kernel, task: &SimTask, geometry: Geometry) -> Self {
        let mut state = kernel.state();
        let id = state.count();
        if state.space(task.id()).is_alive {
            let references = [(task.id(), 1)].into();
            state.surfaces.insert(id, SurfaceState { geometry, references, ..SurfaceState::default() });
        }
        Self { task: task.clone(), id }
    }

    pub(crate) fn adopt(task: &SimTask, id: u32) -> Self {
        Self { task: task.clone(), id }
    }

    /// As if another had been behind the port.
    pub(crate) fn reshape(&self, geometry: Geometry) {
        self.change(|surface, _| surface.geometry = geometry);
    }

    fn change(&self, change: impl FnOnce(&mut SurfaceState, TaskId)) {
        let mut state = self.task.kernel().state();
        let id = self.task.id();
        if state.space(id).is_alive
            && let Some(surface) = state.surfaces.get_mut(&self.id)
        {
            change(surface, id);
            state.drop_surface_if_unused(self.id);
        }
    }
}

impl SimSurface {
    /// This task's locks of it.
    pub(crate) fn locks(&self) -> [usize; 2] {
        let state = self.task.kernel().state();
        let surface = state.surfaces.get(&self.id);
        surface.and_then(|surface| surface.locks.get(&self.task.id())).copied().unwrap_or_default()
    }

    fn fault(&self, what: &str) {
        self.task.kernel().state().fault(self.task.id(), format!("surface {} {what}", self.id));
    }
}

impl Surface for SimSurface {
    fn geometry(&self) -> Geometry {
        self.task.kernel().state().surfaces.get(&self.id).map(|surface| surface.geometry).unwrap_or_default()
    }

    fn lock(&self, intent: Intent) -> Result<(), Kern> {
        if self.task.kernel().state().refuses_locks {
            return Err(Kern::FAILURE);
        }
        self.change(|surface, task| surface.locks.entry(task).or_default()[intent as usize] += 1);
        Ok(())
    }

    fn unlock(&self, intent: Intent) {
        let mut wrong = false;
        self.change(|surface, task| match surface.locks.entry(task).or_default() {
            locks if locks[intent as usize] == 0 => wrong = true,
            locks => locks[intent as usize] -= 1,
        });
        if wrong {
            self.fault("is unlocked as it was not locked");
        }
    }

    fn begin_use(&self) {
        self.change(|surface, task| *surface.uses.entry(task).or_default() += 1);
    }

    fn end_use(&self) {
        let mut wrong = false;
        self.change(|surface, task| match surface.uses.get_mut(&task) {
            Some(1) => drop(surface.uses.remove(&task)),
            Some(count) => *count -= 1,
            None => wrong = true,
        });
        if wrong {
            self.fault("is in use no more, and its use ends");
        }
    }

    fn is_in_use(&self) -> bool {
        let state = self.task.kernel().state();
        state.surfaces.get(&self.id).is_some_and(|it| it.ports > 0 || !it.uses.is_empty())
    }
}

impl Drop for SimSurface {
    fn drop(&mut self) {
        let mut left = None;
        self.change(|surface, task| {
            let count = surface.references.get_mut(&task).expect("a reference of this task's");
            *count -= 1;
            if *count == 0 {
                surface.references.remove(&task);
                let is_locked = surface.locks.get(&task).is_some_and(|locks| *locks != [0; 2]);
                left = is_locked.then_some("is given up while locked");
                left = left.or(surface.uses.contains_key(&task).then_some("is given up while in use"));
            }
        });
        left.into_iter().for_each(|what| self.fault(what));
    }
}
