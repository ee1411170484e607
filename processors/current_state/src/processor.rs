//! The pure half of the stage: folds events into claims, and writes each changed claim once per batch.

mod partition;
#[cfg(test)]
mod tests;

use crate::{
    at_hand::AtHand,
    claim::Claim,
    counts::Counts,
    metrics as names,
    places::Place,
    retried::Retried,
    state_writer::{StateWriter, Written},
    store::{StateStore, StoreError},
    words::TimelineEntry,
};
use claims_runtime::{Effect, Origin, Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{
    DecodeError, EventType, EventView, SchemaCache, Status, Timestamp, text::heap_bytes,
    validate::validate_view,
};
use claims_topology::config::CLAIMS_MEMORY_BYTES;
use partition::{How, Order, Partition};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The processor's name: part of its consumer group, a metrics label, a header of its dead letters.
pub const NAME: &str = "current-state";

/// Reason of dead letters: the bytes are not an event.
pub const REASON_MALFORMED: &str = "malformed";
/// Reason of dead letters: the event breaks a rule that every event must hold to.
pub const REASON_INVALID: &str = "invalid";
/// Reason of dead letters: another event holds the same version of the same claim.
pub const REASON_SUPERSEDED: &str = "superseded";

/// Buffers with more room than this, in entries, are not kept for a claim's next batch.
const MAX_KEPT_ENTRIES: usize = 8;
/// About what a claim in a batch costs beside itself, in bytes: maps, places to delete, what the allocator adds.
const OVERHEAD_BYTES: usize = 1_024;

/// What one batch writes of one claim: its last state in the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimWrite {
    /// The partition of its events.
    pub partition: i32,
    /// The claim as it stands after the batch.
    pub claim: Claim,
    /// Places that it may have stood in before, and doesn't now.
    pub left: Vec<Place>,
    /// Timeline entries of the batch's events.
    pub timeline: Vec<TimelineEntry>,
    /// The records that it stands for, in order; without those that only fill the store.
    pub origins: Vec<Origin>,
}

/// The processor.
pub struct CurrentState {
    schemas: SchemaCache,
    /// Dropped before the store: its thread holds parts of that.
    writer: StateWriter,
    store: Arc<StateStore>,
    /// Refused records that were given again since this store was last written.
    retried: Retried,
    partitions: HashMap<i32, Partition>,
    max_recent_bytes: usize,
    max_unstored_bytes: usize,
    /// The batch closed last.
    last_batch_id: u64,
    counts: Counts,
}

impl CurrentState {
    /// A processor over the local store; `schemas` is filled by the stage's resolver.
    pub fn new(schemas: SchemaCache, store: impl Into<Arc<StateStore>>) -> Self {
        let (store, retried) = (store.into(), Retried::default());
        let (partitions, counts) = (HashMap::new(), Counts::default());
        let writer = StateWriter::default();
        let (max_recent_bytes, max_unstored_bytes) = (CLAIMS_MEMORY_BYTES, CLAIMS_MEMORY_BYTES);
        Self {
            schemas,
            writer,
            store,
            retried,
            partitions,
            max_recent_bytes,
            max_unstored_bytes,
            last_batch_id: 0,
            counts,
        }
    }

    /// The same, which learns from `retried` what other members were given again.
    pub fn with_retried(mut self, retried: Retried) -> Self {
        self.retried = retried;
        self
    }

    /// The same, which keeps so much of claims in memory, in bytes, over all partitions: as much as the store was not given
    /// yet, and of those that it holds as many more as there is room for.
    pub fn with_claims_memory_bytes(self, bytes: usize) -> Self {
        self.with_max_recent_bytes(bytes).with_max_unstored_bytes(bytes)
    }

    /// The same, which keeps so much, in bytes, of claims that no batch holds any more.
    pub fn with_max_recent_bytes(mut self, max_recent_bytes: usize) -> Self {
        self.max_recent_bytes = max_recent_bytes;
        self
    }

    /// The same, which gives changed claims to the store when they hold so much, in bytes.
    pub fn with_max_unstored_bytes(mut self, max_unstored_bytes: usize) -> Self {
        self.max_unstored_bytes = max_unstored_bytes;
        self
    }

    /// The store holds these claims as their batches left them: they may go, where there are too many at hand.
    fn stored(&mut self, written: Vec<Written>) {
        let max_recent_bytes = self.max_recent_bytes / self.partitions.len().max(1);
        for Written { partition, batch_id, slots } in written {
            if let Some(partition) = self.partitions.get_mut(&partition) {
                partition.at_hand.stored(batch_id, slots, max_recent_bytes);
            }
        }
        // With each partition assigned there is less for those before it, whether or not they have batches.
        for partition in self.partitions.values_mut() {
            partition.at_hand.trim(max_recent_bytes);
        }
    }

    /// Decodes a record's value, and folds the event with its partition as `how` says.
    fn decode_and_fold(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        rows: &mut Rows<Arc<ClaimWrite>>,
        how: impl FnOnce(&Partition) -> How,
    ) -> Result<(&mut Partition, Effect), ProcessError> {
        let Self { schemas, partitions, counts, .. } = self;
        let number = record.origin.partition;
        let missing =
            || ProcessError::Fatal(format!("a record of partition {number}, which is not assigned"));
        let partition = partitions.get_mut(&number).ok_or_else(missing)?;
        let effect = schemas.decode_view(value, |event| {
            // By the record's own time: the same record is judged the same in every replay.
            validate_view(event, Timestamp(record.appended_at_ms)).map_err(|error| ProcessError::Poison {
                reason: REASON_INVALID,
                detail: error.to_string(),
            })?;
            let how = how(partition);
            partition.fold(event, record.origin, how, rows, counts)
        });
        Ok((partition, effect.map_err(refusal)??))
    }
}

impl Processor for CurrentState {
    type Row = Arc<ClaimWrite>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn assigned(&mut self, partition: i32, next_offset: Option<i64>) -> Result<Option<i64>, ProcessError> {
        let store = self.store.partition(partition).map_err(fatal)?;
        let has_store = store.next_offset().is_some();
        let stored = store.next_offset().unwrap_or(0);
        let mut missing = self.retried.take(partition);
        missing.retain(|offset| *offset < stored && !store.retried().contains(offset));
        let needed = missing.first().map_or(stored, |&oldest| oldest.min(stored));
        if needed < stored {
            tracing::info!(
                processor = NAME,
                partition,
                from = needed,
                "records were given again while another member had the partition; folding anew from the oldest"
            );
        }
        self.partitions.insert(
            partition,
            Partition {
                number: partition,
                store,
                restored_below: next_offset.unwrap_or(0),
                replayed_below: stored,
                missing,
                at_hand: AtHand::default(),
                open: Vec::new(),
                retrying: None,
                stored_batch_id: self.last_batch_id,
                acknowledged: None,
                in_flight: VecDeque::new(),
            },
        );
        // Without an offset reading begins at the log's start, which must not be beyond what a store needs; where there is no
        // store, what is left will do.
        Ok(match next_offset {
            Some(next_offset) => Some(next_offset.min(needed)),
            None => has_store.then_some(needed),
        })
    }

    fn revoked(&mut self, partition: i32) -> Result<(), ProcessError> {
        // Whoever has it next reads from the store how far it is.
        // At a stop all go, one after the other: whatever has nothing under way is written with the first.
        let mut order = Order::new(&self.store);
        for partition in self.partitions.values_mut() {
            partition.store_all(self.last_batch_id, &mut order);
        }
        order.give(&mut self.writer)?;
        let written = self.writer.finish().map_err(fatal)?;
        self.stored(written);
        self.partitions.remove(&partition);
        Ok(())
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError> {
        let value = match record.payload {
            Payload::Value(value) => value,
            // An erased event's record; the claim itself hears of it by `ClaimErased`.
            Payload::Tombstone => return Ok(()),
        };
        let offset = record.origin.offset;
        self.decode_and_fold(record, value, rows, |partition| How {
            visible: offset >= partition.restored_below,
            replayed: offset < partition.replayed_below,
            asked_for: false,
        })
        .map(drop)
    }

    fn retry(&mut self, record: &Record<'_>, rows: &mut Rows<Self::Row>) -> Result<Effect, ProcessError> {
        let Payload::Value(value) = record.payload else { return Ok(Effect::AlreadyThere) };
        let how = How { visible: true, replayed: true, asked_for: true };
        let (partition, effect) = self.decode_and_fold(record, value, rows, |_| how)?;
        partition.retrying = Some(record.origin.offset);
        Ok(effect)
    }

    fn close_batch(&mut self, batch_id: u64, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError> {
        let written = self.writer.written().map_err(fatal)?;
        self.stored(written);
        self.last_batch_id = batch_id;
        let max_unstored_bytes = self.max_unstored_bytes / self.partitions.len().max(1);
        for partition in self.partitions.values_mut().filter(|partition| !partition.open.is_empty()) {
            partition.close(batch_id, rows, &mut self.counts);
            partition.take_snapshot(batch_id, max_unstored_bytes);
        }
        self.counts.publish();
        let held: usize = self.partitions.values().map(|partition| partition.at_hand.len()).sum();
        metrics::gauge!(names::CLAIMS_IN_MEMORY, names::PROCESSOR => NAME).set(held as f64);
        Ok(())
    }

    fn batch_acknowledged(&mut self, batch_id: u64, next_offsets: &[(i32, i64)]) -> Result<(), ProcessError> {
        let mut order = Order::new(&self.store);
        let mut is_awaited = false;
        for &(number, next_offset) in next_offsets {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            is_awaited |= partition.acknowledged(batch_id, next_offset, &mut order);
        }
        // Otherwise the store would be behind for as long as nothing comes, in any partition or in one of them.
        let is_quiet = self.partitions.values().all(Partition::is_quiet);
        for partition in self.partitions.values_mut() {
            if is_quiet || partition.is_overdue(batch_id) {
                partition.store_all(batch_id, &mut order);
            }
        }
        order.give(&mut self.writer)?;
        // A record given once more is below what is committed: only the store tells that it was folded in.
        let written = if is_awaited { self.writer.finish() } else { self.writer.written() };
        self.stored(written.map_err(fatal)?);
        Ok(())
    }
}

impl ClaimWrite {
    /// Nothing of this claim yet.
    pub(crate) fn of(partition: i32, claim: Claim) -> Self {
        Self { partition, claim, left: Vec::new(), timeline: Vec::new(), origins: Vec::new() }
    }

    /// Begins anew for another batch. A buffer that grew goes: one busy batch is no reason to hold it ever after.
    pub(crate) fn clear(&mut self) {
        // Each batch makes its own.
        self.left = Vec::new();
        empty(&mut self.timeline);
        empty(&mut self.origins);
    }

    /// Adds the event's timeline entry; of an erased claim only its erasure is told. Answers with the bytes held.
    fn note(&mut self, event: &EventView<'_>) -> usize {
        if self.claim.state.status() == Status::Erased {
            self.timeline.retain(|entry| entry.event_type == EventType::ClaimErased);
            if event.event_type() != EventType::ClaimErased {
                return 0;
            }
        }
        let entry = TimelineEntry::of(event);
        let bytes = entry.approximate_bytes();
        self.timeline.push(entry);
        bytes
    }

    /// About what it holds in memory, in bytes.
    pub(crate) fn approximate_bytes(&self) -> usize {
        self.claim.approximate_bytes() + self.batch_bytes()
    }

    /// About what it holds beside the claim, in bytes, with the room of its buffers.
    pub(crate) fn batch_bytes(&self) -> usize {
        let places: usize = self.left.iter().map(|place| heap_bytes(&place.key)).sum();
        let timeline: usize = self.timeline.iter().map(TimelineEntry::heap_bytes).sum();
        places
            + timeline
            + self.left.capacity() * size_of::<Place>()
            + self.timeline.capacity() * size_of::<TimelineEntry>()
            + self.origins.capacity() * size_of::<Origin>()
    }
}

fn empty<T>(entries: &mut Vec<T>) {
    if entries.capacity() > MAX_KEPT_ENTRIES {
        *entries = Vec::new();
    } else {
        entries.clear();
    }
}

fn refusal(error: DecodeError) -> ProcessError {
    match error {
        DecodeError::Malformed(detail) => ProcessError::Poison { reason: REASON_MALFORMED, detail },
        DecodeError::SchemaMissing(schema_id) => ProcessError::SchemaMissing { schema_id },
        DecodeError::UpgradeNeeded(_) => ProcessError::UpgradeNeeded(error.to_string()),
    }
}

fn fatal(error: StoreError) -> ProcessError {
    ProcessError::Fatal(error.to_string())
}
