//! `frameport run --delivery`: what a slow worker gets, and the counts of what it does not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod cli;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use cli::{GATE, Running, pipe, place, run, said, summary, y4m, y4m_frame};
use serde_json::Value;

/// The workers of this file.
#[test]
fn worker_process() {
    cli::work();
}

/// A large frame has more bytes than a pipe and a reader's buffer hold together.
const LARGE: usize = 512 * 512;

fn large(number: u8) -> Vec<u8> {
    [format!("FRAME Xn={number}\n").into_bytes(), vec![number; LARGE]].concat()
}

/// The numbers of the large frames in a file, each with its own tag and its own pixels.
fn numbers(file: &str) -> Vec<u8> {
    let written = std::fs::read(file).unwrap();
    let mut rest = &written[written.iter().position(|&byte| byte == b'\n').unwrap() + 1..];
    let mut numbers = Vec::new();
    while let Some(&number) = rest.last() {
        rest = rest.strip_suffix(large(number).as_slice()).unwrap();
        numbers.insert(0, number);
    }
    numbers
}

fn number(json: &Value, field: &str) -> u64 {
    json[field].as_u64().unwrap_or_else(|| panic!("{field} of {json}"))
}

fn assert_closed(json: &Value) {
    let sum = |fields: &[&str]| fields.iter().map(|field| number(json, field)).sum::<u64>();
    let fates = sum(&["received", "dropped", "retracted", "missed", "unanswered", "lost"]) - number(json, "extra");
    assert_eq!((number(json, "offered"), sum(&["sent", "missed"])), (fates, fates), "{json}");
}

#[test]
fn a_slow_worker_gets_the_newest_frames_and_the_reader_never_waits_for_it() {
    for (delivery, depth) in [("latest", 1), ("newest:3", 3)] {
        let (file, gate) = (place("live", &format!("{depth}.y4m")), place("live", &format!("{depth}.gate")));
        let _ = std::fs::remove_file(&gate);
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let mut command = run(&["--json", "--delivery", delivery, "-i", "-", "-o", &file], "gated");
        command.env(GATE, &gate);
        let start = [b"YUV4MPEG2 W512 H512 F60:1 Cmono\n".to_vec(), large(0)].concat();
        let (running, mut stdin) = Running::start_fed(command, &start);
        // The worker has frame 0 and waits. Where the input waits for it, so does this, for ever.
        let last = 40;
        for number in 1..=last {
            stdin.write_all(&large(number)).unwrap();
        }
        // The last is being read, so the one before it was sent: from here on the worker gets nothing much older.
        std::fs::write(&gate, "").unwrap();
        drop(stdin);
        let output = running.end();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let (json, numbers) = (summary(&output), numbers(&file));
        assert_eq!((&json["delivery"], &json["ended"]), (&delivery.into(), &"input".into()));
        assert_eq!((numbers[0], numbers.last()), (0, Some(&last)));
        assert!(numbers[1] >= last - depth && numbers.is_sorted(), "{numbers:?}");
        let (offered, taken) = (u64::from(last) + 1, numbers.len() as u64);
        for (field, expected) in [
            ("offered", offered),
            ("sent", offered),
            ("taken", taken),
            ("received", taken),
            ("retracted", offered - taken),
            ("missed", 0),
            ("dropped", 0),
        ] {
            assert_eq!(json[field], expected, "{field} of {json}");
        }
        assert_closed(&json);
    }
}

#[test]
fn a_frame_that_finds_no_slot_is_counted_and_no_error() {
    // The worker keeps what it gets, all four slots, until the input ends.
    let options = ["--json", "--delivery", "latest", "--slots", "4", "-i", "-"];
    let (mut running, mut stdin) = Running::start_fed(run(&options, "hoard"), &y4m(1));
    for number in 1..4 {
        running.await_line(&format!("worker keeps frame {}", number - 1));
        stdin.write_all(&y4m_frame(number)).unwrap();
    }
    running.await_line("worker keeps frame 3");
    for number in 4..14 {
        stdin.write_all(&y4m_frame(number)).unwrap();
    }
    drop(stdin);
    let output = running.end();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json = summary(&output);
    for (field, expected) in [("offered", 14), ("missed", 10), ("taken", 4), ("dropped", 4), ("retracted", 0)] {
        assert_eq!(json[field], expected, "{field} of {json}");
    }
    assert_closed(&json);
}

#[test]
fn what_the_worker_passes_over_is_told_apart_from_what_it_never_got() {
    let options = ["--json", "--delivery", "latest", "-i", "pattern:64x48@2000:400"];
    let output = run(&options, "every_other").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json = summary(&output);
    assert_closed(&json);
    assert_eq!((number(&json, "offered"), &json["error"]), (400, &Value::Null));
    assert_eq!(number(&json, "taken"), number(&json, "received") + number(&json, "dropped"), "{json}");
    assert_eq!(number(&json, "retracted"), number(&json, "sent") - number(&json, "taken"), "{json}");
}

#[test]
fn the_numbers_close_when_a_live_worker_dies() {
    let output = pipe(run(&["--json", "--delivery", "newest:2", "-i", "-"], "die"), &y4m(100));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let json = summary(&output);
    assert!(number(&json, "lost") > 0 && json["ended"] == "error", "{json}");
    assert_closed(&json);
}

#[test]
fn pattern_and_files_play_in_real_time_for_a_live_delivery_alone() {
    let began = Instant::now();
    let output = run(&["--json", "--delivery", "latest", "-i", "pattern:64x48@100:51"], "echo").output().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "51 frames, 10 ms apart");
    assert_eq!(number(&summary(&output), "offered"), 51);
    let file = place("real_time", "in.y4m");
    std::fs::write(&file, y4m(16)).unwrap();
    let began = Instant::now();
    let output = run(&["--json", "--delivery", "newest:2", "-i", &file], "echo").output().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "16 frames, 33.4 ms apart");
    assert_eq!(number(&summary(&output), "offered"), 16);
    // An hour, in real time.
    let output = run(&["--json", "-i", "pattern:64x48@1/60:60"], "echo").output().unwrap();
    assert_eq!((&summary(&output)["delivery"], &summary(&output)["received"]), (&"lossless".into(), &60.into()));
}

#[test]
fn ctrl_c_ends_a_wait_for_a_frame_that_comes_in_an_hour() {
    let running = Running::start(run(&["--json", "--delivery", "latest", "-i", "pattern:64x48@1/3600"], "echo"));
    running.interrupt();
    let output = running.end();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert_closed(&summary(&output));
}

#[test]
fn a_summary_for_a_person_says_what_became_of_the_frames() {
    let output = pipe(run(&["--delivery", "latest", "--slots", "2", "-i", "-"], "hoard"), &y4m(20));
    let said = said(&output);
    let fates = [" taken back for newer ones", " missed because the worker was busy"];
    assert!(said.contains("20 offered, ") && fates.iter().any(|fate| said.contains(fate)), "{said}");
}

#[test]
fn a_delivery_that_cannot_be_is_refused_before_anything_starts() {
    for (options, part) in [
        (&["--delivery", "newest"][..], "it is lossless, latest or newest:N"),
        (&["--delivery", "newest:0"], "newest:1 to newest:"),
        (&["--delivery", "newest:4", "--slots", "4"], "takes more than --slots 4"),
        (&["--delivery", "latest", "--workers", "2"], "share one lossless queue"),
    ] {
        let output = run(&[&["-i", "pattern:64x48:5"], options].concat(), "echo").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
}
