//! Consume, and write ready rows with the `parquet` crate.

use super::{pump, records};
use anyhow::{Context, Result};
use arrow_array::RecordBatch;
use claims_audit::{
    processor::{AuditProcessor, TrailEnds},
    record::Entry,
    segment::{Head, schema::column, write::Segment},
};
use claims_verifier::namespace::Namespace;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// Rows that the encoder takes at once, as the product's.
const WRITE_BATCH_ROWS: usize = 4_096;
const ZSTD_LEVEL: i32 = 1;
const FILES: &str = "floor";

/// A file for every partition of a batch, synced, as the product's.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let mut processor = AuditProcessor::new(records::schemas(namespace, &all).await?, TrailEnds::default());
    let limits = claims_topology::config::AuditConfig::default().runtime;
    let (entries, batch_records) = records::rows(&mut processor, &all, &limits)?;
    drop(all);
    let rows = Arc::new(ready(namespace, &entries)?);
    drop(entries);
    let folder: Arc<Path> = namespace.dir.join(FILES).into();
    fs::create_dir_all(&folder)?;
    let write = |range: Range<usize>| {
        let (rows, folder) = (Arc::clone(&rows), Arc::clone(&folder));
        async move { tokio::task::spawn_blocking(move || write(&rows, range, &folder)).await? }
    };
    // One batch at a time, as the product's.
    pump::pump(namespace, batch_records, 1, write).await
}

/// The columns of every partition's segment, as Arrow has them.
fn ready(namespace: &Namespace, entries: &[Entry]) -> Result<Vec<RecordBatch>> {
    let mut partitions: BTreeMap<i32, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        partitions.entry(entry.partition).or_default().push(entry);
    }
    let mut ready = Vec::new();
    for (partition, entries) in partitions {
        let head = Head::empty(&namespace.events_topic, partition);
        let file = Segment::append(&namespace.events_topic, &head, &entries, 0)?.encode()?;
        let rows = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(entries.len()).build()?;
        ready.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(ready)
}

/// The rows of a batch: its share of every partition.
fn write(ready: &[RecordBatch], range: Range<usize>, folder: &Path) -> Result<()> {
    let all: usize = ready.iter().map(RecordBatch::num_rows).sum();
    for (number, rows) in ready.iter().enumerate() {
        let place = |row: usize| row * rows.num_rows() / all.max(1);
        let (first, next) = (place(range.start), place(range.end));
        if next > first {
            encode(&rows.slice(first, next - first), &folder.join(format!("{number}-{first}.parquet")))?;
        }
    }
    Ok(())
}

fn encode(rows: &RecordBatch, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties()?))?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.sync_all()?)
}

/// The product's encodings, without its Bloom filter and metadata.
fn properties() -> Result<WriterProperties> {
    use column::*;
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(None)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None);
    for name in [POSITION, OFFSET, APPENDED_AT, OCCURRED_AT, RECORDED_AT] {
        builder = builder
            .set_column_dictionary_enabled(name.into(), false)
            .set_column_encoding(name.into(), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [KEY, VALUE, EVENT_ID, SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_dictionary_enabled(name.into(), false);
    }
    for name in [SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_compression(name.into(), Compression::UNCOMPRESSED);
    }
    Ok(builder.build())
}

/// Rows in the files of a floor.
pub fn rows_in(namespace: &Namespace) -> Result<u64> {
    let mut rows = 0;
    for file in fs::read_dir(namespace.dir.join(FILES))? {
        let metadata =
            ParquetRecordBatchReaderBuilder::try_new(File::open(file?.path())?)?.metadata().clone();
        rows += u64::try_from(metadata.file_metadata().num_rows())?;
    }
    Ok(rows)
}
