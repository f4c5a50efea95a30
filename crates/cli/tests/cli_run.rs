//! `frameport run` with workers in processes of their own.

mod cli;

use cli::{Running, frameport, is_alive, pipe, place, processes_with, run, said, summary, y4m, y4m_frame};

/// The workers of this file.
#[test]
fn worker_process() {
    cli::work();
}

#[test]
fn y4m_comes_out_as_it_went_in_to_the_last_byte() {
    let input = y4m(50);
    for slots in ["1", "4"] {
        let output = pipe(run(&["-i", "-", "-o", "-", "--slots", slots], "echo"), &input);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(output.stdout == input, "{}", said(&output));
        assert!(said(&output).contains("50 frames in "), "{}", said(&output));
    }
}

#[test]
fn y4m_of_frames_larger_than_any_buffer_comes_out_as_it_went_in() {
    let mut input = b"YUV4MPEG2 W1001 H701 F25:1 C444\n".to_vec();
    for frame in 0..6_u32 {
        input.extend_from_slice(b"FRAME\n");
        input.extend((0..1001 * 701 * 3_u32).map(|index| (index.wrapping_mul(2_654_435_761) ^ frame).to_be_bytes()[0]));
    }
    let output = pipe(run(&["-i", "-", "-o", "-", "-q"], "echo"), &input);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(output.stdout == input);
}

#[test]
fn the_summary_counts_every_frame() {
    let output = run(&["--json", "-i", "pattern:64x48:20"], "echo").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let summary = summary(&output);
    for (field, expected) in [("sent", 20), ("taken", 20), ("received", 20), ("dropped", 0), ("extra", 0)] {
        assert_eq!(summary[field], expected, "{field} of {summary}");
    }
    assert_eq!((&summary["missed"], &summary["unanswered"]), (&0.into(), &0.into()));
    assert_eq!((&summary["ended"], &summary["error"]), (&"input".into(), &serde_json::Value::Null));
    assert_eq!(
        (&summary["input_spec"], &summary["output_spec"]),
        (&"bgr24 64x48 30 fps".into(), &summary["input_spec"])
    );
    assert_eq!(summary["exit"], "exited with status 0");
    for field in ["p50", "p99", "p999", "max"] {
        assert!(summary["latency_us"][field].as_f64().unwrap() > 0.0, "{field} of {summary}");
    }
    assert!(summary["fps"].as_f64().unwrap() > 0.0 && summary["ready_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn with_video_on_stdout_the_summary_goes_to_stderr() {
    let output = pipe(run(&["--json", "-i", "-", "-o", "-"], "echo"), &y4m(3));
    assert!(output.stdout == y4m(3));
    let json = said(&output).lines().find(|line| line.starts_with('{')).map(str::to_owned).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["received"], 3);
}

#[test]
fn frames_the_worker_passes_over_are_drops_and_take_their_tags_along() {
    let (file, even) = (place("drops", "even.y4m"), [0, 2, 4, 6, 8].map(y4m_frame).concat());
    let output = pipe(run(&["--json", "-i", "-", "-o", &file], "every_other"), &y4m(10));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let summary = summary(&output);
    assert_eq!((&summary["sent"], &summary["received"], &summary["dropped"]), (&10.into(), &5.into(), &5.into()));
    assert_eq!(std::fs::read(file).unwrap(), [y4m(0), even].concat());
}

#[test]
fn a_worker_that_never_answers_is_no_error() {
    let output = run(&["--json", "-i", "pattern:64x48:40"], "silent").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json = summary(&output);
    assert_eq!((&json["taken"], &json["received"], &json["dropped"]), (&40.into(), &0.into(), &40.into()));
    let output = run(&["-i", "pattern:64x48:40"], "silent").output().unwrap();
    assert!(said(&output).contains("40 frames taken, none sent back"), "{}", said(&output));
}

#[test]
fn a_worker_may_send_other_video_than_it_gets() {
    let output = pipe(run(&["-i", "-", "-o", "-"], "grey"), &y4m(2));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let header = "YUV4MPEG2 W2 H2 F30000:1001 Ip A128:117 Cmono XYSCSS=420MPEG2 Xodd=one\n";
    assert_eq!(text, format!("{header}FRAME Ixyz Xn=0\nggggFRAME Ixyz Xn=1\ngggg"));
}

#[test]
fn a_worker_that_leaves_early_ends_it_in_order() {
    let output = run(&["--json", "-i", "pattern:64x48"], "leave").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!((&summary(&output)["ended"], &summary(&output)["received"]), (&"worker".into(), &3.into()));
    assert!(said(&output).contains("ended before the input did"), "{}", said(&output));
}

#[test]
fn a_reader_that_has_enough_ends_it_without_a_word() {
    let mut child = run(&["-q", "-i", "pattern:64x48", "-f", "yuv420p", "-o", "-"], "echo")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("error"), "{}", said(&output));
}

#[test]
fn a_worker_that_dies_is_an_error_with_its_last_words_and_the_output_is_kept() {
    let file = place("crash", "out.y4m");
    let output = pipe(run(&["--json", "-i", "-", "-o", &file], "crash"), &y4m(10));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let (error, json) = (said(&output), summary(&output));
    assert!(error.rsplit_once("error: ").unwrap().1.contains("exited with status 7"), "{error}");
    assert_eq!(error.matches("something is wrong with frame 3").count(), 1, "as the worker wrote it: {error}");
    assert_eq!(json["ended"], "error");
    let number = |field: &str| json[field].as_u64().unwrap();
    assert!(number("lost") > 0 && number("unanswered") == 0, "{json}");
    assert_eq!(number("sent"), number("received") + number("dropped") + number("lost"), "{json}");
    let message = json["error"].as_str().unwrap();
    assert!(message.contains("exited with status 7") && message.contains("something is wrong with frame 3"), "{json}");
    let written = std::fs::read(file).unwrap();
    let frames = (written.len() - y4m(0).len()) / y4m_frame(0).len();
    assert!(frames <= 3 && written == y4m(u8::try_from(frames).unwrap()), "whole frames, in order");
}

#[test]
fn frames_a_dead_worker_had_are_called_lost() {
    let output = run(&["-i", "pattern:64x48:10"], "crash").output().unwrap();
    assert!(said(&output).contains(" lost with the worker"), "{}", said(&output));
    assert!(!said(&output).contains("still with the worker"), "{}", said(&output));
}

#[test]
fn a_worker_that_dies_is_started_again_and_its_frames_are_counted_as_lost() {
    for delivery in ["lossless", "newest:2"] {
        let input = "pattern:64x48@60:120";
        let output = run(&["--json", "--restart", "--delivery", delivery, "-i", input], "crash_once").output().unwrap();
        let json = summary(&output);
        assert!(output.status.success(), "{json}");
        let number = |field: &str| json[field].as_u64().unwrap();
        assert_eq!((number("restarts"), number("offered"), &json["ended"]), (1, 120, &"input".into()), "{json}");
        assert!(number("lost") >= 1 && number("received") >= 3, "{json}");
        let fates = ["received", "dropped", "retracted", "missed", "unanswered", "lost"].map(number);
        assert_eq!(fates.iter().sum::<u64>() - number("extra"), 120, "{json}");
        let said = said(&output);
        assert_eq!(said.matches("it is started again").count(), 1, "{said}");
        assert!(said.contains("exited with status 7"), "{said}");
    }
}

#[test]
fn several_workers_keep_order_to_the_last_byte() {
    let output = pipe(run(&["-i", "-", "-o", "-", "--workers", "3"], "echo"), &y4m(50));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(output.stdout == y4m(50), "{}", said(&output));
    let file = place("several", "even.y4m");
    let output = pipe(run(&["--json", "--workers", "2", "-i", "-", "-o", &file], "every_other"), &y4m(10));
    let (json, even) = (summary(&output), [0, 2, 4, 6, 8].map(y4m_frame).concat());
    assert_eq!((&json["received"], &json["dropped"], &json["lost"]), (&5.into(), &5.into(), &0.into()), "{json}");
    assert_eq!(std::fs::read(file).unwrap(), [y4m(0), even].concat());
}

#[test]
fn several_workers_give_up_a_frame_that_kills_them_and_keep_the_rest() {
    let file = place("poison", "rest.y4m");
    let output = pipe(run(&["--json", "--workers", "2", "-i", "-", "-o", &file], "crash"), &y4m(8));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let json = summary(&output);
    assert_eq!((&json["sent"], &json["received"], &json["lost"]), (&8.into(), &7.into(), &1.into()), "{json}");
    assert!(json["restarts"].as_u64().unwrap() >= 4 && json["ended"] == "error", "{json}");
    let error = json["error"].as_str().unwrap();
    assert!(error.contains("frame 3 was given up") && error.contains("exited with status 7"), "{error}");
    let rest = [0, 1, 2, 4, 5, 6, 7].map(y4m_frame).concat();
    assert_eq!(std::fs::read(file).unwrap(), [y4m(0), rest].concat());
}

#[test]
fn several_workers_that_do_not_start_are_an_error_and_ctrl_c_ends_them() {
    let output = frameport(&["run", "--workers", "2", "-i", "pattern:64x48:5", "--", "false"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("exited with status 1 before it connected"), "{}", said(&output));
    let running = Running::start(run(&["--json", "--workers", "2", "-i", "pattern:64x48@30"], "stuck"));
    running.interrupt();
    let output = running.end();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert_eq!(summary(&output)["ended"], "signal");
}

#[test]
fn a_bad_end_after_the_last_frame_is_an_error_too() {
    let output = run(&["--json", "-i", "pattern:64x48:5"], "bad_end").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(summary(&output)["received"], 5);
    assert!(said(&output).contains("exited with status 9"), "{}", said(&output));
    assert!(said(&output).contains("could not save the results"), "{}", said(&output));
}

#[test]
fn input_that_breaks_off_is_an_error_and_what_came_before_is_kept() {
    let (file, input) = (place("broken", "out.y4m"), y4m(4));
    let output = pipe(run(&["-q", "-i", "-", "-o", &file], "echo"), &input[..input.len() - 5]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the input ends 5 bytes early at frame 3"), "{}", said(&output));
    assert_eq!(std::fs::read(file).unwrap(), y4m(3));
}

#[test]
fn ctrl_c_leaves_no_process_and_a_complete_output() {
    let file = place("ctrl_c", "out.y4m");
    let running = Running::start(run(&["--json", "-i", "pattern:64x48", "-f", "yuv420p", "-o", &file], "stuck"));
    let worker = running.worker;
    assert!(is_alive(worker));
    running.interrupt();
    let output = running.end();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(!is_alive(worker));
    assert_eq!(processes_with("worker_process").iter().find(|&&pid| pid == worker), None);
    assert_eq!((&summary(&output)["ended"], &summary(&output)["error"]), (&"signal".into(), &serde_json::Value::Null));
    let written = std::fs::read(file).unwrap();
    let header = written.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    assert_eq!((written.len() - header) % (b"FRAME\n".len() + 64 * 48 * 3 / 2), 0, "whole frames");
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let mut running = Running::start(run(&["-i", "pattern:64x48"], "stuck"));
    let worker = running.worker;
    running.interrupt();
    running.await_line("the same again ends it at once");
    running.interrupt();
    assert_eq!(running.child.wait().unwrap().code(), Some(130));
    while is_alive(worker) {
        std::thread::yield_now();
    }
}

#[test]
fn ctrl_c_ends_a_wait_for_input_that_never_comes() {
    for input in [&b""[..], &y4m(1)] {
        let mut child = run(&["-q", "-i", "-"], "echo").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input).unwrap();
        // It catches signals from when it has threads on.
        while cli::threads(child.id()) < 2 {
            std::thread::yield_now();
        }
        cli::signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        drop(stdin);
    }
}

#[test]
fn sigterm_ends_it_in_order_too() {
    let running = Running::start(run(&["--json", "-i", "pattern:64x48"], "stuck"));
    let worker = running.worker;
    cli::signal(running.child.id(), "TERM");
    let output = running.end();
    assert_eq!((output.status.code(), is_alive(worker)), (Some(143), false), "{}", said(&output));
}
