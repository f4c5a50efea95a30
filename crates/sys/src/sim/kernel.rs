//! What a world holds: processes, their objects, its chance and its faults.
//!
//! *Who calls it*: every module of the simulation, by [`super::sched::with`]. *Invariants*: an object belongs to one process
//! or is on its way in a control channel, and is closed with it; a dead process has no object and no task; memory of regions
//! stays until the world ends, for a dead task's stack may still name it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::memory::Memory;
use super::process::Exit;
use super::tasks::{Key, Task, Tasks};
use super::world::{Census, Fate, Faults, Random};

/// The process that is on its way in a control channel.
pub(super) const NOBODY: u32 = 0;

pub(super) type Program = Rc<dyn Fn(&[String]) -> i32>;
pub(super) type Fates = Box<dyn FnMut(&mut Random, &str) -> Fate>;

/// See the module.
pub(super) struct State {
    pub(super) tasks: Tasks,
    pub(super) random: Random,
    pub(super) seed: u64,
    pub(super) faults: Faults,
    /// Nobody waits and nothing fails any more.
    pub(super) over: bool,
    pub(super) failure: Option<String>,
    /// Some process was stopped.
    pub(super) was_stopped: bool,
    pub(super) programs: HashMap<String, Program>,
    pub(super) fates: Option<Fates>,
    pub(super) memory: Vec<Memory>,
    pub(super) channels: BTreeMap<u64, [Flow; 2]>,
    pub(super) bells: BTreeMap<u64, [Bell; 2]>,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) objects: BTreeMap<u64, Object>,
    timers: Vec<(u64, u32)>,
    next_id: u64,
    next_pid: u32,
}

/// One direction of a control channel, named after the side that writes it.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) bytes: VecDeque<u8>,
    /// How much was ever written and read.
    pub(super) written: u64,
    pub(super) read: u64,
    /// Objects on their way, and the byte that carries them.
    pub(super) handles: VecDeque<(u64, u64)>,
    pub(super) is_open: bool,
    /// Whoever writes here did beside the channel what no peer does.
    pub(super) lied: bool,
}

/// One side's end of a pair of doorbells.
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub(super) rung: bool,
    pub(super) owners: u32,
}

/// What a process can own.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) owner: u32,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Region { memory: usize },
    Doorbell { bells: u64, side: usize },
    Control { channel: u64, side: usize, limit: Option<std::time::Duration> },
    Event { bells: u64, side: usize, own: bool, hung_up: bool, follows: Option<u64> },
    Poller { watched: Vec<Watch> },
}

/// What a poller looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) source: Source,
    pub(super) token: u64,
    pub(super) room: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Control(u64),
    Stderr(u32),
    Child(u32),
}

#[derive(Default)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) parent: u32,
    pub(super) link: Option<u64>,
    pub(super) exit: Option<Exit>,
    pub(super) stderr: VecDeque<u8>,
    pub(super) maps: usize,
    stopped: bool,
    /// Steps of all its tasks.
    steps: u64,
    fate: Fate,
    locals: HashMap<usize, Box<dyn Any>>,
}

impl State {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            tasks: Tasks::new(),
            random: Random(seed),
            seed,
            faults,
            over: false,
            failure: None,
            was_stopped: false,
            programs: HashMap::new(),
            fates: None,
            memory: Vec::new(),
            channels: BTreeMap::new(),
            bells: BTreeMap::new(),
            processes: BTreeMap::new(),
            objects: BTreeMap::new(),
            timers: Vec::new(),
            next_id: 1,
            next_pid: 1000,
        }
    }

    /// Whether one in `many` happens now; never for 0.
    pub(super) fn chance(&mut self, many: u64) -> bool {
        many > 0 && self.random.below(many) == 0
    }

    pub(super) fn fail(&mut self, what: String) {
        let report = self.tasks.report();
        self.failure.get_or_insert_with(|| format!("{what}\n{report}"));
    }

    pub(super) fn is_task_done(&self, task: usize) -> bool {
        self.tasks.all.get(task).is_none_or(Task::is_done)
    }

    /// The running task's process.
    pub(super) fn current_process(&self) -> u32 {
        self.tasks.all.get(self.tasks.current).map_or(NOBODY, |task| task.process)
    }

    pub(super) fn current(&mut self) -> Option<&mut Process> {
        let pid = self.current_process();
        self.processes.get_mut(&pid)
    }

    pub(super) fn is_stopped(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.stopped)
    }

    pub(super) fn is_alive(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.exit.is_none())
    }

    /// A process that does not run yet.
    pub(super) fn new_process(&mut self, name: &str, link: Option<u64>) -> u32 {
        self.next_pid += 1;
        let (pid, parent) = (self.next_pid, self.current_process());
        let mut fate = Fate::default();
        if let Some(mut fates) = self.fates.take() {
            fate = fates(&mut self.random, name);
            self.fates = Some(fates);
        }
        if let Some(object) = link.and_then(|link| self.objects.get_mut(&link)) {
            object.owner = pid;
        }
        let process = Process { name: name.to_owned(), parent, link, fate, ..Process::default() };
        self.processes.insert(pid, process);
        pid
    }

    /// The running task's process gets on, and may come to its fate.
    pub(super) fn meet_fate(&mut self) {
        let (pid, now) = (self.current_process(), self.tasks.now);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.steps += 1;
        let steps = process.steps;
        if let Some((at, time)) = process.fate.stop
            && at == steps
        {
            self.stop(pid, Some(now + super::clock::in_ns(time)));
        }
        let process = self.processes.get(&pid);
        if process.is_some_and(|process| process.fate.kill == Some(steps)) {
            self.end_process(pid, Exit::Signal(9));
        }
    }

    /// Nothing of `pid` runs until `until`, or until it is continued.
    pub(super) fn stop(&mut self, pid: u32, until: Option<u64>) {
        self.was_stopped = true;
        self.processes.get_mut(&pid).into_iter().for_each(|process| process.stopped = true);
        self.timers.extend(until.map(|until| (until, pid)));
    }

    pub(super) fn go_on(&mut self, pid: u32) {
        self.processes.get_mut(&pid).into_iter().for_each(|process| process.stopped = false);
    }

    pub(super) fn next_timer(&self) -> Option<u64> {
        self.timers.iter().map(|(at, _)| *at).min()
    }

    pub(super) fn fire_timers(&mut self) -> bool {
        let now = self.tasks.now;
        let due: Vec<u32> = self.timers.iter().filter(|(at, _)| *at <= now).map(|(_, pid)| *pid).collect();
        self.timers.retain(|(at, _)| *at > now);
        due.iter().for_each(|pid| self.go_on(*pid));
        !due.is_empty()
    }

    /// Ends a process, and with it its tasks, its objects and, as the system does for them, its workers.
    pub(super) fn end_process(&mut self, pid: u32, exit: Exit) {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.exit.is_none()) else { return };
        process.exit = Some(exit);
        process.stopped = false;
        process.maps = 0;
        let tasks: Vec<usize> = (0..self.tasks.all.len())
            .filter(|&index| self.tasks.all.get(index).is_some_and(|task| task.process == pid))
            .collect();
        tasks.into_iter().for_each(|index| self.tasks.bury(index));
        let objects: Vec<u64> =
            self.objects.iter().filter(|(_, object)| object.owner == pid).map(|(id, _)| *id).collect();
        objects.into_iter().for_each(|id| self.close(id));
        self.tasks.wake(Key::Process(pid));
        if self.faults.die_with_parent {
            let children = self.processes.iter().filter(|(_, process)| process.parent == pid).map(|(pid, _)| *pid);
            let children: Vec<u32> = children.collect();
            children.into_iter().for_each(|child| self.end_process(child, Exit::Signal(9)));
        }
    }

    /// The running process's own of something, by the place of its declaration.
    pub(super) fn local(&mut self, place: usize, init: impl FnOnce() -> Box<dyn Any>) -> &dyn Any {
        let pid = self.current_process();
        let local: &Box<dyn Any> = self.processes.entry(pid).or_default().locals.entry(place).or_insert_with(init);
        &**local
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn add(&mut self, owner: u32, what: What) -> u64 {
        if let What::Doorbell { bells, side } = what
            && let Some(bell) = self.bells.get_mut(&bells).and_then(|pair| pair.get_mut(side))
        {
            bell.owners += 1;
        }
        let id = self.new_id();
        self.objects.insert(id, Object { owner, what });
        id
    }

    pub(super) fn close(&mut self, id: u64) {
        let Some(Object { what, .. }) = self.objects.remove(&id) else { return };
        self.unwatch(Source::Control(id));
        match what {
            What::Doorbell { bells, side } => {
                let bell = self.bells.get_mut(&bells).and_then(|pair| pair.get_mut(side));
                bell.into_iter().for_each(|bell| bell.owners -= 1);
                self.tasks.wake(Key::Object(bells));
            }
            What::Control { channel, side, .. } => {
                let mut lost = VecDeque::new();
                if let Some(flows) = self.channels.get_mut(&channel) {
                    if let Some(own) = flows.get_mut(side) {
                        own.is_open = false;
                    }
                    if let Some(other) = flows.get_mut(1 - side) {
                        lost = std::mem::take(&mut other.handles);
                    }
                }
                lost.into_iter().for_each(|(_, id)| self.close(id));
                self.tasks.wake(Key::Object(channel));
            }
            What::Region { .. } | What::Event { .. } | What::Poller { .. } => {}
        }
    }

    /// What is closed is watched no more.
    pub(super) fn unwatch(&mut self, source: Source) {
        for object in self.objects.values_mut() {
            if let What::Poller { watched } = &mut object.what {
                watched.retain(|watch| watch.source != source);
            }
        }
    }

    pub(super) fn census(&self, pid: u32) -> Census {
        let mut census = Census::default();
        for object in self.objects.values().filter(|object| object.owner == pid) {
            match object.what {
                What::Region { .. } => census.regions += 1,
                What::Doorbell { .. } => census.doorbells += 1,
                What::Control { .. } => census.controls += 1,
                What::Event { .. } => census.events += 1,
                What::Poller { .. } => census.pollers += 1,
            }
        }
        census.maps = self.processes.get(&pid).map_or(0, |process| process.maps);
        census.tasks = self.tasks.all.iter().filter(|task| task.process == pid && !task.is_done()).count();
        census.children =
            self.processes.values().filter(|process| process.parent == pid && process.exit.is_none()).count();
        census
    }
}
