//! What the machine has to give, seen on the machine at hand.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use frameport_sys::limits::{available_memory, kernel_release, open_files};

const LIMIT: u64 = 256 << 20;

/// What the child below looks at; on its own it checks that there is any memory.
#[test]
fn available_memory_is_some_and_within_the_group_it_runs_in() {
    let memory = available_memory();
    assert!(memory.bytes > 0, "{memory:?}");
    let Ok(group) = std::env::var("FRAMEPORT_TEST_GROUP") else { return };
    assert!(memory.bytes <= LIMIT, "{memory:?}");
    assert!(memory.source.ends_with(&format!(" of {group}")), "{memory:?}");
}

/// A memory cgroup for one child, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let name = format!("frameport-test-{}", std::process::id());
        for (folder, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(PathBuf::from(folder).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), LIMIT.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn limit_of_a_real_memory_group_is_seen_from_inside() {
    let Some(group) = Group::new() else {
        eprintln!("SKIPPED: making a memory cgroup needs privileges that this process lacks");
        return;
    };
    let status = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&group.0)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "available_memory_is_some_and_within_the_group_it_runs_in"])
        .env("FRAMEPORT_TEST_GROUP", &group.0)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn open_files_counts_a_descriptor_more_after_an_open() {
    let before = open_files();
    let _files: Vec<_> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
    let after = open_files();
    // Other tests of this program open and close a few at the same time.
    assert!(after.used >= before.used + 150, "{before:?} {after:?}");
    assert!(after.used <= after.soft && after.soft <= after.hard);
}

#[test]
fn kernel_release_starts_with_a_version() {
    let release = kernel_release();
    assert!(release.split('.').next().unwrap().parse::<u32>().is_ok(), "{release}");
}
