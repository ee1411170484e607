//! The audit trail in a folder, and the whole stage on Kafka and the schema registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kafka;
mod lookup;
mod s3;
mod support;
mod tampering;
mod trail;
