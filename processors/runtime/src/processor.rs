//! The pure half of a stage: records in, rows out, state in hand.

use crate::record::{Origin, Record};

/// Why a record could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// The record is bad: it goes to the dead-letter topic, and the stage goes on.
    #[error("{reason}: {detail}")]
    Poison {
        /// A stable word for metrics and filters, such as `malformed` or `superseded`.
        reason: &'static str,
        /// What was wrong, without personal data.
        detail: String,
    },
    /// The writer's schema must be fetched first; the runtime does so and gives the record again.
    #[error("schema {schema_id} is not known yet")]
    SchemaMissing {
        /// The id that the record's framing names.
        schema_id: u32,
    },
    /// The record uses what this build doesn't know: its partition pauses until an upgrade.
    #[error("{0}")]
    UpgradeNeeded(String),
    /// The stage can't go on (its store is broken, say): the process ends with an error.
    #[error("{0}")]
    Fatal(String),
}

/// One stage's logic. Synchronous, without I/O but for its own local store; one instance per process and stage,
/// called from the one task that owns all consumer state.
///
/// The runtime calls, in this order: `assigned` for each partition, then for each record `process`, now and then
/// `close_batch`, and for each closed batch in order `batch_acknowledged` once the sink has it; `revoked` when a
/// partition goes, after its batches are acknowledged (or given up, when the assignment was lost).
pub trait Processor: Send + 'static {
    /// What the sink writes.
    type Row: Send + Sync + 'static;

    /// The stage's name: part of the consumer group, a metrics label, a header of dead letters.
    fn name(&self) -> &'static str;

    /// A partition was assigned; consumption starts at `next_offset` (`None`: no committed offset, from the
    /// beginning). Answers with the offset that the processor's own state needs next. If that is lower, the runtime
    /// gives the records in between first and drops their rows: they are in the views already, only the state isn't.
    ///
    /// With nothing committed reading begins at the start of the log, whatever the answer. It only tells whether that will
    /// do: where the log begins after the offset that the state needs, the stage stops instead. `None` means that there is
    /// no state, or that it needs whatever is left: it is never refused.
    fn assigned(&mut self, partition: i32, next_offset: Option<i64>) -> Result<Option<i64>, ProcessError> {
        let _ = partition;
        Ok(next_offset)
    }

    /// A partition was taken away; its state must be closed and everything held for it, in open and in
    /// unacknowledged batches, forgotten. Batches not acknowledged by now never will be for this partition: where
    /// one also covers partitions that are kept, its acknowledgement names only those.
    fn revoked(&mut self, partition: i32) -> Result<(), ProcessError> {
        let _ = partition;
        Ok(())
    }

    /// Takes one record. Rows are either pushed at once, or, by a processor that writes only the last state of a
    /// batch, accounted for with [`Rows::reserve_bytes`] and pushed in [`close_batch`](Self::close_batch).
    /// On an error nothing of the record may remain in rows or state.
    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError>;

    /// Takes a record once more that was refused before, while later ones are long through: somebody asks for it, since
    /// the code was mended or a schema has come. As [`process`](Self::process), in a batch of its own, and whatever is
    /// known about its offset doesn't count: its rows are to be written. Says whether the state held it already.
    fn retry(&mut self, record: &Record<'_>, rows: &mut Rows<Self::Row>) -> Result<Effect, ProcessError> {
        self.process(record, rows).map(|()| Effect::Applied)
    }

    /// The batch is full: last chance to push rows into it.
    fn close_batch(&mut self, batch_id: u64, rows: &mut Rows<Self::Row>) -> Result<(), ProcessError> {
        let _ = (batch_id, rows);
        Ok(())
    }

    /// Everything in this batch is durable in the sink (or was dropped, while restoring), and `next_offsets` (partition,
    /// offset after the batch's last record) may be written to the processor's store, at once or some time later: a store
    /// that is behind the commit is given the missing records again. Only what a retried record left must be durable
    /// before this returns, and everything of a partition before [`revoked`](Self::revoked) does. Called in the order of
    /// batch ids, before the commit.
    fn batch_acknowledged(&mut self, batch_id: u64, next_offsets: &[(i32, i64)]) -> Result<(), ProcessError> {
        let _ = (batch_id, next_offsets);
        Ok(())
    }
}

/// What a record given once more does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is new to the processor, or the processor keeps no state by which to tell.
    Applied,
    /// The state held it already; its rows are written again.
    AlreadyThere,
}

/// The rows of the open batch, each with the record it came from.
#[derive(Debug)]
pub struct Rows<R> {
    rows: Vec<R>,
    origins: Vec<Origin>,
    bytes: usize,
}

impl<R> Default for Rows<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), origins: Vec::new(), bytes: 0 }
    }
}

impl<R> Rows<R> {
    /// Adds a row made from the record at `origin`; `bytes` is about what it holds in memory.
    pub fn push(&mut self, origin: Origin, row: R, bytes: usize) {
        self.rows.push(row);
        self.origins.push(origin);
        self.bytes += bytes;
    }

    /// Accounts for memory that the processor holds for this batch without a row yet.
    pub fn reserve_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row yet.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About how much memory the batch holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the rows and their origins (equally many), leaving none, and room for as many: rows are not copied again and
    /// again while the next batch grows.
    pub fn take(&mut self) -> (Vec<R>, Vec<Origin>) {
        self.bytes = 0;
        let room = self.rows.len();
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(room));
        (rows, std::mem::replace(&mut self.origins, Vec::with_capacity(room)))
    }

    /// Keeps only the rows whose origin satisfies `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(Origin) -> bool) {
        let mut kept = self.origins.iter().map(|&origin| keep(origin)).collect::<Vec<_>>().into_iter();
        self.rows.retain(|_| kept.next().unwrap_or(true));
        self.origins.retain(|&origin| keep(origin));
    }

    /// Drops what was pushed after the first `len` rows: a record that failed half-way leaves nothing.
    pub fn truncate(&mut self, len: usize, bytes: usize) {
        self.rows.truncate(len);
        self.origins.truncate(len);
        self.bytes = bytes;
    }
}
