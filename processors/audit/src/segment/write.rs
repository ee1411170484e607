//! Records → file.

use super::{
    Head, SegmentError, SegmentMeta,
    schema::{HASH_BYTES, SALT_COLUMN_BYTES, SCHEMA, column},
};
use crate::{
    chain::{Digest, Encoder, SALT_BYTES, Salt},
    record::{Content, ContentRef, Entry, EntryRef, RecordKind, TrailRecord, latency_ms},
};
use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BinaryArray, FixedSizeBinaryArray, GenericByteArray,
    Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray, TimestampMillisecondArray,
    builder::GenericByteBuilder, types::ByteArrayType,
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};
use std::sync::Arc;

/// How often a lookup by claim reads a segment that doesn't hold the claim.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;
/// Rows that the Parquet encoder takes at once.
const WRITE_BATCH_ROWS: usize = 4096;
/// Of these columns level 3 makes nothing smaller, and takes twice as long.
const ZSTD_LEVEL: i32 = 1;
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
struct Places {
    position: Int64Array,
    processed_at: TimestampMillisecondArray,
    salt: FixedSizeBinaryArray,
    content_hash: FixedSizeBinaryArray,
    chain_hash: FixedSizeBinaryArray,
}

/// A segment in memory, hashed and not yet encoded.
#[derive(Debug)]
pub struct Segment {
    meta: SegmentMeta,
    batch: RecordBatch,
}

impl Segment {
    /// Appends `entries` of one partition, ascending by offset, to the chain at `head`, each with a fresh salt: the
    /// sink's two steps ([`Gathered::new`] and [`Gathered::seal`]) in one, for tests and the benchmark's floor.
    pub fn append(
        topic: &str,
        head: &Head,
        entries: &[&Entry],
        processed_at_ms: i64,
    ) -> Result<Self, SegmentError> {
        Gathered::new(entries)?.seal(topic, head, processed_at_ms)
    }

    /// The segment that holds these records of one partition as they are: with their salts and hashes, erased ones
    /// without content. Nothing is recomputed; `verify` tells whether they hold together. So far only tests rewrite,
    /// to tamper and to erase; the processor never changes a segment.
    pub fn rewrite(
        topic: &str,
        sequence: u64,
        previous_hash: Digest,
        records: &[TrailRecord],
    ) -> Result<Self, SegmentError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Err(no_record()) };
        let meta = SegmentMeta {
            topic: topic.to_owned(),
            partition: first.entry.partition,
            sequence,
            first_position: first.position,
            records: records.len() as u64,
            first_offset: first.entry.offset,
            last_offset: last.entry.offset,
            previous_hash,
            last_hash: last.chain_hash,
        };
        let salts = records.iter().map(|r| r.salt.as_ref().map(<[u8; 16]>::as_slice));
        let places = Places {
            position: records.iter().map(|r| Some(r.position.cast_signed())).collect(),
            processed_at: records.iter().map(|r| Some(r.processed_at_ms)).collect(),
            salt: FixedSizeBinaryArray::try_from_sparse_iter_with_size(salts, SALT_COLUMN_BYTES)?,
            content_hash: digests(records.iter().map(|r| r.content_hash).collect())?,
            chain_hash: digests(records.iter().map(|r| r.chain_hash).collect())?,
        };
        Gathered::of(records.iter().map(|record| &record.entry))?.into_segment(meta, places)
    }

    /// What the file will say of itself.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// The file.
    pub fn encode(self) -> Result<Bytes, SegmentError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(&self.meta)?)
            // The columns say it all, and a small segment is mostly metadata.
            .with_skip_arrow_metadata(true);
        let mut file = Vec::with_capacity(64 * 1024);
        let mut writer = ArrowWriter::try_new_with_options(&mut file, SCHEMA.clone(), options)?;
        writer.write(&self.batch)?;
        writer.close()?;
        Ok(file.into())
    }
}

fn no_record() -> SegmentError {
    SegmentError::Unwritable("there is no record".to_owned())
}

impl Gathered {
    /// The columns of `entries`: at least one, all of one partition, none of them erased.
    pub fn new(entries: &[&Entry]) -> Result<Self, SegmentError> {
        match entries.iter().find(|entry| entry.content.is_none()) {
            Some(entry) => Err(SegmentError::Unwritable(format!("offset {} has no content", entry.offset))),
            None => Self::of(entries.iter().copied()),
        }
    }

    fn of<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Result<Self, SegmentError> {
        let Some(partition) = entries.clone().next().map(|entry| entry.partition) else {
            return Err(no_record());
        };
        if let Some(other) = entries.clone().find(|entry| entry.partition != partition) {
            return Err(SegmentError::Unwritable(format!(
                "offset {} is of partition {}, others are of {partition}",
                other.offset, other.partition
            )));
        }
        let columns = Columns(entries);
        Ok(Self {
            partition,
            kinds: columns.0.clone().map(|entry| entry.kind).collect(),
            offset: columns.numbers(|e| Some(e.offset)),
            appended_at: columns.times(|e| Some(e.appended_at_ms)),
            tenant_id: columns.text(|e| e.tenant_id.as_deref()),
            claim_id: columns.text(|e| e.claim_id.as_deref()),
            event_type: columns.text(|e| e.event_type.as_deref()),
            version: columns.numbers(|e| e.version),
            key: columns.bytes(|c| c.key.as_deref()),
            value: columns.bytes(|c| c.value.as_deref()),
            schema_id: columns.numbers(|e| e.content.as_ref()?.schema_id.map(i64::from)),
            event_id: columns.text(|e| e.content.as_ref()?.event_id.as_deref()),
            occurred_at: columns.times(|e| e.content.as_ref()?.occurred_at_ms),
            recorded_at: columns.times(|e| e.content.as_ref()?.recorded_at_ms),
            correlation_id: columns.text(|e| e.content.as_ref()?.correlation_id.as_deref()),
            causation_id: columns.text(|e| e.content.as_ref()?.causation_id.as_deref()),
            user_id: columns.text(|e| e.content.as_ref()?.user_id.as_deref()),
            source: columns.text(|e| e.content.as_ref()?.source.as_deref()),
            traceparent: columns.text(|e| e.content.as_ref()?.traceparent.as_deref()),
        })
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

    fn into_segment(self, meta: SegmentMeta, places: Places) -> Result<Segment, SegmentError> {
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
        Ok(Segment { meta, batch: RecordBatch::try_new(SCHEMA.clone(), arrays)? })
    }
}

struct Columns<I>(I);

impl<'a, I: Iterator<Item = &'a Entry> + Clone> Columns<I> {
    fn numbers(&self, field: impl Fn(&'a Entry) -> Option<i64>) -> Int64Array {
        self.0.clone().map(field).collect()
    }

    fn times(&self, field: impl Fn(&'a Entry) -> Option<i64>) -> TimestampMillisecondArray {
        self.0.clone().map(field).collect()
    }

    fn text(&self, field: impl Fn(&'a Entry) -> Option<&'a str>) -> StringArray {
        self.variable(field)
    }

    fn bytes(&self, field: impl Fn(&'a Content) -> Option<&'a [u8]>) -> BinaryArray {
        self.variable(|entry| field(entry.content.as_ref()?))
    }

    /// Counts first, so that nothing is copied twice.
    fn variable<T, V>(&self, field: impl Fn(&'a Entry) -> Option<&'a V>) -> GenericByteArray<T>
    where
        T: ByteArrayType<Offset = i32>,
        V: AsRef<[u8]> + AsRef<T::Native> + ?Sized + 'a,
    {
        let lengths =
            self.0.clone().map(|entry| field(entry).map(|value| AsRef::<[u8]>::as_ref(value).len()));
        let (rows, bytes) =
            lengths.fold((0, 0), |(rows, bytes), length| (rows + 1, bytes + length.unwrap_or(0)));
        let mut column = GenericByteBuilder::<T>::with_capacity(rows, bytes);
        self.0.clone().for_each(|entry| column.append_option(field(entry)));
        column.finish()
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

fn properties(meta: &SegmentMeta) -> Result<WriterProperties, SegmentError> {
    use column::*;
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_created_by(concat!("claimstream audit ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_key_value_metadata(Some(meta.to_key_values()))
        // One row group: a segment is read whole.
        .set_max_row_group_row_count(None)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_column_bloom_filter_max_ndv(ColumnPath::from(CLAIM_ID), meta.records)
        .set_column_bloom_filter_fpp(ColumnPath::from(CLAIM_ID), BLOOM_FALSE_POSITIVES);
    for name in [CLAIM_ID, OFFSET, POSITION, APPENDED_AT] {
        builder = builder.set_column_statistics_enabled(name.into(), EnabledStatistics::Chunk);
    }
    for name in [POSITION, OFFSET, APPENDED_AT, OCCURRED_AT, RECORDED_AT] {
        builder = builder
            .set_column_dictionary_enabled(name.into(), false)
            .set_column_encoding(name.into(), Encoding::DELTA_BINARY_PACKED);
    }
    // Different in every row: a dictionary would only be built to be thrown away.
    for name in [KEY, VALUE, EVENT_ID, SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_dictionary_enabled(name.into(), false);
    }
    for name in [SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_compression(name.into(), Compression::UNCOMPRESSED);
    }
    Ok(builder.build())
}
