//! Tests against the services that `cargo xtask up` starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod docs;
mod http;
mod kafka;
mod mappings;
mod steps;
mod support;
