//! What exists around the processors: topics, the graph, configuration, and the schema registry.
//!
//! - [`config`]: the one typed configuration.
//! - [`topics`]: names and specs of the topics.
//! - [`graph`]: which processor reads and writes what.
//! - [`kafka`]: from the configuration to client properties and stages.
//! - [`source`]: the topic that a processor reads, as it finds it.
//! - [`registry`]: registering schemas, and fetching writers' schemas into the cache.

pub mod config;
pub mod graph;
pub mod kafka;
pub mod registry;
pub mod source;
pub mod topics;

pub use config::Config;
