//! Records → file.

use super::{
    Head, SegmentError, SegmentMeta,
    schema::{HASH_BYTES, SALT_COLUMN_BYTES, SCHEMA, column},
};
use crate::{
    chain::{self, Digest, Salt},
    record::{Content, Entry, TrailRecord, latency_ms},
};
use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
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
const ZSTD_LEVEL: i32 = 3;

/// The hashes of one record in its place.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    salt: Option<Salt>,
    content_hash: Digest,
    chain_hash: Digest,
}

/// A segment in memory, hashed and not yet encoded. Owns its data, so that encoding may happen on another thread.
#[derive(Debug)]
pub struct Segment {
    meta: SegmentMeta,
    batch: RecordBatch,
}

impl Segment {
    /// Appends `entries` of one partition, ascending by offset, to the chain at `head`, each with a fresh salt.
    pub fn append(
        topic: &str,
        head: &Head,
        entries: &[&Entry],
        processed_at_ms: i64,
    ) -> Result<Self, SegmentError> {
        let sealed = seal(topic, head, entries, processed_at_ms)?;
        let placed: Vec<Placed<'_>> = entries
            .iter()
            .zip(sealed)
            .zip(head.position + 1..)
            .map(|((entry, sealed), position)| Placed { position, processed_at_ms, entry, sealed })
            .collect();
        Self::of(topic, head.next_sequence, head.hash, &placed)
    }

    /// The segment that holds these records as they are: with their salts and hashes, erased ones without content.
    /// Nothing is recomputed; `verify` tells whether they hold together.
    pub fn rewrite(
        topic: &str,
        sequence: u64,
        previous_hash: Digest,
        records: &[TrailRecord],
    ) -> Result<Self, SegmentError> {
        let placed: Vec<Placed<'_>> = records
            .iter()
            .map(|r| Placed {
                position: r.position,
                processed_at_ms: r.processed_at_ms,
                entry: &r.entry,
                sealed: Sealed { salt: r.salt, content_hash: r.content_hash, chain_hash: r.chain_hash },
            })
            .collect();
        Self::of(topic, sequence, previous_hash, &placed)
    }

    fn of(
        topic: &str,
        sequence: u64,
        previous_hash: Digest,
        placed: &[Placed<'_>],
    ) -> Result<Self, SegmentError> {
        let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
            return Err(SegmentError::Unwritable("there is no record".to_owned()));
        };
        let meta = SegmentMeta {
            topic: topic.to_owned(),
            partition: first.entry.partition,
            sequence,
            first_position: first.position,
            records: placed.len() as u64,
            first_offset: first.entry.offset,
            last_offset: last.entry.offset,
            previous_hash,
            last_hash: last.sealed.chain_hash,
        };
        Ok(Self { meta, batch: record_batch(topic, placed)? })
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

#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    position: u64,
    processed_at_ms: i64,
    entry: &'a Entry,
    sealed: Sealed,
}

impl<'a> Placed<'a> {
    fn content(&self) -> Option<&'a Content> {
        self.entry.content.as_ref()
    }
}

fn seal(
    topic: &str,
    head: &Head,
    entries: &[&Entry],
    processed_at_ms: i64,
) -> Result<Vec<Sealed>, SegmentError> {
    let mut sealed = Vec::with_capacity(entries.len());
    let (mut position, mut hash, mut last_offset) = (head.position, head.hash, head.last_offset);
    for entry in entries {
        if last_offset.is_some_and(|last| entry.offset <= last) {
            return Err(SegmentError::Unwritable(format!(
                "offset {} does not come after {last_offset:?}",
                entry.offset
            )));
        }
        let Some(content) = &entry.content else {
            return Err(SegmentError::Unwritable(format!("offset {} has no content", entry.offset)));
        };
        let salt: Salt = rand::random();
        let content_hash = chain::content_hash(&salt, content);
        position += 1;
        let record_hash = chain::record_hash(topic, position, processed_at_ms, entry, &content_hash);
        hash = chain::link(&hash, &record_hash);
        last_offset = Some(entry.offset);
        sealed.push(Sealed { salt: Some(salt), content_hash, chain_hash: hash });
    }
    Ok(sealed)
}

fn record_batch(topic: &str, placed: &[Placed<'_>]) -> Result<RecordBatch, SegmentError> {
    let columns = Columns(placed);
    let arrays = vec![
        columns.numbers(|p| Some(p.position.cast_signed())),
        columns.text(|_| Some(topic)),
        Arc::new(Int32Array::from_iter_values(placed.iter().map(|p| p.entry.partition))) as ArrayRef,
        columns.numbers(|p| Some(p.entry.offset)),
        columns.times(|p| Some(p.entry.appended_at_ms)),
        columns.times(|p| Some(p.processed_at_ms)),
        columns.numbers(|p| Some(latency_ms(p.processed_at_ms, p.entry.appended_at_ms))),
        columns.text(|p| Some(p.entry.kind.as_str())),
        columns.text(|p| p.entry.tenant_id.as_deref()),
        columns.text(|p| p.entry.claim_id.as_deref()),
        columns.text(|p| p.entry.event_type.as_deref()),
        columns.numbers(|p| p.entry.version),
        columns.bytes(|p| p.content()?.key.as_deref()),
        columns.bytes(|p| p.content()?.value.as_deref()),
        columns.numbers(|p| p.content()?.schema_id.map(i64::from)),
        columns.text(|p| p.content()?.event_id.as_deref()),
        columns.times(|p| p.content()?.occurred_at_ms),
        columns.times(|p| p.content()?.recorded_at_ms),
        columns.text(|p| p.content()?.correlation_id.as_deref()),
        columns.text(|p| p.content()?.causation_id.as_deref()),
        columns.text(|p| p.content()?.user_id.as_deref()),
        columns.text(|p| p.content()?.source.as_deref()),
        columns.text(|p| p.content()?.traceparent.as_deref()),
        columns.fixed(SALT_COLUMN_BYTES, |p| p.sealed.salt.as_ref().map(<[u8; 16]>::as_slice))?,
        columns.fixed(HASH_BYTES, |p| Some(p.sealed.content_hash.0.as_slice()))?,
        columns.fixed(HASH_BYTES, |p| Some(p.sealed.chain_hash.0.as_slice()))?,
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), arrays)?)
}

struct Columns<'a>(&'a [Placed<'a>]);

impl<'a> Columns<'a> {
    fn numbers(&self, field: impl Fn(&Placed<'a>) -> Option<i64>) -> ArrayRef {
        Arc::new(self.0.iter().map(field).collect::<Int64Array>())
    }

    fn times(&self, field: impl Fn(&Placed<'a>) -> Option<i64>) -> ArrayRef {
        Arc::new(self.0.iter().map(field).collect::<TimestampMillisecondArray>().with_timezone("UTC"))
    }

    fn text<'b>(&'b self, field: impl Fn(&'b Placed<'a>) -> Option<&'b str>) -> ArrayRef {
        Arc::new(self.0.iter().map(field).collect::<StringArray>())
    }

    fn bytes<'b>(&'b self, field: impl Fn(&'b Placed<'a>) -> Option<&'b [u8]>) -> ArrayRef {
        Arc::new(self.0.iter().map(field).collect::<BinaryArray>())
    }

    fn fixed<'b>(
        &'b self,
        length: i32,
        field: impl Fn(&'b Placed<'a>) -> Option<&'b [u8]>,
    ) -> Result<ArrayRef, SegmentError> {
        let values = self.0.iter().map(field);
        Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, length)?))
    }
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
    Ok(builder.build())
}
