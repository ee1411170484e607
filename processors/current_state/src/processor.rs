//! The pure half of the stage: folds events into claims, and writes each changed claim once per batch.

use crate::{
    claim::Claim,
    metrics as names,
    places::{Place, Values},
    store::{PartitionStore, StateStore, StoreError},
    words::TimelineEntry,
};
use claims_runtime::{Origin, Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{
    DecodeError, Event, EventType, SchemaCache, Status, Timestamp, fold::Applied, validate::validate,
};
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
}

/// The processor.
pub struct CurrentState {
    schemas: SchemaCache,
    store: StateStore,
    partitions: HashMap<i32, Partition>,
    counts: Counts,
}

/// Claims by `tenant:claim_id`.
type ByClaim<T> = HashMap<Box<[u8]>, T>;

struct Partition {
    store: PartitionStore,
    /// Records below this offset are given to fill the store only: their rows are in the views, their conflicts in the
    /// dead letters.
    restored_below: i64,
    /// Records below this offset are in the store already: they are given again because offsets were reset, or
    /// because of a crash before the commit. Their claims are written again from the present state.
    replayed_below: i64,
    open: ByClaim<OpenClaim>,
    /// Closed batches that the sink has not acknowledged yet, oldest first.
    in_flight: VecDeque<(u64, ByClaim<Arc<ClaimWrite>>)>,
}

/// A claim that the open batch changes.
struct OpenClaim {
    claim: Claim,
    /// What it stood under before the batch and within it.
    values: Values,
    timeline: Vec<TimelineEntry>,
    last: Origin,
    /// Whether any of its records is more than a filling of the store.
    visible: bool,
    /// Whether any of its records was folded before. Whatever was lost of its rows meanwhile, or left behind by offsets
    /// that had jumped forward, is put right: all of its earlier places are deleted.
    replayed: bool,
}

/// Counted without a metrics call per record.
#[derive(Default)]
struct Counts {
    surprises: u64,
    copies: u64,
    known_conflicts: u64,
    created: u64,
    status_changes: [u64; Status::ALL.len()],
}

impl CurrentState {
    /// A processor over the local store; `schemas` is filled by the stage's resolver.
    pub fn new(schemas: SchemaCache, store: StateStore) -> Self {
        Self { schemas, store, partitions: HashMap::new(), counts: Counts::default() }
    }

    fn decode(&self, value: &[u8], now: Timestamp) -> Result<Event, ProcessError> {
        let event = self.schemas.decode(value).map_err(|error| match error {
            DecodeError::Malformed(detail) => ProcessError::Poison { reason: REASON_MALFORMED, detail },
            DecodeError::SchemaMissing(schema_id) => ProcessError::SchemaMissing { schema_id },
            DecodeError::UpgradeNeeded(_) => ProcessError::UpgradeNeeded(error.to_string()),
        })?;
        validate(&event, now)
            .map_err(|error| ProcessError::Poison { reason: REASON_INVALID, detail: error.to_string() })?;
        Ok(event)
    }
}

impl Processor for CurrentState {
    type Row = Arc<ClaimWrite>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn assigned(&mut self, partition: i32, next_offset: Option<i64>) -> Result<Option<i64>, ProcessError> {
        let store = self.store.partition(partition).map_err(fatal)?;
        let stored = store.next_offset().unwrap_or(0);
        self.partitions.insert(
            partition,
            Partition {
                store,
                restored_below: next_offset.unwrap_or(0),
                replayed_below: stored,
                open: HashMap::new(),
                in_flight: VecDeque::new(),
            },
        );
        Ok(next_offset.map(|next_offset| next_offset.min(stored)))
    }

    fn revoked(&mut self, partition: i32) -> Result<(), ProcessError> {
        self.partitions.remove(&partition);
        Ok(())
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError> {
        let value = match record.payload {
            Payload::Value(value) => value,
            // An erased event's record; the claim itself hears of it by `ClaimErased`.
            Payload::Tombstone => return Ok(()),
        };
        // By the record's own time: the same record is judged the same in every replay.
        let event = self.decode(value, Timestamp(record.appended_at_ms))?;
        let partition = self.partitions.get_mut(&record.origin.partition).ok_or_else(|| {
            ProcessError::Fatal(format!(
                "a record of partition {}, which is not assigned",
                record.origin.partition
            ))
        })?;
        partition.fold(&event, record.origin, rows, &mut self.counts)
    }

    fn close_batch(&mut self, batch_id: u64, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError> {
        for (&number, partition) in &mut self.partitions {
            if !partition.open.is_empty() {
                partition.close(number, batch_id, rows);
            }
        }
        self.counts.publish();
        let held: usize = self.partitions.values().map(Partition::claims_in_flight).sum();
        metrics::gauge!(names::CLAIMS_IN_MEMORY, names::PROCESSOR => NAME).set(held as f64);
        Ok(())
    }

    fn batch_acknowledged(&mut self, batch_id: u64, next_offsets: &[(i32, i64)]) -> Result<(), ProcessError> {
        let mut write = self.store.write();
        for &(number, next_offset) in next_offsets {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            while partition.in_flight.front().is_some_and(|(id, _)| *id <= batch_id) {
                let Some((_, claims)) = partition.in_flight.pop_front() else { break };
                for (key, row) in &claims {
                    write.claim(&partition.store, key, &row.claim);
                }
            }
            write.next_offset(&mut partition.store, next_offset);
        }
        write.commit().map_err(fatal)
    }
}

impl Partition {
    fn fold(
        &mut self,
        event: &Event,
        origin: Origin,
        rows: &mut Rows<Arc<ClaimWrite>>,
        counts: &mut Counts,
    ) -> Result<(), ProcessError> {
        let key = event.partition_key().into_bytes();
        let visible = origin.offset >= self.restored_below;
        let replayed = origin.offset < self.replayed_below;
        let mut loaded = None;
        let held = match self.open.get_mut(key.as_slice()) {
            Some(held) => held,
            None => loaded.insert(OpenClaim::new(self.load(&key, event)?, origin)),
        };
        let before = held.claim.state.status();
        match held.claim.apply(event) {
            Applied::Superseded if replayed || !visible => {
                counts.known_conflicts += 1;
                return Ok(());
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
            Applied::Copy if !replayed => {
                counts.copies += 1;
                return Ok(());
            }
            Applied::Copy => held.replayed = true,
            Applied::Changed { surprise } => {
                held.values.add_event(event);
                if visible {
                    counts.changed(event, before, held.claim.state.status());
                    if let Some(surprise) = surprise {
                        counts.surprises += 1;
                        let what = surprise.what;
                        tracing::debug!(
                            origin.partition,
                            origin.offset,
                            what,
                            "a step that the lifecycle doesn't foresee"
                        );
                    }
                }
            }
        }
        held.last = origin;
        held.visible |= visible;
        let mut bytes = held.note(event);
        if let Some(held) = loaded {
            bytes += held.claim.approximate_bytes() + key.len() + OVERHEAD_BYTES;
            self.open.insert(key.into_boxed_slice(), held);
        }
        rows.reserve_bytes(bytes);
        Ok(())
    }

    /// The claim as the newest batch that holds it left it, or else as stored.
    fn load(&self, key: &[u8], event: &Event) -> Result<Claim, ProcessError> {
        if let Some(row) = self.in_flight.iter().rev().find_map(|(_, claims)| claims.get(key)) {
            return Ok(row.claim.clone());
        }
        let stored = self.store.get(key).map_err(fatal)?;
        Ok(stored.unwrap_or_else(|| Claim::empty(&event.tenant_id, &event.claim_id)))
    }

    fn close(&mut self, number: i32, batch_id: u64, rows: &mut Rows<Arc<ClaimWrite>>) {
        let mut closed = HashMap::with_capacity(self.open.len());
        for (key, held) in self.open.drain() {
            let OpenClaim { mut claim, values, timeline, last, visible, replayed } = held;
            claim.ever_set.add_state(&claim.state);
            let values = if claim.disordered || replayed { &claim.history } else { &values };
            let left = values.left(&claim.state);
            let row = Arc::new(ClaimWrite { partition: number, claim, left, timeline });
            if visible {
                // What it holds was accounted for record by record.
                rows.push(last, Arc::clone(&row), 0);
            }
            closed.insert(key, row);
        }
        self.in_flight.push_back((batch_id, closed));
    }

    fn claims_in_flight(&self) -> usize {
        self.open.len() + self.in_flight.iter().map(|(_, claims)| claims.len()).sum::<usize>()
    }
}

impl OpenClaim {
    fn new(claim: Claim, last: Origin) -> Self {
        let mut values = Values::default();
        if claim.state.revision() > 0 {
            values.add_state(&claim.state);
        }
        Self { claim, values, timeline: Vec::new(), last, visible: false, replayed: false }
    }

    /// Adds the event's timeline entry; of an erased claim only its erasure is told. Answers with the bytes held.
    fn note(&mut self, event: &Event) -> usize {
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
}

impl Counts {
    fn changed(&mut self, event: &Event, before: Status, after: Status) {
        if event.event_type() == EventType::ClaimCreated {
            self.created += 1;
        }
        let position = Status::ALL.iter().position(|&status| status == after);
        if let Some(i) = position.filter(|_| before != after) {
            self.status_changes[i] += 1;
        }
    }

    fn publish(&mut self) {
        let counts = std::mem::take(self);
        metrics::counter!(names::SURPRISES_TOTAL, names::PROCESSOR => NAME).increment(counts.surprises);
        metrics::counter!(names::COPIES_TOTAL, names::PROCESSOR => NAME).increment(counts.copies);
        metrics::counter!(names::KNOWN_CONFLICTS_TOTAL, names::PROCESSOR => NAME)
            .increment(counts.known_conflicts);
        metrics::counter!(names::CLAIMS_CREATED_TOTAL, names::PROCESSOR => NAME).increment(counts.created);
        for (status, count) in Status::ALL.iter().zip(counts.status_changes) {
            if count > 0 {
                metrics::counter!(names::STATUS_CHANGES_TOTAL, "to_status" => status.as_str())
                    .increment(count);
            }
        }
    }
}

fn fatal(error: StoreError) -> ProcessError {
    ProcessError::Fatal(error.to_string())
}
