//! Locks and channels between the threads of one process: the standard library's.

pub use std::sync::{Condvar, Mutex, MutexGuard, mpsc};

/// Declares statics of which each process has its own: a plain `static`. Where several processes are simulated in one, it
/// isn't.
#[macro_export]
macro_rules! process_local {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = $init:expr;)+) => {
        $($(#[$attribute])* static $name: $type = $init;)+
    };
}
