//! Decoding records of the events topic, with schemas fetched as they are met.

use anyhow::Context;
use claims_runtime::{ResolveError, SchemaResolver};
use claims_schemas::{DecodeError, Event, SchemaCache};
use claims_topology::{Config, registry::RegistryResolver};

/// Decodes values.
pub struct Decoder {
    schemas: SchemaCache,
    resolver: RegistryResolver,
}

impl Decoder {
    /// A decoder that asks the configured registry.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let schemas = SchemaCache::default();
        let resolver = RegistryResolver::new(config, schemas.clone())?;
        Ok(Self { schemas, resolver })
    }

    /// The event, or in words why there is none. An error only where the registry is away.
    pub async fn decode(&self, payload: &[u8]) -> anyhow::Result<Result<Event, String>> {
        let schema_id = match self.schemas.decode(payload) {
            Ok(event) => return Ok(Ok(event)),
            Err(DecodeError::SchemaMissing(schema_id)) => schema_id,
            Err(error) => return Ok(Err(error.to_string())),
        };
        match self.resolver.resolve(schema_id).await {
            Ok(()) => Ok(self.schemas.decode(payload).map_err(|error| error.to_string())),
            Err(error @ ResolveError::Unavailable(_)) => {
                Err(error).context("fetching the schema of a record (is registry.url right?)")
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}
