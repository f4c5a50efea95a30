//! The `frameport` command.
#![forbid(unsafe_code)]
