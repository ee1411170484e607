//! Entries, stores and sinks for the tests.

use bytes::Bytes;
use claims_audit::{
    Report, SegmentStore, VerifyOptions,
    packed::PackedEntry,
    processor::TrailEnds,
    record::{Content, Entry, RecordKind, TrailRecord},
    segment::read::{Columns, SegmentFile},
    sink::AuditSink,
    verify,
};
use claims_runtime::{Batch, Origin, testing};
use std::{borrow::Cow, path::PathBuf};
use tempfile::TempDir;

pub const TOPIC: &str = "claims.events.test";

/// A trail in a folder that goes when the test ends.
pub struct Trail {
    pub folder: TempDir,
    pub store: SegmentStore,
}

impl Trail {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SegmentStore::folder(folder.path()).unwrap();
        Self { folder, store }
    }

    pub fn sink(&self) -> AuditSink {
        AuditSink::new(self.store.clone(), TOPIC.into(), TrailEnds::default())
    }

    pub async fn verify(&self) -> Report {
        verify(&self.store, &VerifyOptions::default()).await.unwrap()
    }

    pub fn path(&self, partition: i32, sequence: u64) -> PathBuf {
        self.folder.path().join(SegmentStore::segment_path(TOPIC, partition, sequence))
    }

    pub fn read(&self, partition: i32, sequence: u64) -> (SegmentFile, Vec<TrailRecord>) {
        let bytes = Bytes::from(std::fs::read(self.path(partition, sequence)).unwrap());
        let file = SegmentFile::open(bytes).unwrap();
        let records = file.records(Columns::All).unwrap().collect::<Result<_, _>>().unwrap();
        (file, records)
    }
}

/// The record at an offset: the same each time, and different from its neighbours.
pub fn entry(partition: i32, offset: i64) -> Entry {
    let claim = offset % 5;
    let event_id = format!("event-{partition}-{offset}");
    Entry {
        partition,
        offset,
        appended_at_ms: 1_700_000_000_000 + offset,
        kind: RecordKind::Event,
        tenant_id: Some("acme".into()),
        claim_id: Some(format!("claim-{partition}-{claim}")),
        event_type: Some(Cow::Borrowed("ClaimNoteAdded")),
        version: Some(offset / 5 + 1),
        content: Some(Content {
            key: Some(format!("acme:claim-{partition}-{claim}:{event_id}").into_bytes()),
            value: Some(format!("value of {partition}/{offset}").into_bytes()),
            schema_id: Some(1),
            event_id: Some(event_id),
            occurred_at_ms: Some(1_600_000_000_000),
            recorded_at_ms: Some(1_600_000_000_001),
            correlation_id: Some("corr".into()),
            ..Content::default()
        }),
    }
}

/// A batch of these records, as the runtime gives it.
pub fn batch(entries: Vec<Entry>) -> Batch<PackedEntry> {
    let pack = |e: &Entry| PackedEntry::new(&e.as_ref(), &e.content.as_ref().unwrap().as_ref());
    let rows = entries.iter().map(|e| (Origin { partition: e.partition, offset: e.offset }, pack(e)));
    testing::batch(1, rows.collect::<Vec<_>>())
}

/// A batch of the records at these offsets of partition 0.
pub fn offsets(offsets: impl IntoIterator<Item = i64>) -> Batch<PackedEntry> {
    batch(offsets.into_iter().map(|offset| entry(0, offset)).collect())
}

/// The offsets in the trail of a partition, in the order of the chain.
pub fn offsets_in(trail: &Trail, partition: i32) -> Vec<i64> {
    (0..)
        .take_while(|&sequence| trail.path(partition, sequence).exists())
        .flat_map(|sequence| trail.read(partition, sequence).1)
        .map(|record| record.entry.offset)
        .collect()
}
