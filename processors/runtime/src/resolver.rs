//! Fetching a writer's schema when a processor meets an id that it doesn't know.

use std::{future::Future, pin::Pin};

/// Why a schema could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The registry knows no such id (404): the record is bad data.
    #[error("the registry has no schema {schema_id}")]
    NotFound {
        /// The id asked for.
        schema_id: u32,
    },
    /// The registry's answer can't be used by any build (not a schema at all): the record is bad data.
    #[error("schema {schema_id} can't be used: {detail}")]
    Unusable {
        /// The id asked for.
        schema_id: u32,
        /// What was wrong with it.
        detail: String,
    },
    /// The registry is away: the partition waits, and the runtime asks again.
    #[error("the schema registry did not answer: {0}")]
    Unavailable(String),
}

/// Makes a writer's schema known to the processor's cache. Called once per unknown id, not per record.
pub trait SchemaResolver: Send + Sync + 'static {
    /// Fetches the schema with this id into the cache.
    fn resolve(&self, schema_id: u32) -> Pin<Box<dyn Future<Output = Result<(), ResolveError>> + Send + '_>>;
}
