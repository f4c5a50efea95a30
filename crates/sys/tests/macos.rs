//! The macOS backend on a Mac. Not run so far: no Mac was at hand. Elsewhere it links, which shows that what it calls exists.
#![cfg(target_os = "macos")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::io::{self, Read as _};
use std::os::fd::FromRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use frameport_sys::event::{Doorbell, Event, wait_any};
use frameport_sys::handle::Means;
use frameport_sys::inherit::take_link;
use frameport_sys::mach::check_in::Hello;
use frameport_sys::mach::pool::Slots;
use frameport_sys::mach::surface::{Key, Opened, register};
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Outgoing, ReceiveRight, Received, Surface as _, Task};
use frameport_sys::memory::{Map, Region, Writers};
use frameport_sys::pixels::{Intent, Picture, Pixels, Place, Plan, Plane, Store};
use frameport_sys::poll::Poller;
use frameport_sys::process::{Child, Exit, Signal, Spawn, Stderr, spawn};
use frameport_sys::socket::Control;
use frameport_sys::surface::Surface;
use frameport_sys::task::ThisTask;
use frameport_sys::{futex, limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const MINUTE: Duration = Duration::from_secs(60);

/// A picture of that size, its chroma as in 4:2:0.
fn picture(format: &'static str, (width, height): (u32, u32), elements: &[usize]) -> Picture {
    let (across, down) = (width as usize, height as usize);
    let plane = |(index, &element): (usize, &usize)| {
        let by = if index == 0 { 1 } else { 2 };
        let place = Place { offset: 0, stride: 0 };
        Plane { width: across.div_ceil(by), rows: down.div_ceil(by), element, place }
    };
    Picture { format, full_range: false, width, height, planes: elements.iter().enumerate().map(plane).collect() }
}

fn bgra() -> Arc<Surface> {
    Arc::new(Surface::create(&picture("bgra", (64, 48), &[4])).unwrap())
}

fn poke(map: &Map, at: usize, value: u8) {
    assert!(at < map.len() && map.is_writable());
    // SAFETY: in bounds, just checked.
    let place = unsafe { map.base().add(at) };
    // SAFETY: writable, just checked.
    unsafe { place.write_volatile(value) };
}

fn peek(map: &Map, at: usize) -> u8 {
    assert!(at < map.len());
    // SAFETY: in bounds, just checked.
    let place = unsafe { map.base().add(at) };
    // SAFETY: mapped readable.
    unsafe { place.read_volatile() }
}

/// This test program again, for its ignored test of that name, in a sandbox if there is a rule.
fn part(role: &str, rule: Option<&str>) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match rule {
        None => Command::new(program),
        Some(rule) => {
            let mut command = Command::new("/usr/bin/sandbox-exec");
            command.args(["-p", &format!("(version 1)(allow default){rule}")]).arg(program);
            command
        }
    };
    command.args([role, "--exact", "--ignored", "--nocapture"]);
    command
}

/// This test program again, as a worker.
fn worker(role: &str) -> (Child, Control) {
    worker_of(part(role, None), Means::USUAL)
}

fn worker_of(command: Command, means: Means) -> (Child, Control) {
    let (control, link) = Control::pair_by(means).unwrap();
    (spawn(Spawn { command, link, scope: None, stderr: Stderr::Inherit }).unwrap(), control)
}

/// Reads exactly so many bytes.
fn read<const N: usize>(control: &Control) -> [u8; N] {
    let (mut bytes, mut got) = ([0; N], 0);
    while got < N {
        let some = control.recv(&mut bytes[got..], true).unwrap();
        assert!(some > 0, "the channel ended");
        got += some;
    }
    bytes
}

#[test]
fn a_worker_gets_regions_a_bell_and_bytes() {
    mirrors(None, Means::USUAL, Means::USUAL);
}

/// M12: no Mach port and no name. M13: objects go to whoever has a port, too.
#[test]
fn a_worker_without_a_port_gets_the_same_by_descriptors() {
    mirrors(Some("(deny mach-lookup)(deny iokit-open)"), Means::Descriptors, Means::Descriptors);
    mirrors(None, Means::USUAL, Means::Descriptors);
    // Apart from the other tests of this program, which open some meanwhile.
    assert!(part("role_tidy", None).status().unwrap().success());
}

#[test]
#[ignore = "a host's part of a test"]
fn role_tidy() {
    let one = || mirrors(None, Means::Descriptors, Means::Descriptors);
    one();
    let before = limits::open_files().used;
    (0..20).for_each(|_| one());
    assert_eq!(limits::open_files().used, before);
}

/// M12: what is an entry's cannot be sent there, and nothing is sent in its place.
#[test]
fn a_worker_without_a_port_gets_no_entry() {
    let (_child, control) = worker_of(part("role_sleeper", None), Means::Descriptors);
    let (region, _map) = Region::create("entry", 4096, Writers::All).unwrap();
    let refused = control.send(b"x", &[region.into_handle()]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

/// A worker in a sandbox, if there is a rule, that is reached by `means` and given what is made for `made_for`.
fn mirrors(rule: Option<&str>, means: Means, made_for: Means) {
    let (mut child, control) = worker_of(part("role_mirror", rule), means);
    let (ours, our_map) = Region::create_for(made_for, "host", 20_000, Writers::Creator).unwrap();
    let (theirs, their_map) = Region::create_for(made_for, "worker", 40_000, Writers::All).unwrap();
    let (bell, their_bell) = Doorbell::pair().unwrap();
    let event = Event::new(&bell).unwrap();
    poke(&our_map, 19_999, 77);
    control.send(b"go", &[ours.into_handle(), theirs.into_handle(), their_bell]).unwrap();
    wait_any(&[&event], Some(MINUTE)).unwrap();
    event.clear(&bell);
    assert_eq!(peek(&their_map, 39_999), 78);
    bell.ring();
    assert_eq!(read::<4>(&control), *b"done");
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
    assert!(child.group_is_empty());
}

#[test]
#[ignore = "a worker's part of a test"]
fn role_mirror() {
    let control = take_link().unwrap();
    control.limit_reads(MINUTE).unwrap();
    let (mut bytes, mut handles) = ([0; 2], Vec::new());
    assert_eq!(control.recv_with_handles(&mut bytes, &mut handles).unwrap(), 2);
    let mut handles = handles.into_iter();
    let host = Region::adopt(handles.next().unwrap(), 20_000, Writers::Creator).unwrap();
    assert_eq!(host.map(true).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    let own = Region::adopt(handles.next().unwrap(), 40_000, Writers::All).unwrap().map(true).unwrap();
    poke(&own, 39_999, peek(&host.map(false).unwrap(), 19_999) + 1);
    let bell = Doorbell::adopt(handles.next().unwrap());
    let event = Event::new(&bell).unwrap();
    bell.ring();
    wait_any(&[&event], Some(MINUTE)).unwrap();
    control.send(b"done", &[]).unwrap();
    std::process::exit(0);
}

#[test]
fn death_is_seen_by_a_poller_and_by_the_channel() {
    let (mut child, control) = worker("role_sleeper");
    assert_eq!(read::<2>(&control), *b"up");
    let poller = Poller::new().unwrap();
    poller.add(&child, 7).unwrap();
    assert_eq!(child.exit_without_reaping().unwrap(), None);
    child.signal_group(Signal::KILL).unwrap();
    assert_eq!(poller.wait().unwrap(), [7]);
    assert_eq!(control.recv(&mut [0; 1], true).unwrap(), 0);
    assert_eq!(child.try_reap().unwrap(), Some(Exit::Signal(9)));
    assert_eq!(child.signal_group(Signal::KILL).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// The kernel tells of a death a moment before it has a status to give.
#[test]
fn who_was_told_of_a_death_gets_its_status() {
    for _ in 0..200 {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]);
        let (mut child, _control) = worker_of(command, Means::Descriptors);
        let poller = Poller::new().unwrap();
        poller.add(&child, 7).unwrap();
        assert_eq!(poller.wait().unwrap(), [7]);
        assert_eq!(child.try_reap().unwrap(), Some(Exit::Code(7)));
    }
}

/// Nor does one that is dropped then, dead or alive.
#[test]
fn a_dropped_child_leaves_no_zombie() {
    for script in ["exit 7", "sleep 3600"] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let (child, _control) = worker_of(command, Means::Descriptors);
        let pid = child.pid().cast_signed();
        if script == "exit 7" {
            let poller = Poller::new().unwrap();
            poller.add(&child, 7).unwrap();
            poller.wait().unwrap();
        }
        drop(child);
        // SAFETY: asks about a number.
        assert_eq!((unsafe { libc::kill(pid, 0) }, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ESRCH)));
    }
}

/// Its pipe is left to a process that lives on: what tells are its ports.
#[test]
fn a_workers_death_is_seen_where_its_pipe_lives_on() {
    let (mut child, control) = worker("role_parent");
    assert_eq!(read::<2>(&control), *b"up");
    let poller = Poller::new().unwrap();
    poller.add(&control, 7).unwrap();
    assert_eq!(poller.wait().unwrap(), [7]);
    assert_eq!((control.recv(&mut [0; 1], false).unwrap(), control.recv(&mut [0; 1], true).unwrap()), (0, 0));
    assert!(!control.is_closed());
    child.signal_group(Signal::KILL).unwrap();
    child.reap().unwrap();
    let start = std::time::Instant::now();
    while !control.is_closed() {
        assert!(start.elapsed() < MINUTE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "a worker's part of a test"]
fn role_parent() {
    // SAFETY: makes a descriptor of its own, which the child inherits.
    assert!(unsafe { libc::dup(4) } > 4);
    let control = take_link().unwrap();
    Command::new("/bin/sleep").arg("3600").spawn().unwrap();
    control.send(b"up", &[]).unwrap();
    std::process::exit(0);
}

#[test]
fn what_comes_to_a_workers_port_is_seen_and_is_a_violation() {
    let (_child, control) = worker("role_liar");
    let poller = Poller::new().unwrap();
    poller.add(&control, 7).unwrap();
    assert_eq!(poller.wait().unwrap(), [7]);
    assert_eq!(control.recv(&mut [0; 1], false).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(control.recv(&mut [0; 1], true).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
#[ignore = "a worker's part of a test"]
fn role_liar() {
    // SAFETY: the host left this descriptor open for this process, where nobody else takes it.
    let mut pipe = unsafe { std::fs::File::from_raw_fd(3) };
    let mut hello = [0; Hello::LEN];
    poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None).unwrap();
    pipe.read_exact(&mut hello).unwrap();
    let hello = Hello::from_bytes(&hello).unwrap();
    let link = CheckedIn::new(&ThisTask, &hello, 0, MINUTE).unwrap();
    let again = || {
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    };
    let link = link.welcomed(again).unwrap();
    Outgoing::new(1, vec![]).send(link.peer(), MINUTE).unwrap();
    std::thread::sleep(MINUTE);
}

/// The host waits for neither: not for a worker that takes nothing, and not by looking again.
#[test]
fn a_worker_that_takes_no_handles_costs_its_host_one_error() {
    let (_child, control) = worker("role_deaf");
    assert_eq!(read::<2>(&control), *b"up");
    let handles: Vec<_> = (0..100).map(|_| Doorbell::pair().unwrap().1).collect();
    let refused = (0..4).find_map(|_| control.send_some(b"x", &handles).err()).unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    assert_eq!(control.send(b"x", &handles).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
#[ignore = "a worker's part of a test"]
fn role_deaf() {
    let control = take_link().unwrap();
    control.send(b"up", &[]).unwrap();
    std::thread::sleep(MINUTE);
}

#[test]
#[ignore = "a worker's part of a test"]
fn role_sleeper() {
    let control = take_link().unwrap();
    control.send(b"up", &[]).unwrap();
    let _ = control.recv(&mut [0; 1], true);
}

/// M11.
#[test]
fn twenty_workers_at_once_meet_their_host() {
    let workers: Vec<_> = (0..20).map(|_| worker("role_sleeper")).collect();
    for (_, control) in &workers {
        assert_eq!(read::<2>(control), *b"up");
    }
}

/// M4: either side in a sandbox that denies it its half of the name. The registered port leads the worker to its host.
#[test]
fn where_a_sandbox_denies_names_the_registered_port_is_taken() {
    let (_child, control) = worker_of(part("role_sleeper", Some("(deny mach-lookup)")), Means::USUAL);
    assert_eq!(read::<2>(&control), *b"up");
    let mut host = part("role_host", Some("(deny mach-register)(deny mach-lookup)"));
    assert!(host.status().unwrap().success());
}

#[test]
#[ignore = "a host's part of a test"]
fn role_host() {
    let denied = format!("{}.denied.{}", frameport_sys::mach::entrance::PREFIX, std::process::id());
    assert_eq!(ThisTask.check_in(&denied), Err(frameport_sys::mach::Kern::NOT_PRIVILEGED));
    let (_child, control) = worker("role_sleeper");
    assert_eq!(read::<2>(&control), *b"up");
}

/// M7, in one process: both ends of a registration, its names counted by the number the next new name gets.
#[test]
fn ten_thousand_registrations_leave_no_name_and_no_surface_in_use() {
    let port = ReceiveRight::new(&ThisTask, 16).unwrap();
    let to = port.make_send().unwrap();
    let surface = bgra();
    let mut opened = Opened::new();
    for number in 0..10_000 {
        register(&to, Key { pool: number, slot: 0, of: 1 }, &surface, MINUTE).unwrap();
        let message = Received::next(&port, MINUTE).unwrap().unwrap();
        let all = opened.open(&ThisTask, message, std::process::id(), number).unwrap().unwrap();
        let slots = Arc::new(Slots::adopt(all, 1, &surface.geometry()).unwrap());
        let access = slots.access(0, Intent::Read).unwrap();
        assert!(surface.is_in_use());
        drop(access);
        assert!(!surface.is_in_use());
    }
}

/// M9: whatever the system makes of sizes that are odd, both sides lay it out alike, and every byte of a plane is its own.
#[test]
fn surfaces_of_odd_sizes_are_what_their_spec_says() {
    for (format, elements) in [("nv12", &[1, 2][..]), ("p010le", &[2, 4]), ("bgra", &[4]), ("rgbaf16le", &[8])] {
        for size in [(1, 1), (13, 7), (1919, 1079), (1920, 1080)] {
            let mut picture = picture(format, size, elements);
            let plan = Plan { slots: 3, stride: 1, len: 3, writers: Writers::All, picture: Some(picture.clone()) };
            let (store, ours) = Store::create(&plan, Means::USUAL).unwrap();
            let places = ours.places().expect("surfaces, not a region");
            picture.planes.iter_mut().zip(&places).for_each(|(plane, place)| plane.place = *place);
            let plan = Plan { stride: ours.stride(), len: 3 * ours.stride(), picture: Some(picture.clone()), ..plan };
            let theirs = Arc::new(Pixels::adopt(store.try_clone().unwrap().into_handle(), &plan).unwrap());
            let ours = Arc::new(ours);
            let filled = ours.access(1, Intent::Write).unwrap();
            each_byte(&ours, &picture, |at, value| {
                // SAFETY: inside the slot, locked for writing.
                unsafe { at.write_volatile(value) }
            });
            drop(filled);
            let seen = theirs.access(1, Intent::Read).unwrap();
            each_byte(&theirs, &picture, |at, value| {
                // SAFETY: inside the slot, locked for reading.
                assert_eq!(unsafe { at.read_volatile() }, value);
            });
            drop(seen);
            assert!(!ours.surface(1).unwrap().is_in_use());
            let wrong = &mut picture.planes[0].place.stride;
            *wrong += 64;
            let plan = Plan { picture: Some(picture), ..plan };
            let error = Pixels::adopt(store.into_handle(), &plan).unwrap_err();
            assert!(error.to_string().contains("stride"), "{error}");
        }
    }
}

/// Calls `it` with the place of each value of slot 1, and what should be there.
fn each_byte(pixels: &Pixels, picture: &Picture, it: impl Fn(*mut u8, u8)) {
    let (base, len) = pixels.slot(1).unwrap();
    let mut count = 0_u32;
    for Plane { width, rows, element, place } in picture.planes.iter().copied() {
        for row in 0..rows {
            for column in 0..width * element {
                let at = place.offset + row * place.stride + column;
                assert!(at < len);
                count = count.wrapping_mul(31).wrapping_add(7);
                it(base.as_ptr().wrapping_add(at), (count >> 16) as u8);
            }
        }
    }
}

/// M8: a queue that is full gives everything back.
#[test]
fn a_full_queue_keeps_no_surface_in_use() {
    let port = ReceiveRight::new(&ThisTask, 1).unwrap();
    let to = port.make_send().unwrap();
    let (first, second) = (bgra(), bgra());
    register(&to, Key { pool: 1, slot: 0, of: 2 }, &first, Duration::ZERO).unwrap();
    for _ in 0..100 {
        register(&to, Key { pool: 1, slot: 1, of: 2 }, &second, Duration::ZERO).unwrap_err();
        assert!(!second.is_in_use());
    }
    assert!(first.is_in_use());
    drop(port);
    assert!(!first.is_in_use());
}

#[test]
fn a_name_is_found_and_goes_with_its_port() {
    let service = format!("{}.test.{}", frameport_sys::mach::entrance::PREFIX, std::process::id());
    let port = ReceiveRight::own(&ThisTask, ThisTask.check_in(&service).unwrap()).unwrap();
    port.set_queue_limit(64).unwrap();
    let found = frameport_sys::mach::SendRight::own(&ThisTask, ThisTask.look_up(&service).unwrap()).unwrap();
    assert_eq!(found.name(), port.name());
    drop((found, port));
    ThisTask.look_up(&service).unwrap_err();
}

#[test]
fn a_wake_ends_the_wait_and_so_does_the_limit() {
    let word = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            word.fetch_add(1, Ordering::SeqCst);
            futex::wake_all(&word);
        });
        while word.load(Ordering::SeqCst) == 0 {
            futex::wait(&word, 0, Some(MINUTE));
        }
    });
    futex::wait(&word, 1, Some(Duration::from_millis(20)));
    futex::wait(&word, 0, None);
}

fn is_readable(event: &Event) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&now)).unwrap() == 1
}

#[test]
fn an_event_that_follows_another_is_readable_while_either_is() {
    let ((own, _theirs), (inner_own, _inner_theirs)) = (Doorbell::pair().unwrap(), Doorbell::pair().unwrap());
    let (outer, inner) = (Event::new(&own).unwrap(), Event::new(&inner_own).unwrap());
    outer.follow(&inner).unwrap();
    inner.signal();
    assert!(is_readable(&outer));
    outer.clear(&own);
    assert!(is_readable(&outer), "the other still is");
    inner.clear(&inner_own);
    outer.clear(&own);
    assert!(!is_readable(&outer));
    inner.signal();
    outer.unfollow(&inner);
    assert!(!is_readable(&outer));
}

#[test]
fn limits_are_told() {
    assert!(limits::available_memory().bytes > 1 << 28);
    assert!(limits::open_files().used >= 3);
    assert!(!limits::kernel_release().is_empty());
}
