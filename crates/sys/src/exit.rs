//! How a worker process ended: the same words on every system.

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It is gone, and its status went to somebody else: this process ignores SIGCHLD, or other code in it waits for any
    /// child.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "killed by {} ({signal})", signal_name(*signal)),
            Self::Unknown => f.write_str("ended with unknown status"),
        }
    }
}

/// The name of a signal: "SIGKILL" for 9. Numbers without a name of their own are "real-time signal" or "unknown signal".
pub fn signal_name(signal: i32) -> &'static str {
    macro_rules! names {
        ($($name:ident)*) => { match signal { $(libc::$name => stringify!($name),)* _ => own_name(signal) } };
    }
    names! {
        SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
        SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
        SIGSYS
    }
}

/// The name of a signal that only this system has.
fn own_name(signal: i32) -> &'static str {
    let known = crate::process::OWN_SIGNALS.iter().find(|(number, _)| *number == signal);
    known.map_or(if (32..=64).contains(&signal) { "real-time signal" } else { "unknown signal" }, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_reads_as_a_sentence() {
        assert_eq!(Exit::Code(3).to_string(), "exited with status 3");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL (9)");
        assert_eq!(Exit::Signal(40).to_string(), "killed by real-time signal (40)");
        assert_eq!(signal_name(0), "unknown signal");
    }
}
