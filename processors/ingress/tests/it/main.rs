//! Tests against the services that `cargo xtask up` starts.

mod kafka;
mod support;
