//! Writer schemas by registry id.

use super::{DecodeError, unframe, wire};
use crate::events::Event;
use serde::Deserialize;
use serde_avro_fast::{
    Schema,
    de::{DeserializerConfig, DeserializerState, read::SliceRead},
};
use std::{
    collections::HashMap,
    fmt,
    io::Read,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

/// Deepest nesting of a record that is read; ours is 4 deep. Keeps a hostile record off the stack's end.
const MAX_DEPTH: usize = 16;

/// Writer schemas by registry id, parsed once; cheap to clone and shared between threads.
///
/// Ids are never given anew by a registry, so what is in the cache stays. Each clone remembers the first schema it
/// met and finds that one without a lock.
#[derive(Clone, Default)]
pub struct SchemaCache {
    shared: Arc<RwLock<HashMap<u32, Arc<Writer>>>>,
    first: OnceLock<(u32, Arc<Writer>)>,
}

/// A writer's schema, ready to decode with.
struct Writer {
    schema: Schema,
}

impl SchemaCache {
    /// Adds the schema that the registry gave for an id.
    pub fn insert(&self, schema_id: u32, schema_json: &str) -> Result<(), DecodeError> {
        let schema = schema_json
            .parse()
            .map_err(|e| DecodeError::Malformed(format!("schema {schema_id} can't be parsed: {e}")))?;
        let writer = Arc::new(Writer { schema });
        self.shared.write().unwrap_or_else(PoisonError::into_inner).entry(schema_id).or_insert(writer);
        Ok(())
    }

    /// Decodes one record value (with its Confluent framing).
    pub fn decode(&self, value: &[u8]) -> Result<Event, DecodeError> {
        let (schema_id, body) = unframe(value)?;
        if let Some((id, writer)) = self.first.get()
            && *id == schema_id
        {
            return writer.decode(body);
        }
        let writer = self.get(schema_id).ok_or(DecodeError::SchemaMissing(schema_id))?;
        // Another thread may have set it meanwhile: equally good.
        let _ = self.first.set((schema_id, writer.clone()));
        writer.decode(body)
    }

    fn get(&self, schema_id: u32) -> Option<Arc<Writer>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).get(&schema_id).cloned()
    }
}

impl Writer {
    fn decode(&self, body: &[u8]) -> Result<Event, DecodeError> {
        let wire: wire::EventOwned<'_> = read_datum(body, &self.schema)?;
        wire.into_event().map_err(DecodeError::Malformed)
    }
}

/// Reads exactly one datum; what is left over makes the record malformed.
fn read_datum<'de, T: Deserialize<'de>>(body: &'de [u8], schema: &Schema) -> Result<T, DecodeError> {
    let mut config = DeserializerConfig::new(schema);
    config.max_seq_size = body.len();
    config.allowed_depth = MAX_DEPTH;
    let mut state = DeserializerState::with_config(SliceRead::new(body), config);
    let datum = T::deserialize(state.deserializer()).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if state.into_reader().bytes().next().is_some() {
        return Err(DecodeError::Malformed("bytes follow the end of the Avro datum".to_owned()));
    }
    Ok(datum)
}

impl fmt::Debug for SchemaCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids: Vec<u32> =
            self.shared.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        ids.sort_unstable();
        f.debug_struct("SchemaCache").field("schema_ids", &ids).finish()
    }
}
