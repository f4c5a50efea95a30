//! The choices of a run, taken from its bytes one after another. Where those end, each choice is the first.

use arbitrary::Unstructured;

pub(crate) struct Choices<'b>(Unstructured<'b>);

impl<'b> Choices<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// No more choices: the run ends.
    pub(crate) fn are_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Any number below `limit`, of one byte where that is 256 or less.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0.int_in_range(0..=limit - 1).unwrap_or(0)
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub(crate) fn word(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Near 0, near the end, near a power of two, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - self.below(4) as u64,
            1 => self.0.arbitrary().unwrap_or(0),
            2 => (1 << self.below(64)) - self.below(2) as u64,
            _ => self.below(32) as u64,
        }
    }
}
