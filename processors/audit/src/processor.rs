//! The pure half: every record of the topic becomes an entry of the trail.

use crate::{
    packed::PackedEntry,
    record::{ContentRef, EntryRef, RecordKind},
};
use claims_runtime::{Effect, Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{DecodeError, SchemaCache, codec, view::EventView};
use claims_topology::topics::{HEADER_CORRELATION_ID, HEADER_TRACEPARENT};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// The stage's name.
pub const NAME: &str = "audit";

/// Reason of dead letters: the value is no claim event.
pub const REASON_MALFORMED: &str = "malformed";

/// A header longer than this is not kept.
const MAX_HEADER_BYTES: usize = 1024;

/// Where the chain of each assigned partition ends: the sink reads it from the store, the processor needs it to see
/// whether the group has committed more than the trail holds.
#[derive(Debug, Clone, Default)]
pub struct TrailEnds(Arc<Mutex<BTreeMap<i32, End>>>);

#[derive(Debug, Default)]
struct End {
    last_offset: Option<i64>,
    /// Offsets after it that were refused, as the dead-letter topic tells: rightly missing.
    refused: BTreeSet<i64>,
}

impl TrailEnds {
    /// Notes the last offset in the trail of a partition (`None`: the trail is empty).
    pub fn set(&self, partition: i32, last_offset: Option<i64>) {
        self.lock().entry(partition).or_default().last_offset = last_offset;
    }

    /// Notes which offsets after the end of the trail were refused.
    pub fn set_refused(&self, partition: i32, refused: BTreeSet<i64>) {
        self.lock().entry(partition).or_default().refused = refused;
    }

    fn is_refused(&self, partition: i32, offset: i64) -> bool {
        self.lock().get(&partition).is_some_and(|end| end.refused.contains(&offset))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, End>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a partition.
    pub fn remove(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    /// The offset that the trail of a partition needs next (0: it is empty); `None`: nobody has looked.
    pub fn next_offset(&self, partition: i32) -> Option<i64> {
        self.lock().get(&partition).map(|end| end.last_offset.map_or(0, |offset| offset.saturating_add(1)))
    }
}

/// Turns records into entries. Its only state is what tells whether the trail has a hole.
#[derive(Debug)]
pub struct AuditProcessor {
    schemas: SchemaCache,
    ends: TrailEnds,
    /// Per partition: the group has committed up to here, the trail ends before it.
    committed: BTreeMap<i32, i64>,
}

impl AuditProcessor {
    /// A processor that decodes with `schemas` and learns from `ends` where the trail stands.
    pub fn new(schemas: SchemaCache, ends: TrailEnds) -> Self {
        Self { schemas, ends, committed: BTreeMap::new() }
    }

    /// Whether a record is missing rightly, although the group has committed it: it was refused when it first came, as
    /// its dead letter tells, and could be decoded now. Any other committed one that the trail doesn't hold means that
    /// the end of the trail was lost.
    fn is_rightly_missing(&self, record: &Record<'_>) -> Result<bool, ProcessError> {
        let partition = record.origin.partition;
        match self.committed.get(&partition) {
            Some(&committed) if record.origin.offset < committed => {
                if self.ends.is_refused(partition, record.origin.offset) {
                    return Ok(true);
                }
                let next = self.ends.next_offset(partition).unwrap_or(0);
                Err(ProcessError::Fatal(format!(
                    "the trail of partition {partition} needs offset {next} next, but the group has committed \
                     {committed}, and the record at offset {} is not in the trail: its last segments were lost, or \
                     this is another store. Bring the store back; or, to write the trail on from where it ends, \
                     stop the processor and reset the group's offset of partition {partition} to {next}",
                    record.origin.offset
                )))
            }
            _ => Ok(false),
        }
    }

    fn entry(&self, record: &Record<'_>) -> Result<PackedEntry, ProcessError> {
        match record.payload {
            Payload::Tombstone => Ok(tombstone(record)),
            Payload::Value(value) => {
                self.schemas.decode_view(value, |view| event(record, value, view)).map_err(refusal)?
            }
        }
    }
}

impl Processor for AuditProcessor {
    type Row = PackedEntry;

    fn name(&self) -> &'static str {
        NAME
    }

    fn assigned(&mut self, partition: i32, next_offset: Option<i64>) -> Result<Option<i64>, ProcessError> {
        self.committed.remove(&partition);
        let Some(committed) = next_offset else {
            // A trail goes on from its end, also where the group's offset is gone; an empty one begins with what is left.
            let needed = self.ends.next_offset(partition);
            return Ok(needed.filter(|&needed| needed > 0));
        };
        let Some(needed) = self.ends.next_offset(partition) else { return Ok(next_offset) };
        if needed < committed {
            self.committed.insert(partition, committed);
        }
        Ok(Some(needed.min(committed)))
    }

    fn revoked(&mut self, partition: i32) -> Result<(), ProcessError> {
        self.committed.remove(&partition);
        Ok(())
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<PackedEntry>) -> Result<(), ProcessError> {
        let entry = self.entry(record)?;
        if self.is_rightly_missing(record)? {
            return Ok(());
        }
        let bytes = entry.memory_bytes();
        rows.push(record.origin, entry, bytes);
        Ok(())
    }

    /// Appends it if the chain hasn't gone past it, else compares it: the sink decides.
    fn retry(&mut self, record: &Record<'_>, rows: &mut Rows<PackedEntry>) -> Result<Effect, ProcessError> {
        let entry = self.entry(record)?;
        let next_offset = self.ends.next_offset(record.origin.partition).unwrap_or(0);
        let bytes = entry.memory_bytes();
        rows.push(record.origin, entry, bytes);
        Ok(if record.origin.offset < next_offset { Effect::AlreadyThere } else { Effect::Applied })
    }
}

fn refusal(error: DecodeError) -> ProcessError {
    match error {
        DecodeError::Malformed(detail) => ProcessError::Poison { reason: REASON_MALFORMED, detail },
        DecodeError::SchemaMissing(schema_id) => ProcessError::SchemaMissing { schema_id },
        DecodeError::UpgradeNeeded(_) => ProcessError::UpgradeNeeded(error.to_string()),
    }
}

fn event(record: &Record<'_>, value: &[u8], event: &EventView<'_>) -> Result<PackedEntry, ProcessError> {
    let version = i64::try_from(event.version).map_err(|_| ProcessError::Poison {
        reason: REASON_MALFORMED,
        detail: format!("version {} is beyond 2^63 − 1", event.version),
    })?;
    let mut event_id = Uuid::encode_buffer();
    let entry = EntryRef {
        partition: record.origin.partition,
        offset: record.origin.offset,
        appended_at_ms: record.appended_at_ms,
        kind: RecordKind::Event,
        tenant_id: Some(event.tenant_id),
        claim_id: Some(event.claim_id),
        event_type: Some(event.event_type().as_str()),
        version: Some(version),
    };
    let content = ContentRef {
        key: record.key,
        value: Some(value),
        schema_id: codec::schema_id(value).map(i64::from),
        event_id: Some(event.event_id.as_hyphenated().encode_lower(&mut event_id)),
        occurred_at_ms: Some(event.occurred_at.0),
        recorded_at_ms: Some(event.recorded_at.0),
        correlation_id: Some(event.correlation_id),
        causation_id: event.causation_id,
        user_id: event.user_id,
        source: event.source,
        traceparent: header(record, HEADER_TRACEPARENT),
    };
    Ok(PackedEntry::new(&entry, &content))
}

fn tombstone(record: &Record<'_>) -> PackedEntry {
    let (tenant_id, claim_id, event_id) = match record.key.and_then(parse_key) {
        Some((tenant, claim, event)) => (Some(tenant), Some(claim), Some(event)),
        None => (None, None, None),
    };
    let entry = EntryRef {
        partition: record.origin.partition,
        offset: record.origin.offset,
        appended_at_ms: record.appended_at_ms,
        kind: RecordKind::Tombstone,
        tenant_id,
        claim_id,
        event_type: None,
        version: None,
    };
    let content = ContentRef {
        key: record.key,
        event_id,
        correlation_id: header(record, HEADER_CORRELATION_ID),
        traceparent: header(record, HEADER_TRACEPARENT),
        ..ContentRef::default()
    };
    PackedEntry::new(&entry, &content)
}

/// `tenant:claim_id:event_id`; only the claim id may hold colons.
fn parse_key(key: &[u8]) -> Option<(&str, &str, &str)> {
    let (tenant, rest) = std::str::from_utf8(key).ok()?.split_once(':')?;
    let (claim, event) = rest.rsplit_once(':')?;
    (!tenant.is_empty() && !claim.is_empty() && !event.is_empty()).then_some((tenant, claim, event))
}

fn header<'a>(record: &Record<'a>, name: &str) -> Option<&'a str> {
    let value = record.headers.get(name)?;
    (value.len() <= MAX_HEADER_BYTES).then(|| std::str::from_utf8(value).ok())?
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
