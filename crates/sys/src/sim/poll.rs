//! Waiting for many things from one task.

use std::io;

use super::handle::{Handle, check};
use super::kernel::{Source, State, Watch, What};
use super::sched::{self, Key};

/// What can be watched.
pub trait Watched {
    #[doc(hidden)]
    fn number(&self) -> (u8, u64);
}

fn source(of: &impl Watched) -> Source {
    match of.number() {
        (0, id) => Source::Control(id),
        (1, pid) => Source::Stderr(pid as u32),
        (_, pid) => Source::Child(pid as u32),
    }
}

/// A set of things to watch.
#[derive(Debug)]
pub struct Poller(Handle);

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn new() -> io::Result<Self> {
        check(|state| state.faults.handles)?;
        Ok(Self(Handle::new(|_| What::Poller { watched: Vec::new() })))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Watch>)) {
        sched::with(|state| {
            if let Some(What::Poller { watched }) = state.objects.get_mut(&self.0.0).map(|object| &mut object.what) {
                change(watched);
            }
            state.tasks.wake(Key::Object(self.0.0));
        });
    }

    /// Adds `it`: readable, at its end or in error is an event with `token`.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn add(&self, it: &impl Watched, token: u64) -> io::Result<()> {
        sched::point("poller add");
        check(|state| state.faults.handles)?;
        self.change(|watched| watched.push(Watch { source: source(it), token, room: false }));
        Ok(())
    }

    /// Whether room to write is an event too.
    pub fn watch_room(&self, it: &impl Watched, token: u64, yes: bool) {
        sched::point("poller change");
        let source = source(it);
        self.change(|watched| {
            let known = watched.iter_mut().find(|watch| watch.source == source);
            known.into_iter().for_each(|watch| *watch = Watch { source, token, room: yes });
        });
    }

    /// Takes `it` out again.
    pub fn remove(&self, it: &impl Watched) {
        sched::point("poller remove");
        let source = source(it);
        self.change(|watched| watched.retain(|watch| watch.source != source));
    }

    /// Waits for events and returns their tokens, in any order.
    ///
    /// # Errors
    /// The world is over.
    pub fn wait(&self) -> io::Result<Vec<u64>> {
        sched::point("poll");
        loop {
            let mut keys = vec![Key::Object(self.0.0)];
            let mut tokens = Vec::new();
            let over = sched::inside(|state| {
                let Some(What::Poller { watched }) = state.objects.get(&self.0.0).map(|object| object.what.clone())
                else {
                    return true;
                };
                for watch in watched {
                    let (ready, key) = is_ready(state, watch);
                    if ready {
                        tokens.push(watch.token);
                    }
                    keys.push(key);
                }
                // As the kernel's order, which nobody knows.
                for end in (1..tokens.len()).rev() {
                    let other = state.random.below(end as u64 + 1) as usize;
                    tokens.swap(end, other);
                }
                state.over
            });
            if over {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if !tokens.is_empty() {
                return Ok(tokens);
            }
            sched::block(keys, None, "polls", false);
        }
    }
}

fn is_ready(state: &State, watch: Watch) -> (bool, Key) {
    match watch.source {
        Source::Control(id) => {
            let Some(What::Control { channel, side, .. }) = state.objects.get(&id).map(|object| &object.what) else {
                return (false, Key::Object(id));
            };
            let Some(flows) = state.channels.get(channel) else { return (false, Key::Object(id)) };
            let incoming = flows.get(1 - side).is_some_and(|flow| !flow.bytes.is_empty() || !flow.is_open || flow.lied);
            let room = flows.get(*side).is_some_and(|flow| flow.bytes.len() < state.faults.control_room);
            (incoming || (watch.room && room), Key::Object(*channel))
        }
        Source::Stderr(pid) => {
            let ready =
                state.processes.get(&pid).is_none_or(|process| !process.stderr.is_empty()) || !state.is_alive(pid);
            (ready, Key::Process(pid))
        }
        Source::Child(pid) => (!state.is_alive(pid), Key::Process(pid)),
    }
}
