//! Consume, and write ready rows with the `parquet` crate.

use super::{pump, records};
use anyhow::{Context, Result, anyhow};
use arrow_array::RecordBatch;
use claims_audit::{
    packed::PackedEntry,
    processor::{AuditProcessor, TrailEnds},
    segment::{
        Head,
        write::{self, Segment},
    },
};
use claims_verifier::namespace::Namespace;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder, arrow_writer::ArrowWriterOptions},
    file::properties::WriterProperties,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::Path,
    sync::Arc,
    thread,
};
use tokio::task::JoinSet;

const FILES: &str = "floor";

/// A file for every partition of a batch, synced. Folders are not, as the product's are.
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
    let write = |range: Range<usize>| write(Arc::clone(&rows), range, Arc::clone(&folder));
    // One batch at a time, as the product's.
    pump::pump(namespace, batch_records, 1, write).await
}

/// The columns of every partition's segment, as Arrow has them.
fn ready(namespace: &Namespace, entries: &[PackedEntry]) -> Result<Vec<RecordBatch>> {
    let mut partitions: BTreeMap<i32, Vec<&PackedEntry>> = BTreeMap::new();
    for entry in entries {
        partitions.entry(entry.partition).or_default().push(entry);
    }
    let topic = namespace.events_topic.as_str();
    let segment = |(partition, entries): (i32, Vec<&PackedEntry>)| -> Result<RecordBatch> {
        Ok(Segment::append(topic, &Head::empty(topic, partition), &entries, 0)?.rows().clone())
    };
    // Side by side: hashing is most of what this floor takes, and none of it is measured.
    thread::scope(|scope| {
        let segments: Vec<_> =
            partitions.into_iter().map(|entries| scope.spawn(move || segment(entries))).collect();
        segments
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a segment was not made"))?)
            .collect()
    })
}

/// The rows of a batch: its share of every partition. The partitions' files are encoded side by side.
async fn write(ready: Arc<Vec<RecordBatch>>, range: Range<usize>, folder: Arc<Path>) -> Result<()> {
    let all: usize = ready.iter().map(RecordBatch::num_rows).sum();
    let mut files = JoinSet::new();
    for (number, rows) in ready.iter().enumerate() {
        let place = |row: usize| row * rows.num_rows() / all.max(1);
        let (first, next) = (place(range.start), place(range.end));
        if next > first {
            let (rows, path) =
                (rows.slice(first, next - first), folder.join(format!("{number}-{first}.parquet")));
            files.spawn_blocking(move || encode(&rows, &path));
        }
    }
    while let Some(file) = files.join_next().await {
        file??;
    }
    Ok(())
}

/// In the product's encodings, without its Bloom filter and what it notes of the chain.
fn encode(rows: &RecordBatch, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let properties = write::encodings(WriterProperties::builder())?.build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, rows.schema(), options)?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.sync_all()?)
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
