//! The pure half of the stage: folds events into claims, and writes each changed claim once per batch.

use crate::{
    at_hand::{AtHand, Slot},
    claim::Claim,
    counts::Counts,
    metrics as names,
    places::Place,
    retried::Retried,
    state_writer::{StateWrite, StateWriter, Written},
    store::{PartitionStore, StateStore, StoreError},
    words::TimelineEntry,
};
use claims_runtime::{Effect, Origin, Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{
    DecodeError, EventType, EventView, SchemaCache, Status, Timestamp,
    fold::{Applied, Surprise},
    validate::validate_view,
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
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
/// Claims that the store holds and that are kept in memory for their next events, in bytes, over all partitions.
const RECENT_CLAIMS_BYTES: usize = 32 * 1024 * 1024;

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
    counts: Counts,
}

struct Partition {
    number: i32,
    store: PartitionStore,
    /// Records below this offset are given to fill the store only: their rows are in the views, their conflicts in the
    /// dead letters.
    restored_below: i64,
    /// Records below this offset are in the store already: they are given again because offsets were reset, or
    /// because of a crash before the commit. Their claims are written again from the present state.
    replayed_below: i64,
    /// Records given again that the store doesn't hold: it is folded anew from the first of them.
    missing: BTreeSet<i64>,
    at_hand: AtHand,
    /// Claims that the open batch changes.
    open: Vec<Slot>,
    /// The record of the open batch, if that is a retry.
    retrying: Option<i64>,
    /// Closed batches that the sink has not acknowledged yet, oldest first.
    in_flight: VecDeque<Closed>,
}

/// A batch on its way to the sink.
struct Closed {
    batch_id: u64,
    /// The claims as the batch leaves them. Where they are at hand, they may have changed since.
    claims: Vec<Arc<ClaimWrite>>,
    slots: Vec<Slot>,
    retried: Option<i64>,
}

/// How a record is folded.
#[derive(Clone, Copy)]
struct How {
    /// Its row is to be written, its conflict to be reported.
    visible: bool,
    /// The store may hold it already, and its claim is written again.
    replayed: bool,
    /// A conflict is reported although the store may know it.
    asked_for: bool,
}

impl CurrentState {
    /// A processor over the local store; `schemas` is filled by the stage's resolver.
    pub fn new(schemas: SchemaCache, store: impl Into<Arc<StateStore>>) -> Self {
        let (store, retried) = (store.into(), Retried::default());
        let (partitions, counts) = (HashMap::new(), Counts::default());
        let writer = StateWriter::default();
        Self { schemas, writer, store, retried, partitions, max_recent_bytes: RECENT_CLAIMS_BYTES, counts }
    }

    /// The same, which learns from `retried` what other members were given again.
    pub fn with_retried(mut self, retried: Retried) -> Self {
        self.retried = retried;
        self
    }

    /// The same, which keeps so much, in bytes, of claims that no batch holds any more.
    pub fn with_max_recent_bytes(mut self, max_recent_bytes: usize) -> Self {
        self.max_recent_bytes = max_recent_bytes;
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
        for partition in self.partitions.values_mut().filter(|partition| !partition.open.is_empty()) {
            partition.close(batch_id, rows, &mut self.counts);
        }
        self.counts.publish();
        let held: usize = self.partitions.values().map(|partition| partition.at_hand.len()).sum();
        metrics::gauge!(names::CLAIMS_IN_MEMORY, names::PROCESSOR => NAME).set(held as f64);
        Ok(())
    }

    fn batch_acknowledged(&mut self, batch_id: u64, next_offsets: &[(i32, i64)]) -> Result<(), ProcessError> {
        let mut write = self.store.write();
        let (mut claims, mut written) = (Vec::new(), Vec::new());
        let mut is_awaited = false;
        for &(number, next_offset) in next_offsets {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            while let Some(closed) = partition.in_flight.pop_front_if(|closed| closed.batch_id <= batch_id) {
                let Closed { batch_id, slots, .. } = closed;
                claims.push((partition.store.handle(), closed.claims));
                if closed.retried.is_some() {
                    write.retried(&mut partition.store, closed.retried);
                    is_awaited = true;
                }
                written.push(Written { partition: number, batch_id, slots });
            }
            if partition.missing.last().is_some_and(|&newest| newest < next_offset) {
                write.retried(&mut partition.store, std::mem::take(&mut partition.missing));
                is_awaited = true;
            }
            write.next_offset(&mut partition.store, next_offset);
            // While some are missing, the next one to have this store must find them all once more.
            if partition.missing.is_empty() {
                write.complete_now(&mut partition.store);
            }
        }
        self.writer.write(StateWrite { write, claims }, written).map_err(fatal)?;
        // A record given once more is below what is committed: only the store tells that it was folded in.
        let written = if is_awaited { self.writer.finish() } else { self.writer.written() };
        self.stored(written.map_err(fatal)?);
        Ok(())
    }
}

impl Partition {
    fn fold(
        &mut self,
        event: &EventView<'_>,
        origin: Origin,
        how: How,
        rows: &mut Rows<Arc<ClaimWrite>>,
        counts: &mut Counts,
    ) -> Result<Effect, ProcessError> {
        let How { visible, replayed, asked_for } = how;
        let found = self.at_hand.find(event.tenant_id, event.claim_id);
        let slot = match found {
            Some(slot) => slot,
            None => {
                let claim = self.load(event)?;
                self.at_hand.add(self.number, claim)
            }
        };
        let held = self.at_hand.get(slot);
        let (before, applied) = held.apply(event);
        let is_change = matches!(applied, Applied::Changed { .. });
        let is_entered = match applied {
            Applied::Changed { .. } => true,
            Applied::Copy => replayed || held.is_out_of_place(event),
            Applied::Superseded => false,
        };
        if !is_entered && found.is_none() {
            self.at_hand.forget(slot);
        }
        match applied {
            Applied::Superseded if (replayed || !visible) && !asked_for => {
                counts.known_conflicts += 1;
                return Ok(Effect::AlreadyThere);
            }
            Applied::Superseded => {
                return Err(ProcessError::Poison {
                    reason: REASON_SUPERSEDED,
                    detail: format!(
                        "version {} of this claim is held by another event, which came first",
                        event.version
                    ),
                });
            }
            Applied::Copy => {
                counts.copies += u64::from(!replayed);
                if !is_entered {
                    return Ok(Effect::AlreadyThere);
                }
                if !replayed || asked_for {
                    self.at_hand.get(slot).change().claim.history.add_unknown();
                }
            }
            Applied::Changed { surprise } if visible => {
                counts.changed(event, before, self.at_hand.get(slot).write.claim.state.status());
                if let Some(Surprise { what }) = surprise {
                    counts.surprises += 1;
                    let Origin { partition, offset } = origin;
                    tracing::debug!(partition, offset, what, "a step that the lifecycle doesn't foresee");
                }
            }
            Applied::Changed { .. } => {}
        }
        let mut bytes = self.enter(slot, event, visible.then_some(origin), !is_change);
        if is_change || replayed {
            // The entry of a copy was written with the first one.
            bytes += self.at_hand.get(slot).change().note(event);
        }
        rows.reserve_bytes(bytes);
        Ok(if is_change { Effect::Applied } else { Effect::AlreadyThere })
    }

    /// Enters a folded event into the open batch; answers with the bytes that this holds.
    fn enter(
        &mut self,
        slot: Slot,
        event: &EventView<'_>,
        origin: Option<Origin>,
        was_folded_before: bool,
    ) -> usize {
        let mut bytes = size_of::<Origin>();
        if !self.at_hand.get(slot).is_open {
            self.at_hand.open(slot);
            self.open.push(slot);
            let state = &self.at_hand.get(slot).write.claim;
            bytes +=
                state.approximate_bytes() + event.tenant_id.len() + event.claim_id.len() + OVERHEAD_BYTES;
        }
        let held = self.at_hand.get(slot);
        held.replayed |= was_folded_before;
        held.change().origins.extend(origin);
        bytes
    }

    /// The claim as stored.
    fn load(&mut self, event: &EventView<'_>) -> Result<Claim, ProcessError> {
        let stored = self.store.get(event.tenant_id, event.claim_id).map_err(fatal)?;
        Ok(stored.unwrap_or_else(|| Claim::empty(event.tenant_id, event.claim_id)))
    }

    fn close(&mut self, batch_id: u64, rows: &mut Rows<Arc<ClaimWrite>>, counts: &mut Counts) {
        let slots = std::mem::take(&mut self.open);
        let mut claims = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let held = self.at_hand.get(slot);
            held.complete();
            let claim = &held.write.claim;
            if let Some(what) = claim.state.contradiction() {
                counts.contradictions += 1;
                tracing::error!(
                    partition = self.number,
                    claim_id = claim.state.claim_id,
                    "inconsistent: {what}"
                );
            }
            if let Some(&last) = held.write.origins.last() {
                // What it holds was accounted for record by record.
                rows.push(last, Arc::clone(&held.write), 0);
            }
            claims.push(Arc::clone(&held.write));
            self.at_hand.close(slot, batch_id);
        }
        let retried = self.retrying.take();
        self.in_flight.push_back(Closed { batch_id, claims, slots, retried });
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
        let places: usize = self.left.iter().map(|place| place.key.capacity()).sum();
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

#[cfg(test)]
mod tests;
