//! Columns → file.

use super::{
    Head, SegmentError, SegmentMeta,
    gather::{Gathered, Places, no_record},
    schema::{SCHEMA, column},
};
use crate::{
    chain::Digest,
    record::{AsEntry, TrailRecord},
};
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{
        BloomFilterPosition, EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
    },
    schema::types::ColumnPath,
};

/// How often a lookup by claim reads a segment that doesn't hold the claim.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;
/// Rows that the Parquet encoder takes at once.
const WRITE_BATCH_ROWS: usize = 4096;
/// Of these columns level 3 makes nothing smaller, and takes twice as long.
const ZSTD_LEVEL: i32 = 1;
/// About how many times smaller than its columns in memory a file is. Where it is not, its buffer grows once.
const COMPRESSED: usize = 3;
/// About what a file holds beside its columns.
const FOOTER_BYTES: usize = 16 * 1024;

/// A segment in memory, hashed and not yet encoded.
#[derive(Debug)]
pub struct Segment {
    meta: SegmentMeta,
    batch: RecordBatch,
}

impl Segment {
    pub(super) fn new(meta: SegmentMeta, batch: RecordBatch) -> Self {
        Self { meta, batch }
    }

    /// Appends `entries` of one partition, ascending by offset, to the chain at `head`, each with a fresh salt: the
    /// sink's two steps ([`Gathered::new`] and [`Gathered::seal`]) in one, for tests and the benchmark's floor.
    pub fn append<E: AsEntry>(
        topic: &str,
        head: &Head,
        entries: &[&E],
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
        let gathered = Gathered::with_erased(records.iter().map(|record| &record.entry))?;
        gathered.into_segment(meta, Places::of(records)?)
    }

    /// What the file will say of itself.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Its columns, as the file will hold them.
    pub fn rows(&self) -> &RecordBatch {
        &self.batch
    }

    /// The file.
    pub fn encode(self) -> Result<Bytes, SegmentError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(&self.meta)?)
            // The columns say it all, and a small segment is mostly metadata.
            .with_skip_arrow_metadata(true);
        let room = self.batch.get_array_memory_size() / COMPRESSED + FOOTER_BYTES;
        let mut writer =
            ArrowWriter::try_new_with_options(Vec::with_capacity(room), SCHEMA.clone(), options)?;
        writer.write(&self.batch)?;
        // The writer has the pages; they become a file next.
        drop(self.batch);
        Ok(writer.into_inner()?.into())
    }
}

/// Sets how the columns are encoded: the benchmark's floor writes the same.
pub fn encodings(builder: WriterPropertiesBuilder) -> Result<WriterPropertiesBuilder, SegmentError> {
    use column::*;
    let mut builder = builder
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        // One row group: a segment is read whole.
        .set_max_row_group_row_count(None)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None);
    // Numbers that hardly change from row to row, or change evenly, or are the same throughout.
    for name in [
        POSITION,
        PARTITION,
        OFFSET,
        APPENDED_AT,
        PROCESSED_AT,
        LATENCY_MS,
        VERSION,
        SCHEMA_ID,
        OCCURRED_AT,
        RECORDED_AT,
    ] {
        builder = without_dictionary(builder, name, Encoding::DELTA_BINARY_PACKED);
    }
    // Different in most rows: what repeats, the compression finds cheaper than a dictionary does. By `benches/audit.rs`.
    for name in [CLAIM_ID, VALUE, CORRELATION_ID, CAUSATION_ID, TRACEPARENT] {
        builder = without_dictionary(builder, name, Encoding::PLAIN);
    }
    // Begins as the row before does, now and then: half the time of PLAIN.
    builder = without_dictionary(builder, KEY, Encoding::DELTA_BYTE_ARRAY);
    // Random digits, all of one length.
    builder = without_dictionary(builder, EVENT_ID, Encoding::DELTA_LENGTH_BYTE_ARRAY);
    for name in [SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = without_dictionary(builder, name, Encoding::PLAIN)
            .set_column_compression(name.into(), Compression::UNCOMPRESSED);
    }
    Ok(builder)
}

fn without_dictionary(
    builder: WriterPropertiesBuilder,
    name: &str,
    encoding: Encoding,
) -> WriterPropertiesBuilder {
    builder.set_column_dictionary_enabled(name.into(), false).set_column_encoding(name.into(), encoding)
}

fn properties(meta: &SegmentMeta) -> Result<WriterProperties, SegmentError> {
    use column::*;
    let mut builder = encodings(WriterProperties::builder())?
        .set_created_by(concat!("claimstream audit ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(meta.to_key_values()))
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_column_bloom_filter_max_ndv(ColumnPath::from(CLAIM_ID), meta.records)
        .set_column_bloom_filter_fpp(ColumnPath::from(CLAIM_ID), BLOOM_FALSE_POSITIVES);
    for name in [CLAIM_ID, OFFSET, POSITION, APPENDED_AT] {
        builder = builder.set_column_statistics_enabled(name.into(), EnabledStatistics::Chunk);
    }
    Ok(builder.build())
}
