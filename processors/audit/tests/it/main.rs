//! The audit trail in a folder, and the whole stage on Kafka and the schema registry.

mod kafka;
mod lookup;
mod s3;
mod support;
mod tampering;
mod trail;
