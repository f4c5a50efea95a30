//! Workers in sandboxes, and without a Mach port. Not run so far: no Mac was at hand.
#![cfg(target_os = "macos")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{is_picture, picture, role, small, small_worker};
use frameport::os::macos::{AudienceExt as _, WorkerBuilderExt as _};
use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Audience, Delivery, Error, Link, Restart, Worker, WorkerBuilder};
use std::process::Command;
use std::time::{Duration, Instant};

/// The workers of this file: they send back what they get where they may.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    while let Ok(frame) = link.recv() {
        let _ = link.send_back(frame);
    }
}

/// A worker in a sandbox, behind a shell that forks: that is said to wipe the registered port.
fn sandboxed(rules: &str) -> WorkerBuilder {
    Worker::command("/usr/bin/sandbox-exec")
        .args(["-p", &format!("(version 1)(allow default){rules}"), "/bin/sh", "-c", "\"$0\" \"$@\" & wait $!"])
        .arg(std::env::current_exe().unwrap())
        .args(["worker_process", "--exact", "--nocapture", "--quiet"])
        .env(common::ROLE, "sandboxed")
        .name("sandboxed")
        .on_stderr(|_| {})
        .input("in", VideoSpec::new(PixelFormat::Bgra, 64, 48), Delivery::Lossless)
        .output("out", VideoSpec::new(PixelFormat::Bgra, 64, 48), Delivery::Lossless)
}

fn echoes(worker: &Worker, spec: VideoSpec) {
    let len = frameport::spec::Spec::from(spec).payload_capacity().unwrap();
    for seq in 0..20 {
        let mut frame = worker.loan().unwrap();
        frame.fill(&picture(seq, len)).unwrap();
        worker.send(frame).unwrap();
        let back = worker.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(is_picture(back.payload(), seq));
    }
}

/// As docs/macos.md has it, to the letter.
#[expect(clippy::print_stderr, reason = "a program would say it, too")]
mod page {
    use frameport::os::macos::WorkerBuilderExt as _;
    use frameport::{Error, Worker, WorkerBuilder};

    pub(super) fn start(worker: WorkerBuilder) -> Result<Worker, Error> {
        match worker.clone().spawn() {
            Err(Error::Denied { operation, profile_line, .. }) => {
                eprintln!("{operation} is denied, which {profile_line} allows: frames go through shared memory");
                worker.in_shared_memory().spawn()
            }
            started => started,
        }
    }
}

/// M12: what docs/macos.md does where names are denied.
#[test]
fn a_denied_worker_says_so_and_is_started_in_shared_memory() {
    for (rules, denied) in [("(deny mach-lookup)", "mach-lookup"), ("(deny iokit-open)", "iokit-open")] {
        let builder = sandboxed(rules);
        let error = builder.clone().spawn().unwrap_err();
        let Error::Denied { operation, profile_line, .. } = &error else { panic!("{error}") };
        assert_eq!(*operation, denied);
        assert!(error.to_string().contains(profile_line), "{error}");
        echoes(&page::start(builder).unwrap(), VideoSpec::new(PixelFormat::Bgra, 64, 48));
    }
}

/// M14: the host's own memory is denied, before anything is started.
#[test]
fn a_host_without_shared_memory_is_told_what_to_allow() {
    let command = Command::new("/usr/bin/sandbox-exec")
        .args(["-p", "(version 1)(allow default)(deny ipc-posix-shm*)"])
        .arg(std::env::current_exe().unwrap())
        .args(["role_host", "--exact", "--ignored", "--nocapture"])
        .status();
    assert!(command.unwrap().success());
}

#[test]
#[ignore = "a host's part of a test"]
fn role_host() {
    let error = small_worker("echo").in_shared_memory().spawn().unwrap_err();
    assert!(matches!(error, Error::Denied { operation: "ipc-posix-shm", .. }), "{error}");
}

/// M12: formats that have surfaces, too; and a worker's next lives, and another spec.
#[test]
fn a_worker_in_shared_memory_lives_on_and_changes_its_frames() {
    let nv12 = VideoSpec::new(PixelFormat::Nv12, 64, 48);
    let worker = small_worker("echo").in_shared_memory().restart(Restart::default()).spawn().unwrap();
    echoes(&worker, small());
    worker.change_spec(nv12.clone()).unwrap();
    echoes(&worker, nv12.clone());
    Command::new("/bin/kill").args(["-9", &worker.pid().to_string()]).status().unwrap();
    assert!(matches!(worker.recv(), Err(Error::WorkerDied(_))));
    echoes(&worker, nv12);
}

/// M13: one audience for workers with a port and without; one of surfaces says what to do.
#[test]
fn an_audience_in_shared_memory_is_for_all_workers() {
    let spec = VideoSpec::new(PixelFormat::Bgra, 64, 48);
    let reader = |audience: &Audience| common::worker("reader").share("in", audience, Delivery::Lossless, 2);
    let surfaces = Audience::new(spec.clone(), 8).unwrap();
    let error = reader(&surfaces).in_shared_memory().spawn().unwrap_err();
    assert!(matches!(&error, Error::Config { what } if what.contains("audience in shared memory")), "{error}");
    let audience = Audience::in_shared_memory(spec, 8).unwrap();
    let workers = [reader(&audience).spawn().unwrap(), reader(&audience).in_shared_memory().spawn().unwrap()];
    for _ in 0..20 {
        audience.send(audience.loan().unwrap()).unwrap();
    }
    for worker in workers {
        let end = Instant::now() + Duration::from_secs(60);
        while worker.stats().received < 20 {
            assert!(Instant::now() < end, "{:?}", worker.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
