//! Integration tests against the services of `cargo xtask up`; each has a database of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod docs;
mod faults;
mod model;
mod random;
mod schema;
mod sink;
mod stage;
mod stats;
mod support;
mod views;
