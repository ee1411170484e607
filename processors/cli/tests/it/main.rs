//! The command as its users start it, against the services that `cargo xtask up` starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod config;
mod dead_letters;
mod records;
mod run;
mod support;
mod topics;
