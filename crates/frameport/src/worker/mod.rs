//! The worker's side: a link to the host that started this process.
//!
//! [`link`] is what the application holds, [`watch`] the thread that notices when the host closes or dies.

mod link;
mod watch;

pub use link::{Link, LinkBuilder};
