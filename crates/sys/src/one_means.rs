//! By which means workers are given handles, where there is one.

/// There is no choice here: objects travel as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means;

impl Means {
    /// What the system does best.
    pub const USUAL: Self = Self;
    /// By descriptors, without a port of the system's own.
    pub const DESCRIPTORS: Self = Self;

    /// Why what was made for these means cannot be given to a worker by `other` ones.
    #[must_use]
    pub fn bar(self, _other: Self) -> Option<&'static str> {
        None
    }
}
