//! Integration tests. Those that need services fail without them: run `cargo xtask up` first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cql_rules;
mod events;
mod exactness;
mod processing;
mod stage;
mod tables;
