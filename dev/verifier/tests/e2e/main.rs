//! The whole pipeline, as the command `claims` in processes of its own, on the real services.
//!
//! They need `cargo xtask up` and `cargo build -p claims-cli`; `cargo xtask test` sees to both.

mod bad_records;
mod changes;
mod compaction;
mod kill;
mod registry;
mod reimport;
mod replay;
mod restore;
mod support;
mod verify;
