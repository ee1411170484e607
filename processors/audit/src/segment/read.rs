//! File → records, and what can be told from the end of the file alone.

use super::{
    SegmentError, SegmentMeta,
    schema::{SCHEMA, column},
};
use crate::{
    chain::{Digest, Salt},
    record::{Content, Entry, RecordKind, TrailRecord},
};
use arrow_array::{
    Array, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    bloom_filter::Sbbf,
    errors::ParquetError,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use std::borrow::Cow;

/// Rows that are decoded at once: what bounds the memory of a reader beside the file itself.
const READ_BATCH_ROWS: usize = 1024;

/// What a reader needs of each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Everything.
    All,
    /// Everything but the raw key and value, which are by far the most. Content of such records is not whole:
    /// `key` and `value` are `None`.
    WithoutRaw,
}

/// A whole segment in memory.
#[derive(Debug)]
pub struct SegmentFile {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    meta: SegmentMeta,
}

impl SegmentFile {
    /// Opens a file that was read whole.
    pub fn open(bytes: Bytes) -> Result<Self, SegmentError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&bytes, options)?;
        let wanted = SCHEMA.fields();
        let found = metadata.schema().fields();
        let same = wanted.len() == found.len()
            && wanted.iter().zip(found).all(|(w, f)| w.name() == f.name() && w.data_type() == f.data_type());
        if !same {
            return Err(arrow_schema::ArrowError::SchemaError("another schema".to_owned()).into());
        }
        let meta = meta_of(metadata.metadata())?;
        Ok(Self { bytes, metadata, meta })
    }

    /// What the file says of itself.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Number of rows by the Parquet footer.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The filter by which a lookup tells that a claim is not in the file.
    pub fn claim_filter(&self) -> Result<ClaimFilter, SegmentError> {
        ClaimFilter::load(self.metadata.metadata(), self.bytes.len() as u64, &self.bytes)
    }

    /// The records in the order of the file.
    pub fn records(
        &self,
        columns: Columns,
    ) -> Result<impl Iterator<Item = Result<TrailRecord, SegmentError>> + use<>, SegmentError> {
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone());
        let leaves = SCHEMA.fields().iter().enumerate().filter(|(_, field)| {
            columns == Columns::All || ![column::KEY, column::VALUE].contains(&field.name().as_str())
        });
        let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves.map(|(index, _)| index));
        let reader = builder.with_projection(mask).with_batch_size(READ_BATCH_ROWS).build()?;
        let topic = self.meta.topic.clone();
        let mut first_row = 0;
        Ok(reader.flat_map(move |batch| {
            let rows = match batch {
                Ok(batch) => {
                    let rows = decode(&topic, &batch, first_row);
                    first_row += batch.num_rows();
                    rows
                }
                Err(error) => vec![Err(error.into())],
            };
            rows.into_iter()
        }))
    }
}

/// What the last bytes of a file tell.
#[derive(Debug)]
pub struct SegmentTail {
    /// What the file says of itself.
    pub meta: SegmentMeta,
    /// Whether the file may hold a claim.
    pub claims: ClaimFilter,
}

impl SegmentTail {
    /// Reads the end of a file of `file_bytes` bytes; `None`: `tail` is too short, read the whole file.
    pub fn parse(file_bytes: u64, tail: &Bytes) -> Result<Option<Self>, SegmentError> {
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(tail, file_bytes) {
            Ok(()) => {}
            Err(ParquetError::NeedMoreData(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let metadata = reader.finish()?;
        let meta = meta_of(&metadata)?;
        Ok(Some(Self { meta, claims: ClaimFilter::load(&metadata, file_bytes, tail)? }))
    }
}

/// Tells that a claim is not in a file, from the Bloom filters of its row groups.
#[derive(Debug)]
pub struct ClaimFilter(Vec<Sbbf>);

impl ClaimFilter {
    /// Whether the file may hold the claim.
    pub fn may_hold(&self, claim_id: &str) -> bool {
        // No filter at hand: look into the file.
        self.0.is_empty() || self.0.iter().any(|filter| filter.check(claim_id))
    }

    /// `tail`: the end of the file, at least. Filters before its beginning are left out, and the answer is "maybe".
    fn load(metadata: &ParquetMetaData, file_bytes: u64, tail: &Bytes) -> Result<Self, SegmentError> {
        let tail_start = file_bytes.saturating_sub(tail.len() as u64);
        let index = SCHEMA.index_of(column::CLAIM_ID)?;
        let mut filters = Vec::new();
        for group in metadata.row_groups() {
            let chunk = group.column(index);
            let range = chunk.bloom_filter_offset().zip(chunk.bloom_filter_length()).and_then(|(o, l)| {
                let start = u64::try_from(o).ok()?.checked_sub(tail_start)?;
                let end = start.checked_add(u64::try_from(l).ok()?)?;
                Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
            });
            match range {
                Some(range) if range.end <= tail.len() => {
                    filters.push(Sbbf::from_bytes(&tail[range])?);
                }
                _ => return Ok(Self(Vec::new())),
            }
        }
        Ok(Self(filters))
    }
}

fn meta_of(metadata: &ParquetMetaData) -> Result<SegmentMeta, SegmentError> {
    SegmentMeta::from_key_values(metadata.file_metadata().key_value_metadata())
}

fn decode(topic: &str, batch: &RecordBatch, first_row: usize) -> Vec<Result<TrailRecord, SegmentError>> {
    match Rows::of(batch) {
        Ok(rows) => (0..batch.num_rows()).map(|row| rows.record(topic, row, first_row + row)).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// The typed columns of one decoded batch.
struct Rows<'a> {
    position: &'a Int64Array,
    partition: &'a Int32Array,
    offset: &'a Int64Array,
    appended_at: &'a TimestampMillisecondArray,
    processed_at: &'a TimestampMillisecondArray,
    latency_ms: &'a Int64Array,
    topic: &'a StringArray,
    kind: &'a StringArray,
    tenant_id: &'a StringArray,
    claim_id: &'a StringArray,
    event_type: &'a StringArray,
    version: &'a Int64Array,
    /// `None`: not read.
    key: Option<&'a BinaryArray>,
    /// `None`: not read.
    value: Option<&'a BinaryArray>,
    schema_id: &'a Int64Array,
    event_id: &'a StringArray,
    occurred_at: &'a TimestampMillisecondArray,
    recorded_at: &'a TimestampMillisecondArray,
    correlation_id: &'a StringArray,
    causation_id: &'a StringArray,
    user_id: &'a StringArray,
    source: &'a StringArray,
    traceparent: &'a StringArray,
    salt: &'a FixedSizeBinaryArray,
    content_hash: &'a FixedSizeBinaryArray,
    chain_hash: &'a FixedSizeBinaryArray,
}

fn typed<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, SegmentError> {
    let found = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref());
    found.ok_or_else(|| arrow_schema::ArrowError::SchemaError(format!("column {name}")).into())
}

fn raw<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a BinaryArray> {
    batch.column_by_name(name)?.as_any().downcast_ref()
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, SegmentError> {
        use column::*;
        Ok(Self {
            position: typed(batch, POSITION)?,
            partition: typed(batch, PARTITION)?,
            offset: typed(batch, OFFSET)?,
            appended_at: typed(batch, APPENDED_AT)?,
            processed_at: typed(batch, PROCESSED_AT)?,
            latency_ms: typed(batch, LATENCY_MS)?,
            topic: typed(batch, TOPIC)?,
            kind: typed(batch, KIND)?,
            tenant_id: typed(batch, TENANT_ID)?,
            claim_id: typed(batch, CLAIM_ID)?,
            event_type: typed(batch, EVENT_TYPE)?,
            version: typed(batch, VERSION)?,
            key: raw(batch, KEY),
            value: raw(batch, VALUE),
            schema_id: typed(batch, SCHEMA_ID)?,
            event_id: typed(batch, EVENT_ID)?,
            occurred_at: typed(batch, OCCURRED_AT)?,
            recorded_at: typed(batch, RECORDED_AT)?,
            correlation_id: typed(batch, CORRELATION_ID)?,
            causation_id: typed(batch, CAUSATION_ID)?,
            user_id: typed(batch, USER_ID)?,
            source: typed(batch, SOURCE)?,
            traceparent: typed(batch, TRACEPARENT)?,
            salt: typed(batch, SALT)?,
            content_hash: typed(batch, CONTENT_HASH)?,
            chain_hash: typed(batch, CHAIN_HASH)?,
        })
    }

    fn record(&self, topic: &str, row: usize, file_row: usize) -> Result<TrailRecord, SegmentError> {
        let bad = |column, problem| SegmentError::Value { row: file_row, column, problem };
        if self.topic.value(row) != topic {
            return Err(bad(column::TOPIC, "is not the segment's topic"));
        }
        let position =
            u64::try_from(self.position.value(row)).map_err(|_| bad(column::POSITION, "is negative"))?;
        let kind = RecordKind::from_name(self.kind.value(row))
            .ok_or_else(|| bad(column::KIND, "is neither event nor tombstone"))?;
        let salt = present(self.salt, row)
            .map(|at| {
                Salt::try_from(self.salt.value(at)).map_err(|_| bad(column::SALT, "has another length"))
            })
            .transpose()?;
        let digest = |array: &FixedSizeBinaryArray, column| {
            <[u8; 32]>::try_from(array.value(row)).map(Digest).map_err(|_| bad(column, "has another length"))
        };
        let record = TrailRecord {
            position,
            processed_at_ms: self.processed_at.value(row),
            entry: Entry {
                partition: self.partition.value(row),
                offset: self.offset.value(row),
                appended_at_ms: self.appended_at.value(row),
                kind,
                tenant_id: text(self.tenant_id, row),
                claim_id: text(self.claim_id, row),
                event_type: text(self.event_type, row).map(Cow::Owned),
                version: present(self.version, row).map(|at| self.version.value(at)),
                content: self.content(row).map_err(|column| bad(column, "is not a schema id"))?,
            },
            salt,
            content_hash: digest(self.content_hash, column::CONTENT_HASH)?,
            chain_hash: digest(self.chain_hash, column::CHAIN_HASH)?,
        };
        if self.latency_ms.value(row) != record.latency_ms() {
            return Err(bad(column::LATENCY_MS, "is not processed_at − appended_at"));
        }
        Ok(record)
    }

    /// The erasable columns; `None` when all of them are null.
    fn content(&self, row: usize) -> Result<Option<Content>, &'static str> {
        let schema_id = present(self.schema_id, row)
            .map(|at| u32::try_from(self.schema_id.value(at)).map_err(|_| column::SCHEMA_ID))
            .transpose()?;
        let content = Content {
            key: bytes(self.key, row),
            value: bytes(self.value, row),
            schema_id,
            event_id: text(self.event_id, row),
            occurred_at_ms: present(self.occurred_at, row).map(|at| self.occurred_at.value(at)),
            recorded_at_ms: present(self.recorded_at, row).map(|at| self.recorded_at.value(at)),
            correlation_id: text(self.correlation_id, row),
            causation_id: text(self.causation_id, row),
            user_id: text(self.user_id, row),
            source: text(self.source, row),
            traceparent: text(self.traceparent, row),
        };
        // A record without anything at all (a tombstone without a key) has its salt, an erased one has not.
        let empty = content == Content::default() && self.salt.is_null(row);
        Ok((!empty).then_some(content))
    }
}

fn present(array: &dyn Array, row: usize) -> Option<usize> {
    array.is_valid(row).then_some(row)
}

fn text(array: &StringArray, row: usize) -> Option<String> {
    present(array, row).map(|at| array.value(at).to_owned())
}

fn bytes(array: Option<&BinaryArray>, row: usize) -> Option<Vec<u8>> {
    array.and_then(|array| present(array, row).map(|at| array.value(at).to_vec()))
}
