//! `frameport run` with video files: needs ffmpeg, found as the command finds it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod cli;

use cli::{Running, frameport, is_alive, place, processes_with, run, said, summary};
use frameport_cli::media::open_source;

/// The workers of this file.
#[test]
fn worker_process() {
    cli::work();
}

/// Frames of a video file.
fn frames(file: &str) -> u64 {
    let mut source = open_source(file, None).unwrap();
    let mut frames = 0;
    while source.next().unwrap().is_some() {
        frames += 1;
    }
    frames
}

#[test]
fn a_video_file_goes_through_a_worker_with_every_frame() {
    let (first, second) = (place("files", "first.mp4"), place("files", "second.mkv"));
    let output = run(&["--json", "-i", "pattern:320x240@25:40", "-o", &first], "echo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = run(&["--json", "-i", &first, "-o", &second], "echo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!((&summary(&output)["received"], frames(&second)), (&40.into(), 40));
}

#[test]
fn an_extension_of_no_video_is_refused_before_anything_starts() {
    let started = place("extension", "started");
    for (name, reason) in [
        ("out.xyz", "no video file with the extension .xyz (Unable to "),
        ("out.png", "no video file with the extension .png"),
        ("out", "its name has no extension"),
    ] {
        let file = place("extension", name);
        let output = frameport(&["run", "-i", "no.mp4", "-o", &file, "--", "touch", &started]).output().unwrap();
        assert_eq!((output.status.code(), said(&output).matches("error:").count()), (Some(1), 1));
        let said = said(&output);
        assert!(said.contains(reason) && said.contains("use one of .mp4, .mkv, "), "{said}");
        assert!(!said.contains("no.mp4") && !said.contains("frameport-"), "neither the input nor the trial: {said}");
        assert_eq!((std::fs::exists(&file).unwrap(), std::fs::exists(&started).unwrap()), (false, false));
    }
    // What is not in the list, but ffmpeg's to know.
    let file = place("extension", "out.ts");
    let output = run(&["-q", "-i", "pattern:64x48:5", "-o", &file], "echo").output().unwrap();
    assert_eq!((output.status.code(), frames(&file)), (Some(0), 5), "{}", said(&output));
}

#[test]
fn ctrl_c_leaves_a_file_that_plays_and_no_ffmpeg() {
    let (input, file) = (place("ctrl_c_files", "in.mp4"), place("ctrl_c_files", "out.mp4"));
    assert!(run(&["-q", "-i", "pattern:320x240@25:400", "-o", &input], "echo").status().unwrap().success());
    let mut running = Running::start(run(&["--json", "-i", &input, "-o", &file], "stuck"));
    let worker = running.worker;
    running.await_line("worker is stuck");
    running.interrupt();
    let output = running.end();
    assert_eq!((output.status.code(), is_alive(worker)), (Some(130), false), "{}", said(&output));
    assert_eq!((processes_with(&input), processes_with(&file)), (vec![], vec![]));
    assert_eq!(summary(&output)["received"], 2);
    assert_eq!(frames(&file), 2);
}
