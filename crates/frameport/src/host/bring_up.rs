//! From a builder to a worker at its first `recv`.
//!
//! Order: sizes against the memory limit, the input pool, the process, its hello, versions and sizes, the output pool,
//! the welcome, its readiness. A worker's next life goes the same way, and may get the memory of the last one's pools.
//! *Invariants*: an error at any point leaves nothing running and nothing allocated.
//! *A hostile worker* can state any hello: versions, sizes and output spec are checked, the output within a limit.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use frameport_mem::park::{Ended, Until};
use frameport_sys::handle::Handle;
use frameport_sys::pixels::Store;
use frameport_sys::process::{self, Spawn, Stderr};
use frameport_sys::{isolation, socket};
use frameport_wire::PROTOCOL;
use frameport_wire::control::{self, Channel, Direction, Hello, ToWorker, Welcome};
use frameport_wire::layout::{SIZES, page_len, ring_capacity};
use frameport_wire::spec::Spec;

use super::builder::{Wanted, WorkerBuilder};
use super::params::Parameters;
use super::service::Service;
use super::supervised::{Progress, Supervised};
use crate::audience::{Core, Seat, Shared};
use crate::channel::audience::Slots;
use crate::channel::state::LinkState;
use crate::error::Error;
use crate::holders::Peer;
use crate::link::{self, Control, Ends, Side, Terms};
use crate::pool::{self, Handles, Pool};

/// How long after the end of its control channel a worker may take to be dead.
const HUNG_UP: Duration = Duration::from_secs(1);

/// A pool made for a wanted channel.
struct Made {
    channel: Channel,
    pool: Arc<Pool>,
    handles: Handles,
    /// Of an audience's pool.
    slots: Option<Arc<Slots>>,
}

/// What all lives of a worker have in common.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) params: Arc<Parameters>,
    /// One for each channel, given back when no other life follows.
    seats: Vec<Option<Arc<Seat>>>,
}

/// A pool whose memory the worker's next life may get.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) pool: Arc<Pool>,
    pixels: Store,
}

/// A worker that is ready.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) worker: Arc<Supervised>,
    pub(super) level: isolation::Level,
    /// Nothing, if there will be no next one.
    pub(super) kept: Vec<Kept>,
}

/// What a next life goes on from.
#[derive(Debug)]
pub(super) struct Earlier<'a> {
    pub(super) ends: &'a Ends,
    /// Memory that nobody sees any more.
    pub(super) unseen: Vec<&'a Kept>,
    /// Set by a start that failed and of which something may live on: it has seen that memory.
    pub(super) stained: &'a Cell<bool>,
}

impl Earlier<'_> {
    /// That of a channel, if it is still what is wanted there, or what the worker had stated.
    fn pool(&self, id: u32, wanted: &Wanted) -> Option<&Kept> {
        let fits = |kept: &Kept| wanted.direction == Direction::Out || kept.pool.spec == wanted.spec;
        self.unseen.iter().find(|kept| kept.pool.decl.id == id && fits(kept)).copied()
    }
}

impl Line {
    pub(super) fn new(builder: &WorkerBuilder) -> Result<Self, Error> {
        let seats = builder
            .channels
            .iter()
            .map(|channel| channel.audience.as_ref().map(|(core, quota)| Core::reserve(core, *quota)).transpose());
        let seats = seats.collect::<Result<_, _>>()?;
        let params = Arc::new(Parameters::new(builder.display_name(), builder.params.clone())?);
        Ok(Self { params, seats })
    }
}

/// Starts a worker, its first life or one that goes on from an `earlier` one.
pub(super) fn bring_up(
    builder: &WorkerBuilder,
    line: &Line,
    earlier: Option<&Earlier<'_>>,
    until: Until<'_>,
) -> Result<Life, Error> {
    let name = builder.display_name();
    let has_pool = |id: u32, channel: &Wanted| earlier.is_some_and(|earlier| earlier.pool(id, channel).is_some());
    let fresh = (0..).zip(&builder.channels);
    let fresh = fresh.filter(|(id, channel)| channel.audience.is_none() && !has_pool(*id, channel));
    let specs: Vec<&Spec> = fresh.map(|(_, channel)| &channel.spec).collect();
    check_memory(&name, &specs, builder)?;
    let made = make_all(builder, earlier)?;
    let (worker, level) = start(&name, builder)?;
    match lead(builder, line, &worker, made, earlier, until) {
        Ok(kept) => {
            let ends = worker.ends.get().map_or(&[][..], |ends| &ends.send);
            for (wanted, seat) in builder.channels.iter().zip(&line.seats) {
                if let (Some(seat), Some(end)) = (seat, ends.iter().find(|end| end.name() == wanted.name)) {
                    let (of, its) = (Arc::downgrade(&worker), Arc::clone(end));
                    let follow = move |shared: &Arc<Shared>| of.upgrade().map_or(Ok(()), |of| of.follow(&its, shared));
                    seat.take(Arc::clone(end), Box::new(follow));
                }
            }
            Ok(Life { worker, level, kept })
        }
        Err(error) => {
            end_start(&worker);
            if let Some(earlier) = earlier {
                earlier.stained.set(earlier.stained.get() || !worker.is_gone_within(Duration::ZERO));
            }
            Err(error)
        }
    }
}

/// Ends a worker that nobody has seen.
pub(super) fn end_start(worker: &Arc<Supervised>) {
    worker.kill();
    let _ = worker.wait(&mut Until::after(Duration::from_secs(5)), |progress| progress.exit.is_some());
    worker.settle(1);
    super::forward::flush();
}

fn check_memory(name: &str, specs: &[&Spec], builder: &WorkerBuilder) -> Result<(), Error> {
    let mut need = 0_u64;
    for spec in specs {
        let decl = pool::declare(0, spec, builder.slots, builder.meta_capacity)?;
        let pages = 2 * page_len(decl.slots, decl.meta);
        need = need.saturating_add(decl.len as u64).saturating_add(pages as u64);
    }
    pool::check_memory(name, need)
}

fn make_all(builder: &WorkerBuilder, earlier: Option<&Earlier<'_>>) -> Result<Vec<Made>, Error> {
    let made =
        (0..).zip(&builder.channels).map(|(id, wanted)| match earlier.and_then(|earlier| earlier.pool(id, wanted)) {
            Some(kept) => {
                let pixels = kept.pixels.try_clone().map_err(Error::system("passing on a pool"))?;
                Ok(describe(wanted, kept.pool.again(pixels, builder.means)?, None, builder))
            }
            None => make(id, wanted, &wanted.spec, builder),
        });
    made.collect()
}

fn make(id: u32, wanted: &Wanted, spec: &Spec, builder: &WorkerBuilder) -> Result<Made, Error> {
    let (made, slots) = match &wanted.audience {
        Some((core, _)) => {
            let shared = core.newest();
            (shared.memory.member(id, builder.means)?, Some(Arc::clone(&shared.slots)))
        }
        None => {
            let decl = pool::declare(id, spec, builder.slots, builder.meta_capacity)?;
            (Pool::create(decl, spec, builder.means)?, None)
        }
    };
    Ok(describe(wanted, made, slots, builder))
}

/// The channel of a pool.
fn describe(
    wanted: &Wanted,
    (pool, handles): (Pool, Handles),
    slots: Option<Arc<Slots>>,
    builder: &WorkerBuilder,
) -> Made {
    let decl = pool.decl.clone();
    // Answers in place travel beside the pool's own slots.
    let inputs = builder.channels.iter().filter(|other| other.direction == Direction::In && other.audience.is_none());
    let returned = if wanted.direction == Direction::Out { inputs.count() } else { 0 };
    let returned = builder.slots.saturating_mul(u32::try_from(returned).unwrap_or(u32::MAX));
    // After a change of spec each pool may have an older one beside it.
    let travellers = decl.slots.saturating_add(returned).saturating_mul(2);
    let channel = Channel {
        name: wanted.name.clone(),
        direction: wanted.direction,
        capacity: ring_capacity(travellers),
        spec: pool.placed.clone(),
        delivery: wanted.delivery,
        pool: decl,
    };
    Made { channel, pool: Arc::new(pool), handles, slots }
}

fn start(name: &str, builder: &WorkerBuilder) -> Result<(Arc<Supervised>, isolation::Level), Error> {
    let scope = if builder.isolate { isolation::best_scope() } else { None };
    let level = isolation::level(scope.is_some());
    if level < builder.required {
        let hint =
            "Linux 6.12 with Landlock gives the highest level, a non-dumpable host (prctl PR_SET_DUMPABLE) the next";
        return Err(Error::Isolation {
            link: name.to_owned(),
            have: level.to_string(),
            need: builder.required.to_string(),
            hint,
        });
    }
    let (control, link) =
        socket::Control::pair_by(builder.means).map_err(Error::system("making the control channel"))?;
    let command = builder.copy_command();
    let stderr = if builder.inherit_stderr { Stderr::Inherit } else { Stderr::Piped };
    let program = builder.command.get_program().to_string_lossy().into_owned();
    let state = LinkState::new(name)?;
    let service = Service::get()?;
    let child = process::spawn(Spawn { command, link, scope, stderr }).map_err(|source| {
        let denied = Error::of_denied(format!("starting worker '{name}'"), &source);
        denied.unwrap_or_else(|| Error::Spawn { link: name.to_owned(), program, source })
    })?;
    let (on_stderr, on_event) = (builder.on_stderr.clone(), builder.on_event.clone());
    let worker = Arc::new(Supervised::new(state, child, control, on_stderr, on_event, builder.output_limit));
    let liar = Arc::downgrade(&worker);
    worker.state.on_violation(Box::new(move || liar.upgrade().iter().for_each(|worker| worker.kill())));
    let (has_pools, changes) = (Arc::downgrade(&worker), Arc::downgrade(&worker));
    worker.state.on_home(Box::new(move |pool| has_pools.upgrade().iter().for_each(|worker| worker.came_home(pool))));
    worker.state.set_changer(Box::new(move |channel, spec, until| {
        changes.upgrade().map_or(Ok(()), |worker| worker.change_channel(channel, spec, until))
    }));
    service.register(&worker).inspect_err(|_| {
        // The service thread may have begun to listen to it.
        worker.kill();
        worker.settle(1);
    })?;
    tracing::debug!(link = name, pid = worker.pid, %level, "worker started");
    Ok((worker, level))
}

/// Hello, welcome, ready.
fn lead(
    builder: &WorkerBuilder,
    line: &Line,
    worker: &Arc<Supervised>,
    mut made: Vec<Made>,
    earlier: Option<&Earlier<'_>>,
    until: Until<'_>,
) -> Result<Vec<Kept>, Error> {
    let mut until = until.within(builder.ready_timeout);
    let stages = [
        "did not connect (frameport.connect(), frameport.main() or Link::from_env())",
        "connected but did not come to its first recv",
    ];
    let [not_connected, not_ready] = stages;
    let progress = await_stage(worker, &mut until, builder, not_connected, |progress| progress.hello.is_some())?;
    let Some(hello) = progress.hello else { return Err(Error::Interrupted) };
    if let Err(error) = check_hello(worker, &hello) {
        // The reason in the worker's own words, should anybody look at its stderr.
        let _ = send(worker, &ToWorker::Refuse { reason: error.to_string() }, &[]);
        return Err(error);
    }
    if let Err(error) = adopt_output(builder, worker, &mut made, hello.output.as_ref()) {
        let _ = send(worker, &ToWorker::Refuse { reason: error.to_string() }, &[]);
        return Err(error);
    }
    let kept = welcome(builder, line, worker, made, earlier.map(|earlier| earlier.ends))?;
    line.params.attach(worker)?;
    await_stage(worker, &mut until, builder, not_ready, |progress| progress.ready)?;
    Ok(kept)
}

fn await_stage(
    worker: &Supervised,
    until: &mut Until<'_>,
    builder: &WorkerBuilder,
    stage: &'static str,
    reached: impl Fn(&Progress) -> bool,
) -> Result<Progress, Error> {
    let ended = |progress: &Progress| progress.exit.is_some() || worker.state.end().is_some();
    let mut waited = worker.wait(until, |progress| reached(progress) || progress.hung_up || ended(progress));
    if waited.as_ref().is_ok_and(|progress| progress.hung_up && !ended(progress)) {
        // Its death says more, and is not far unless the worker lives on without its link.
        waited = worker.wait(&mut Until::after(HUNG_UP), ended).or_else(|_| {
            let _ = worker.state.violation(&"it closed its link before its first recv and lives on; does something in it close descriptors it does not know?");
            Ok(worker.progress())
        });
    }
    match waited {
        Ok(progress) if reached(&progress) && worker.state.end().is_none() => Ok(progress),
        Ok(_) => Err(worker.end_error().unwrap_or(Error::Interrupted)),
        Err(Ended::Interrupted) => Err(Error::Interrupted),
        Err(Ended::TimedOut { .. }) => Err(Error::NotReady {
            link: worker.state.name().to_owned(),
            pid: worker.pid,
            stage,
            after: builder.ready_timeout,
            stderr_tail: worker.stderr_tail(),
        }),
    }
}

fn check_hello(worker: &Supervised, hello: &Hello) -> Result<(), Error> {
    let (link, library) = (worker.state.name().to_owned(), hello.library.clone());
    let (oldest, newest) = hello.protocol;
    if !(oldest..=newest).contains(&PROTOCOL) {
        return Err(Error::Version { link, library, worker: hello.protocol, host: (PROTOCOL, PROTOCOL) });
    }
    if hello.layout != SIZES {
        return Err(Error::LayoutMismatch { link, library, worker: hello.layout, host: SIZES });
    }
    Ok(())
}

/// Replaces the output pool by one of the spec the worker states, or of the one asked for where its last life stated another.
fn adopt_output(
    builder: &WorkerBuilder,
    worker: &Supervised,
    made: &mut [Made],
    stated: Option<&Spec>,
) -> Result<(), Error> {
    let outputs = made.iter_mut().zip(&builder.channels);
    let output = outputs.into_iter().find(|(_, wanted)| wanted.direction == Direction::Out);
    let (out, wanted) = match (output, stated) {
        (Some(output), _) => output,
        (None, None) => return Ok(()),
        (None, Some(stated)) => {
            return Err(Error::config(format!(
                "worker '{}' wants to send {stated}, but this host asked for no output",
                worker.state.name()
            )));
        }
    };
    let stated = stated.unwrap_or(&wanted.spec);
    if out.pool.spec == *stated {
        return Ok(());
    }
    let need = pool::declare(0, stated, builder.slots, builder.meta_capacity)?.len as u64;
    if need > builder.output_limit && *stated != wanted.spec {
        return Err(Error::config(format!(
            "worker '{}' wants to send {stated}: {need} bytes for {} slots are over the output limit of {}",
            worker.state.name(),
            builder.slots,
            builder.output_limit
        )));
    }
    check_memory(worker.state.name(), &[stated], builder)?;
    *out = make(out.channel.pool.id, wanted, stated, builder)?;
    Ok(())
}

fn welcome(
    builder: &WorkerBuilder,
    line: &Line,
    worker: &Arc<Supervised>,
    made: Vec<Made>,
    earlier: Option<&Ends>,
) -> Result<Vec<Kept>, Error> {
    let channels: Vec<Channel> = made.iter().map(|made| made.channel.clone()).collect();
    let pools: Vec<Arc<Pool>> = made.iter().map(|made| Arc::clone(&made.pool)).collect();
    let (control, [host, theirs], doorbell) = Control::create(&channels, builder.means)?;
    let name = worker.state.name();
    let peer = Peer::Worker { name: name.to_owned(), pid: worker.pid };
    let (wait, deadline) = (builder.wait, Some(builder.send_deadline));
    let audiences: Vec<_> = made.iter().map(|made| made.slots.clone()).collect();
    let (side, channels_of, pools, audiences) = (Side::Host, &channels, &pools, &audiences);
    let terms = Terms { side, channels: channels_of, pools, audiences, wait, peer, deadline, earlier };
    let _ = worker.ends.set(link::connect(&worker.state, control, &terms)?);
    line.params.announce(worker);
    let welcome =
        Welcome { protocol: PROTOCOL, name: name.to_owned(), group: worker.pid, wait: builder.wait, channels };
    let mut handles = vec![host.into_handle(), theirs.into_handle()];
    let mut kept = Vec::new();
    for Made { pool, handles: each, .. } in made {
        if builder.restart.is_some() && !pool.decl.shared {
            let pixels = each.pixels.try_clone().map_err(Error::system("keeping a pool"))?;
            kept.push(Kept { pool, pixels });
        }
        handles.extend(each.into_vec());
    }
    handles.push(doorbell);
    send(worker, &ToWorker::Welcome(welcome), &handles)?;
    Ok(kept)
}

fn send(worker: &Supervised, message: &ToWorker, handles: &[Handle]) -> Result<(), Error> {
    let bytes = control::encode(message).map_err(|error| Error::Protocol { what: error.to_string() })?;
    worker.control.send(&bytes, handles).map_err(|source| {
        // A worker that died meanwhile says more than a broken pipe, as soon as the service thread knows of it.
        if source.kind() == std::io::ErrorKind::BrokenPipe {
            let _ = worker.wait(&mut Until::after(HUNG_UP), |progress| progress.exit.is_some());
        }
        worker.end_error().unwrap_or(Error::System { doing: "writing to the control channel", source })
    })
}
