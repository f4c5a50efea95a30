//! What anybody may send to a host, a worker or the command, and what must hold whatever it is.
//!
//! *What it is*: one module for each target, with a function that takes the bytes of one run and panics where something does
//! not hold. *Who calls it*: libFuzzer, by the programs in `fuzz_targets` (`make fuzz`), and on a stable compiler the test in
//! `tests/corpus.rs` (`make test-fuzz`). *Invariants*: a run is decided by its bytes alone and leaves nothing for the next.

// Under the names their own `use` lines have: the simulated Mach kernel of the tests of frameport-sys, and a host on it.
#[expect(dead_code, reason = "tests ask more of it")]
#[path = "../../crates/sys/tests/mach/kernel/mod.rs"]
mod kernel;
#[expect(dead_code, reason = "tests ask more of it")]
#[path = "../../crates/sys/tests/mach/world.rs"]
mod world;

mod choices;
pub mod mach_buffers;
pub mod mach_messages;
pub mod media;
pub mod ring;
pub mod wire;

/// A target's name, and what it does with the bytes of a run.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("mach_buffers", mach_buffers::run),
    ("mach_messages", mach_messages::run),
    ("media", media::run),
    ("ring", ring::run),
    ("wire", wire::run),
];

/// The program of a target: libFuzzer's, or without that one which runs the files it is given.
#[macro_export]
macro_rules! program {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::$target::run(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os()
                .skip(1)
                .try_for_each(|path| std::fs::read(path).map(|bytes| $crate::$target::run(&bytes)))
        }
    };
}
