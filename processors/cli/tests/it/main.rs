//! The command as its users start it, against the services that `cargo xtask up` starts.

mod config;
mod records;
mod run;
mod support;
mod topics;
