//! Threads: tasks of the running process.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::deadline;
use super::sched::{self, Key};

pub use std::thread::Result;

/// Before every access to a word that another process sees.
#[inline]
pub fn preempt() {
    sched::point("shared word");
}

/// A turn of a spin.
pub fn spin_loop() {
    sched::turn();
}

/// A turn of a spin.
pub fn yield_now() {
    sched::turn();
}

/// Sleeps.
pub fn sleep(time: Duration) {
    sched::block(Vec::new(), deadline(Some(time)), "sleeps", false);
}

/// Whether the running task unwinds because of a panic: never, for a panic is the end of a world.
#[must_use]
pub fn panicking() -> bool {
    false
}

/// Starts tasks.
#[derive(Debug, Default)]
pub struct Builder {
    name: Option<String>,
}

/// What a task answers.
type Answer<T> = Arc<Mutex<Option<T>>>;

/// A task to wait for.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: usize,
    answer: Answer<T>,
}

impl Builder {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the task.
    #[must_use]
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// `WouldBlock` where the world's faults say so.
    pub fn spawn<F, T>(self, run: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        sched::point("thread spawn");
        let answer = Answer::default();
        let of_task = Arc::clone(&answer);
        let run = move || {
            let value = run();
            *of_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        };
        let task = sched::inside(|state| {
            if state.over || state.chance(state.faults.threads) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let process = state.current_process();
            Ok::<_, io::Error>(state.spawn(process, self.name.as_deref().unwrap_or("thread"), Box::new(run)))
        })?;
        Ok(JoinHandle { task, answer })
    }
}

impl<T> JoinHandle<T> {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// It has no answer: its process is dead.
    pub fn join(self) -> Result<T> {
        sched::point("join");
        while sched::with(|state| !state.over && !state.is_task_done(self.task)) == Some(true) {
            sched::block(vec![Key::Task(self.task)], None, "joins a thread", false);
        }
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| Box::new("dead") as _)
    }
}
