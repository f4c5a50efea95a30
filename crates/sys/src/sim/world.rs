//! A world to run hosts and workers in, and what can happen in it.
//!
//! *Who calls it*: tests. A [`World`] knows programs by name and runs one host; its free functions are for the code inside.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{Fates, Program, State};
use super::process::Exit;
use super::sched;

/// Chance, by a seed.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Any number below `limit`; 0 for none.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or_default()
    }
}

/// What goes wrong, one time in as many as each number says; never for 0.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Another task runs at a place where the running one could go on.
    pub switch: u64,
    /// A task is delayed at such a place.
    pub delays: u64,
    /// Up to this many ns.
    pub longest_delay_ns: u64,
    /// A wait whose caller looks again ends for no reason.
    pub spurious: u64,
    /// A read is shorter than what is there.
    pub short_reads: u64,
    /// No region can be made: out of memory.
    pub regions: u64,
    /// No handle can be made: too many open files.
    pub handles: u64,
    /// Nothing can be said to a worker: no memory for what it takes.
    pub sends: u64,
    /// No thread can be started.
    pub threads: u64,
    /// No process can be started.
    pub spawns: u64,
    /// Bytes a control channel holds in each direction.
    pub control_room: usize,
    /// Bytes of memory there are.
    pub memory: u64,
    /// Whether workers are killed when their host is dead.
    pub die_with_parent: bool,
    /// Whether processes can sleep on a word of memory both see.
    pub futex: bool,
    /// More steps than this are a livelock.
    pub steps: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            switch: 4,
            delays: 0,
            longest_delay_ns: 1_000_000,
            spurious: 0,
            short_reads: 0,
            regions: 0,
            handles: 0,
            sends: 0,
            threads: 0,
            spawns: 0,
            control_room: 200 << 10,
            memory: 1 << 40,
            die_with_parent: true,
            futex: true,
            steps: 3_000_000,
        }
    }
}

/// What happens to a process, after so many steps of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// It is killed.
    pub kill: Option<u64>,
    /// It is stopped for a while.
    pub stop: Option<(u64, Duration)>,
}

/// What a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Living tasks.
    pub tasks: usize,
    /// Living processes it started.
    pub children: usize,
    /// Handles of regions.
    pub regions: usize,
    /// Mappings.
    pub maps: usize,
    /// Ends of doorbells.
    pub doorbells: usize,
    /// Ends of control channels.
    pub controls: usize,
    /// Events.
    pub events: usize,
    /// Pollers.
    pub pollers: usize,
}

/// A world that went as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Steps of all tasks.
    pub steps: u64,
    /// Virtual time.
    pub time: Duration,
    /// The same for two runs of one seed.
    pub fingerprint: u64,
}

/// A world that did not: what happened, what every task was at, and the last switches.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Runs it again.
    pub seed: u64,
    /// In words.
    pub what: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// See the module.
pub struct World {
    state: State,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.state.seed).finish_non_exhaustive()
    }
}

impl World {
    /// A world in which `seed` decides everything that is left to chance.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { state: State::new(seed, faults) }
    }

    /// A program that can be started by `name`; what it answers is its exit status.
    #[must_use]
    pub fn program(mut self, name: &str, run: impl Fn(&[String]) -> i32 + 'static) -> Self {
        let run: Program = Rc::new(run);
        self.state.programs.insert(name.to_owned(), run);
        self
    }

    /// Decides what happens to each process when it starts, by its program's name.
    #[must_use]
    pub fn fates(mut self, fates: impl FnMut(&mut Random, &str) -> Fate + 'static) -> Self {
        let fates: Fates = Box::new(fates);
        self.state.fates = Some(fates);
        self
    }

    /// Runs a host, and all it starts, to their ends.
    ///
    /// # Errors
    /// A panic or [`fail`], a deadlock, or a livelock.
    pub fn run(mut self, host: impl FnOnce() + 'static) -> Result<Report, Failure> {
        let pid = self.state.new_process("host", None);
        let run = move || {
            host();
            super::process::exit(0);
        };
        self.state.spawn(pid, "host", Box::new(run));
        sched::enter(self.state);
        sched::run(|state| state.processes.values().all(|process| process.exit.is_some()));
        let report = sched::inside(|state| Report {
            steps: state.tasks.steps,
            time: Duration::from_nanos(state.tasks.now),
            fingerprint: state.tasks.fingerprint,
        });
        let State { seed, failure, .. } = sched::leave();
        failure.map_or(Ok(report), |what| Err(Failure { seed, what }))
    }
}

/// A number below `limit`, by the seed; 0 for none.
#[must_use]
pub fn below(limit: u64) -> u64 {
    sched::inside(|state| state.random.below(limit))
}

/// The running process's number.
#[must_use]
pub fn this_process() -> u32 {
    super::process::id()
}

/// Whether a process lives.
#[must_use]
pub fn is_alive(process: u32) -> bool {
    sched::inside(|state| state.is_alive(process))
}

/// Kills a process, as SIGKILL does.
pub fn kill(process: u32) {
    sched::point("kill");
    sched::inside(|state| state.end_process(process, Exit::Signal(9)));
    // It may have been this one.
    sched::point("after a kill");
}

/// Stops a process for some time, as SIGSTOP and SIGCONT do.
pub fn stop(process: u32, time: Duration) {
    sched::inside(|state| state.stop(process, Some(state.tasks.now.saturating_add(super::clock::in_ns(time)))));
    sched::point("after a stop");
}

/// Changes what goes wrong from now on.
pub fn change_faults(change: impl FnOnce(&mut Faults)) {
    sched::inside(|state| change(&mut state.faults));
}

/// Whether nobody has been delayed or stopped.
#[must_use]
pub fn is_even() -> bool {
    sched::inside(|state| state.faults.delays == 0 && !state.was_stopped)
}

/// What a process has now.
#[must_use]
pub fn census(process: u32) -> Census {
    sched::inside(|state| state.census(process))
}

/// Ends the world with a failure.
pub fn fail(what: &str) -> ! {
    sched::inside(|state| state.fail(what.to_owned()));
    sched::never()
}
