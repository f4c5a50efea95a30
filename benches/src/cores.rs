//! Which cores the two processes run on, and whose turn it is.

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::measure::Outcome;

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Each on a core of its own.
    Two,
    /// Both on one.
    One,
}

impl Placement {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Two => "two cores",
            Self::One => "one core",
        }
    }
}

/// The cores this process was given at its start.
pub(crate) struct Cores {
    all: CpuSet,
    host: usize,
    /// A core that is not the host's: no hyper-thread of it either, where there is another.
    other: Option<usize>,
}

impl Cores {
    pub(crate) fn of_this_process() -> Outcome<Self> {
        let all = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core));
        let host = usable.next().ok_or("this process may run on no core")?;
        let rest: Vec<usize> = usable.collect();
        let same = siblings(host);
        let apart = rest.iter().find(|core| !same.contains(core)).or(rest.first());
        Ok(Self { all, host, other: apart.copied() })
    }

    pub(crate) fn count(&self) -> u32 {
        self.all.count()
    }

    /// Whether there are the cores for it.
    pub(crate) fn allow(&self, placement: Placement) -> bool {
        placement == Placement::One || self.other.is_some()
    }

    /// Gives `peer` its turn: pins both processes and lets it run until the result is dropped. This process is then
    /// free to run anywhere again.
    pub(crate) fn turn(&self, peer: Pid, placement: Placement) -> Outcome<Running<'_>> {
        let beside = match placement {
            Placement::Two => self.other.ok_or("there is one core only")?,
            Placement::One => self.host,
        };
        sched_setaffinity(None, &only(self.host))?;
        sched_setaffinity(Some(peer), &only(beside))?;
        kill_process(peer, Signal::CONT)?;
        Ok(Running { cores: self, peer })
    }
}

/// See [`Cores::turn`].
pub(crate) struct Running<'a> {
    cores: &'a Cores,
    peer: Pid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // A peer that died is noticed by the round trip that misses it.
        let _ = kill_process(self.peer, Signal::STOP);
        let _ = sched_setaffinity(None, &self.cores.all);
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// The hyper-threads of a core, itself included: "0,4" or "0-1" in sysfs.
fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    parse_list(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_core_list_is_read() {
        assert_eq!(super::parse_list("0,2-4\n"), [0, 2, 3, 4]);
        assert!(super::parse_list("").is_empty());
    }
}
