//! Records → columns, and their places in the chain.

use super::{
    Head, SegmentError, SegmentMeta,
    schema::{HASH_BYTES, SALT_COLUMN_BYTES, SCHEMA},
    write::Segment,
};
use crate::{
    chain::{Digest, Encoder, SALT_BYTES, Salt},
    record::{AsEntry, ContentRef, EntryRef, RecordKind, TrailRecord, latency_ms},
};
use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array,
    PrimitiveArray, RecordBatch, StringArray, TimestampMillisecondArray,
    builder::{BinaryBuilder, Int64Builder, StringBuilder, TimestampMillisecondBuilder},
};
use std::sync::Arc;

const UTC: &str = "UTC";

/// Some records of one partition as columns, before they have their places in the chain. Owns its data, so that what
/// comes next may happen on another thread.
#[derive(Debug)]
pub struct Gathered {
    partition: i32,
    kinds: Vec<RecordKind>,
    offset: Int64Array,
    appended_at: TimestampMillisecondArray,
    tenant_id: StringArray,
    claim_id: StringArray,
    event_type: StringArray,
    version: Int64Array,
    key: BinaryArray,
    value: BinaryArray,
    schema_id: Int64Array,
    event_id: StringArray,
    occurred_at: TimestampMillisecondArray,
    recorded_at: TimestampMillisecondArray,
    correlation_id: StringArray,
    causation_id: StringArray,
    user_id: StringArray,
    source: StringArray,
    traceparent: StringArray,
}

/// Where records stand in the chain, and their hashes.
pub(super) struct Places {
    position: Int64Array,
    processed_at: TimestampMillisecondArray,
    salt: FixedSizeBinaryArray,
    content_hash: FixedSizeBinaryArray,
    chain_hash: FixedSizeBinaryArray,
}

pub(super) fn no_record() -> SegmentError {
    SegmentError::Unwritable("there is no record".to_owned())
}

impl Gathered {
    /// The columns of `entries`: at least one, all of one partition, none of them erased.
    pub fn new<E: AsEntry>(entries: &[&E]) -> Result<Self, SegmentError> {
        let room = Room::of(entries.iter().copied())?;
        if let Some(offset) = room.erased {
            return Err(SegmentError::Unwritable(format!("offset {offset} has no content")));
        }
        Ok(Self::fill(&room, entries.iter().copied()))
    }

    /// The same of records that may be erased.
    pub(super) fn with_erased<'a, E: AsEntry + 'a>(
        entries: impl Iterator<Item = &'a E> + Clone,
    ) -> Result<Self, SegmentError> {
        Ok(Self::fill(&Room::of(entries.clone())?, entries))
    }

    fn fill<'a, E: AsEntry + 'a>(room: &Room, entries: impl Iterator<Item = &'a E>) -> Self {
        let mut columns = Columns::with(room);
        for entry in entries {
            let (entry, content) = entry.as_refs();
            columns.push(&entry, &content.unwrap_or_default());
        }
        columns.finish(room.partition)
    }

    /// Gives every record its place in the chain at `head`, and a fresh salt.
    pub fn seal(self, topic: &str, head: &Head, processed_at_ms: i64) -> Result<Segment, SegmentError> {
        let records = self.kinds.len();
        let mut salts: Vec<Salt> = vec![[0; SALT_BYTES]; records];
        rand::fill(salts.as_flattened_mut());
        let (mut content_hashes, mut chain_hashes) =
            (Vec::with_capacity(records), Vec::with_capacity(records));
        let (mut hash, mut last_offset) = (head.hash, head.last_offset);
        let mut encoder = Encoder::default();
        for ((row, position), salt) in (0..records).zip(head.position + 1..).zip(&salts) {
            let entry = self.entry(row);
            if last_offset.is_some_and(|last| entry.offset <= last) {
                return Err(SegmentError::Unwritable(format!(
                    "offset {} does not come after {last_offset:?}",
                    entry.offset
                )));
            }
            let content_hash = encoder.content_hash(salt, &self.content(row));
            let record_hash = encoder.record_hash(topic, position, processed_at_ms, &entry, &content_hash);
            hash = encoder.link(&hash, &record_hash);
            last_offset = Some(entry.offset);
            content_hashes.push(content_hash);
            chain_hashes.push(hash);
        }
        let (Some(&first_offset), Some(last_offset)) = (self.offset.values().first(), last_offset) else {
            return Err(no_record());
        };
        let meta = SegmentMeta {
            topic: topic.to_owned(),
            partition: self.partition,
            sequence: head.next_sequence,
            first_position: head.position + 1,
            records: records as u64,
            first_offset,
            last_offset,
            previous_hash: head.hash,
            last_hash: hash,
        };
        let first = meta.first_position.cast_signed();
        let places = Places {
            position: Int64Array::from_iter_values(first..first + records as i64),
            processed_at: TimestampMillisecondArray::from_value(processed_at_ms, records),
            salt: FixedSizeBinaryArray::try_new(SALT_COLUMN_BYTES, salts.into_flattened().into(), None)?,
            content_hash: digests(content_hashes)?,
            chain_hash: digests(chain_hashes)?,
        };
        self.into_segment(meta, places)
    }

    fn entry(&self, row: usize) -> EntryRef<'_> {
        EntryRef {
            partition: self.partition,
            offset: self.offset.value(row),
            appended_at_ms: self.appended_at.value(row),
            kind: self.kinds[row],
            tenant_id: text(&self.tenant_id, row),
            claim_id: text(&self.claim_id, row),
            event_type: text(&self.event_type, row),
            version: number(&self.version, row),
        }
    }

    fn content(&self, row: usize) -> ContentRef<'_> {
        ContentRef {
            key: bytes(&self.key, row),
            value: bytes(&self.value, row),
            schema_id: number(&self.schema_id, row),
            event_id: text(&self.event_id, row),
            occurred_at_ms: number(&self.occurred_at, row),
            recorded_at_ms: number(&self.recorded_at, row),
            correlation_id: text(&self.correlation_id, row),
            causation_id: text(&self.causation_id, row),
            user_id: text(&self.user_id, row),
            source: text(&self.source, row),
            traceparent: text(&self.traceparent, row),
        }
    }

    pub(super) fn into_segment(self, meta: SegmentMeta, places: Places) -> Result<Segment, SegmentError> {
        let records = self.kinds.len();
        let latencies = places.processed_at.values().iter().zip(self.appended_at.values());
        let latencies = latencies.map(|(&processed, &appended)| latency_ms(processed, appended));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(places.position),
            Arc::new(StringArray::new_repeated(&meta.topic, records)),
            Arc::new(Int32Array::from_value(self.partition, records)),
            Arc::new(self.offset),
            Arc::new(self.appended_at.clone().with_timezone(UTC)),
            Arc::new(places.processed_at.clone().with_timezone(UTC)),
            Arc::new(Int64Array::from_iter_values(latencies)),
            Arc::new(StringArray::from_iter_values(self.kinds.iter().map(|kind| kind.as_str()))),
            Arc::new(self.tenant_id),
            Arc::new(self.claim_id),
            Arc::new(self.event_type),
            Arc::new(self.version),
            Arc::new(self.key),
            Arc::new(self.value),
            Arc::new(self.schema_id),
            Arc::new(self.event_id),
            Arc::new(self.occurred_at.with_timezone(UTC)),
            Arc::new(self.recorded_at.with_timezone(UTC)),
            Arc::new(self.correlation_id),
            Arc::new(self.causation_id),
            Arc::new(self.user_id),
            Arc::new(self.source),
            Arc::new(self.traceparent),
            Arc::new(places.salt),
            Arc::new(places.content_hash),
            Arc::new(places.chain_hash),
        ];
        Ok(Segment::new(meta, RecordBatch::try_new(SCHEMA.clone(), arrays)?))
    }
}

impl Places {
    /// The places and hashes that these records have.
    pub(super) fn of(records: &[TrailRecord]) -> Result<Self, SegmentError> {
        let salts = records.iter().map(|r| r.salt.as_ref().map(<[u8; SALT_BYTES]>::as_slice));
        Ok(Self {
            position: records.iter().map(|r| Some(r.position.cast_signed())).collect(),
            processed_at: records.iter().map(|r| Some(r.processed_at_ms)).collect(),
            salt: FixedSizeBinaryArray::try_from_sparse_iter_with_size(salts, SALT_COLUMN_BYTES)?,
            content_hash: digests(records.iter().map(|r| r.content_hash).collect())?,
            chain_hash: digests(records.iter().map(|r| r.chain_hash).collect())?,
        })
    }
}

/// How long the columns of variable length get: counted first, so that nothing is copied twice.
#[derive(Default)]
struct Room {
    partition: i32,
    /// The first record without content.
    erased: Option<i64>,
    records: usize,
    tenant_id: usize,
    claim_id: usize,
    event_type: usize,
    key: usize,
    value: usize,
    event_id: usize,
    correlation_id: usize,
    causation_id: usize,
    user_id: usize,
    source: usize,
    traceparent: usize,
}

impl Room {
    /// At least one record, all of one partition.
    fn of<'a, E: AsEntry + 'a>(entries: impl Iterator<Item = &'a E>) -> Result<Self, SegmentError> {
        let text = |text: Option<&str>| text.map_or(0, str::len);
        let raw = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let mut room = Self::default();
        for entry in entries {
            let (entry, content) = entry.as_refs();
            if room.records == 0 {
                room.partition = entry.partition;
            } else if entry.partition != room.partition {
                return Err(SegmentError::Unwritable(format!(
                    "offset {} is of partition {}, others are of {}",
                    entry.offset, entry.partition, room.partition
                )));
            }
            if content.is_none() {
                room.erased.get_or_insert(entry.offset);
            }
            let content = content.unwrap_or_default();
            room.records += 1;
            room.tenant_id += text(entry.tenant_id);
            room.claim_id += text(entry.claim_id);
            room.event_type += text(entry.event_type);
            room.key += raw(content.key);
            room.value += raw(content.value);
            room.event_id += text(content.event_id);
            room.correlation_id += text(content.correlation_id);
            room.causation_id += text(content.causation_id);
            room.user_id += text(content.user_id);
            room.source += text(content.source);
            room.traceparent += text(content.traceparent);
        }
        if room.records == 0 { Err(no_record()) } else { Ok(room) }
    }
}

/// The columns while records are added.
struct Columns {
    kinds: Vec<RecordKind>,
    offset: Vec<i64>,
    appended_at: Vec<i64>,
    tenant_id: StringBuilder,
    claim_id: StringBuilder,
    event_type: StringBuilder,
    version: Int64Builder,
    key: BinaryBuilder,
    value: BinaryBuilder,
    schema_id: Int64Builder,
    event_id: StringBuilder,
    occurred_at: TimestampMillisecondBuilder,
    recorded_at: TimestampMillisecondBuilder,
    correlation_id: StringBuilder,
    causation_id: StringBuilder,
    user_id: StringBuilder,
    source: StringBuilder,
    traceparent: StringBuilder,
}

impl Columns {
    fn with(room: &Room) -> Self {
        let records = room.records;
        let text = |bytes| StringBuilder::with_capacity(records, bytes);
        Self {
            kinds: Vec::with_capacity(records),
            offset: Vec::with_capacity(records),
            appended_at: Vec::with_capacity(records),
            tenant_id: text(room.tenant_id),
            claim_id: text(room.claim_id),
            event_type: text(room.event_type),
            version: Int64Builder::with_capacity(records),
            key: BinaryBuilder::with_capacity(records, room.key),
            value: BinaryBuilder::with_capacity(records, room.value),
            schema_id: Int64Builder::with_capacity(records),
            event_id: text(room.event_id),
            occurred_at: TimestampMillisecondBuilder::with_capacity(records),
            recorded_at: TimestampMillisecondBuilder::with_capacity(records),
            correlation_id: text(room.correlation_id),
            causation_id: text(room.causation_id),
            user_id: text(room.user_id),
            source: text(room.source),
            traceparent: text(room.traceparent),
        }
    }

    fn push(&mut self, entry: &EntryRef<'_>, content: &ContentRef<'_>) {
        self.kinds.push(entry.kind);
        self.offset.push(entry.offset);
        self.appended_at.push(entry.appended_at_ms);
        self.tenant_id.append_option(entry.tenant_id);
        self.claim_id.append_option(entry.claim_id);
        self.event_type.append_option(entry.event_type);
        self.version.append_option(entry.version);
        self.key.append_option(content.key);
        self.value.append_option(content.value);
        self.schema_id.append_option(content.schema_id);
        self.event_id.append_option(content.event_id);
        self.occurred_at.append_option(content.occurred_at_ms);
        self.recorded_at.append_option(content.recorded_at_ms);
        self.correlation_id.append_option(content.correlation_id);
        self.causation_id.append_option(content.causation_id);
        self.user_id.append_option(content.user_id);
        self.source.append_option(content.source);
        self.traceparent.append_option(content.traceparent);
    }

    fn finish(mut self, partition: i32) -> Gathered {
        Gathered {
            partition,
            kinds: self.kinds,
            offset: self.offset.into(),
            appended_at: self.appended_at.into(),
            tenant_id: self.tenant_id.finish(),
            claim_id: self.claim_id.finish(),
            event_type: self.event_type.finish(),
            version: self.version.finish(),
            key: self.key.finish(),
            value: self.value.finish(),
            schema_id: self.schema_id.finish(),
            event_id: self.event_id.finish(),
            occurred_at: self.occurred_at.finish(),
            recorded_at: self.recorded_at.finish(),
            correlation_id: self.correlation_id.finish(),
            causation_id: self.causation_id.finish(),
            user_id: self.user_id.finish(),
            source: self.source.finish(),
            traceparent: self.traceparent.finish(),
        }
    }
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn bytes(column: &BinaryArray, row: usize) -> Option<&[u8]> {
    column.is_valid(row).then(|| column.value(row))
}

fn number<T: ArrowPrimitiveType<Native = i64>>(column: &PrimitiveArray<T>, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

fn digests(digests: Vec<Digest>) -> Result<FixedSizeBinaryArray, SegmentError> {
    let bytes: Vec<[u8; 32]> = digests.into_iter().map(|digest| digest.0).collect();
    Ok(FixedSizeBinaryArray::try_new(HASH_BYTES, bytes.into_flattened().into(), None)?)
}
