//! The tasks of a world: who waits for what, and what the time is.
//!
//! *Who calls it*: [`super::sched`], and everybody who wakes. *Invariants*: a task that is done is in no list of living ones.

use std::collections::VecDeque;

use corosensei::{Coroutine, Yielder};

/// How a task is let go on.
#[derive(Clone, Copy)]
pub(super) enum Resume {
    Run,
    /// The world is over: unwind, to free what the stack owns.
    End,
}

pub(super) type Body = Coroutine<Resume, (), ()>;

/// What a blocked task can be woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Something in memory: a lock, a word.
    Place(usize),
    /// An object of the kernel.
    Object(u64),
    /// A process's end.
    Process(u32),
    /// A task's end.
    Task(usize),
}

#[derive(Debug)]
pub(super) enum Mode {
    Runnable,
    Blocked { keys: Vec<Key>, deadline: Option<u64>, what: &'static str },
    Done,
}

/// One thread of one process.
pub(super) struct Task {
    pub(super) process: u32,
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) timed_out: bool,
    /// It has yielded since others ran.
    pub(super) yielded: bool,
    pub(super) body: Option<Body>,
    pub(super) yielder: *const Yielder<Resume, ()>,
}

impl Task {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.mode, Mode::Done)
    }
}

/// The tasks of a world, and its time.
pub(super) struct Tasks {
    pub(super) all: Vec<Task>,
    pub(super) live: Vec<usize>,
    pub(super) current: usize,
    pub(super) now: u64,
    pub(super) steps: u64,
    pub(super) trace: VecDeque<(u64, usize, &'static str)>,
    /// Over all switches: two runs of one seed have the same.
    pub(super) fingerprint: u64,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            live: Vec::new(),
            current: usize::MAX,
            // Not 0, which might pass for "unset".
            now: 1_000_000_000,
            steps: 0,
            trace: VecDeque::new(),
            fingerprint: 0,
        }
    }

    pub(super) fn wake(&mut self, key: Key) {
        for &index in &self.live {
            if let Some(task) = self.all.get_mut(index)
                && let Mode::Blocked { keys, .. } = &task.mode
                && keys.contains(&key)
            {
                task.mode = Mode::Runnable;
                task.timed_out = false;
            }
        }
    }

    /// A task that never runs again.
    pub(super) fn bury(&mut self, index: usize) {
        if let Some(task) = self.all.get_mut(index) {
            task.mode = Mode::Done;
        }
        self.live.retain(|&live| live != index);
        self.wake(Key::Task(index));
    }

    /// Everyone whose deadline has come goes on.
    pub(super) fn fire(&mut self) -> bool {
        let mut fired = false;
        for &index in &self.live {
            if let Some(task) = self.all.get_mut(index)
                && let Mode::Blocked { deadline: Some(deadline), .. } = task.mode
                && deadline <= self.now
            {
                task.mode = Mode::Runnable;
                task.timed_out = true;
                fired = true;
            }
        }
        fired
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let deadlines = self.live.iter().filter_map(|&index| match self.all.get(index)?.mode {
            Mode::Blocked { deadline, .. } => deadline,
            _ => None,
        });
        deadlines.min()
    }

    /// What every task waits for.
    pub(super) fn report(&self) -> String {
        let tasks = self.live.iter().filter_map(|&index| Some((index, self.all.get(index)?)));
        let tasks = tasks.map(|(index, Task { name, mode, .. })| match mode {
            Mode::Blocked { keys, deadline, what } => {
                let left = deadline.map(|at| format!(" for {} ns", at.saturating_sub(self.now))).unwrap_or_default();
                format!("  {index} {name}: {what}{left} {keys:?}\n")
            }
            _ => format!("  {index} {name}: runs\n"),
        });
        let trace = self.trace.iter().map(|(at, index, what)| {
            let name = self.all.get(*index).map_or("?", |task| &task.name);
            format!("  {at} {index} {name}: {what}\n")
        });
        format!("tasks:\n{}last switches:\n{}", tasks.collect::<String>(), trace.collect::<String>())
    }
}
