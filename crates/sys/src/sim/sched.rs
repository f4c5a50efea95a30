//! Tasks: who runs, who waits for what, and when time passes.
//!
//! *Who calls it*: every other module of the simulation. *Invariants*: the state is never borrowed across a switch; a task
//! that is dead never runs again, and its stack is kept until the world ends; a deadline passes only when no task could
//! go on without it, so that a wait that ends by its deadline was woken by nobody.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::kernel::State;
pub(super) use super::tasks::Key;
use super::tasks::{Mode, Resume, Task};

/// Bytes of a task's stack.
const STACK: usize = 256 * 1024;
/// What a turn of a spin and a look at the clock take, in ns.
const TURN: u64 = 200;
/// Switches kept for the report of a failure.
const TRACE: usize = 60;

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
    /// That of the running task.
    static YIELDER: Cell<*const Yielder<Resume, ()>> = const { Cell::new(std::ptr::null()) };
    /// Stacks to use again.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// Something of the world this thread runs; `None` outside of one.
pub(super) fn with<T>(look: impl FnOnce(&mut State) -> T) -> Option<T> {
    STATE.with_borrow_mut(|state| state.as_mut().map(look))
}

/// As [`with`], inside a world.
///
/// # Panics
/// Outside.
pub(super) fn inside<T>(look: impl FnOnce(&mut State) -> T) -> T {
    with(look).unwrap_or_else(|| unreachable!("only in a simulated world"))
}

fn suspend() {
    // SAFETY: the running task set it to the yielder of its own stack, which lives as long as the task runs.
    let yielder = unsafe { &*YIELDER.get() };
    if matches!(yielder.suspend(()), Resume::End) {
        resume_unwind(Box::new("the world is over"));
    }
}

/// Gives way for good.
pub(super) fn never() -> ! {
    loop {
        suspend();
    }
}

/// A place where another task may run instead.
#[inline]
pub(super) fn point(what: &'static str) {
    let switch = with(|state| {
        if state.over {
            return false;
        }
        state.step(what);
        let delayed = state.chance(state.faults.delays);
        if delayed {
            let most = u64::from(state.faults.longest_delay_ns.max(1).ilog2());
            let magnitude = state.random.below(most + 1);
            let time = state.random.below(2 << magnitude) + 1;
            let until = Some(state.tasks.now + time);
            state.block(Vec::new(), until, "delayed by the system");
        }
        state.is_doomed() || delayed || state.chance(state.faults.switch)
    });
    if switch == Some(true) {
        suspend();
    }
}

/// One turn of a spin: lets others run, and takes time.
pub(super) fn turn() {
    let switch = with(|state| {
        if state.over {
            return false;
        }
        state.step("spins");
        let current = state.tasks.current;
        if let Some(task) = state.tasks.all.get_mut(current) {
            task.yielded = true;
        }
        state.tasks.now += TURN;
        true
    });
    if switch == Some(true) {
        suspend();
    }
}

/// The time, which passes by looking at it.
pub(super) fn look_at_clock() -> u64 {
    with(|state| {
        // Whoever waits in a world that is over waits in vain.
        state.tasks.now += if state.over { 3_600_000_000_000 } else { TURN / 4 };
        state.tasks.now
    })
    .unwrap_or_default()
}

/// Blocks until one of `keys` is woken (true) or the deadline has come. May end early where the caller looks again.
pub(super) fn block(keys: Vec<Key>, deadline: Option<u64>, what: &'static str, looks_again: bool) -> bool {
    let blocked = with(|state| {
        if state.over {
            state.tasks.steps += 1;
            return state.tasks.steps > state.faults.steps;
        }
        state.step(what);
        if !(looks_again && state.chance(state.faults.spurious)) {
            state.block(keys, deadline, what);
        }
        true
    });
    if blocked != Some(true) {
        return false;
    }
    suspend();
    inside(|state| !state.tasks.all.get(state.tasks.current).is_some_and(|task| task.timed_out))
}

impl State {
    fn step(&mut self, what: &'static str) {
        self.tasks.steps += 1;
        if self.tasks.steps > self.faults.steps && self.failure.is_none() {
            self.fail(format!("livelock: more than {} steps, the last one: {what}", self.faults.steps));
        }
        self.tasks.trace.push_back((self.tasks.now, self.tasks.current, what));
        if self.tasks.trace.len() > TRACE {
            self.tasks.trace.pop_front();
        }
        self.meet_fate();
    }

    fn block(&mut self, keys: Vec<Key>, deadline: Option<u64>, what: &'static str) {
        let current = self.tasks.current;
        // Its process may have just ended.
        if let Some(task) = self.tasks.all.get_mut(current).filter(|task| !task.is_done()) {
            task.mode = Mode::Blocked { keys, deadline, what };
            task.timed_out = false;
        }
    }

    /// Whether the running task must not go on.
    fn is_doomed(&self) -> bool {
        let task = self.tasks.all.get(self.tasks.current);
        self.failure.is_some() || task.is_none_or(|task| task.is_done() || self.is_stopped(task.process))
    }

    /// Who runs next. `None`: nobody ever.
    fn pick(&mut self) -> Option<usize> {
        loop {
            let mut ready = Vec::new();
            let mut spinning = Vec::new();
            for &index in &self.tasks.live {
                let Some(task) = self.tasks.all.get(index) else { continue };
                if matches!(task.mode, Mode::Runnable) && !self.is_stopped(task.process) {
                    if task.yielded { spinning.push(index) } else { ready.push(index) }
                }
            }
            if ready.is_empty() && !spinning.is_empty() {
                // They wait for each other or for time to pass.
                self.tasks.now += TURN;
                for &index in &spinning {
                    self.tasks.all.get_mut(index).into_iter().for_each(|task| task.yielded = false);
                }
                if self.fire_all() {
                    continue;
                }
                ready = spinning;
            }
            if !ready.is_empty() {
                let choice = self.random.below(ready.len() as u64) as usize;
                return ready.get(choice).copied();
            }
            let next = self.tasks.next_deadline().into_iter().chain(self.next_timer()).min()?;
            self.tasks.now = self.tasks.now.max(next);
            self.fire_all();
        }
    }

    fn fire_all(&mut self) -> bool {
        let timers = self.fire_timers();
        self.tasks.fire() || timers
    }

    /// Another task of `process`.
    pub(super) fn spawn(&mut self, process: u32, name: &str, run: Box<dyn FnOnce()>) -> usize {
        let index = self.tasks.all.len();
        let stack = STACKS.with_borrow_mut(Vec::pop);
        #[expect(clippy::expect_used, reason = "a test without memory ends")]
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK).expect("memory for a stack"));
        let body = Coroutine::with_stack(stack, move |yielder: &Yielder<Resume, ()>, start| {
            YIELDER.set(yielder);
            with(|state| {
                let current = state.tasks.current;
                state.tasks.all.get_mut(current).into_iter().for_each(|task| task.yielder = yielder);
            });
            if matches!(start, Resume::End) {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("something else").to_owned();
                with(|state| {
                    if !state.over {
                        state.fail(format!("panic: {text}"));
                    }
                });
            }
        });
        let program = self.processes.get(&process).map_or("", |process| &process.name);
        let (mode, name) = (Mode::Runnable, format!("{program} {process}/{name}"));
        let task =
            Task { process, name, mode, timed_out: false, yielded: false, body: Some(body), yielder: std::ptr::null() };
        self.tasks.all.push(task);
        self.tasks.live.push(index);
        index
    }
}

/// Puts `state` in charge of this thread.
pub(super) fn enter(state: State) {
    STATE.set(Some(state));
}

/// Lets tasks run until `is_over` says so, something fails or nobody can go on.
pub(super) fn run(mut is_over: impl FnMut(&mut State) -> bool) {
    loop {
        let next = inside(|state| {
            if state.failure.is_some() || is_over(state) {
                return None;
            }
            let next = state.pick();
            if next.is_none() {
                state.fail("deadlock: no task can run, and no time will change that".to_owned());
            }
            next
        });
        let Some(index) = next else { return };
        if resume(index, Resume::Run) {
            inside(|state| state.tasks.bury(index));
        }
    }
}

/// Runs a task until it gives way; whether it is finished.
fn resume(index: usize, how: Resume) -> bool {
    let body = inside(|state| {
        state.tasks.current = index;
        let task = state.tasks.all.get_mut(index)?;
        YIELDER.set(task.yielder);
        let mixed = state.tasks.fingerprint ^ (index as u64) ^ state.tasks.now.rotate_left(32);
        state.tasks.fingerprint = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        task.body.take()
    });
    let Some(mut body) = body else { return true };
    let finished = matches!(body.resume(how), CoroutineResult::Return(()));
    if finished {
        STACKS.with_borrow_mut(|stacks| stacks.push(body.into_stack()));
    } else {
        inside(|state| {
            if let Some(task) = state.tasks.all.get_mut(index) {
                task.body = Some(body);
            }
        });
    }
    finished
}

/// Ends the world: frees what its tasks own, as far as that can be had.
pub(super) fn leave() -> State {
    let (count, failed) = inside(|state| {
        state.over = true;
        state.tasks.steps = 0;
        // One that waits for a dead one's doing is not waited for long.
        state.faults.steps = state.faults.steps.min(2_000);
        (state.tasks.all.len(), state.failure.is_some())
    });
    for index in 0..count {
        // After a failure nothing of the stacks can be relied on.
        if !failed && resume(index, Resume::End) {
            continue;
        }
        let body = inside(|state| state.tasks.all.get_mut(index).and_then(|task| task.body.take()));
        if let Some(mut body) = body {
            // SAFETY: what is on the stack is forgotten, not used again: no task runs any more.
            unsafe { body.force_reset() };
            STACKS.with_borrow_mut(|stacks| stacks.push(body.into_stack()));
        }
    }
    STATE.take().unwrap_or_else(|| unreachable!("the world was entered"))
}
