//! Starting, signalling and collecting workers. The workers are this test program again, told by an environment variable
//! which part to play, or a shell.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use frameport_sys::inherit::take_link;
use frameport_sys::isolation::{Level, Scope, best_scope, landlock_abi, level};
use frameport_sys::process::{Child, Exit, Signal, Spawn, Stderr, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, PidfdGetfdFlags};

const ROLE: &str = "FRAMEPORT_TEST_ROLE";

/// This program again, in a role of [`worker`].
fn role(name: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker", "--quiet", "--nocapture", "--test-threads=1"]).env(ROLE, name);
    for (number, argument) in arguments.iter().enumerate() {
        command.env(format!("{ROLE}_{number}"), argument);
    }
    command
}

fn argument<T: std::str::FromStr<Err: std::fmt::Debug>>(number: usize) -> T {
    std::env::var(format!("{ROLE}_{number}")).unwrap().parse().unwrap()
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

fn start_with(command: Command, scope: Option<Scope>, stderr: Stderr) -> (Child, UnixStream) {
    let (host, worker) = UnixStream::pair().unwrap();
    host.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    (spawn(Spawn { command, link: OwnedFd::from(worker).into(), scope, stderr }).unwrap(), host)
}

fn start(command: Command) -> (Child, UnixStream) {
    start_with(command, None, Stderr::Inherit)
}

/// Everything the worker writes until it closes its link.
fn answer(mut link: UnixStream) -> String {
    let mut answer = String::new();
    link.read_to_string(&mut answer).unwrap();
    answer
}

fn is_readable(fd: BorrowedFd<'_>, seconds: i64) -> bool {
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

/// A worker that says "ready" on its link, then stays until killed.
fn stay() -> Command {
    role("stay", &[])
}

/// What a shell script prints on stdout and stderr.
fn output_of(script: &str, scope: Option<Scope>) -> String {
    let (mut child, _link) = start_with(shell(script), scope, Stderr::Piped);
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
    let mut text = String::new();
    File::from(OwnedFd::from(child.take_stderr().unwrap())).read_to_string(&mut text).unwrap();
    text
}

fn wait_until_ready(link: &mut UnixStream) {
    let mut word = [0; 6];
    link.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ready\n");
}

/// The other side of the tests below; as a test of its own it does nothing.
#[test]
#[expect(clippy::zombie_processes, reason = "leaving a child behind is what one role is for")]
fn worker() {
    let Ok(part) = std::env::var(ROLE) else { return };
    let mut link = UnixStream::from(OwnedFd::from(take_link().unwrap()));
    match part.as_str() {
        "list-descriptors" => {
            let open = (0..4096).filter(|fd| rustix::io::fcntl_getfd(borrow(*fd)).is_ok());
            let open: Vec<_> = open.filter(|fd| *fd != link.as_raw_fd()).map(|fd| fd.to_string()).collect();
            write!(link, "{}", open.join(" ")).unwrap();
        }
        "stay" => {
            link.write_all(b"ready\n").unwrap();
            loop {
                std::thread::park();
            }
        }
        "echo" => {
            let mut word = [0; 6];
            link.read_exact(&mut word).unwrap();
            link.write_all(&word).unwrap();
        }
        "streams" => {
            let names = [1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
            write!(link, "{} {}", names[0].display(), names[1].display()).unwrap();
        }
        "leave-a-child" => {
            let its_link = OwnedFd::from(link.try_clone().unwrap());
            let child = Command::new("sleep").arg("1000").stdin(its_link).spawn().unwrap();
            writeln!(link, "{}", child.id()).unwrap();
        }
        "reach" => write!(link, "{}", reach(argument(0), argument(1), argument(2))).unwrap(),
        "host" => {
            let scope = best_scope();
            let (child, mut its_link) = start_with(stay(), scope, Stderr::Inherit);
            wait_until_ready(&mut its_link);
            writeln!(link, "{}", child.pid()).unwrap();
            loop {
                std::thread::park();
            }
        }
        "hidden-host" => {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
            write!(link, "{}: {}", level(false), reach_of_worker(std::process::id(), None)).unwrap();
        }
        "host-that-inherits-orphans" => {
            let this = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(this)).unwrap();
            let (mut child, its_link) = start(role("leave-a-child", &[]));
            let orphan = read_pid(&its_link);
            child.signal_group(Signal::KILL).unwrap();
            child.reap().unwrap();
            wait_until_empty(&child);
            let ours = rustix::process::waitpid(Some(orphan), rustix::process::WaitOptions::NOHANG);
            assert!(ours.unwrap().is_some(), "the orphan was a zombie of this process all the time");
        }
        "host-ignoring-sigchld" => {
            // SAFETY: SIG_IGN is a valid disposition for SIGCHLD and installs no code.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let (mut child, its_link) = start(shell("exit 3"));
            drop(its_link);
            assert!(is_readable(child.as_fd(), 30));
            let seen = child.exit_without_reaping().unwrap();
            assert_eq!((seen, child.reap().unwrap()), (Some(Exit::Unknown), Exit::Unknown));
            assert!(child.group_is_empty());
            let (_, its_link) = UnixStream::pair().unwrap();
            let command = Command::new("/nonexistent/program");
            let missing =
                spawn(Spawn { command, link: OwnedFd::from(its_link).into(), scope: None, stderr: Stderr::Inherit });
            assert!(missing.is_err());
            // The thread that starts workers has survived that, and a worker has its own SIGCHLD back.
            let command = shell("/bin/sh -c 'exit 7'; echo $?");
            let (_, its_link) = UnixStream::pair().unwrap();
            let s = Spawn { command, link: OwnedFd::from(its_link).into(), scope: None, stderr: Stderr::Piped };
            let mut child = spawn(s).unwrap();
            child.reap().unwrap();
            let mut text = String::new();
            File::from(OwnedFd::from(child.take_stderr().unwrap())).read_to_string(&mut text).unwrap();
            write!(link, "{text}").unwrap();
        }
        other => panic!("no role {other}"),
    }
}

fn borrow(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: used for one call that fails with EBADF if the number is not open.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// What a process can do to another of the same user: one "call=result" each.
fn reach(target: i32, address: usize, fd: i32) -> String {
    fn show<T>(result: Result<T, Errno>) -> String {
        match result {
            Ok(_) => "ok".to_owned(),
            Err(Errno::ACCESS) => "EACCES".to_owned(),
            Err(Errno::PERM) => "EPERM".to_owned(),
            Err(other) => other.to_string(),
        }
    }
    let pid = Pid::from_raw(target).unwrap();
    let memory = File::options().write(true).read(true).open(format!("/proc/{target}/mem"));
    let memory = memory.map_err(|error| Errno::from_io_error(&error).unwrap());
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: 1 };
    // SAFETY: `local` is one byte of ours to write; `remote` is an address in another process, which the kernel checks.
    let read = unsafe { libc::process_vm_readv(target, &raw const local, 1, &raw const remote, 1, 0) };
    let read = if read == 1 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()) };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let stolen = rustix::process::pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty());
    let signal = rustix::process::test_kill_process(pid);
    format!("mem={} vm_readv={} getfd={} kill={}", show(memory), show(read), show(stolen), show(signal))
}

static SECRET: u8 = 7;

/// What a worker can do to process `target`, whose address space is laid out like this one's by fork or is this one.
fn reach_of_worker(target: u32, scope: Option<Scope>) -> String {
    let fd = File::open("/dev/null").unwrap();
    let arguments = [target.to_string(), (&raw const SECRET).addr().to_string(), fd.as_raw_fd().to_string()];
    let (mut child, link) = start_with(role("reach", &arguments), scope, Stderr::Inherit);
    let answer = answer(link);
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
    answer
}

fn attaching_is_restricted_anyway() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0")
}

#[test]
fn eight_threads_spawning_leave_each_child_its_own_link_only() {
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..25 {
                    let (mut child, link) = start_with(role("list-descriptors", &[]), None, Stderr::Piped);
                    assert_eq!(answer(link), "0 1 2");
                    assert_eq!(child.reap().unwrap(), Exit::Code(0));
                    assert!(child.group_is_empty());
                }
            });
        }
    });
}

#[test]
fn inheritable_descriptor_of_the_host_is_not_inherited() {
    let file = File::open("/dev/null").unwrap();
    let _without_close_on_exec = rustix::io::dup(&file).unwrap();
    let (mut child, link) = start(role("list-descriptors", &[]));
    assert_eq!(answer(link), "0 1 2");
    child.reap().unwrap();
}

#[test]
fn exit_status_and_signal_are_told_before_and_after_reaping() {
    let (mut child, _link) = start(shell("exit 3"));
    assert!(is_readable(child.as_fd(), 30));
    assert_eq!(child.exit_without_reaping().unwrap(), Some(Exit::Code(3)));
    assert_eq!(child.exit_without_reaping().unwrap(), Some(Exit::Code(3)));
    assert_eq!(child.reap().unwrap(), Exit::Code(3));
    assert_eq!(child.reap().unwrap(), Exit::Code(3));

    let (mut child, mut link) = start(stay());
    wait_until_ready(&mut link);
    assert_eq!(child.exit_without_reaping().unwrap(), None);
    child.signal_group(Signal::KILL).unwrap();
    assert_eq!(child.reap().unwrap(), Exit::Signal(9));
}

#[test]
fn signal_after_reap_is_an_error() {
    let (mut child, _link) = start(shell("exit 0"));
    child.reap().unwrap();
    assert_eq!(child.signal_group(Signal::KILL).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn program_that_cannot_start_gives_the_systems_error() {
    let kind = |command| {
        let (_, link) = UnixStream::pair().unwrap();
        let s = Spawn { command, link: OwnedFd::from(link).into(), scope: best_scope(), stderr: Stderr::Piped };
        spawn(s).unwrap_err().kind()
    };
    assert_eq!(kind(Command::new("/nonexistent/program")), std::io::ErrorKind::NotFound);
    assert_eq!(kind(Command::new("/dev/null")), std::io::ErrorKind::PermissionDenied);
    let mut lost = Command::new("/bin/true");
    lost.current_dir("/nonexistent");
    assert_eq!(kind(lost), std::io::ErrorKind::NotFound);
}

/// The pid a worker writes as its first line.
fn read_pid(link: &UnixStream) -> Pid {
    let mut line = String::new();
    BufReader::new(link).read_line(&mut line).unwrap();
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

/// Death is one moment, its end-of-file another.
fn wait_until_empty(child: &Child) {
    while !child.group_is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn group_outlives_its_leader_until_the_last_member_is_killed() {
    let (mut child, link) = start(role("leave-a-child", &[]));
    read_pid(&link);
    assert!(is_readable(child.as_fd(), 30), "the leader is dead");
    assert!(!is_readable(link.as_fd(), 0), "though its child holds the link open");
    child.signal_group(Signal::KILL).unwrap();
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
    assert_eq!(answer(link), "");
    wait_until_empty(&child);
}

#[test]
fn group_with_a_living_member_is_not_empty() {
    let (mut child, link) = start(role("leave-a-child", &[]));
    let member = read_pid(&link);
    child.reap().unwrap();
    assert!(!child.group_is_empty());
    rustix::process::kill_process(member, Signal::KILL).unwrap();
    wait_until_empty(&child);
}

#[test]
fn group_of_uncollected_dead_is_empty() {
    let (mut host, _link) = start(role("host-that-inherits-orphans", &[]));
    assert_eq!(host.reap().unwrap(), Exit::Code(0));
}

#[test]
fn worker_starts_with_default_signals_in_its_own_group() {
    // SAFETY: SIG_IGN is a valid disposition and installs no code; no other test sends or relies on SIGINT.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    // In place of the shell: one that forks blocks every signal for a moment.
    let text = output_of("exec grep -E 'Sig(Ign|Blk)' /proc/self/status", None);
    let ours = [Signal::INT, Signal::TERM, Signal::PIPE, Signal::CHILD];
    let ours: u64 = ours.iter().map(|signal| 1 << (signal.as_raw() - 1)).sum();
    for set in text.lines() {
        let set = u64::from_str_radix(set.split_once('\t').unwrap().1, 16).unwrap();
        assert_eq!(set & ours, 0, "{text}");
    }

    let (child, mut link) = start(stay());
    wait_until_ready(&mut link);
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
    assert_eq!(rustix::process::getpgid(Some(pid)).unwrap(), pid);
}

#[test]
fn stdout_and_stderr_share_the_pipe_and_stdin_is_empty() {
    let (mut child, _link) = start_with(shell("exit 0"), None, Stderr::Piped);
    let pipe = child.take_stderr().unwrap();
    assert!(child.take_stderr().is_none());
    assert!(rustix::fs::fcntl_getfl(&pipe).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    child.reap().unwrap();
    assert_eq!(output_of("cat; echo out; echo err >&2", None), "out\nerr\n");
}

#[test]
fn inherited_output_goes_to_the_hosts_stderr_only() {
    let (mut child, link) = start(role("streams", &[]));
    let ours = std::fs::read_link("/proc/self/fd/2").unwrap();
    assert_eq!(answer(link), format!("{0} {0}", ours.display()));
    child.reap().unwrap();
}

#[test]
fn worker_outlives_the_thread_that_asked_for_it() {
    let (mut child, mut link) = std::thread::spawn(move || start(role("echo", &[]))).join().unwrap();
    link.write_all(b"alive\n").unwrap();
    assert_eq!(answer(link), "alive\n");
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
}

#[test]
fn worker_dies_with_its_host() {
    let (mut host, link) = start(role("host", &[]));
    let pid = read_pid(&link);
    let grandchild = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    assert!(!is_readable(grandchild.as_fd(), 0));
    rustix::process::pidfd_send_signal(host.as_fd(), Signal::KILL).unwrap();
    assert!(is_readable(grandchild.as_fd(), 30));
    assert_eq!(host.reap().unwrap(), Exit::Signal(9));
}

#[test]
fn dropped_worker_is_killed_and_collected() {
    let (child, mut link) = start(stay());
    wait_until_ready(&mut link);
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    drop(child);
    assert!(is_readable(pidfd.as_fd(), 30));
    let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    assert_eq!(status.unwrap_err(), Errno::CHILD);
}

#[test]
fn host_that_ignores_sigchld_learns_of_the_death_without_the_status() {
    let (mut host, link) = start(role("host-ignoring-sigchld", &[]));
    assert_eq!(answer(link), "7\n");
    assert_eq!(host.reap().unwrap(), Exit::Code(0));
}

#[test]
fn scoped_worker_reaches_neither_host_nor_sibling_while_the_host_controls_it() {
    let Some(scope) = best_scope() else {
        eprintln!("SKIPPED: this kernel's Landlock has no scopes (ABI {:?})", landlock_abi());
        return;
    };
    const REFUSED: &str = "mem=EACCES vm_readv=EPERM getfd=EPERM kill=EPERM";
    assert!(landlock_abi() >= Some(6));
    assert_eq!(reach_of_worker(std::process::id(), best_scope()), REFUSED);
    let (mut sibling, mut link) = start_with(stay(), Some(scope), Stderr::Inherit);
    wait_until_ready(&mut link);
    assert_eq!(reach_of_worker(sibling.pid(), best_scope()), REFUSED);
    sibling.signal_group(Signal::KILL).unwrap();
    assert_eq!(sibling.reap().unwrap(), Exit::Signal(9));
    assert_eq!(level(true), Level::Scoped);
}

#[test]
fn plain_worker_reaches_everything_which_is_why_scopes_exist() {
    if attaching_is_restricted_anyway() {
        eprintln!("SKIPPED: Yama restricts attaching on this machine");
        return;
    }
    assert_eq!(reach_of_worker(std::process::id(), None), "mem=ok vm_readv=ok getfd=ok kill=ok");
    assert_eq!(level(false), Level::None);
    assert!(Level::None < Level::HostHidden && Level::HostHidden < Level::Scoped);
}

#[test]
fn plain_worker_of_a_hidden_host_can_only_signal_it() {
    let mut command = role("hidden-host", &[]);
    if rustix::process::geteuid().is_root() {
        // Nothing is hidden from one who may trace everything.
        command.uid(65534).gid(65534);
    }
    let (host, worker) = UnixStream::pair().unwrap();
    let s = Spawn { command, link: OwnedFd::from(worker).into(), scope: None, stderr: Stderr::Inherit };
    let mut child = match spawn(s) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: root runs this test as another user, who may not execute it here");
            return;
        }
        child => child.unwrap(),
    };
    assert_eq!(answer(host), "host-hidden: mem=EACCES vm_readv=EPERM getfd=EPERM kill=ok");
    assert_eq!(child.reap().unwrap(), Exit::Code(0));
}

#[test]
fn scoped_worker_cannot_gain_privileges() {
    let Some(scope) = best_scope() else {
        eprintln!("SKIPPED: this kernel's Landlock has no scopes");
        return;
    };
    assert_eq!(output_of("grep NoNewPrivs /proc/$$/status", Some(scope)), "NoNewPrivs:\t1\n");
}
