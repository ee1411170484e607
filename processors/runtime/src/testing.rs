//! Running any processor without services.
//!
//! [`Driver`] runs a processor through the very code that runs it in production: the same open batch, the same ledger,
//! the same dead letters. Only Kafka and the sink are missing: the test gives the records, says where batches end,
//! decides what gets acknowledged, and may crash at any moment.
//!
//! ```
//! use claims_runtime::{Payload, ProcessError, Processor, Record, Rows, testing::{Driver, Outcome, TestRecord}};
//!
//! struct Lengths;
//! impl Processor for Lengths {
//!     type Row = usize;
//!     fn name(&self) -> &'static str { "lengths" }
//!     fn process(&mut self, record: &Record<'_>, rows: &mut Rows<usize>) -> Result<(), ProcessError> {
//!         if let Payload::Value(bytes) = record.payload {
//!             rows.push(record.origin, bytes.len(), 8);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut driver = Driver::new(Lengths);
//! driver.assign(0, None)?;
//! assert_eq!(driver.feed(TestRecord::value(0, 3, "abc"))?, Outcome::Taken);
//! assert_eq!(driver.feed(TestRecord::tombstone(0, 8))?, Outcome::Taken);
//! let batch = driver.close_batch()?.map(|batch| (batch.id, batch.rows));
//! assert_eq!(batch, Some((1, vec![3])));
//! driver.acknowledge(1)?;
//! assert_eq!(driver.committable(), vec![(0, 9)]);
//! # Ok::<(), ProcessError>(())
//! ```

use crate::{
    Batch, Effect, Membership, Origin, PartitionRange, ProcessError, Processor, RuntimeSettings,
    dead_letter::DeadLetter,
    pipeline::{AssignError, ClosedBatch, LogStart, Offered, Pipeline, PipelineLimits, RetryOffered},
    record::OwnedRecord,
};
use std::collections::BTreeMap;

/// A record given by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRecord(OwnedRecord);

impl TestRecord {
    /// A record with a value, without key and headers, appended at its offset in milliseconds.
    pub fn value(partition: i32, offset: i64, payload: impl Into<Vec<u8>>) -> Self {
        Self(OwnedRecord {
            origin: Origin { partition, offset },
            appended_at_ms: offset,
            key: None,
            payload: Some(payload.into()),
            headers: Vec::new(),
        })
    }

    /// A record with a null value.
    pub fn tombstone(partition: i32, offset: i64) -> Self {
        let mut record = Self::value(partition, offset, []);
        record.0.payload = None;
        record
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the broker's append time, milliseconds since the Unix epoch.
    pub fn appended_at_ms(mut self, at: i64) -> Self {
        self.0.appended_at_ms = at;
        self
    }

    /// Where it stands.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }
}

impl From<OwnedRecord> for TestRecord {
    fn from(record: OwnedRecord) -> Self {
        Self(record)
    }
}

/// What the processor did with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken (with any number of rows).
    Taken,
    /// It was refused: see [`Driver::dead_letters`].
    DeadLettered {
        /// The reason given.
        reason: &'static str,
    },
    /// Its offset was given before, or its partition isn't assigned.
    Skipped,
    /// The processor asked for this schema: make it known and feed the record again.
    SchemaMissing(u32),
    /// The processor asked for an upgrade.
    UpgradeNeeded(String),
}

/// What came of a record given once more.
#[derive(Debug)]
pub enum Again<R> {
    /// It is a batch of its own, which wants its acknowledgement.
    Batch(Batch<R>, Effect),
    /// It was refused.
    Refused {
        /// The reason given.
        reason: &'static str,
    },
    /// The processor asked for this schema.
    SchemaMissing(u32),
    /// It can't be given: its partition isn't assigned or is being restored, or its offset was never given before.
    NotNow,
}

/// What outlives a crash: the topic, and the offsets that were committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survived {
    /// Every record fed so far, in order.
    pub records: Vec<TestRecord>,
    /// Per partition assigned, the offset committed, if any was.
    pub committed: BTreeMap<i32, Option<i64>>,
}

/// Drives one processor without services. See the [module](self).
pub struct Driver<P: Processor> {
    pipeline: Pipeline<P>,
    survived: Survived,
    dead_letters: Vec<DeadLetter>,
    unacknowledged: Vec<u64>,
}

impl<P: Processor> Driver<P> {
    /// The topic's name in batches.
    pub const TOPIC: &str = "test.topic";

    /// A driver with the default limits; batches end only where the test says so.
    pub fn new(processor: P) -> Self {
        Self::with_settings(processor, &RuntimeSettings::default())
    }

    /// A driver with other limits (of dead letters, say).
    pub fn with_settings(processor: P, settings: &RuntimeSettings) -> Self {
        Self {
            pipeline: Pipeline::new(processor, Self::TOPIC.to_owned(), PipelineLimits::from(settings)),
            survived: Survived::default(),
            dead_letters: Vec::new(),
            unacknowledged: Vec::new(),
        }
    }

    /// Starts a processor anew after a crash: every partition is assigned with its committed offset, and the records
    /// from where the processor needs them are fed again into one open batch.
    pub fn restart(processor: P, survived: Survived) -> Result<Self, ProcessError> {
        let mut driver = Self::new(processor);
        let mut starts = BTreeMap::new();
        for (&partition, &committed) in &survived.committed {
            starts.insert(partition, driver.assign(partition, committed)?);
        }
        for record in &survived.records {
            if starts.get(&record.origin().partition).is_some_and(|&start| record.origin().offset >= start) {
                driver.give(record)?;
            }
        }
        driver.survived = survived;
        Ok(driver)
    }

    /// Assigns a partition that starts at offset 0; returns where reading begins. Below `committed` the processor's
    /// state is restored: rows and dead letters of such records are dropped.
    pub fn assign(&mut self, partition: i32, committed: Option<i64>) -> Result<i64, ProcessError> {
        let log = LogStart { offset: 0, is_accepted: true };
        let start = self.pipeline.assign(partition, committed, log).map_err(|error| match error {
            AssignError::Processor(error) => error,
            error @ AssignError::Removed { .. } => ProcessError::Fatal(error.to_string()),
        })?;
        self.survived.committed.insert(partition, committed);
        Ok(start)
    }

    /// Takes a partition away; what isn't acknowledged never will be.
    pub fn revoke(&mut self, partition: i32) -> Result<(), ProcessError> {
        self.pipeline.revoke(&[partition])
    }

    /// Gives one record. An error is a fatal one.
    pub fn feed(&mut self, record: TestRecord) -> Result<Outcome, ProcessError> {
        let outcome = self.give(&record)?;
        if matches!(outcome, Outcome::Taken | Outcome::DeadLettered { .. }) {
            self.survived.records.push(record);
        }
        Ok(outcome)
    }

    fn give(&mut self, record: &TestRecord) -> Result<Outcome, ProcessError> {
        Ok(match self.pipeline.offer(&record.0.as_record())? {
            Offered::Taken => Outcome::Taken,
            Offered::Refused => {
                Outcome::DeadLettered { reason: self.pipeline.last_refusal().unwrap_or_default() }
            }
            Offered::Skipped => Outcome::Skipped,
            Offered::SchemaMissing(id) => Outcome::SchemaMissing(id),
            Offered::UpgradeNeeded(what) => Outcome::UpgradeNeeded(what),
        })
    }

    /// Closes the open batch and returns it, as a sink would be given it. `None` if there was no record since the
    /// last one. A batch without rows is returned too (a sink would not see it) and wants its acknowledgement.
    pub fn close_batch(&mut self) -> Result<Option<Batch<P::Row>>, ProcessError> {
        let Some(ClosedBatch { batch, dead_letters, arena, .. }) = self.pipeline.close()? else {
            return Ok(None);
        };
        self.pipeline.give_back(arena);
        self.dead_letters.extend(dead_letters);
        self.unacknowledged.push(batch.id);
        Ok(Some(batch))
    }

    /// Gives a record once more, below the offsets given by now. The open batch must be closed.
    pub fn retry(&mut self, record: &TestRecord) -> Result<Again<P::Row>, ProcessError> {
        Ok(match self.pipeline.retry(&record.0.as_record())? {
            RetryOffered::Taken { closed, effect } => {
                self.unacknowledged.push(closed.batch.id);
                Again::Batch(closed.batch, effect)
            }
            RetryOffered::Refused { reason, .. } => Again::Refused { reason },
            RetryOffered::SchemaMissing(id) => Again::SchemaMissing(id),
            RetryOffered::NotAssigned | RetryOffered::NotReached | RetryOffered::Restoring => Again::NotNow,
        })
    }

    /// The batch is durable. In any order; the processor hears of it in the order of ids.
    pub fn acknowledge(&mut self, batch_id: u64) -> Result<(), ProcessError> {
        self.unacknowledged.retain(|&id| id != batch_id);
        self.pipeline.complete(batch_id)
    }

    /// Acknowledges every closed batch.
    pub fn acknowledge_all(&mut self) -> Result<(), ProcessError> {
        std::mem::take(&mut self.unacknowledged).into_iter().try_for_each(|id| self.pipeline.complete(id))
    }

    /// What may be committed now and isn't yet: partition and next offset, ascending.
    pub fn committable(&self) -> Vec<(i32, i64)> {
        self.pipeline.committable().iter().map(|c| (c.partition, c.next_offset)).collect()
    }

    /// Commits what may be committed.
    pub fn commit(&mut self) {
        let commits = self.pipeline.committable();
        self.pipeline.committed(&commits);
        for commit in commits {
            self.survived.committed.insert(commit.partition, Some(commit.next_offset));
        }
    }

    /// Feeds all records, closing, acknowledging and committing a batch after every `batch_records` of them and at
    /// the end. Returns all rows with their origins.
    pub fn run(
        &mut self,
        records: impl IntoIterator<Item = TestRecord>,
        batch_records: usize,
    ) -> Result<Vec<(Origin, P::Row)>, ProcessError> {
        let mut rows = Vec::new();
        for (i, record) in records.into_iter().enumerate() {
            self.feed(record)?;
            if (i + 1) % batch_records.max(1) == 0 {
                self.flush(&mut rows)?;
            }
        }
        self.flush(&mut rows)?;
        Ok(rows)
    }

    fn flush(&mut self, rows: &mut Vec<(Origin, P::Row)>) -> Result<(), ProcessError> {
        if let Some(batch) = self.close_batch()? {
            rows.extend(batch.origins.into_iter().zip(batch.rows));
        }
        self.acknowledge_all()?;
        self.commit();
        Ok(())
    }

    /// The dead letters of all closed batches so far.
    pub fn dead_letters(&self) -> &[DeadLetter] {
        &self.dead_letters
    }

    /// The processor.
    pub fn processor(&mut self) -> &mut P {
        self.pipeline.processor_mut()
    }

    /// Drops the processor with its open and unacknowledged batches; what Kafka keeps survives.
    pub fn crash(self) -> Survived {
        self.survived
    }
}

/// A batch as a sink is given it, made by hand: for tests of sinks. Ranges are derived from the origins.
pub fn batch<R>(id: u64, rows: impl IntoIterator<Item = (Origin, R)>) -> Batch<R> {
    let (origins, rows): (Vec<Origin>, Vec<R>) = rows.into_iter().unzip();
    Batch {
        id,
        topic: "test.topic".to_owned(),
        ranges: crate::delivery::ranges_of(&origins),
        rows,
        origins,
        attempt: 1,
        is_retry: false,
        membership: Membership::default(),
    }
}

/// A range, spelled briefly.
pub fn range(partition: i32, first_offset: i64, last_offset: i64, records: u64) -> PartitionRange {
    PartitionRange { partition, first_offset, last_offset, records }
}

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
