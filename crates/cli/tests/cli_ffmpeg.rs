//! `frameport run` with video files: needs ffmpeg, found as the command finds it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod cli;

use std::process::Command;

use cli::{Running, frameport, is_alive, place, processes_with, run, said, summary};
use frameport_cli::media::{find_ffmpeg, open_source};

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
    let file = place("extension", "out.flv");
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
    assert_eq!((summary(&output)["unanswered"].as_u64() > Some(0), &summary(&output)["lost"]), (true, &0.into()));
    assert_eq!(frames(&file), 2);
}

/// Runs ffmpeg; gives what it prints on standard output.
fn ffmpeg(arguments: &str) -> Vec<u8> {
    let words = format!("-y -nostdin -loglevel error {arguments}");
    let output = Command::new(find_ffmpeg().unwrap()).args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", said(&output));
    output.stdout
}

/// Where a file's sound ends, in seconds.
fn sound(file: &str) -> f64 {
    ffmpeg(&format!("-i {file} -map 0:a -af aresample=async=1:first_pts=0 -ac 1 -ar 8000 -f u8 -")).len() as f64
        / 8000.0
}

#[test]
fn sound_ends_with_the_picture_where_that_ends_early() {
    let input = place("sound", "in.mkv");
    let sources = "-f lavfi -i testsrc2=s=320x240:r=25:d=16 -f lavfi -i sine=d=17";
    ffmpeg(&format!("{sources} -c:v libx264 -preset ultrafast -c:a aac {input}"));
    let late = place("sound", "late.mkv");
    ffmpeg(&format!("-i {input} -c copy -output_ts_offset 5000 {late}"));
    for name in ["out.mp4", "out.mov", "out.mkv", "out.webm", "out.avi"] {
        let file = place("sound", name);
        let output = run(&["-q", "-i", &input, "-o", &file], "leave").output().unwrap();
        assert_eq!((output.status.code(), frames(&file)), (Some(0), 3), "{name}: {}", said(&output));
        // The picture ends after 0.12 s; packets of sound have up to 0.03 s, and begin early.
        assert!((0.08..0.2).contains(&sound(&file)), "{name}: sound until {} s", sound(&file));
    }
    let file = place("sound", "from_late.mp4");
    let output = run(&["-q", "-i", &late, "-o", &file], "leave").output().unwrap();
    assert!((0.08..0.2).contains(&sound(&file)), "sound until {} s: {}", sound(&file), said(&output));
    let output = run(&["-i", &input, "-o", &place("sound", "out.flv")], "leave").output().unwrap();
    assert!(said(&output).contains("the sound goes on after the picture: .flv files are not cut"), "{}", said(&output));
    let file = place("sound", "interrupted.mp4");
    let mut running = Running::start(run(&["--json", "-i", &input, "-o", &file], "stuck"));
    running.await_line("worker is stuck");
    running.interrupt();
    let output = running.end();
    assert_eq!((output.status.code(), frames(&file)), (Some(130), 2), "{}", said(&output));
    assert!((0.04..0.12).contains(&sound(&file)), "sound until {} s: {}", sound(&file), said(&output));
    let left = std::fs::read_dir(place("sound", "")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().contains("cut")).count(), 0);
}

#[test]
fn sound_that_is_longer_than_a_whole_picture_is_kept() {
    let (input, file) = (place("long_sound", "in.mp4"), place("long_sound", "out.mp4"));
    ffmpeg(&format!("-f lavfi -i testsrc2=s=64x48:r=25:d=1 -f lavfi -i sine=d=3 -c:v libx264 -c:a aac {input}"));
    let output = run(&["-q", "-i", &input, "-o", &file], "echo").output().unwrap();
    assert_eq!((output.status.code(), frames(&file)), (Some(0), 25), "{}", said(&output));
    assert!(sound(&file) > 2.9, "sound until {} s", sound(&file));
}
