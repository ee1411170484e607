//! A stage without its I/O: processor, open batch and ledger. The consumer loop drives it against Kafka and a sink,
//! the [test driver](crate::testing) without either.

use crate::{
    Batch, Effect, Membership, Origin, PartitionRange, ProcessError, Processor, Record, Rows,
    RuntimeSettings,
    arena::Arena,
    batcher::{BatchLimits, Batcher},
    dead_letter::{DeadLetter, REASON_UNKNOWN_SCHEMA, REASON_UPGRADE_NEEDED, Trace},
    ledger::{Admission, Committable, OffsetLedger},
};
use std::collections::BTreeMap;

/// Limits of a pipeline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PipelineLimits {
    pub batch: BatchLimits,
    pub max_dead_letter_payload_bytes: usize,
}

impl From<&RuntimeSettings> for PipelineLimits {
    fn from(settings: &RuntimeSettings) -> Self {
        Self {
            batch: BatchLimits {
                max_records: settings.max_batch_records.max(1) as u64,
                max_bytes: settings.max_batch_bytes,
                max_age_ms: settings.max_batch_age_ms,
            },
            max_dead_letter_payload_bytes: settings.max_dead_letter_payload_bytes,
        }
    }
}

/// Processor, open batch and ledger of one stage.
pub(crate) struct Pipeline<P: Processor> {
    processor: P,
    topic: String,
    limits: PipelineLimits,
    batcher: Batcher,
    rows: Rows<P::Row>,
    arena: Arena,
    /// The memory of a batch that is done with, for the next one.
    spare: Option<Arena>,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
    last_refusal: Option<&'static str>,
    oldest_append_ms: i64,
    ledger: OffsetLedger,
    /// Partitions whose state is behind: the rows of records below this offset are dropped.
    restoring: BTreeMap<i32, i64>,
    last_batch_id: u64,
}

/// Where the log of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogStart {
    pub offset: i64,
    /// Whether what was before it is done without.
    pub is_accepted: bool,
}

/// Why a partition can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssignError {
    #[error(transparent)]
    Processor(#[from] ProcessError),
    /// Records that the processor's state lacks were removed.
    #[error("the state needs the records from offset {needed}, which have left the log")]
    Removed { needed: i64 },
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is in the open batch.
    Taken,
    /// It is in the open batch as a dead letter.
    Refused,
    /// It was given before, or its partition isn't assigned: nothing happened.
    Skipped,
    /// Nothing happened; give it again when the schema is known.
    SchemaMissing(u32),
    /// Nothing happened; this build can't go on in this partition.
    UpgradeNeeded(String),
}

/// A closed batch with all that must be durable before its offsets count.
#[derive(Debug)]
pub(crate) struct ClosedBatch<R> {
    pub batch: Batch<R>,
    pub arena: Arena,
    pub dead_letters: Vec<DeadLetter>,
    pub records: u64,
    pub held_bytes: usize,
    pub oldest_append_ms: i64,
    /// Of a record given once more: by what its end is noted in the dead-letter topic.
    pub retry: Option<Trace>,
}

/// What became of a record given once more.
#[derive(Debug)]
pub(crate) enum RetryOffered<R> {
    /// It is a batch of its own, to be written.
    Taken { closed: Box<ClosedBatch<R>>, effect: Effect },
    /// It is as bad as before; nothing happened.
    Refused { reason: &'static str, detail: String },
    /// Nothing happened; give it again when the schema is known.
    SchemaMissing(u32),
    /// Its partition isn't assigned.
    NotAssigned,
    /// It wasn't given a first time yet: that is still to come.
    NotReached,
    /// The partition's state is being restored.
    Restoring,
}

impl<R> ClosedBatch<R> {
    /// Drops what stems from partitions that were taken away before the batch was written.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.batch.forget(partitions);
        self.dead_letters.retain(|letter| !partitions.contains(&letter.origin.partition));
        self.retry.take_if(|trace| partitions.contains(&trace.origin.partition));
    }
}

impl<P: Processor> Pipeline<P> {
    pub fn new(processor: P, topic: String, limits: PipelineLimits) -> Self {
        Self {
            processor,
            topic,
            limits,
            batcher: Batcher::new(limits.batch),
            rows: Rows::default(),
            arena: Arena::default(),
            spare: None,
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            last_refusal: None,
            oldest_append_ms: i64::MAX,
            ledger: OffsetLedger::new(),
            restoring: BTreeMap::new(),
            last_batch_id: 0,
        }
    }

    /// Opens a partition and returns where reading begins.
    pub fn assign(
        &mut self,
        partition: i32,
        committed: Option<i64>,
        log: LogStart,
    ) -> Result<i64, AssignError> {
        let needed = self.processor.assigned(partition, committed)?;
        let log_start = log.offset;
        // A group without an offset takes what is left, but not over state that is older than that: the offset may have
        // expired, or never have come to be, while the state stayed.
        let is_accepted = log.is_accepted && committed.is_some();
        if let Some(needed) = needed.filter(|&needed| needed < log_start && !is_accepted) {
            return Err(AssignError::Removed { needed });
        }
        let from = committed.unwrap_or(log_start);
        // No state at all (`None`) needs everything that is left.
        let start = needed.unwrap_or(log_start).clamp(log_start.min(from), from);
        if start < from {
            self.restoring.insert(partition, from);
        } else {
            self.restoring.remove(&partition);
        }
        self.ledger.assign(partition, start, committed);
        Ok(start)
    }

    /// Closes partitions. What the open batch holds of them is dropped: drain first, unless they are lost.
    pub fn revoke(&mut self, partitions: &[i32]) -> Result<(), ProcessError> {
        let held = |origin: Origin| !partitions.contains(&origin.partition);
        self.rows.retain(held);
        self.dead_letters.retain(|letter| held(letter.origin));
        for &partition in partitions {
            self.ledger.revoke(partition);
            self.restoring.remove(&partition);
            self.processor.revoked(partition)?;
        }
        if self.ledger.open_records() == 0 {
            self.rows = Rows::default();
            self.arena = Arena::default();
            self.dead_letters.clear();
            self.dead_letter_bytes = 0;
            self.oldest_append_ms = i64::MAX;
            self.batcher.closed();
        }
        Ok(())
    }

    /// Whether the rows of a partition's records are dropped still, as its state is behind.
    pub fn is_restoring(&self, partition: i32) -> bool {
        self.restoring.contains_key(&partition)
    }

    /// Gives a record to the processor. An error is final.
    #[inline]
    pub fn offer(&mut self, record: &Record<'_>) -> Result<Offered, ProcessError> {
        if self.ledger.admits(record.origin) != Admission::Admitted {
            return Ok(Offered::Skipped);
        }
        let (rows, bytes) = (self.rows.len(), self.rows.bytes());
        match self.processor.process(record, &mut self.rows) {
            Ok(()) => {
                if !self.restoring.is_empty() && self.is_restored(record.origin) {
                    self.rows.truncate(rows, self.rows.bytes());
                }
                self.arena.keep(record, self.limits.max_dead_letter_payload_bytes);
                self.charge(record);
                Ok(Offered::Taken)
            }
            Err(error) => {
                self.rows.truncate(rows, bytes);
                match error {
                    ProcessError::Poison { reason, detail } => {
                        self.refuse(record, reason, detail);
                        Ok(Offered::Refused)
                    }
                    ProcessError::SchemaMissing { schema_id } => Ok(Offered::SchemaMissing(schema_id)),
                    ProcessError::UpgradeNeeded(what) => Ok(Offered::UpgradeNeeded(what)),
                    ProcessError::Fatal(_) => Err(error),
                }
            }
        }
    }

    /// Gives a record once more that was given before, as a batch of its own. Close the open batch first. An error is
    /// final.
    pub fn retry(&mut self, record: &Record<'_>) -> Result<RetryOffered<P::Row>, ProcessError> {
        let origin = record.origin;
        match self.ledger.admits(origin) {
            Admission::NotAssigned => return Ok(RetryOffered::NotAssigned),
            Admission::Admitted => return Ok(RetryOffered::NotReached),
            Admission::AlreadyCharged => {}
        }
        if self.restoring.contains_key(&origin.partition) {
            return Ok(RetryOffered::Restoring);
        }
        let mut rows = Rows::default();
        let effect = match self.processor.retry(record, &mut rows) {
            Ok(effect) => effect,
            Err(ProcessError::Poison { reason, detail }) => {
                return Ok(RetryOffered::Refused { reason, detail });
            }
            Err(ProcessError::SchemaMissing { schema_id }) => {
                return Ok(RetryOffered::SchemaMissing(schema_id));
            }
            Err(ProcessError::UpgradeNeeded(detail)) => {
                return Ok(RetryOffered::Refused { reason: REASON_UPGRADE_NEEDED, detail });
            }
            Err(error @ ProcessError::Fatal(_)) => return Err(error),
        };
        self.last_batch_id += 1;
        let id = self.last_batch_id;
        self.processor.close_batch(id, &mut rows)?;
        self.ledger.enter_extra(id, origin.partition);
        let held_bytes = rows.bytes();
        let (rows, origins) = rows.take();
        let Origin { partition, offset } = origin;
        let ranges =
            vec![PartitionRange { partition, first_offset: offset, last_offset: offset, records: 1 }];
        let closed = Box::new(ClosedBatch {
            batch: self.batch(id, rows, origins, ranges, true),
            arena: Arena::default(),
            dead_letters: Vec::new(),
            records: 0,
            held_bytes,
            oldest_append_ms: record.appended_at_ms,
            retry: Some(Trace::retry_started(record)),
        });
        Ok(RetryOffered::Taken { closed, effect })
    }

    /// Dead-letters a record whose schema nobody has; false if it isn't to be processed at all.
    pub fn refuse_unknown_schema(&mut self, record: &Record<'_>, detail: String) -> bool {
        let is_admitted = self.ledger.admits(record.origin) == Admission::Admitted;
        if is_admitted {
            self.refuse(record, REASON_UNKNOWN_SCHEMA, detail);
        }
        is_admitted
    }

    /// Why the last refused record was refused.
    pub fn last_refusal(&self) -> Option<&'static str> {
        self.last_refusal
    }

    fn refuse(&mut self, record: &Record<'_>, reason: &'static str, detail: String) {
        self.last_refusal = Some(reason);
        // While restoring, the dead letter was written the first time.
        if !self.is_restored(record.origin) {
            let max_bytes = self.limits.max_dead_letter_payload_bytes;
            let letter = DeadLetter::of_record(record, reason, detail, max_bytes);
            self.dead_letter_bytes += letter.held_bytes();
            self.dead_letters.push(letter);
        }
        self.charge(record);
    }

    #[inline]
    fn charge(&mut self, record: &Record<'_>) {
        self.oldest_append_ms = self.oldest_append_ms.min(record.appended_at_ms);
        self.ledger.charge(record.origin);
    }

    #[inline]
    fn is_restored(&self, origin: Origin) -> bool {
        self.restoring.get(&origin.partition).is_some_and(|&until| origin.offset < until)
    }

    /// Whether the open batch takes no more.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.batcher.is_full(self.ledger.open_records(), self.open_bytes())
    }

    /// Memory held by the open batch.
    #[inline]
    pub fn open_bytes(&self) -> usize {
        self.rows.bytes() + self.arena.held_bytes() + self.dead_letter_bytes
    }

    pub fn batcher(&mut self, now_ms: u64) -> &Batcher {
        self.batcher.tick(now_ms, self.ledger.open_records());
        &self.batcher
    }

    /// Closes the open batch, if anything was charged to it.
    pub fn close(&mut self) -> Result<Option<ClosedBatch<P::Row>>, ProcessError> {
        let records = self.ledger.open_records();
        if records == 0 {
            return Ok(None);
        }
        self.last_batch_id += 1;
        let id = self.last_batch_id;
        self.processor.close_batch(id, &mut self.rows)?;
        if !self.restoring.is_empty() {
            let restoring = &self.restoring;
            self.rows.retain(|o| restoring.get(&o.partition).is_none_or(|&until| o.offset >= until));
        }
        let held_bytes = self.open_bytes();
        let ranges = self.ledger.close_batch(id);
        self.end_restoring(&ranges);
        let (rows, origins) = self.rows.take();
        let arena = self.spare.take().unwrap_or_else(|| self.arena.successor());
        let closed = ClosedBatch {
            batch: self.batch(id, rows, origins, ranges, false),
            arena: std::mem::replace(&mut self.arena, arena),
            dead_letters: std::mem::take(&mut self.dead_letters),
            records,
            held_bytes,
            oldest_append_ms: std::mem::replace(&mut self.oldest_append_ms, i64::MAX),
            retry: None,
        };
        self.dead_letter_bytes = 0;
        self.batcher.closed();
        Ok(Some(closed))
    }

    fn batch(
        &self,
        id: u64,
        rows: Vec<P::Row>,
        origins: Vec<Origin>,
        ranges: Vec<PartitionRange>,
        is_retry: bool,
    ) -> Batch<P::Row> {
        // The loop knows the group.
        let membership = Membership::default();
        Batch { id, topic: self.topic.clone(), rows, origins, ranges, attempt: 1, is_retry, membership }
    }

    fn end_restoring(&mut self, ranges: &[PartitionRange]) {
        for range in ranges {
            if self.restoring.get(&range.partition).is_some_and(|&until| range.last_offset + 1 >= until) {
                self.restoring.remove(&range.partition);
            }
        }
    }

    /// A batch is durable. Acknowledges to the processor whatever has its turn now.
    pub fn complete(&mut self, batch_id: u64) -> Result<(), ProcessError> {
        self.ledger.complete(batch_id);
        while let Some(acknowledged) = self.ledger.next_acknowledged() {
            self.processor.batch_acknowledged(acknowledged.batch_id, &acknowledged.next_offsets)?;
        }
        Ok(())
    }

    /// Gives back the memory of a batch that is done with.
    pub fn give_back(&mut self, spent: Arena) {
        self.spare = spent.emptied().or_else(|| self.spare.take());
    }

    pub fn committable(&self) -> Vec<Committable> {
        self.ledger.committable()
    }

    pub fn committed(&mut self, commits: &[Committable]) {
        commits.iter().for_each(|&commit| self.ledger.committed(commit));
    }

    pub fn ledger(&self) -> &OffsetLedger {
        &self.ledger
    }

    pub fn name(&self) -> &'static str {
        self.processor.name()
    }

    /// The processor itself, for tests that look into its state.
    pub fn processor_mut(&mut self) -> &mut P {
        &mut self.processor
    }
}
