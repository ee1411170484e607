//! Integration tests. Those that need services fail without them: run `cargo xtask up` first.

mod exactness;
mod events;
mod processing;
mod stage;
mod tables;
