//! Tests against the services that `cargo xtask up` starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kafka;
mod mappings;
mod support;
