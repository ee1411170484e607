//! Decoding records of the events topic, with schemas fetched as they are met.

use anyhow::Context;
use claims_runtime::{ResolveError, SchemaResolver};
use claims_schemas::{DecodeError, Event, SchemaCache, codec::StateRecord};
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
        self.with_schema(|schemas| schemas.decode(payload)).await
    }

    /// The same for a record of the state topic.
    pub async fn decode_state(&self, payload: &[u8]) -> anyhow::Result<Result<StateRecord, String>> {
        self.with_schema(|schemas| schemas.decode_state(payload)).await
    }

    /// Decodes, once more if a schema had to be fetched first.
    async fn with_schema<T>(
        &self,
        decode: impl Fn(&SchemaCache) -> Result<T, DecodeError>,
    ) -> anyhow::Result<Result<T, String>> {
        let schema_id = match decode(&self.schemas) {
            Ok(decoded) => return Ok(Ok(decoded)),
            Err(DecodeError::SchemaMissing(schema_id)) => schema_id,
            Err(error) => return Ok(Err(error.to_string())),
        };
        match self.resolver.resolve(schema_id).await {
            Ok(()) => Ok(decode(&self.schemas).map_err(|error| error.to_string())),
            Err(error @ ResolveError::Unavailable(_)) => {
                Err(error).context("fetching the schema of a record (is registry.url right?)")
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}
