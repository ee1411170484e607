//! Writer schemas by registry id.

use super::{
    CLAIM_EVENT_SCHEMA, CLAIM_STATE_SCHEMA, DecodeError, MAX_DEPTH, StateRecord, TRAILING_BYTES,
    encode::KNOWS_THE_SCHEMA,
    evolution::{self, Reading},
    inspect::inspect,
    plain, unframe, wire,
};
use crate::{events::Event, view::EventView};
use serde::Deserialize;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState, read::SliceRead};
use std::{
    collections::HashMap,
    fmt,
    io::Read,
    sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock},
};

/// Writer schemas by registry id, parsed once; cheap to clone and shared between threads.
///
/// A registry never gives an id anew, so what is in the cache stays, and the first `insert` of an id holds. Each
/// clone remembers the first schema it met and finds that one without a lock.
#[derive(Clone, Default)]
pub struct SchemaCache {
    shared: Arc<RwLock<HashMap<u32, Arc<Writer>>>>,
    first: OnceLock<(u32, Arc<Writer>)>,
}

/// What the values of a writer's schema are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    State,
}

/// A writer's schema, ready to decode with.
enum Writer {
    Usable {
        kind: Kind,
        schema: Box<serde_avro_fast::Schema>,
        reading: Reading,
        /// An event of this build's own schema, and `plain` knows that one.
        is_own_event: bool,
    },
    /// Not a schema of ours: no value of it can be decoded, and nobody needs to ask the registry again.
    Foreign(String),
}

impl SchemaCache {
    /// Adds the schema that the registry gave for an id.
    ///
    /// `Malformed`: it is no claim event and no claim state; it is remembered as such. A schema newer than this
    /// build is added: which of its records this build can read, [`decode`](Self::decode) tells for each.
    pub fn insert(&self, schema_id: u32, schema_json: &str) -> Result<(), DecodeError> {
        let writer = Writer::new(schema_json)
            .unwrap_or_else(|reason| Writer::Foreign(format!("schema {schema_id} {reason}")));
        let mut writers = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        match &**writers.entry(schema_id).or_insert_with(|| Arc::new(writer)) {
            Writer::Usable { .. } => Ok(()),
            Writer::Foreign(reason) => Err(DecodeError::Malformed(reason.clone())),
        }
    }

    /// Decodes one record value (with its Confluent framing).
    pub fn decode(&self, value: &[u8]) -> Result<Event, DecodeError> {
        self.decode_view(value, |event| event.to_event())
    }

    /// Decodes one record value and shows the event to `look`. Where the writer's schema is this build's own, its texts
    /// are those of the value itself: nothing is copied.
    pub fn decode_view<T>(
        &self,
        value: &[u8],
        look: impl FnOnce(&EventView<'_>) -> T,
    ) -> Result<T, DecodeError> {
        self.with_writer(value, |writer, body| {
            if writer.is_own_event()
                && let Some(event) = plain::event(body)
            {
                return Ok(look(&event));
            }
            let wire: wire::EventOwned<'_> = writer.read(Kind::Event, body)?;
            let event = wire.into_event().map_err(DecodeError::Malformed)?;
            Ok(look(&EventView::from(&event)))
        })
    }

    /// Decodes one record value of `claims.state.v1`.
    pub fn decode_state(&self, value: &[u8]) -> Result<StateRecord, DecodeError> {
        self.with_writer(value, |writer, body| writer.read(Kind::State, body))
    }

    fn with_writer<T>(
        &self,
        value: &[u8],
        read: impl FnOnce(&Writer, &[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let (schema_id, body) = unframe(value)?;
        if let Some((id, writer)) = self.first.get()
            && *id == schema_id
        {
            return read(writer, body);
        }
        let writer = self.get(schema_id).ok_or(DecodeError::SchemaMissing(schema_id))?;
        // If another thread has set it meanwhile, that one is as good.
        let _ = self.first.set((schema_id, Arc::clone(&writer)));
        read(&writer, body)
    }

    fn get(&self, schema_id: u32) -> Option<Arc<Writer>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).get(&schema_id).cloned()
    }
}

type ParsedOurs = LazyLock<Result<apache_avro::Schema, String>>;

static OUR_EVENT: ParsedOurs = LazyLock::new(|| parse(CLAIM_EVENT_SCHEMA));
static OUR_STATE: ParsedOurs = LazyLock::new(|| parse(CLAIM_STATE_SCHEMA));

fn parse(schema_json: &str) -> Result<apache_avro::Schema, String> {
    apache_avro::Schema::parse_str(schema_json).map_err(|e| format!("can't be parsed: {e}"))
}

impl Writer {
    fn new(schema_json: &str) -> Result<Self, String> {
        let schema = parse(schema_json)?;
        let (kind, ours) = [(Kind::Event, &*OUR_EVENT), (Kind::State, &*OUR_STATE)]
            .into_iter()
            .filter_map(|(kind, ours)| Some((kind, ours.as_ref().ok()?)))
            .find(|(_, ours)| ours.name() == schema.name())
            .ok_or_else(|| {
                let name = schema.name().map_or_else(|| "unnamed".to_owned(), ToString::to_string);
                format!("is {name}, not a claim event or state of this product")
            })?;
        let reading = evolution::compare(ours, &schema);
        let is_event = kind == Kind::Event;
        let is_own_event = KNOWS_THE_SCHEMA && is_event && plain::is_same(CLAIM_EVENT_SCHEMA, schema_json);
        Ok(Self::Usable { kind, schema: Box::new(super::parse(schema_json)?), reading, is_own_event })
    }

    fn is_own_event(&self) -> bool {
        matches!(self, Self::Usable { is_own_event: true, .. })
    }

    fn read<'de, T: Deserialize<'de>>(&self, wanted: Kind, body: &'de [u8]) -> Result<T, DecodeError> {
        match self {
            Self::Usable { kind, schema, reading, .. } if *kind == wanted => {
                match reading {
                    Reading::Plain => {}
                    Reading::Inspect(plan) => inspect(plan, body)?,
                    Reading::Unreadable(reason) => return Err(DecodeError::UpgradeNeeded(reason.clone())),
                }
                read_datum(body, schema)
            }
            Self::Usable { .. } => {
                Err(DecodeError::Malformed("the schema is of another kind of record".to_owned()))
            }
            Self::Foreign(reason) => Err(DecodeError::Malformed(reason.clone())),
        }
    }
}

/// Reads exactly one datum; what is left over makes the record malformed.
fn read_datum<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    schema: &serde_avro_fast::Schema,
) -> Result<T, DecodeError> {
    let mut config = DeserializerConfig::new(schema);
    config.max_seq_size = body.len();
    config.allowed_depth = MAX_DEPTH;
    let mut state = DeserializerState::with_config(SliceRead::new(body), config);
    let datum = T::deserialize(state.deserializer()).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if state.into_reader().bytes().next().is_some() {
        return Err(DecodeError::Malformed(TRAILING_BYTES.to_owned()));
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
