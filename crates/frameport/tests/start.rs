//! Starts that fail: one typed error each, whose text names the cause and the remedy, and nothing left running.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::{Watched, role, small, small_worker, worker};
use frameport::spec::{BytesSpec, PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Link, Worker, WorkerBuilder};
use frameport_sys::inherit;
use frameport_sys::socket::Control;
use frameport_wire::control::{self, Decoder, ToWorker};
use frameport_wire::layout::SIZES;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Deadlines of starts that fail: one that is enough for a worker to come as far as it gets, if need be, on any machine.
const DEADLINES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(2), Duration::from_secs(15)];

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    if role.starts_with("honest") {
        return honest(&role);
    }
    let link = inherit::take_link().unwrap();
    let say = |message: &Value| tell(&link, &control::encode(message).unwrap());
    match role.as_str() {
        "mute" => {}
        "version" => say(&hello(2, &json!(SIZES))),
        "sizes" => say(&hello(1, &json!({"descriptor": 128, "header": 128, "block": 128}))),
        "never_ready" => say(&hello(1, &json!(SIZES))),
        "twice" => {
            say(&hello(1, &json!(SIZES)));
            say(&hello(1, &json!(SIZES)));
        }
        "garbage" => tell(&link, b"Content-Type: text/html\n\n<!doctype html>"),
        "too_long" => tell(&link, &(64 * 1024_u32 + 1).to_le_bytes()),
        "huge_fields" => {
            let mut hello = hello(1, &json!(SIZES));
            hello["library"] = "x".repeat(65_000).into();
            hello["protocol"] = json!([2, 2]);
            say(&hello);
        }
        "greedy" => {
            let mut hello = hello(1, &json!(SIZES));
            let spec = frameport::spec::Spec::from(VideoSpec::new(PixelFormat::Rgba, 16_384, 16_384));
            hello["output"] = serde_json::to_value(spec).unwrap();
            say(&hello);
        }
        "sandboxed" => {
            say(&json!({"type": "sandboxed", "operation": "mach-lookup", "message": "no way to a Mach port"}));
            std::process::exit(3);
        }
        "sandboxed_otherwise" => {
            say(&json!({"type": "sandboxed", "operation": "file-read*", "message": "of a later version"}));
            std::process::exit(3);
        }
        "closed" => drop(link),
        "shut" => common::shut(&link),
        "closed_after_hello" => {
            say(&hello(1, &json!(SIZES)));
            await_message(&link);
            drop(link);
        }
        "flooding" => {
            let mut stderr = std::io::stderr();
            for line in 0..100_000 {
                writeln!(stderr, "{line:06} {}", "x".repeat(93)).unwrap();
            }
            writeln!(stderr, "the very end").unwrap();
            std::process::exit(4);
        }
        "leaves_a_child" => {
            // The end of the worker's group does not reach it.
            let its_link = link.as_fd().try_clone_to_owned().unwrap();
            let pid = common::apart("sleep").arg("60").stdin(its_link).spawn().unwrap().id();
            let _ = writeln!(std::io::stderr(), "child {pid}");
            std::process::exit(5);
        }
        other => unreachable!("no role {other}"),
    }
    loop {
        std::thread::park();
    }
}

fn honest(role: &str) {
    let link = Link::from_env();
    let link = match link {
        Ok(link) => link,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            std::process::exit(6);
        }
    };
    match role {
        "honest_panic" => {
            let _frame = link.recv().unwrap();
            unreachable!("the model fell over");
        }
        "honest_failure" => {
            link.fail("ValueError: no such model");
            std::process::exit(1);
        }
        _ => loop {
            match link.recv() {
                Ok(frame) => link.send_back(frame).unwrap(),
                Err(_) => return,
            }
        },
    }
}

fn hello(protocol: u32, layout: &Value) -> Value {
    json!({"type": "hello", "protocol": [protocol, protocol], "layout": layout, "pid": std::process::id(), "library": "fake 9.9"})
}

fn tell(link: &Control, bytes: &[u8]) {
    link.send(bytes, &[]).unwrap();
}

fn await_message(link: &Control) -> ToWorker {
    let (mut decoder, mut handles, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        let read = link.recv_with_handles(&mut bytes, &mut handles).unwrap();
        assert!(read > 0);
        decoder.push(&bytes[..read]);
        if let Some(message) = decoder.decode().unwrap() {
            return message;
        }
    }
}

/// Starts what cannot be started and shows the error to whoever runs the tests with `--nocapture`.
fn failure(builder: WorkerBuilder) -> (Error, String) {
    let started = Instant::now();
    let error = builder.spawn().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20), "after {:?}: {error}", started.elapsed());
    let text = error.to_string();
    let shown: String = text.chars().take(600).collect();
    let _ = writeln!(std::io::stderr(), "* {shown}\n");
    (error, text)
}

fn program(path: &str) -> WorkerBuilder {
    Worker::command(path).input("in", small(), Delivery::Lossless).on_stderr(|_| {})
}

fn shell(script: &str) -> WorkerBuilder {
    program("/bin/sh").args(["-c", script]).name("detector")
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let first_line = text.lines().next().unwrap_or_default();
    assert!(!first_line.ends_with('.') && first_line.len() < 400, "{text}");
}

#[test]
fn programs_that_do_not_start_say_why() {
    let (error, text) = failure(program("/nowhere/at/all"));
    assert!(matches!(error, Error::Spawn { .. }));
    assert_says(&text, &["cannot start worker 'all' (/nowhere/at/all)", "No such file", "PATH"]);
    let (error, text) = failure(program(common::NO_PROGRAM));
    assert!(matches!(error, Error::Spawn { .. }));
    assert_says(&text, &["Permission denied", "is it executable?"]);
    let (error, _) = failure(program("/bin/sh").current_dir("/nowhere"));
    assert!(matches!(error, Error::Spawn { .. }));
}

#[test]
fn programs_that_end_before_they_connect_say_how() {
    for (script, exit) in
        [("exit 0", Exit::Code(0)), ("echo no model >&2; exit 3", Exit::Code(3)), ("kill -SEGV $$", Exit::Signal(11))]
    {
        let (error, text) = failure(shell(script));
        let Error::WorkerDied(death) = error else { panic!("{text}") };
        assert_eq!((death.exit, death.connected, death.link.as_str()), (exit, false, "detector"));
        assert_says(&text, &["worker 'detector' (pid ", &exit.to_string(), "before it connected"]);
        assert_eq!(text.contains("frameport.connect()"), exit == Exit::Code(0), "a worker that left in silence");
        assert_eq!(text.contains("no model"), exit == Exit::Code(3));
    }
}

#[test]
fn programs_that_never_become_ready_are_ended_at_the_deadline() {
    let never_ready = |builder: WorkerBuilder, stage: &str| {
        for limit in DEADLINES {
            let (error, text) = failure(builder.clone().ready_timeout(limit));
            let Error::NotReady { pid, .. } = error else { panic!("{text}") };
            assert!(Watched::open(pid).is_none(), "it is gone");
            assert_says(&text, &["(pid ", &format!("within {} s", limit.as_secs_f32())]);
            if text.contains(stage) {
                return text;
            }
        }
        panic!("none came as far as that it {stage}");
    };
    for (role, stage) in [("mute", "did not connect"), ("never_ready", "connected but did not come to its first recv")]
    {
        assert_says(&never_ready(small_worker(role), stage), &[role]);
    }
    never_ready(shell("echo loading >&2; sleep 100"), "loading");
}

#[test]
fn other_versions_and_layouts_are_named() {
    let (error, text) = failure(small_worker("version"));
    assert!(matches!(error, Error::Version { worker: (2, 2), host: (1, 1), .. }));
    assert_says(&text, &["'version'", "fake 9.9", "protocol 2..2", "1..1", "same version"]);
    let (error, text) = failure(small_worker("sizes"));
    assert!(matches!(error, Error::LayoutMismatch { .. }));
    assert_says(&text, &["fake 9.9", "128", "rebuild"]);
}

#[test]
fn nonsense_on_the_control_channel_is_a_violation() {
    for (role, part) in [("garbage", "control message"), ("too_long", "65537"), ("twice", "hello")] {
        let (error, text) = failure(small_worker(role));
        assert!(matches!(error, Error::Violation { .. }), "{text}");
        assert_says(&text, &[role, "broke the protocol", part]);
    }
    let (error, text) = failure(small_worker("huge_fields"));
    assert!(matches!(error, Error::Version { .. }));
    assert!(text.len() < 1000, "{} bytes of error", text.len());
}

#[test]
fn a_worker_that_closes_its_link_fails_at_once() {
    for role in ["closed", "shut", "closed_after_hello"] {
        let (error, text) = failure(small_worker(role));
        assert!(matches!(error, Error::Violation { .. }), "{text}");
        assert_says(&text, &[role, "closed its link", "close descriptors"]);
    }
}

#[test]
fn a_worker_that_wants_too_much_is_refused() {
    let (error, text) = failure(small_worker("greedy"));
    assert!(matches!(error, Error::Config { .. }));
    assert_says(&text, &["greedy", "rgba 16384x16384", "output limit"]);
    let (_, text) = failure(worker("greedy").input("in", small(), Delivery::Lossless));
    assert_says(&text, &["asked for no output"]);
}

#[test]
fn a_flood_on_stderr_leaves_its_end_and_holds_up_nobody() {
    let (error, text) = failure(small_worker("flooding"));
    let Error::WorkerDied(death) = error else { panic!("{text}") };
    assert_eq!((death.exit, death.stderr_tail.len()), (Exit::Code(4), 64 * 1024));
    assert!(death.stderr_tail.ends_with("the very end\n"));
    assert_says(&text, &["the very end"]);
    assert!(text.len() < 2000);
}

#[test]
fn a_sink_that_panics_takes_no_other_workers_words() {
    failure(shell("echo one >&2; exit 7").on_stderr(|_| panic!("the application's own fault")));
    let (hears, heard) = std::sync::mpsc::channel();
    failure(shell("echo two >&2; exit 7").on_stderr(move |words| drop(hears.send(words.to_vec()))));
    // The panic's own report may take its time.
    assert_eq!(heard.recv_timeout(Duration::from_secs(20)).unwrap(), b"two\n");
}

#[test]
fn a_grandchild_that_keeps_link_and_stderr_open_hides_no_death() {
    let (error, text) = failure(small_worker("leaves_a_child"));
    let Error::WorkerDied(death) = error else { panic!("{text}") };
    assert_eq!(death.exit, Exit::Code(5));
    let pid: u32 = death.stderr_tail.lines().find_map(|line| line.strip_prefix("child ")).unwrap().parse().unwrap();
    // It left the group, so it is the worker's user who has to end it.
    Watched::open(pid).unwrap().signal(rustix::process::Signal::KILL);
}

#[test]
fn a_workers_own_failure_comes_in_its_own_words() {
    let (error, text) = failure(small_worker("honest_failure"));
    assert!(matches!(error, Error::WorkerDied(_)));
    assert_says(&text, &["failed: ValueError: no such model (exited with status 1)"]);
    let worker = small_worker("honest_panic").spawn().unwrap();
    worker.send(worker.loan().unwrap()).unwrap();
    let error = worker.recv().unwrap_err();
    assert_says(&error.to_string(), &["panicked (exited with status 101)"]);
    let Error::WorkerDied(death) = error else { panic!("{error}") };
    assert!(death.stderr_tail.contains("the model fell over"), "{}", death.stderr_tail);
}

#[test]
fn a_worker_in_a_sandbox_says_what_the_host_must_allow() {
    let (error, text) = failure(small_worker("sandboxed"));
    let Error::Denied { operation, profile_line, .. } = error else { panic!("{text}") };
    assert_eq!(operation, "mach-lookup");
    assert!(profile_line.starts_with("(allow mach-lookup "), "{profile_line}");
    assert_says(&text, &["starting worker 'sandboxed' (pid ", "no way to a Mach port"]);
    // What this host does not know is the worker's own affair.
    let (error, text) = failure(small_worker("sandboxed_otherwise"));
    assert!(matches!(error, Error::WorkerDied(_)), "{text}");
    assert_says(&text, &["failed: of a later version (exited with status 3)"]);
}

#[test]
fn a_pool_beyond_the_memory_is_an_error_before_anything_starts() {
    let marker = std::env::temp_dir().join(format!("frameport-started-{}", std::process::id()));
    let script = format!("touch {}", marker.display());
    let builder = || Worker::command("/bin/sh").args(["-c", &script]).name("detector");
    // 1024 slots of 1.5 GB.
    let (error, text) = failure(builder().input("in", BytesSpec::new(1_500_000_000), Delivery::Lossless).slots(1024));
    assert!(matches!(error, Error::Memory { .. }), "{text}");
    assert_says(&text, &["worker 'detector' needs", "MiB are left by", "fewer slots"]);

    let wrong: [(WorkerBuilder, &[&str]); 7] = [
        (builder().input("in", VideoSpec::new(PixelFormat::Bgr24, 0, 41), Delivery::Lossless), &["width is 0"]),
        (
            builder().input("in", VideoSpec::new(PixelFormat::Bgr24, u32::MAX, u32::MAX), Delivery::Lossless),
            &["width is 4294967295"],
        ),
        (builder().input("in", small(), Delivery::Lossless).slots(0), &["0 slots", "1 to 1024"]),
        (builder().input("in", small(), Delivery::Lossless).slots(1025), &["1025 slots"]),
        (builder().input("a", small(), Delivery::Newest(4)), &["channel 'a'", "4 newest frames in 4 slots"]),
        (
            builder().input("a", small(), Delivery::Lossless).output("a", small(), Delivery::Lossless),
            &["two channels are named 'a'"],
        ),
        (builder(), &["needs a channel", "input()"]),
    ];
    for (builder, parts) in wrong {
        let (error, text) = failure(builder);
        assert!(matches!(error, Error::Config { .. } | Error::Spec(_) | Error::TooLarge { .. }), "{text}");
        assert_says(&text, parts);
    }
    assert!(!marker.exists(), "nothing was started");
}
