//! `frameport run`: a worker, fed from a source, its results in a sink.
//!
//! *Who calls it*: `main`. [`setup`] opens and starts, [`feed`] moves the frames on two threads, [`flight`] knows where
//! each one is, [`screen`] and [`summary`] tell a person, [`interrupt`] listens to Ctrl-C. *Invariants*: when it returns,
//! the worker and ffmpeg are gone and the output is complete, whatever ended it; the first cause is the one reported.
//! *A hostile worker* can be slow for ever, which is no error; a signal ends it all the same.

mod crew;
mod feed;
mod flight;
mod interrupt;
mod screen;
mod setup;
mod summary;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use frameport::{Delivery, Error, Exit};

use self::crew::Crew;
use self::feed::{Ended, TICK};
use self::flight::Flight;
use self::interrupt::{Interrupt, Signal};
use self::screen::Screen;
use self::summary::{Cause, Summary};
use crate::args::{RunArgs, delivery_name};
use crate::media::{self, MediaError, Sink, Source};

/// How long the screen is left alone.
const REFRESH: Duration = Duration::from_millis(100);
/// How long a source may take to end once it was told to; one that reads a silent pipe never does.
const SOURCE_END: Duration = Duration::from_secs(1);

/// Why there was no run, or why it failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error(transparent)]
    Link(#[from] Error),
    /// A group gave a frame up, and perhaps more.
    #[error("frame {0} was given up: {1}")]
    Lost(u64, Arc<Error>),
    #[error("{0} failed: {1}")]
    System(&'static str, io::Error),
}

impl Failure {
    /// Without the worker's last words, which are on the screen already.
    fn in_short(&self) -> String {
        match self {
            Self::Link(error) => error.in_short(),
            Self::Lost(seq, why) => format!("frame {seq} was given up: {}", why.in_short()),
            other => other.to_string(),
        }
    }
}

/// Runs it and returns the exit status.
pub(crate) fn run(args: RunArgs) -> i32 {
    let interrupt = match Interrupt::watch() {
        Ok(interrupt) => interrupt,
        Err(error) => return failed(&Failure::System("listening for signals", error)),
    };
    let mut screen = Screen::new(args.quiet);
    let outcome = start(&args, interrupt.signal(), &mut screen);
    screen.clear();
    let signal = interrupt.signal().status();
    let (summary, error) = match outcome {
        Ok(outcome) => outcome,
        // Whatever failed then failed because of it.
        Err(error) => return signal.unwrap_or_else(|| failed(&error)),
    };
    for note in &summary.notes {
        screen.note(note);
    }
    let printed = if args.json {
        summary.print_json()
    } else if args.quiet {
        Ok(())
    } else {
        summary.print()
    };
    match (signal, error, printed) {
        (Some(status), ..) => status,
        (None, Some(error), _) => failed(&error),
        (None, None, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            failed(&Failure::System("printing the summary", error))
        }
        _ => crate::OK,
    }
}

fn failed(failure: &Failure) -> i32 {
    crate::complain(&failure.in_short());
    if matches!(failure, Failure::Usage(_)) { 2 } else { crate::FAILED }
}

/// Opens and starts everything, lets it run, and ends it.
fn start(args: &RunArgs, signal: &Signal, screen: &mut Screen) -> Result<(Summary, Option<Failure>), Failure> {
    setup::check(args)?;
    let (delivery, source) = setup::deliver(args, setup::open(args, signal, screen)?);
    // A group's queue is lossless; what comes in its own time does not wait for it all the same.
    let live = delivery != Delivery::Lossless || (args.delivery.is_none() && source.is_live());
    let (spec, origin, total) = (source.spec().clone(), source.origin().clone(), source.frames_hint());
    screen.waiting("waiting for the worker to be ready");
    let started = Instant::now();
    let crew = setup::spawn(args, &spec, delivery, signal, screen)?;
    let ready = started.elapsed();
    let [input_spec, output_spec] = crew.specs();
    let sink = match args.output.as_deref() {
        None | Some("null") => None,
        Some(output) => Some(media::open_sink(output, &origin, &setup::sink_spec(&spec, output_spec.as_ref())?)?),
    };
    screen.begin(total);
    let summary = Summary {
        input: args.input.clone(),
        output: args.output.clone(),
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        input_spec: input_spec.map(|spec| spec.to_string()),
        output_spec: output_spec.map(|spec| spec.to_string()),
        delivery: delivery_name(delivery),
        ready_seconds: ready.as_secs_f64(),
        isolation: crew.isolation(),
        ..Summary::default()
    };
    stream(source, live, crew, sink, signal, screen, summary)
}

/// What the feeding thread leaves behind.
struct Fed {
    result: Result<bool, MediaError>,
    notes: Vec<String>,
}

fn stream(
    mut source: Box<dyn Source>,
    live: bool,
    crew: Crew,
    sink: Option<Box<dyn Sink>>,
    signal: &Signal,
    screen: &mut Screen,
    mut summary: Summary,
) -> Result<(Summary, Option<Failure>), Failure> {
    let (crew, flight, stopper) = (Arc::new(crew), Arc::new(Flight::new()), source.stopper());
    let retracted = || crew.retracted();
    // Whether the source ends because it was told to.
    let told = Arc::new(AtomicBool::new(false));
    let stop_source = || {
        told.store(true, Ordering::Relaxed);
        stopper.stop();
    };
    let feeding = {
        let (crew, flight, signal) = (Arc::clone(&crew), Arc::clone(&flight), signal.clone());
        let told = Arc::clone(&told);
        setup::on_thread("frameport-feed", move || {
            let result = feed::feed(source.as_mut(), live, &crew, &flight, &signal);
            let result = if told.load(Ordering::Relaxed) { Ok(false) } else { result };
            // Also after an error: what was sent before shall come back.
            crew.finish();
            Fed { result, notes: source.notes().to_vec() }
        })?
    };
    let collecting = {
        let (crew, flight, signal) = (Arc::clone(&crew), Arc::clone(&flight), signal.clone());
        let mut sink = sink;
        let words = (!screen.is_quiet()).then(|| screen.worker_words());
        setup::on_thread("frameport-collect", move || {
            let ended = feed::collect(sink.as_mut(), &crew, &flight, &signal, |what| {
                words.iter().for_each(|words| words(format!("{what}\n").as_bytes()));
            });
            (ended, sink)
        })?
    };

    let (ended, sink) = loop {
        match collecting.recv_timeout(REFRESH) {
            Ok(collected) => break collected,
            Err(RecvTimeoutError::Timeout) => screen.update(&flight.figures(retracted)),
            Err(RecvTimeoutError::Disconnected) => {
                break (Ended::Sink(MediaError::from(setup::panicked())), None);
            }
        }
        if signal.came() && !told.load(Ordering::Relaxed) {
            screen.note("ending; the same again ends it at once");
            stop_source();
        }
    };
    screen.update(&flight.figures(retracted));
    stop_source();
    let exit = match ended {
        Ended::Finished => wait_exit(&crew, signal, screen),
        _ => crew.stop(),
    };
    let fed = feeding.recv_timeout(SOURCE_END).ok();
    let input_ended = fed.as_ref().is_some_and(|fed| matches!(fed.result, Ok(true)));
    let finished = sink.filter(|_| !matches!(ended, Ended::Sink(_))).map(|mut sink| {
        if !input_ended || !matches!(ended, Ended::Finished) {
            sink.cut_short();
        }
        sink.finish()
    });

    if matches!(ended, Ended::Finished) {
        flight.close();
    }
    summary.count(&flight.figures(retracted), matches!(ended, Ended::Worker(Error::WorkerDied(_))));
    (summary.taken, summary.restarts) = (crew.taken(), crew.restarts());
    summary.written = matches!(finished, Some(Ok(_)));
    summary.exit = exit.map(|exit| exit.to_string());
    let (fed, notes) = fed.map_or((Ok(false), Vec::new()), |fed| (fed.result, fed.notes));
    summary.notes = notes;
    let finished = finished.transpose().map(|notes| summary.notes.extend(notes.unwrap_or_default()));

    let (cause, error) = verdict(ended, exit, fed, finished, &crew, flight.first_lost());
    summary.ended = match cause {
        _ if signal.came() => Cause::Signal,
        Cause::Input if !input_ended => {
            summary.notes.push(format!("'{}' ended before the input did", crew.name()));
            Cause::Worker
        }
        cause => cause,
    };
    let error = error.filter(|_| !signal.came());
    summary.error = error.as_ref().map(ToString::to_string);
    Ok((summary, error))
}

/// The first thing that went wrong.
fn verdict(
    ended: Ended,
    exit: Option<Exit>,
    fed: Result<bool, MediaError>,
    finished: Result<(), MediaError>,
    crew: &Crew,
    lost: Option<(u64, Arc<Error>)>,
) -> (Cause, Option<Failure>) {
    let failure = match ended {
        Ended::Sink(error) => Some(Failure::from(error)),
        Ended::Worker(error) => Some(Failure::from(error)),
        Ended::Finished if !matches!(exit, None | Some(Exit::Code(0))) => crew.failure().map(Failure::from),
        Ended::Finished | Ended::Interrupted => None,
    };
    let failure = failure.or_else(|| fed.err().map(Failure::from)).or_else(|| finished.err().map(Failure::from));
    let failure = failure.or_else(|| lost.map(|(seq, why)| Failure::Lost(seq, why)));
    match failure {
        None => (Cause::Input, None),
        Some(Failure::Media(MediaError::Io { source, .. })) if source.kind() == io::ErrorKind::BrokenPipe => {
            (Cause::Output, None)
        }
        Some(failure) => (Cause::Error, Some(failure)),
    }
}

/// Waits for a worker that has sent its last: it may have files to write.
fn wait_exit(crew: &Crew, signal: &Signal, screen: &Screen) -> Option<Exit> {
    let patience = Instant::now() + Duration::from_secs(5);
    let mut told = false;
    while !signal.came() {
        if let Some(exit) = crew.wait_exit(TICK) {
            return exit;
        }
        if !told && Instant::now() > patience {
            told = true;
            screen.note(&format!("'{}' has sent its last frame, waiting for it to exit; Ctrl-C ends it", crew.name()));
        }
    }
    crew.stop()
}
