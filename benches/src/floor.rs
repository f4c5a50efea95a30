//! The floors: two processes, one memfd, one word each way, and nothing else.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use frameport_mem::floor::word;
use frameport_sys::memory::{Map, Region, Writers};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::futex;

use crate::measure::{Outcome, Turn};

const LEN: usize = 4096;

/// How a floor waits for the other side's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Spins with the processor's pause.
    Spin,
    /// Spins with sched_yield.
    Yield,
    /// FUTEX_WAIT, after FUTEX_WAKE of the other.
    Futex,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spin => "pure spin",
            Self::Yield => "yielding spin",
            Self::Futex => "shared futex",
        }
    }
}

/// Two words, and how the sides wait.
struct Words<'a> {
    own: &'a AtomicU32,
    peer: &'a AtomicU32,
    kind: Kind,
}

impl<'a> Words<'a> {
    fn new(map: &'a Map, kind: Kind, lines: [usize; 2]) -> Outcome<Self> {
        let [own, peer] = lines.map(|line| word(map, line));
        Ok(Self { own: own.ok_or("no such word")?, peer: peer.ok_or("no such word")?, kind })
    }

    #[inline]
    fn say(&self, value: u32) {
        self.own.store(value, Ordering::Release);
        if self.kind == Kind::Futex {
            let _ = futex::wake(self.own, futex::Flags::empty(), 1);
        }
    }

    #[inline]
    fn hear(&self, value: u32) {
        loop {
            let seen = self.peer.load(Ordering::Acquire);
            if seen == value {
                break;
            }
            match self.kind {
                Kind::Spin => std::hint::spin_loop(),
                Kind::Yield => std::thread::yield_now(),
                // Returns at once when the word has changed meanwhile.
                Kind::Futex => drop(futex::wait(self.peer, futex::Flags::empty(), seen, None)),
            }
        }
    }
}

/// A floor's two ends: this process and a child.
pub(crate) struct Floor {
    child: Child,
    map: Map,
    kind: Kind,
    said: u32,
}

impl Floor {
    pub(crate) fn start(kind: Kind) -> Outcome<Self> {
        let (region, map) = Region::create("floor", LEN, Writers::All)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", kind.name()]).stdin(Stdio::from(region.as_fd().try_clone_to_owned()?));
        Ok(Self { child: command.spawn()?, map, kind, said: 0 })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn run(&mut self, turn: Turn, times: &mut Vec<u64>) -> Outcome<()> {
        let words = Words::new(&self.map, self.kind, [0, 1])?;
        turn.run(times, || {
            self.said = self.said.wrapping_add(1);
            words.say(self.said);
            words.hear(self.said);
            Ok(())
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's end: its stdin is the memfd. Says what it hears, until it is killed.
pub(crate) fn peer(kind: &str) -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let kinds = [Kind::Spin, Kind::Yield, Kind::Futex];
    let kind = kinds.into_iter().find(|known| known.name() == kind).ok_or("no such floor")?;
    let map = Region::adopt(std::io::stdin().as_fd().try_clone_to_owned()?, LEN, Writers::All)?.map(true)?;
    let words = Words::new(&map, kind, [1, 0])?;
    let mut heard = 0_u32;
    loop {
        heard = heard.wrapping_add(1);
        words.hear(heard);
        words.say(heard);
    }
}
