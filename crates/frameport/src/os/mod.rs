//! What only one system has, as extension traits: each in a module that is there on that system alone.

#[cfg(all(target_os = "macos", not(frameport_sim)))]
pub mod macos;
