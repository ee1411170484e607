//! The half that does I/O: entries in, segments out.
//!
//! A segment is a batch's part of one partition. It is put where no object is yet, at the place after the chain's
//! last one; so of two writers only one gets the place, and the other looks again. What the chain holds already is
//! compared, not written: a replay of the audit is a check of the trail.

use crate::{
    chain,
    encoders::{EncoderGone, Encoders},
    metrics::{
        METRIC_ENTRIES_CREATED, METRIC_RECORDS_COMPARED, METRIC_SEGMENT_BYTES, METRIC_SEGMENT_SECONDS,
        METRIC_SEGMENTS_WRITTEN,
    },
    packed::PackedEntry,
    processor::TrailEnds,
    record::{AsEntry as _, TrailRecord},
    refused::{RefusedLookup, TrailEnd},
    segment::{
        Head, SegmentError,
        gather::Gathered,
        read::{Columns, SegmentFile, SegmentTail},
    },
    store::{Put, SegmentStore, StoreError},
};
use bytes::Bytes;
use claims_runtime::{Batch, Sink, SinkError};
use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Partitions whose segments are on their way to the store at the same time: the disk syncs several at once, and a
/// bucket takes its time to answer.
const MAX_CONCURRENT_PARTITIONS: usize = 16;
/// Segments read and held at the same time, whole and with rows decoded of them: by a replay, which compares every
/// record, and by an assignment.
const MAX_CONCURRENT_READS: usize = 2;
/// How often one batch may find its place in the chain taken before it is given up.
const MAX_LOST_RACES: usize = 8;
/// Offsets that an error message names.
const MAX_OFFSETS_NAMED: usize = 5;

/// Writes the chains of one topic.
#[derive(Debug)]
pub struct AuditSink {
    store: SegmentStore,
    topic: String,
    ends: TrailEnds,
    /// Per assigned partition, where its chain stands.
    heads: Mutex<BTreeMap<i32, Head>>,
    refused: Option<RefusedLookup>,
    encoders: Encoders,
    /// A turn for each segment that may be in memory because it was read.
    readers: Semaphore,
}

impl AuditSink {
    /// A sink for the chains of `topic` that tells through `ends` where they end.
    pub fn new(store: SegmentStore, topic: String, ends: TrailEnds) -> Self {
        let encoders = Encoders::start();
        let readers = Semaphore::new(MAX_CONCURRENT_READS);
        Self { store, topic, ends, heads: Mutex::default(), refused: None, encoders, readers }
    }

    /// The same, which asks the dead letters for what is rightly missing at the end of a trail.
    pub fn with_refused(mut self, refused: RefusedLookup) -> Self {
        self.refused = Some(refused);
        self
    }

    fn cached_head(&self, partition: i32) -> Option<Head> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    fn remember_head(&self, partition: i32, head: Head) {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, head);
        self.ends.set(partition, head.last_offset);
    }

    /// Reads the head of a chain from the store, and checks that its last segment is whole: nothing is appended to a
    /// damaged one.
    async fn read_head(&self, partition: i32) -> Result<Head, SinkError> {
        Ok(self.read_end(partition).await?.0)
    }

    /// The same with the last record's time of append.
    async fn read_end(&self, partition: i32) -> Result<(Head, Option<i64>), SinkError> {
        let last = self.store.last_sequence(&self.topic, partition).await.map_err(|e| store_error(&e))?;
        let (head, appended_at_ms) = match last {
            None => (Head::empty(&self.topic, partition), None),
            Some(sequence) => {
                let (file, _turn) = self.segment(partition, sequence).await?;
                let last =
                    file.records(Columns::WithoutRaw).map_err(|e| self.damaged(partition, sequence, &e))?;
                let last = last.last().transpose().map_err(|e| self.damaged(partition, sequence, &e))?;
                let meta = file.meta();
                let told = (meta.last_position(), meta.last_offset, meta.last_hash);
                let found = last.as_ref().map(|r| (r.position, r.entry.offset, r.chain_hash));
                if found != Some(told) {
                    return Err(self.damaged(
                        partition,
                        sequence,
                        &"its rows are not what its metadata tells",
                    ));
                }
                (meta.head(), last.map(|record| record.entry.appended_at_ms))
            }
        };
        self.remember_head(partition, head);
        Ok((head, appended_at_ms))
    }

    /// Reads a segment once it has a turn, which is held as long as the segment is: never ask for two.
    async fn segment(
        &self,
        partition: i32,
        sequence: u64,
    ) -> Result<(SegmentFile, SemaphorePermit<'_>), SinkError> {
        let turn = self.readers.acquire().await.map_err(|e| SinkError::Fatal(e.to_string()))?;
        let bytes = self.store.get(&self.topic, partition, sequence).await.map_err(|e| store_error(&e))?;
        let file = SegmentFile::open(bytes).map_err(|e| self.damaged(partition, sequence, &e))?;
        let meta = file.meta();
        if meta.topic != self.topic || meta.partition != partition || meta.sequence != sequence {
            return Err(self.damaged(partition, sequence, &"it belongs in another place"));
        }
        Ok((file, turn))
    }

    fn damaged(&self, partition: i32, sequence: u64, problem: &dyn std::fmt::Display) -> SinkError {
        let path = SegmentStore::segment_path(&self.topic, partition, sequence);
        SinkError::Fatal(format!(
            "segment {path} in {} is damaged: {problem}. Run `claims audit verify`",
            self.store.name()
        ))
    }

    /// Brings one partition's entries into the trail: compares what it holds already, appends the rest.
    async fn write_partition(&self, partition: i32, entries: Vec<&PackedEntry>) -> Result<(), SinkError> {
        let mut rest = entries.as_slice();
        let mut head = match self.cached_head(partition) {
            Some(head) => head,
            None => self.read_head(partition).await?,
        };
        for _ in 0..MAX_LOST_RACES {
            let held = rest.partition_point(|entry| Some(entry.offset) <= head.last_offset);
            let (held, new) = rest.split_at(held);
            self.compare(partition, &head, held).await?;
            rest = new;
            if rest.is_empty() {
                return Ok(());
            }
            match self.append(partition, &head, rest).await? {
                Some(next) => {
                    self.remember_head(partition, next);
                    return Ok(());
                }
                // Somebody has put a segment there: this process before it lost the answer, or the partition's last
                // owner. What it holds is compared next.
                None => head = self.read_head(partition).await?,
            }
        }
        Err(SinkError::Fatal(format!(
            "another writer keeps appending to the chain of partition {partition} in {}: only one consumer group may \
             write a store",
            self.store.name()
        )))
    }

    /// Appends a segment; `None`: its place is taken.
    async fn append(
        &self,
        partition: i32,
        head: &Head,
        entries: &[&PackedEntry],
    ) -> Result<Option<Head>, SinkError> {
        let begun = Instant::now();
        let unwritable = |error: SegmentError| SinkError::Fatal(format!("partition {partition}: {error}"));
        let (next, bytes) = self.encode(head, entries).await?.map_err(unwritable)?;
        let size = bytes.len();
        let put = self.store.put_new(&self.topic, partition, head.next_sequence, bytes).await;
        match put.map_err(|e| store_error(&e))? {
            Put::Exists => Ok(None),
            Put::Created => {
                metrics::counter!(METRIC_ENTRIES_CREATED).increment(entries.len() as u64);
                metrics::counter!(METRIC_SEGMENTS_WRITTEN).increment(1);
                metrics::counter!(METRIC_SEGMENT_BYTES).increment(size as u64);
                metrics::histogram!(METRIC_SEGMENT_SECONDS).record(begun.elapsed().as_secs_f64());
                Ok(Some(next))
            }
        }
    }

    /// Hashes and encodes a segment, on a thread for such work once one is free, and tells where the chain stands
    /// after it.
    async fn encode(
        &self,
        head: &Head,
        entries: &[&PackedEntry],
    ) -> Result<Result<(Head, Bytes), SegmentError>, SinkError> {
        let gone = |error: EncoderGone| SinkError::Fatal(error.to_string());
        let turn = self.encoders.turn().await.map_err(gone)?;
        let now_ms = chrono::Utc::now().timestamp_millis();
        let gathered = match Gathered::new(entries) {
            Ok(gathered) => gathered,
            Err(error) => return Ok(Err(error)),
        };
        let (topic, head) = (self.topic.clone(), *head);
        let encode = move || {
            let segment = gathered.seal(&topic, &head, now_ms)?;
            Ok((segment.meta().head(), segment.encode()?))
        };
        turn.run(encode).await.map_err(gone)
    }

    /// Compares records that lie before the end of the chain with what the chain holds of them.
    async fn compare(&self, partition: i32, head: &Head, entries: &[&PackedEntry]) -> Result<(), SinkError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let mut sequence = self.sequence_of(partition, head, first.offset).await?;
        let mut rest = entries;
        let mut missing = Vec::new();
        while !rest.is_empty() && sequence < head.next_sequence {
            let (file, _turn) = self.segment(partition, sequence).await?;
            let here = rest.partition_point(|entry| entry.offset <= file.meta().last_offset);
            let (here, later) = rest.split_at(here);
            self.compare_with(&file, here, &mut missing)
                .map_err(|e| self.damaged(partition, sequence, &e))??;
            rest = later;
            sequence += 1;
        }
        missing.extend(rest.iter().map(|entry| entry.offset));
        metrics::counter!(METRIC_RECORDS_COMPARED).increment((entries.len() - missing.len()) as u64);
        if missing.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = missing.iter().take(MAX_OFFSETS_NAMED).map(i64::to_string).collect();
        Err(SinkError::Poison(format!(
            "not in the trail, and the chain has gone past them: {} records of partition {partition}, offsets {}{}. \
             They were refused when they first came (a trail made anew, in an empty store, would hold them), or the \
             trail was tampered with: run `claims audit verify`",
            missing.len(),
            named.join(", "),
            if missing.len() > named.len() { ", …" } else { "" },
        )))
    }

    /// The outer error is the segment's, the inner one the comparison's.
    fn compare_with(
        &self,
        file: &SegmentFile,
        entries: &[&PackedEntry],
        missing: &mut Vec<i64>,
    ) -> Result<Result<(), SinkError>, SegmentError> {
        let mut stored = file.records(Columns::WithoutRaw)?.peekable();
        for entry in entries {
            while stored.next_if(|r| r.as_ref().is_ok_and(|r| r.entry.offset < entry.offset)).is_some() {}
            let found = stored.next_if(|r| r.as_ref().map_or(true, |r| r.entry.offset == entry.offset));
            match found.transpose()? {
                None => missing.push(entry.offset),
                Some(record) => {
                    if let Some(difference) = difference(&record, entry) {
                        return Ok(Err(self.another_topic(entry, difference)));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn another_topic(&self, entry: &PackedEntry, difference: &str) -> SinkError {
        SinkError::Fatal(format!(
            "topic {} partition {} offset {}: {difference} differs from what the trail in {} holds. Either the topic \
             was deleted and made anew, or this is another cluster (then give the audit an empty store, and keep this \
             one), or the trail was tampered with (run `claims audit verify`)",
            self.topic,
            entry.partition,
            entry.offset,
            self.store.name()
        ))
    }

    /// The first segment that ends at `offset` or later, found by its file ends.
    async fn sequence_of(&self, partition: i32, head: &Head, offset: i64) -> Result<u64, SinkError> {
        let (mut low, mut high) = (0, head.next_sequence);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.last_offset_of(partition, middle).await? < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    async fn last_offset_of(&self, partition: i32, sequence: u64) -> Result<i64, SinkError> {
        let tail =
            self.store.get_tail(&self.topic, partition, sequence).await.map_err(|e| store_error(&e))?;
        match SegmentTail::parse(tail.object_bytes, &tail.bytes) {
            Ok(Some(tail)) => Ok(tail.meta.last_offset),
            Ok(None) => {
                let (file, _turn) = self.segment(partition, sequence).await?;
                Ok(file.meta().last_offset)
            }
            Err(error) => Err(self.damaged(partition, sequence, &error)),
        }
    }
}

/// In what a stored record is not the record that came again. Decoded fields may differ between builds; what stands in
/// the topic may not.
fn difference(stored: &TrailRecord, entry: &PackedEntry) -> Option<&'static str> {
    if stored.entry.appended_at_ms != entry.appended_at_ms {
        return Some("the time of append");
    }
    let (Some(salt), Some(kept), (_, Some(content))) = (&stored.salt, &stored.entry.content, entry.as_refs())
    else {
        // Erased: there is nothing left to compare.
        return None;
    };
    let again = chain::content_hash_of_raw(salt, kept, content.key, content.value);
    (again != stored.content_hash).then_some("key or value")
}

fn store_error(error: &StoreError) -> SinkError {
    if error.is_transient() {
        SinkError::Transient(error.to_string())
    } else {
        SinkError::Fatal(error.to_string())
    }
}

impl Sink for AuditSink {
    type Row = PackedEntry;

    async fn assigned(&self, partitions: &[i32]) -> Result<(), SinkError> {
        let ends = Mutex::new(BTreeMap::new());
        let mut reads: Vec<BoxFuture<'_, _>> = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let ends = &ends;
            let note = move |(head, appended_at_ms): (Head, Option<i64>)| {
                let next_offset = head.last_offset.map_or(0, |offset| offset.saturating_add(1));
                let end = TrailEnd { next_offset, appended_at_ms };
                ends.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, end);
            };
            reads.push(self.read_end(partition).map_ok(note).boxed());
        }
        all(reads).await?;
        if let Some(refused) = &self.refused {
            let found = refused.look_up(ends.into_inner().unwrap_or_else(PoisonError::into_inner)).await?;
            found.into_iter().for_each(|(partition, offsets)| self.ends.set_refused(partition, offsets));
        }
        Ok(())
    }

    async fn revoked(&self, partitions: &[i32]) {
        for partition in partitions {
            self.heads.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
            self.ends.remove(*partition);
        }
    }

    async fn write(&self, batch: &Batch<PackedEntry>) -> Result<(), SinkError> {
        let mut partitions: BTreeMap<i32, Vec<&PackedEntry>> = BTreeMap::new();
        for entry in &batch.rows {
            partitions.entry(entry.partition).or_default().push(entry);
        }
        let mut writes: Vec<BoxFuture<'_, _>> = Vec::with_capacity(partitions.len());
        for (partition, entries) in partitions {
            writes.push(self.write_partition(partition, entries).boxed());
        }
        all(writes).await
    }
}

/// Sees every one through, several at a time, whatever becomes of the others: none is dropped half-way.
async fn all(work: Vec<BoxFuture<'_, Result<(), SinkError>>>) -> Result<(), SinkError> {
    worst(futures::stream::iter(work).buffer_unordered(MAX_CONCURRENT_PARTITIONS).collect().await)
}

/// Of several errors the one that decides: fatal before passing before refused.
fn worst(results: Vec<Result<(), SinkError>>) -> Result<(), SinkError> {
    let rank = |error: &SinkError| match error {
        SinkError::Poison(_) => 0,
        SinkError::Transient(_) => 1,
        SinkError::Fatal(_) => 2,
    };
    results.into_iter().filter_map(Result::err).max_by_key(rank).map_or(Ok(()), Err)
}
