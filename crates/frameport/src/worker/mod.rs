//! The worker's side: a link to the host that started this process.
//!
//! [`link`] is what the application holds, [`watch`] the thread that notices when the host closes or
//! dies and brings the [`params`] it sets. What the worker says itself leaves by [`outgoing`].

mod link;
mod outgoing;
mod params;
mod watch;

pub use link::{Link, LinkBuilder};
pub(crate) use params::Newest;
