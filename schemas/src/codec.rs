//! Events on the wire: Confluent framing (magic byte 0, schema id as big-endian u32, Avro body).

use crate::events::Event;

/// Why a payload could not be turned into an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what they claim to be: bad data, for the dead letters.
    #[error("{0}")]
    Malformed(String),
    /// The writer's schema is not in the cache yet: resolve it and decode again.
    #[error("schema {0} is not in the cache")]
    SchemaMissing(u32),
    /// The record uses something that this build doesn't know: not bad data; wait for the upgrade.
    #[error("written by a newer build: {0}; upgrade this processor")]
    UpgradeNeeded(String),
}

/// Why an event could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event can't be encoded: {0}")]
pub struct EncodeError(pub String);

/// Writer schemas by registry id, parsed once; cheap to clone and shared between threads.
#[derive(Debug, Clone, Default)]
pub struct SchemaCache {}

impl SchemaCache {
    /// Adds the schema that the registry gave for an id.
    pub fn insert(&self, _schema_id: u32, _schema_json: &str) -> Result<(), DecodeError> {
        unimplemented!()
    }

    /// Decodes one record value (with its Confluent framing).
    pub fn decode(&self, _value: &[u8]) -> Result<Event, DecodeError> {
        unimplemented!()
    }
}

/// The schema that this build writes events with, as JSON.
pub const CLAIM_EVENT_SCHEMA: &str = include_str!("../avro/claim_event.avsc");

/// Appends the framed event to `out`, written with [`CLAIM_EVENT_SCHEMA`] registered as `schema_id`.
pub fn encode(_event: &Event, _schema_id: u32, _out: &mut Vec<u8>) -> Result<(), EncodeError> {
    unimplemented!()
}

/// The schema id in a framed value; `None` if it is not framed.
pub fn schema_id(value: &[u8]) -> Option<u32> {
    match value {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}
