//! How far workers are kept from their host: the same levels on every system.

use std::fmt;

/// How far a worker with the host's user id is kept away from the host. Ordered: more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing: a worker can read and write the host's memory, take its descriptors and signal it.
    None,
    /// The host is not dumpable: a worker cannot reach its memory and descriptors, but can signal it and reach its siblings.
    HostHidden,
    /// The worker is in a domain of its own: it can neither reach nor signal the host or its siblings.
    Scoped,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::HostHidden => "host-hidden",
            Self::Scoped => "scoped",
        })
    }
}
