//! Who may write shared memory: the same on every system.

/// Who may write a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Every process that has it.
    All,
    /// Only mappings made before the seal: the creator's.
    Creator,
}
