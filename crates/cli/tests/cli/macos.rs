//! What the tests ask of macOS about other processes. Not run: no Mac was at hand.

use std::process::Command;

/// What `ps` says, a line for each process or thread.
fn ps(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("/bin/ps").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

/// Whether a process is there and no corpse.
pub(crate) fn is_alive(pid: u32) -> bool {
    let state = ps(&["-o", "state=", "-p", &pid.to_string()]);
    state.first().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

/// Processes alive whose command line contains `part`.
pub(crate) fn processes_with(part: &str) -> Vec<u32> {
    let lines = ps(&["-axwwo", "pid=,command="]);
    let found = lines.iter().filter_map(|line| line.split_once(' ')).filter(|(_, command)| command.contains(part));
    found.filter_map(|(pid, _)| pid.parse().ok()).filter(|&pid| is_alive(pid)).collect()
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> usize {
    // A line for each, after a heading.
    ps(&["-M", "-p", &pid.to_string()]).len().saturating_sub(1)
}
