//! What strangers and hostile workers can do to the Mach ports of a host and its workers, on the simulated kernel.
//!
//! A run is a sequence of acts. The host and honest workers meet, hand over and read, in any order, while strangers send
//! anything to every port there is, move rights about, and workers are killed or run into sandboxes. The kernel takes each
//! mistake of the honest ones for a fault. What was refused has left nothing, what is believed was sent by who it should be;
//! in the end a worker is still welcome, and no right, surface or name is left.

use std::sync::Arc;
use std::time::Duration;

use frameport_sys::mach::check_in::{VERSION, id};
use frameport_sys::mach::death::Fate;
use frameport_sys::mach::handover::{self, Bundle};
use frameport_sys::mach::host::{HostLink, Offer};
use frameport_sys::mach::message::at;
use frameport_sys::mach::received::ReceiveError;
use frameport_sys::mach::rendezvous::{Accepted, WorkerId};
use frameport_sys::mach::surface::{Key, Opened, register};
use frameport_sys::mach::worker::{CheckedIn, WorkerLink};
use frameport_sys::mach::{Buffer, Kern, Name, Received, SendRight, Task};

use crate::choices::Choices;
use crate::kernel::{Item, Kernel, OutOfLine, Raw, Sandbox, SimSurface, SimTask};
use crate::world::{Host, LIMIT, REGIONS, UID, nv12, over, payload_of};

/// Most workers of a run, and most strangers.
const MOST: usize = 8;
/// Slots of the one pool a worker gets.
const SLOTS: u32 = 3;

pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut scene = Scene::new(&mut choices);
    while !choices.are_over() {
        scene.act(&mut choices);
    }
    scene.end();
}

/// A worker, and what it and its host have of each other.
struct Worker {
    id: u64,
    task: SimTask,
    is_honest: bool,
    /// A check-in of its may still be believed.
    is_expected: bool,
    /// The host believes it.
    is_welcome: bool,
    /// Its registered port is its own to take out from the moment it looks for its host.
    has_looked: bool,
    offer: Option<Offer<SimTask>>,
    at_host: Option<HostLink<SimTask>>,
    checked_in: Option<CheckedIn<SimTask>>,
    link: Option<WorkerLink<SimTask>>,
    surfaces: Vec<Arc<SimSurface>>,
    opened: Opened<SimSurface>,
    /// Bundles the host has handed over, and those that were taken.
    given: u32,
    taken: u32,
}

/// Somebody whose mistakes are no faults, and the names it knows.
struct Stranger {
    task: SimTask,
    names: Vec<Name>,
    surfaces: Vec<SimSurface>,
}

impl Stranger {
    fn name(&self, choices: &mut Choices<'_>) -> Name {
        match choices.below(self.names.len() + 3).checked_sub(3) {
            Some(index) => self.names[index],
            None => [Name::NULL, Name::DEAD, Name(choices.word())][choices.below(3)],
        }
    }
}

struct Scene {
    kernel: Kernel,
    host: Host,
    workers: Vec<Worker>,
    strangers: Vec<Stranger>,
}

impl Scene {
    fn new(choices: &mut Choices<'_>) -> Self {
        let kernel = Kernel::new();
        let task = kernel.boot(UID);
        kernel.state().space(task.id()).sandbox.register = choices.one_in(4);
        let host = Host::of(&kernel, task).expect("the host lives");
        Self { kernel, host, workers: Vec::new(), strangers: Vec::new() }
    }

    fn act(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0 | 1 => self.start(),
            2 => self.check_in(choices),
            3 | 4 => self.serve(None),
            5 => self.read_welcome(choices),
            6 => self.watch(),
            7 => self.read(choices),
            8 => self.hand_over(choices),
            9 => self.appear(choices),
            10 => self.acquire(choices),
            11..=13 => self.send(choices),
            14 => self.disturb(choices),
            _ => self.end_something(choices),
        }
    }

    fn worker(&mut self, choices: &mut Choices<'_>) -> Option<&mut Worker> {
        let index = choices.below(MOST);
        self.workers.get_mut(index)
    }

    fn start(&mut self) {
        if self.workers.len() == MOST {
            return;
        }
        let id = self.workers.len() as u64;
        let (offer, task) = self.host.start(id).expect("the host is well");
        self.workers.push(Worker {
            id,
            task,
            is_honest: true,
            is_expected: true,
            is_welcome: false,
            has_looked: false,
            offer: Some(offer),
            at_host: None,
            checked_in: None,
            link: None,
            surfaces: Vec::new(),
            opened: Opened::new(),
            given: 0,
            taken: 0,
        });
    }

    fn check_in(&mut self, choices: &mut Choices<'_>) {
        let index = choices.below(MOST);
        let Some(worker) = self.workers.get_mut(index).filter(|worker| !worker.has_looked) else { return };
        worker.has_looked = true;
        let hello = self.host.hello(worker.id);
        worker.checked_in = CheckedIn::new(&worker.task, &hello, REGIONS.len(), LIMIT).ok();
    }

    /// The host takes what came to its entrance, with room for so many names, and for no memory where there is none for them.
    fn serve(&mut self, room: Option<usize>) {
        let Host { kernel, task, entrance, rendezvous } = &mut self.host;
        let before = (kernel.names(task), rendezvous.refused());
        let set_room = |room: Option<usize>| {
            let mut state = kernel.state();
            let space = state.space(task.id());
            (space.room, space.is_map_full) = (room, room == Some(0));
        };
        set_room(room);
        let (mut accepted, mut refused) = (Vec::new(), 0);
        for port in entrance.ports() {
            loop {
                match Received::next(port, Duration::ZERO) {
                    Ok(None) => break,
                    Ok(Some(message)) => match rendezvous.accept(message) {
                        Ok(one) => accepted.push(one),
                        Err(_) => refused += 1,
                    },
                    Err(ReceiveError::Unfit(check)) => {
                        rendezvous.unfit(check);
                        refused += 1;
                    }
                    Err(error) => panic!("the entrance: {error}"),
                }
            }
        }
        set_room(None);
        assert_eq!((kernel.names(task), rendezvous.refused()), (before.0 + accepted.len(), before.1 + refused));
        accepted.into_iter().for_each(|accepted| self.believe(accepted));
    }

    fn believe(&mut self, accepted: Accepted<SimTask>) {
        let worker = &mut self.workers[accepted.worker.0 as usize];
        assert!(std::mem::replace(&mut worker.is_expected, false), "a nonce is good once");
        assert_eq!(accepted.audit.euid(), UID);
        let offer = worker.offer.take().expect("a nonce is good once");
        worker.is_welcome = accepted.audit.pid() == worker.task.pid();
        worker.at_host = self.host.welcome(offer, accepted).ok();
    }

    fn read_welcome(&mut self, choices: &mut Choices<'_>) {
        let Some(worker) = self.worker(choices) else { return };
        let Some(checked_in) = worker.checked_in.take() else { return };
        worker.link = checked_in.welcomed(over).ok();
        assert!(worker.is_welcome || worker.link.is_none(), "welcomed by somebody else");
        worker.link.iter_mut().for_each(|link| drop(link.take_regions()));
    }

    /// Both sides look for signs of death, and the host for what may not come.
    fn watch(&mut self) {
        for worker in &mut self.workers {
            let lives = worker.is_honest && worker.task.is_alive();
            if let Some(at_host) = &worker.at_host
                && let Ok(Some(fate)) = at_host.fate()
            {
                // Somebody else may have lied in its name.
                let lied = matches!(fate, Fate::Lied(_));
                assert!(lied || !lives || worker.link.is_none(), "{fate:?} of a worker that lives");
                worker.at_host = None;
            }
            if let Some(link) = &worker.link
                && let Ok(Some(fate)) = link.fate()
            {
                assert!(!lives || worker.at_host.is_none(), "{fate:?} of a host that lives");
                worker.link = None;
            }
        }
    }

    /// A worker reads what came to its port.
    fn read(&mut self, choices: &mut Choices<'_>) {
        let Some(worker) = self.worker(choices) else { return };
        let Some(link) = &worker.link else { return };
        while let Ok(Some(message)) = Received::next(link.port(), Duration::ZERO) {
            if message.id() == id::HAND_OVER {
                if let Ok(bundle) = handover::take(message, link.host(), worker.taken) {
                    assert_eq!((bundle.len, bundle.rights.len()), (length(worker.taken), 1));
                    worker.taken += 1;
                    assert!(worker.taken <= worker.given, "a bundle nobody has given");
                }
            } else if let Ok(Some(pool)) = worker.opened.open(&worker.task, message, link.host(), 0) {
                let ours = worker.surfaces.iter().map(|surface| surface.id);
                assert!(pool.iter().map(|surface| surface.id).eq(ours), "surfaces nobody has registered");
            }
        }
    }

    fn hand_over(&mut self, choices: &mut Choices<'_>) {
        let (kernel, task) = (self.kernel.clone(), self.host.task.clone());
        let is_surface = choices.one_in(2);
        let Some(worker) = self.worker(choices) else { return };
        let Some(at_host) = &worker.at_host else { return };
        if is_surface && worker.surfaces.len() < SLOTS as usize {
            let surface = Arc::new(SimSurface::create(&kernel, &task, nv12()));
            let key = Key { pool: 0, slot: worker.surfaces.len() as u32, of: SLOTS };
            if register(at_host.peer(), key, &surface, LIMIT).is_ok() {
                worker.surfaces.push(surface);
            }
        } else {
            let entry = SendRight::own(&task, task.memory_entry(4096, true)).expect("the host lives");
            let bundle = Bundle { rights: vec![Arc::new(entry)], len: length(worker.given) };
            worker.given += u32::from(handover::give(at_host.peer(), worker.given, &bundle, LIMIT).is_ok());
        }
    }

    /// Somebody new, of this user or another; or a worker turns hostile.
    fn appear(&mut self, choices: &mut Choices<'_>) {
        if self.strangers.len() == MOST {
            return;
        }
        let is_worker = choices.one_in(2);
        let uid = choices.one_of(&[UID, UID + 1]);
        let (task, names) = match self.worker(choices).filter(|_| is_worker) {
            Some(worker) => {
                worker.is_honest = false;
                let link = worker.link.as_ref();
                let names = link.map(|link| [link.peer().name(), link.port().name()]);
                (worker.task.clone(), names.into_iter().flatten().flatten().collect())
            }
            None => (self.kernel.boot(uid), Vec::new()),
        };
        self.strangers.push(Stranger { task: task.hostile(), names, surfaces: Vec::new() });
    }

    /// A stranger gets something to send, or somewhere to send it.
    fn acquire(&mut self, choices: &mut Choices<'_>) {
        let index = choices.below(MOST);
        if index >= self.strangers.len() {
            return;
        }
        let port = self.port(choices);
        let Stranger { task, names, surfaces } = &mut self.strangers[index];
        let service = self.host.entrance.service();
        match choices.below(8) {
            0 => names.extend(task.construct(5).inspect(|name| {
                let _ = task.make_send(*name);
            })),
            1 => names.extend(service.and_then(|service| task.look_up(service).ok())),
            2 => names.extend(task.registered().unwrap_or([Name::NULL; 3])),
            3 => names.push(task.memory_entry(4096, false)),
            4 => {
                surfaces.push(SimSurface::create(&self.kernel, task, nv12()));
                names.extend(surfaces.last().and_then(|surface| task.surface_port(surface).ok()));
            }
            // As if it had come by some way to what nobody gives it.
            _ if task.is_alive() => names.extend(port.map(|(owner, name)| owner.grant(name, task))),
            _ => {}
        }
    }

    /// A port of the host's or of a worker's that has one.
    fn port(&mut self, choices: &mut Choices<'_>) -> Option<(SimTask, Name)> {
        let which = choices.below(5);
        let host = self.host.task.clone();
        let worker = self.worker(choices)?;
        let (owner, port) = match which {
            0 => (host, worker.at_host.as_ref()?.port()),
            1 => (host, worker.at_host.as_ref()?.news().port()),
            2 => (worker.task.clone(), worker.link.as_ref()?.port()),
            3 => (worker.task.clone(), worker.link.as_ref()?.news().port()),
            _ => (worker.task.clone(), worker.checked_in.as_ref()?.port()),
        };
        // A hostile one may have given its receive right away.
        let is_there = owner.is_alive() && (which < 2 || worker.is_honest);
        is_there.then(|| port.name().ok().map(|name| (owner, name))).flatten()
    }

    fn send(&mut self, choices: &mut Choices<'_>) {
        let index = choices.below(MOST);
        let Some(from) = self.strangers.get(index) else { return };
        let ids = [id::CHECK_IN, id::WELCOME, id::REGISTER, id::HAND_OVER, 65, 69, 70, 71, 72, choices.word() as i32];
        let items = choices.one_of(&[0, 1, 1, 1, 1, 2, 3, 15]);
        let raw = Raw {
            to: from.name(choices).0,
            moves_to: choices.one_in(8),
            id: choices.one_of(&ids),
            reply: choices.one_in(8).then(|| (from.name(choices), 17 + choices.below(5) as u32)),
            is_complex: choices.one_in(8),
            items: (0..items).map(|_| item(from, choices)).collect(),
            payload: payload(from, choices),
        };
        let many = choices.one_of(&[1, 1, 1, 1, 1, 1, 2, 70]);
        (0..many).for_each(|_| {
            from.task.send_raw(&raw);
        });
    }

    /// What is no message: the system.
    fn disturb(&mut self, choices: &mut Choices<'_>) {
        let host = self.host.task.id();
        let how = choices.below(8);
        let worker = self.worker(choices).map(|worker| worker.task.id());
        match how {
            0 | 1 => self.serve(Some(choices.below(3))),
            2 => {
                let (look_up, surfaces) = (choices.one_in(2), choices.one_in(2));
                let sandbox = Sandbox { look_up, surfaces, ..Sandbox::default() };
                worker.into_iter().for_each(|worker| self.kernel.state().space(worker).sandbox = sandbox);
            }
            3 => self.kernel.state().dies_after_send = worker,
            4 => self.kernel.state().dies_after_interruption = worker,
            5 => self.kernel.state().interrupts = Some((worker.unwrap_or(host), choices.below(10))),
            6 => self.kernel.state().is_full_for = choices.one_of(&[None, worker, Some(host)]),
            // For the entrance only: without it nothing is believed, not even the kernel's own notifications.
            _ => {
                self.kernel.state().omits_audit = true;
                self.serve(None);
                self.kernel.state().omits_audit = false;
            }
        }
    }

    fn end_something(&mut self, choices: &mut Choices<'_>) {
        let (how, index) = (choices.below(7), choices.below(MOST));
        let (worker, stranger) = (self.workers.get_mut(index), self.strangers.get_mut(index));
        match how {
            0 => worker.into_iter().for_each(|worker| worker.task.kill()),
            // The host stops it, or gives it up.
            1 => worker.into_iter().for_each(|worker| worker.at_host = None),
            2 => worker.into_iter().for_each(|worker| {
                self.host.rendezvous.forget(WorkerId(worker.id));
                (worker.is_expected, worker.offer) = (false, None);
            }),
            // The worker leaves.
            3 => worker.into_iter().for_each(|worker| (worker.checked_in, worker.link) = (None, None)),
            4 => stranger.into_iter().for_each(|stranger| {
                let name = stranger.name(choices);
                let _ = stranger.task.deallocate(name);
            }),
            5 => stranger.into_iter().for_each(|stranger| {
                let name = stranger.name(choices);
                let _ = stranger.task.release_receive(name);
            }),
            _ => stranger.into_iter().for_each(|stranger| {
                let (name, mut buffer) = (stranger.name(choices), Buffer::new());
                // Keeps what it gets.
                if stranger.task.receive(name, &mut buffer, 0) == Kern::SUCCESS {
                    stranger.names.push(Name(buffer.word(at::FIRST)));
                }
            }),
        }
    }

    /// Whatever came before: a worker is welcome, and then nothing is left of anybody.
    fn end(mut self) {
        {
            let mut state = self.kernel.state();
            (state.is_full_for, state.interrupts) = (None, None);
            (state.dies_after_send, state.dies_after_interruption) = (None, None);
        }
        self.serve(None);
        let pair = self.host.bring_up(MOST as u64).expect("a worker is still welcome");
        assert!(matches!(pair.host.fate(), Ok(None)), "it lives, and nobody has sent there");
        self.strangers.iter().for_each(|stranger| stranger.task.kill());
        // Those that have not got to it have their host's right among their registered ports.
        self.workers.iter().filter(|worker| !worker.has_looked).for_each(|worker| worker.task.kill());
        drop((pair, self.workers, self.strangers, self.host));
        self.kernel.assert_clean();
    }
}

/// What the host says of its bundle of this number.
fn length(number: u32) -> u64 {
    4096 * u64::from(number + 1)
}

fn item(from: &Stranger, choices: &mut Choices<'_>) -> Item {
    let (name, disposition) = (from.name(choices), 16 + choices.below(6) as u32);
    match choices.below(8) {
        0 => {
            // Its size says the rest, too.
            let bytes = choices.word();
            Item::Memory(OutOfLine { bytes, is_virtual: bytes & 1 > 0, is_volatile: bytes & 2 > 0 })
        }
        1 => Item::Ports(vec![name; choices.below(40)], disposition),
        2 => Item::Guarded(name),
        _ => Item::Port(name, disposition),
    }
}

fn payload(from: &Stranger, choices: &mut Choices<'_>) -> Vec<u32> {
    match choices.below(6) {
        0 => payload_of(choices.below(MOST) as u64),
        1 => {
            let mut payload = payload_of(choices.below(MOST) as u64);
            let changed = choices.below(payload.len());
            payload[changed] = choices.word();
            payload
        }
        2 => vec![VERSION, REGIONS[0] as u32, 0, REGIONS[1] as u32, 0],
        // A registration or a bundle.
        3 => vec![choices.below(3) as u32, choices.one_of(&[0, 1, 2, 4096]), choices.below(4) as u32],
        // A notification.
        4 => vec![0, 1, from.name(choices).0],
        _ => (0..choices.below(90)).map(|_| choices.word()).collect(),
    }
}
