//! Claim events into Kafka: NDJSON, CSV by mapping, HTTP, and a generator.
//!
//! `source (lines → rows) → mapping or JSON → envelope (ids, defaults, validation) → publisher → Kafka`
//!
//! - [`source`]: readers of files; every row is an event or several, says nothing new, or is refused.
//! - [`envelope`], [`content`]: the whole event and its deterministic id.
//! - [`records`], [`publisher`], [`delivery`], `reports`, [`partitioner`]: the way into Kafka.
//! - [`rejects`]: why a row was refused.
//! - [`import`]: one input from beginning to end.
//! - [`mapping`]: CSV columns to events.
//! - [`http`]: the server.
//! - [`generate`]: synthetic claims.

pub mod content;
pub mod delivery;
pub mod envelope;
pub mod generate;
pub mod http;
pub mod import;
pub mod mapping;
pub mod metrics;
pub mod partitioner;
pub mod publisher;
pub mod records;
pub mod rejects;
mod reports;
pub mod source;
