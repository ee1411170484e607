//! The half of a stage that does I/O: batches in, an acknowledgement out.

use crate::{membership::Membership, record::Origin};
use std::future::Future;

/// Why a batch was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may go through later (a timeout, a server away, too many parts): tried again with backoff, under a
    /// deadline, while partitions pause.
    #[error("{0}")]
    Transient(String),
    /// The content was refused: the batch is bisected until the refused rows stand alone, and those are dead-lettered.
    #[error("{0}")]
    Poison(String),
    /// Going on would be wrong (fenced by another writer, a table of another version): the process ends.
    #[error("{0}")]
    Fatal(String),
}

/// The part of a partition that a batch covers; offsets in between may be missing from the log (compaction).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition's number.
    pub partition: i32,
    /// Offset of the first record in the batch.
    pub first_offset: i64,
    /// Offset of the last record in the batch.
    pub last_offset: i64,
    /// Number of records (rows may be fewer or more).
    pub records: u64,
}

/// What a sink is given: rows, where they come from, and what they cover. The same batch, with the same id and the
/// same rows, is given again after a transient error. Of a batch refused as [`SinkError::Poison`], the parts are given
/// one after the other: with the batch's id, and with rows and ranges of their own. A batch without rows is never given.
#[derive(Debug)]
pub struct Batch<R> {
    /// Counts up from 1 within one run of the process.
    pub id: u64,
    /// The topic that was read.
    pub topic: String,
    /// The rows.
    pub rows: Vec<R>,
    /// For each row, the record it came from (the last one, where a row stands for several).
    pub origins: Vec<Origin>,
    /// What the batch covers, one range per partition, ascending.
    pub ranges: Vec<PartitionRange>,
    /// 1 for the first try.
    pub attempt: u32,
    /// Whether this is one record given once more, below what was written long ago.
    pub is_retry: bool,
    /// Whether its partitions are still this process's.
    pub membership: Membership,
}

impl<R> Batch<R> {
    /// Drops what stems from these partitions.
    pub(crate) fn forget(&mut self, partitions: &[i32]) {
        let held = |origin: &Origin| !partitions.contains(&origin.partition);
        let mut kept = self.origins.iter().map(held).collect::<Vec<_>>().into_iter();
        self.rows.retain(|_| kept.next().unwrap_or(true));
        self.origins.retain(held);
        self.ranges.retain(|range| !partitions.contains(&range.partition));
    }
}

/// Writes batches to one system. Delivery is at least once: writing a batch again must change nothing.
pub trait Sink: Send + Sync + 'static {
    /// What a batch holds.
    type Row: Send + Sync + 'static;

    /// Partitions were assigned; called before the processor hears of them, and before their first record. For sinks that
    /// keep a position of their own.
    fn assigned(&self, partitions: &[i32]) -> impl Future<Output = Result<(), SinkError>> + Send {
        let _ = partitions;
        async { Ok(()) }
    }

    /// Partitions were taken away, after their last batch.
    fn revoked(&self, partitions: &[i32]) -> impl Future<Output = ()> + Send {
        let _ = partitions;
        async {}
    }

    /// Writes a batch; `Ok` means durable.
    fn write(&self, batch: &Batch<Self::Row>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// All records that a row stands for, where it stands for more than the one it came from: if the row is refused, so
    /// are they.
    fn folded<'a>(&self, row: &'a Self::Row) -> &'a [Origin] {
        let _ = row;
        &[]
    }

    /// How many batches may be written at the same time. More than one only where batches commute.
    fn max_batches_in_flight(&self) -> usize {
        1
    }
}
