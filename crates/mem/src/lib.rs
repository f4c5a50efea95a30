//! Raw mappings become safe types: words, rings, pages, parking, pixel views.
//!
//! *What it is*: the only crate that touches shared memory. *Who calls it*: `frameport`, on both sides of a link.
//! *Invariants*: every shared word has one size and one writer; a word a peer writes is loaded once per decision into
//! an owned value; no `&[u8]` or `&mut [u8]` to memory a peer may write is ever made, but by the accessors whose name
//! or `unsafe` says so. *A hostile peer* can write any value into its own words at any time, and scribble on pixels it
//! may write: what is read is then wrong, and nothing else happens.
//!
//! On atomics in memory another process writes: the language defines neither atomics nor volatile accesses against a
//! writer outside the program. Loads of aligned words through [`std::sync::atomic`] types are what every such system
//! relies on; on memory mapped read-only only relaxed loads are documented to be allowed, so an acquire is a relaxed
//! load and a fence here.

#[doc(hidden)]
pub mod floor;
#[cfg(loom)]
pub mod model;
pub mod page;
pub mod park;
pub mod pixels;
pub mod ring;
mod sync;
mod until;
mod words;
