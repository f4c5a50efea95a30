//! What the command says: each failure's one message, the doctor's report, the demo.

mod cli;

use cli::{frameport, place, run, said};

/// The workers of this file.
#[test]
fn worker_process() {
    cli::work();
}

#[test]
fn each_failure_has_one_message_with_a_remedy() {
    let text = place("failures", "text.mp4");
    std::fs::write(&text, "no video").unwrap();
    let cases: [(&[&str], i32, &str); 14] = [
        (&["run"], 2, "put its command after `--`, as in: frameport run -- python worker.py"),
        (
            &["run", "--", "/no/such/worker"],
            1,
            "cannot start worker 'worker' (/no/such/worker): No such file or directory",
        ),
        (&["run", "--", "/no/worker.py"], 2, "frameport run -- python /no/worker.py"),
        (&["run", "-o", "no/out.mp4", "--", "cat"], 1, "cannot create output \"no/out.mp4\": No such file"),
        (&["run", "--", "cat"], 1, "before it connected: its code must call frameport.connect()"),
        (&["run", "-f", "rgb565", "--", "cat"], 2, "unknown pixel format \"rgb565\", supported are gray, gray16le"),
        (&["run", "-i", "no.mp4", "--", "cat"], 1, "cannot open input \"no.mp4\": No such file or directory"),
        (&["run", "-i", "pattern:4x", "--", "cat"], 1, "a test picture is pattern:WIDTHxHEIGHT@FPS:FRAMES"),
        (&["run", "--slots", "0", "--", "cat"], 2, "'--slots <N>': 0 is not in 1..=1024"),
        (&["run", "--slots", "1025", "--", "cat"], 2, "'--slots <N>': 1025 is not in 1..=1024"),
        // What is no folder, so that nothing can be made in it, and something that is no file: known before the input is opened.
        (
            &["run", "-i", "no.mp4", "-o", "/dev/null/out.y4m", "--", "cat"],
            1,
            "cannot create output \"/dev/null/out.y4m\"",
        ),
        (&["run", "-i", "no.mp4", "-o", "/", "--", "cat"], 1, "cannot create output \"/\": is a directory"),
        (&["run", "--ready-timeout", "soon", "--", "cat"], 2, "not a number of seconds"),
        (&["walk"], 2, "unrecognized subcommand 'walk'"),
    ];
    for (words, status, message) in cases {
        let output = frameport(words).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        assert!(said.contains(message), "{words:?}: {said}");
        assert_eq!(said.matches("error:").count(), 1, "{words:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_named() {
    let output = frameport(&["run", "--ready-timeout", "0.2", "--", "sleep", "1000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("worker 'sleep'") && said(&output).contains("did not connect"), "{}", said(&output));
}

#[test]
fn an_output_that_cannot_be_made_is_an_error() {
    let output = run(&["-i", "pattern:64x48:5", "-f", "yuv420p", "-o", "/no/such/folder/out.y4m"], "echo").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot create output \"/no/such/folder/out.y4m\""), "{}", said(&output));
}

#[test]
fn an_output_is_not_touched_before_it_is_written() {
    let (old, new) = (place("untouched", "old.y4m"), place("untouched", "new.y4m"));
    std::fs::write(&old, "kept").unwrap();
    for file in [&old, &new] {
        let output = frameport(&["run", "-i", "no.mp4", "-o", file, "--", "cat"]).output().unwrap();
        assert!(said(&output).contains("cannot open input \"no.mp4\""), "{}", said(&output));
    }
    assert_eq!((std::fs::read(&old).unwrap().as_slice(), std::fs::exists(&new).unwrap()), (&b"kept"[..], false));
}

#[test]
fn a_quiet_run_that_goes_well_says_nothing() {
    let output = frameport(&["run", "-q", "-i", "pattern:64x48:5", "--", env!("CARGO_BIN_EXE_frameport")])
        .arg("bundled-worker")
        .output()
        .unwrap();
    assert_eq!((output.status.code(), said(&output).as_str(), output.stdout.len()), (Some(0), "", 0));
}

#[test]
fn the_doctor_reports_every_check_and_its_status_says_whether_all_works() {
    let output = frameport(&["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["kernel", "memfd", "memory", "open files", "huge pages", "isolation", "link", "ffmpeg", "python"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for check in checks {
        let fine = check["status"] == "ok";
        assert!(fine || ["warn", "fail"].contains(&check["status"].as_str().unwrap()), "{check}");
        assert_eq!(check["fix"].is_null(), fine, "{check}");
    }
    let works = !checks.iter().any(|check| check["status"] == "fail");
    assert_eq!((report["ok"].as_bool(), output.status.code()), (Some(works), Some(i32::from(!works))));
}

#[test]
fn too_few_open_files_fail_the_doctor() {
    // Enough to start and look, too few for a worker.
    let shell = format!("ulimit -n 10; exec {} doctor --json", env!("CARGO_BIN_EXE_frameport"));
    let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}"));
    let files = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "open files").unwrap();
    assert_eq!((output.status.code(), files["status"].as_str()), (Some(1), Some("fail")), "{report}");
    assert!(files["fix"].as_str().unwrap().contains("limit"), "{report}");
}

#[test]
fn the_demo_shows_its_proof() {
    let output = frameport(&["demo"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", said(&output));
    for part in ["p99.9", "0 bytes copied", "0 wrong, 0 copied", "killed by SIGKILL", "0 files left open"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
}
