//! What exists around the processors: topics, the graph, configuration, and the schema registry.
//!
//! - [`config`]: the one typed configuration.
//! - [`topics`]: names and specs of the topics.
//! - [`registry`]: registering schemas, and fetching writers' schemas into the cache.

pub mod config;
pub mod registry;
pub mod topics;

pub use config::Config;
