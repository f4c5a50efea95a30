//! A task's calls, counted, so that it can be killed at any one of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use frameport_sys::mach::task::Notify;
use frameport_sys::mach::{Buffer, Kern, Name, Task};

use super::{Kernel, Raw, SimSurface, State, TaskId};

/// What a dead task's calls would answer, if there were anybody to hear it.
const TERMINATED: Kern = Kern(37);

/// A task.
#[derive(Clone)]
pub(crate) struct SimTask {
    kernel: Kernel,
    /// Changes where a fork is played: the values are the parent's, the space is the child's.
    id: Arc<AtomicU32>,
}

impl fmt::Debug for SimTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.pid())
    }
}

impl SimTask {
    pub(super) fn new(kernel: &Kernel, id: TaskId) -> Self {
        Self { kernel: kernel.clone(), id: Arc::new(AtomicU32::new(id.0)) }
    }

    pub(crate) fn id(&self) -> TaskId {
        TaskId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// From here on everything that has this task runs as `child`.
    pub(crate) fn become_(&self, child: &Self) {
        self.id.store(child.pid(), Ordering::Relaxed);
    }

    pub(crate) fn kill(&self) {
        self.kernel.state().terminate(self.id());
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.kernel.state().space(self.id()).is_alive
    }

    pub(crate) fn dies_at(&self, call: u64) {
        self.kernel.state().space(self.id()).dies_at = Some(call);
    }

    pub(crate) fn hostile(self) -> Self {
        self.kernel.state().space(self.id()).is_hostile = true;
        self
    }

    /// Gives another task a right to send to a port of this one, by a way outside the test.
    pub(crate) fn grant(&self, port: Name, to: &Self) -> Name {
        let mut state = self.kernel.state();
        let right = state.copy_in(self.id(), port, 20).expect("a receive right");
        state.copy_out(to.id(), right).expect("room")
    }

    /// Plants a fault: this task's `nth` release of a right does nothing, as if it were not in the program.
    pub(crate) fn omits_release(&self, nth: u64) {
        self.kernel.state().space(self.id()).omits = Some(nth);
    }

    /// Plants a fault: this task's messages say `to` wherever they should say disposition `from`.
    pub(crate) fn confuses(&self, from: u32, to: u32) {
        self.kernel.state().space(self.id()).confuses = Some((from, to));
    }

    /// Releases so far.
    pub(crate) fn releases(&self) -> u64 {
        self.kernel.state().space(self.id()).releases
    }

    /// Sends anything at all.
    pub(crate) fn send_raw(&self, raw: &Raw) -> Kern {
        self.call(TERMINATED, |state, task| state.send(task, raw, None))
    }

    pub(crate) fn memory_entry(&self, len: u64, is_writable: bool) -> Name {
        self.call(Name::NULL, |state, task| state.memory_entry(task, len, is_writable))
    }

    pub(crate) fn map(&self, entry: Name, len: u64, is_writable: bool) -> Result<(), Kern> {
        self.call(Err(TERMINATED), |state, task| state.map(task, entry, len, is_writable))
    }

    fn call<R>(&self, when_dead: R, call: impl FnOnce(&mut State, TaskId) -> R) -> R {
        let (mut state, id) = (self.kernel.state(), self.id());
        let space = state.space(id);
        space.calls += 1;
        if space.dies_at == Some(space.calls) {
            state.terminate(id);
        }
        if state.space(id).is_alive { call(&mut state, id) } else { when_dead }
    }

    /// A release, unless that is the fault.
    fn release(
        &self,
        what: &str,
        name: Name,
        call: impl FnOnce(&mut State, TaskId) -> Result<(), Kern>,
    ) -> Result<(), Kern> {
        self.strict(what, name, |state, task| {
            let space = state.space(task);
            space.releases += 1;
            if space.omits == Some(space.releases) { Ok(()) } else { call(state, task) }
        })
    }

    /// A call that a task makes only on rights it has.
    fn strict<R>(
        &self,
        what: &str,
        name: Name,
        call: impl FnOnce(&mut State, TaskId) -> Result<R, Kern>,
    ) -> Result<R, Kern> {
        self.call(Err(TERMINATED), |state, task| {
            call(state, task).inspect_err(|answer| state.fault(task, format!("{what} of {name:?}: {answer}")))
        })
    }
}

impl Task for SimTask {
    type Surface = SimSurface;

    fn pid(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    fn construct(&self, queue_limit: u32) -> Result<Name, Kern> {
        self.call(Err(TERMINATED), |state, task| {
            // mach_port.c, mach_port_construct: MACH_PORT_QLIMIT_MAX.
            if queue_limit > 1024 {
                return Err(Kern::INVALID_VALUE);
            }
            let port = state.new_port(None, queue_limit as usize);
            state.copy_out(task, super::port::Carried { port: Some(port), kind: super::port::Kind::Receive })
        })
    }

    fn set_queue_limit(&self, name: Name, queue_limit: u32) -> Result<(), Kern> {
        self.strict("queue limit", name, |state, task| state.limit(task, name, queue_limit))
    }

    fn make_send(&self, name: Name) -> Result<(), Kern> {
        self.strict("make send", name, |state, task| {
            let made = state.copy_in(task, name, 20)?;
            state.copy_out(task, made).map(drop)
        })
    }

    fn release_receive(&self, name: Name) -> Result<(), Kern> {
        self.release("release of the receive right", name, |state, task| state.release_receive(task, name))
    }

    fn deallocate(&self, name: Name) -> Result<(), Kern> {
        self.release("deallocate", name, |state, task| state.deallocate(task, name))
    }

    fn is_sole_send(&self, name: Name) -> bool {
        self.call(false, |state, task| {
            state.space(task).names.get(&name).is_some_and(|it| it.send == 1 && !it.receive && it.request.is_none())
        })
    }

    fn request_notification(&self, port: Name, what: Notify, sync: u32, to: Name) -> Result<Name, Kern> {
        self.call(Err(TERMINATED), |state, task| {
            let answer = state.request(task, port, what.id(), sync, to);
            if let Err(answer) = answer
                && answer != Kern::INVALID_ARGUMENT
            {
                state.fault(task, format!("request of {what:?} for {port:?}: {answer}"));
            }
            answer
        })
    }

    unsafe fn send(&self, message: &mut Buffer, size: u32, _limit_ms: u32) -> Kern {
        self.call(TERMINATED, |state, task| state.send_buffer(task, message, size))
    }

    fn receive(&self, from: Name, into: &mut Buffer, _limit_ms: u32) -> Kern {
        self.call(TERMINATED, |state, task| state.receive(task, from, into))
    }

    unsafe fn destroy(&self, message: &mut Buffer) {
        self.call((), |state, task| state.destroy(task, message));
    }

    fn check_in(&self, service: &str) -> Result<Name, Kern> {
        self.call(Err(TERMINATED), |state, task| state.check_in(task, service))
    }

    fn look_up(&self, service: &str) -> Result<Name, Kern> {
        self.call(Err(TERMINATED), |state, task| state.look_up(task, service))
    }

    fn registered(&self) -> Result<[Name; 3], Kern> {
        self.call(Err(TERMINATED), |state, task| Ok(state.registered(task)))
    }

    fn register(&self, ports: [Name; 3]) -> Result<(), Kern> {
        if self.call(true, |state, task| state.space(task).sandbox.registered) {
            return Err(Kern::FAILURE);
        }
        self.strict("register", ports[2], |state, task| state.register(task, ports))
    }

    fn surface_port(&self, surface: &SimSurface) -> Result<Name, Kern> {
        self.call(Err(TERMINATED), |state, task| state.surface_port(task, surface.id))
    }

    fn surface_from_port(&self, port: Name) -> Option<SimSurface> {
        self.call(None, |state, task| state.surface_from_port(task, port)).map(|id| SimSurface::adopt(self, id))
    }
}
