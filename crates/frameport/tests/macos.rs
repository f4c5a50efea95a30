//! Frames as the frameworks have them; workers in sandboxes, and without a Mach port. Not run so far: no Mac was at hand.
#![cfg(target_os = "macos")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{is_picture, picture, role, small, small_worker};
use frameport::os::macos::{AudienceExt as _, FrameExt as _, WorkerBuilderExt as _};
use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Audience, Delivery, Error, Link, Restart, Worker, WorkerBuilder};
use std::process::Command;
use std::time::{Duration, Instant};

/// As docs/macos.md has it, to the letter.
mod shown {
    use frameport::os::macos::FrameExt as _;

    pub(super) fn show(frame: &frameport::Frame) -> Option<u32> {
        frame.io_surface().map(|surface| surface.id())
    }
}

/// The workers of this file: they send back what they get where they may.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    while let Ok(mut frame) = link.recv() {
        if let Some(surface) = shown::show(&frame) {
            frame.set_meta(serde_json::json!({ "surface": surface }).as_object().unwrap());
        }
        let _ = link.send_back(frame);
    }
}

/// Formats that are surfaces, of sizes that no row is a round number of bytes for.
fn pictures() -> impl Iterator<Item = VideoSpec> {
    use PixelFormat::{Bgra, Gray, Gray16le, Nv12, P010le, Rgba, Rgbaf16le};
    let formats = [Nv12, P010le, Bgra, Rgba, Rgbaf16le, Gray, Gray16le];
    formats.into_iter().flat_map(|format| [(62, 34), (61, 33)].map(|(w, h)| VideoSpec::new(format, w, h)))
}

fn pair(role: &str, spec: &VideoSpec) -> Worker {
    let worker = common::worker(role).input("in", spec.clone(), Delivery::Lossless);
    worker.output("out", spec.clone(), Delivery::Lossless).spawn().unwrap()
}

/// M9: the same memory on both sides, whatever gaps the system leaves in it.
#[test]
fn a_frame_is_one_surface_on_both_sides() {
    for spec in pictures() {
        let worker = pair("surface", &spec);
        let size = spec.layout().unwrap().size;
        for seq in 0..8 {
            let mut frame = worker.loan().unwrap();
            frame.fill(&picture(seq, size)).unwrap();
            let surface = frame.io_surface().map(|surface| surface.id());
            worker.send(frame).unwrap();
            let back = worker.recv().unwrap();
            assert!(is_picture(&back, seq), "{spec}");
            let theirs = back.meta().unwrap().get("surface").and_then(serde_json::Value::as_u64);
            assert!(surface.is_some() && surface.map(u64::from) == theirs, "{spec}: {surface:?}, {theirs:?}");
            assert_eq!(back.io_surface().map(|surface| surface.id()), surface);
        }
    }
}

/// Formats without a surface have none, and say so.
#[test]
fn a_frame_in_shared_memory_is_no_surface() {
    let worker = pair("surface", &small());
    let mut frame = worker.loan().unwrap();
    frame.fill(&picture(0, frame.packed_len())).unwrap();
    assert!(frame.io_surface().is_none());
    #[cfg(feature = "core-video")]
    assert!(frame.pixel_buffer().unwrap_err().to_string().contains("in shared memory"));
    worker.send(frame).unwrap();
    assert!(is_picture(&worker.recv().unwrap(), 0));
}

#[cfg(feature = "core-video")]
#[test]
fn a_pixel_buffer_is_the_frames_surface() {
    for spec in pictures() {
        let worker = pair("surface", &spec);
        let frame = worker.loan().unwrap();
        let buffer = frame.pixel_buffer().unwrap();
        let surface = objc2_core_video::CVPixelBufferGetIOSurface(Some(&buffer)).unwrap();
        assert_eq!(surface.id(), frame.io_surface().unwrap().id(), "{spec}");
    }
}

/// What the device sees is what was sent; nothing where the machine has no device.
#[cfg(feature = "metal")]
#[test]
fn a_texture_shows_a_plane_of_its_frame_and_is_made_once() {
    use frameport::os::macos::TextureCache;
    use objc2_metal::{MTLCreateSystemDefaultDevice, MTLOrigin, MTLRegion, MTLSize, MTLTexture as _};

    let Some(device) = MTLCreateSystemDefaultDevice() else { return };
    let mut cache = TextureCache::new(device);
    for spec in pictures() {
        let worker = pair("surface", &spec);
        let planes = spec.layout().unwrap().planes().len();
        let mut known = std::collections::HashMap::new();
        for seq in 0..8 {
            let mut frame = worker.loan().unwrap();
            frame.fill(&picture(seq, frame.packed_len())).unwrap();
            worker.send(frame).unwrap();
            let back = worker.recv().unwrap();
            assert!(cache.texture(&back, planes).is_err(), "{spec} has {planes} planes");
            for index in 0..planes {
                let texture = cache.texture(&back, index).unwrap();
                let plane = back.plane(index).unwrap();
                let layout = *plane.layout();
                assert_eq!((texture.width(), texture.height()), (layout.width, layout.rows), "{spec}");
                let same = known.entry((back.io_surface().unwrap().id(), index)).or_insert_with(|| texture.clone());
                assert!(std::ptr::eq(&raw const **same, &raw const *texture), "made twice");
                let mut seen = vec![0_u8; layout.rows * layout.row_bytes];
                let size = MTLSize { width: layout.width, height: layout.rows, depth: 1 };
                let region = MTLRegion { origin: MTLOrigin { x: 0, y: 0, z: 0 }, size };
                let into = std::ptr::NonNull::from(seen.as_mut_slice()).cast();
                // SAFETY: `seen` has room for the region's rows of that many bytes.
                unsafe { texture.getBytes_bytesPerRow_fromRegion_mipmapLevel(into, layout.row_bytes, region, 0) };
                assert_eq!(seen, plane.to_vec(), "{spec}, plane {index}");
            }
        }
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
        assert!(is_picture(&back, seq));
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
