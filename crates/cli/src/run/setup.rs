//! What a run is made of: its source, its worker, its threads.
//!
//! *Who calls it*: the run loop. *Invariants*: every wait ends at a signal. *A hostile worker* may state any output; what
//! is no video has no sink.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;

use frameport::spec::{Colour, Spec, VideoSpec};
use frameport::{Delivery, Error, Restart, Until, Worker};

use frameport_wire::layout::MAX_SLOTS;

use super::Failure;
use super::crew::Crew;
use super::feed::TICK;
use super::interrupt::Signal;
use super::screen::Screen;
use crate::args::{RunArgs, delivery_name};
use crate::media::{self, Source};

/// Slots of a lossless run.
const SLOTS: u32 = 4;

/// What can be said before anything is opened.
pub(super) fn check(args: &RunArgs) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
    if args.command.is_empty() {
        return wrong("which worker? put its command after `--`, as in: frameport run -- python worker.py");
    }
    if args.input == "-" && io::stdin().is_terminal() {
        return wrong(
            "nothing is piped into standard input: ffmpeg -i clip.mp4 -f yuv4mpegpipe - | frameport run -i - …",
        );
    }
    if args.output.as_deref() == Some("-") && io::stdout().is_terminal() {
        return wrong("video would go to the terminal: pipe it on, as in `… | ffplay -`, or name a file");
    }
    if args.workers > 1 && args.delivery.is_some_and(|delivery| delivery != Delivery::Lossless) {
        return wrong("several workers share one lossless queue: leave out --delivery, or --workers");
    }
    if let (Some(delivery), Some(slots)) = (args.delivery, args.slots)
        && delivery.depth().is_some_and(|depth| depth >= slots)
    {
        let name = delivery_name(delivery);
        return Err(Failure::Usage(format!("--delivery {name} takes more than --slots {slots}: leave out --slots")));
    }
    args.output.as_deref().map_or(Ok(()), media::check_output).map_err(Failure::from)
}

/// Opens the source on a thread of its own: a silent pipe or camera may never answer.
pub(super) fn open(args: &RunArgs, signal: &Signal, screen: &Screen) -> Result<Box<dyn Source>, Failure> {
    screen.waiting("opening the input");
    let (input, format) = (args.input.clone(), args.format);
    let opening = on_thread("frameport-open", move || media::open_source(&input, format))?;
    while !signal.came() {
        match opening.recv_timeout(TICK) {
            Ok(opened) => return Ok(opened?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::System("opening the input", panicked())),
        }
    }
    Err(Error::Interrupted.into())
}

/// How frames go to the worker, and the source that fits: with a live delivery, one in real time. What comes by a pipe comes
/// when its writer gives it.
pub(super) fn deliver(args: &RunArgs, source: Box<dyn Source>) -> (Delivery, Box<dyn Source>) {
    let default = if source.is_live() && args.workers == 1 { Delivery::Latest } else { Delivery::Lossless };
    match args.delivery.unwrap_or(default) {
        Delivery::Lossless => (Delivery::Lossless, source),
        live if source.is_live() || args.input == "-" => (live, source),
        live => (live, media::in_real_time(source)),
    }
}

pub(super) fn spawn(
    args: &RunArgs,
    spec: &VideoSpec,
    delivery: Delivery,
    signal: &Signal,
    screen: &Screen,
) -> Result<Crew, Failure> {
    let mut words = args.command.iter();
    let program = words.next().cloned().unwrap_or_default();
    // "worker.py" says more than "python".
    let script = args.command.get(1).map(Path::new).filter(|script| script.extension().is_some());
    let words_of_log = screen.worker_words();
    let builder = Worker::command(program)
        .args(words)
        .input("in", spec, delivery)
        .output("out", spec, Delivery::Lossless)
        .slots(args.slots.unwrap_or_else(|| default_slots(delivery)))
        .ready_timeout(args.ready_timeout)
        .on_stderr(screen.worker_words())
        .on_event(move |event| words_of_log(format!("{event}\n").as_bytes()));
    let builder = match script.and_then(Path::file_name) {
        Some(name) => builder.name(name.to_string_lossy()),
        None => builder,
    };
    let builder = if args.restart && args.workers == 1 { builder.restart(Restart::default()) } else { builder };
    let mut came = || signal.came();
    let until = Until::forever().or_when(TICK, &mut came);
    let crew = match args.workers {
        1 => builder.spawn_until(until).map(Crew::One),
        many => builder.group(many as usize).spawn_until(until).map(Crew::Many),
    };
    crew.map_err(|error| {
        let cause = if let Error::Group { cause, .. } = &error { cause } else { &error };
        match cause {
            Error::Spawn { program, .. } if program.ends_with(".py") => {
                Failure::Usage(format!("{program} is no program by itself: frameport run -- python {program}"))
            }
            _ => error.into(),
        }
    })
}

/// Beside those that wait: one that is filled, one with the worker, one on its way back.
fn default_slots(delivery: Delivery) -> u32 {
    delivery.depth().map_or(SLOTS, |depth| depth.saturating_add(3).clamp(SLOTS, MAX_SLOTS))
}

/// What the sink gets: the worker's own spec, with the input's times and, for the input's format, its colour.
pub(super) fn sink_spec(input: &VideoSpec, stated: Option<&Spec>) -> Result<VideoSpec, Failure> {
    let Some(Spec::Video(output)) = stated else {
        let what = stated.map_or("nothing".to_owned(), ToString::to_string);
        return Err(Failure::Usage(format!("the worker sends {what}, which is no video: leave out --output")));
    };
    let mut output = output.clone();
    output.fps = output.fps.or(input.fps);
    output.time_base = output.time_base.or(input.time_base);
    if output.format == input.format && output.colour == Colour::UNSPECIFIED {
        output.colour = input.colour;
    }
    Ok(output)
}

/// Runs `work` on a thread that is not waited for: its result comes by the channel.
pub(super) fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Receiver<T>, Failure> {
    let (sender, receiver) = sync_channel(1);
    let run = move || {
        // Nobody waits for it any more after a signal.
        let _ = sender.send(work());
    };
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(|_| receiver).map_err(|error| Failure::System("starting a thread", error))
}

/// What a thread leaves behind that ended without a result.
pub(super) fn panicked() -> io::Error {
    io::Error::other("its thread panicked")
}
