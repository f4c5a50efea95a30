//! How long it takes to wake a process and be woken by it: round trips, each way of waking by itself.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use frameport_sys::event::{Doorbell, Event, wait_any};
use frameport_sys::futex;
use frameport_sys::inherit::take_link;
use frameport_sys::mach::{Outgoing, ReceiveRight, Received};
use frameport_sys::memory::{Map, Region, Writers};
use frameport_sys::process::{Spawn, Stderr, spawn};
use frameport_sys::socket::Control;
use frameport_sys::task::ThisTask;

const TRIPS: u32 = 20_000;
const LEN: usize = 1 << 14;
/// Longer than any wake-up: what takes so long is told as an error.
const LIMIT: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One way, timed.
type Measure = fn() -> Outcome<Vec<Duration>>;

/// Prints p50 and p99 of each.
pub(crate) fn print() {
    let ways: [(&str, Measure); 4] = [
        ("a word of shared memory (os_sync, from 14.4)", word),
        ("a doorbell in a kqueue", bell),
        ("a byte in a pipe", pipe),
        ("a Mach message between two threads", message),
    ];
    println!("\nround trips, {TRIPS} each");
    for (what, measure) in ways {
        match measure() {
            Ok(mut times) => {
                times.sort_unstable();
                let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
                println!("{what:44}  p50 {:?}, p99 {:?}", at(50), at(99));
            }
            Err(error) => println!("{what:44}  not measured: {error}"),
        }
    }
}

fn timed(mut trip: impl FnMut(u32) -> Outcome<()>) -> Outcome<Vec<Duration>> {
    let mut times = Vec::with_capacity(TRIPS as usize);
    for number in 1..=TRIPS {
        let start = Instant::now();
        trip(number)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// The 32-bit word at the start of a page of its own.
fn at(map: &Map) -> &AtomicU32 {
    let word = map.base().cast::<u32>().as_ptr();
    // SAFETY: a page is larger and aligned, both sides use atomics, and the borrow keeps it mapped.
    unsafe { AtomicU32::from_ptr(word) }
}

/// Sets the own word and waits for the other to follow.
fn say(own: &Map, number: u32) {
    at(own).store(number, Ordering::SeqCst);
    futex::wake_all(at(own));
}

fn hear(other: &Map, number: u32) -> Outcome<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let seen = at(other).load(Ordering::SeqCst);
        if seen == number {
            return Ok(());
        }
        if Instant::now() > end {
            return Err("the other side did not answer".into());
        }
        futex::wait(at(other), seen, Some(LIMIT));
    }
}

/// This program again, as a worker.
fn worker(part: &str) -> Outcome<(frameport_sys::process::Child, Control)> {
    let (control, link) = Control::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["latency", part]);
    Ok((spawn(Spawn { command, link, scope: None, stderr: Stderr::Inherit })?, control))
}

fn word() -> Outcome<Vec<Duration>> {
    if !futex::is_there() {
        return Err("this system has none".into());
    }
    let (_child, control) = worker("word")?;
    let ((ours, our_map), (theirs, their_map)) =
        (Region::create("ours", LEN, Writers::All)?, Region::create("theirs", LEN, Writers::All)?);
    control.send(b"go", &[ours.into_handle(), theirs.into_handle()])?;
    timed(|number| {
        say(&our_map, number);
        hear(&their_map, number)
    })
}

fn bell() -> Outcome<Vec<Duration>> {
    let (_child, control) = worker("bell")?;
    let (bell, theirs) = Doorbell::pair()?;
    let event = Event::new(&bell)?;
    control.send(b"go", &[theirs])?;
    timed(|_| {
        bell.ring();
        wait_any(&[&event], Some(LIMIT))?;
        event.clear(&bell);
        Ok(())
    })
}

fn pipe() -> Outcome<Vec<Duration>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["latency", "pipe"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let (mut down, mut up) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
    let times = timed(|_| {
        down.write_all(&[1])?;
        Ok(up.read_exact(&mut [0])?)
    });
    drop(down);
    child.wait()?;
    times
}

fn message() -> Outcome<Vec<Duration>> {
    let failed = |answer| format!("error {answer}");
    let (there, back) =
        (ReceiveRight::new(&ThisTask, 4).map_err(failed)?, ReceiveRight::new(&ThisTask, 4).map_err(failed)?);
    let (to_there, to_back) = (there.make_send().map_err(failed)?, back.make_send().map_err(failed)?);
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || -> Outcome<()> {
            for _ in 0..TRIPS {
                drop(Received::next(&there, LIMIT)?.ok_or("nothing came")?);
                Outgoing::new(1, vec![0]).send(&to_back, LIMIT)?;
            }
            Ok(())
        });
        let times = timed(|_| {
            Outgoing::new(1, vec![0]).send(&to_there, LIMIT)?;
            drop(Received::next(&back, LIMIT)?.ok_or("nothing came")?);
            Ok(())
        });
        echo.join().map_err(|_| "the other thread panicked")??;
        times
    })
}

/// The other side: answers until its link ends.
pub(crate) fn peer(part: &str) {
    if let Err(error) = answer(part) {
        println!("{error}");
    }
}

fn answer(part: &str) -> Outcome<()> {
    if part == "pipe" {
        let (mut down, mut up) = (std::io::stdin().lock(), std::io::stdout().lock());
        while down.read_exact(&mut [0]).is_ok() {
            up.write_all(&[1])?;
            up.flush()?;
        }
        return Ok(());
    }
    let link = take_link()?;
    link.limit_reads(LIMIT)?;
    let (mut bytes, mut handles) = ([0; 2], Vec::new());
    link.recv_with_handles(&mut bytes, &mut handles)?;
    let mut handles = handles.into_iter();
    let mut next = || handles.next().ok_or("a handle is missing");
    if part == "word" {
        let host = Region::adopt(next()?, LEN, Writers::All)?.map(true)?;
        let own = Region::adopt(next()?, LEN, Writers::All)?.map(true)?;
        for number in 1..=TRIPS {
            hear(&host, number)?;
            say(&own, number);
        }
        return Ok(());
    }
    let bell = Doorbell::adopt(next()?);
    let event = Event::new(&bell)?;
    for _ in 0..TRIPS {
        wait_any(&[&event], Some(LIMIT))?;
        event.clear(&bell);
        bell.ring();
    }
    Ok(())
}
