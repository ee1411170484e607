//! Whether what was read, what was sent to the sink and what was committed fit together. Pure.
//!
//! A check beside the [ledger](crate::ledger), which doesn't use its arithmetic: it is told of every record as it is
//! given out, of every batch as the sink is given it, of every acknowledgement and of every commit that Kafka took.
//! Whatever it finds is a bug, here or in a processor; it is counted in
//! [`claims_inconsistencies_total`](crate::metrics::INCONSISTENCIES) and logged, and stops nothing.
//!
//! Offsets missing from the log (compaction) are no gap: what counts is what was read. An offset reset by whomever shows
//! at the next assignment, with which the account begins anew.

use crate::{Origin, PartitionRange};
use std::collections::VecDeque;

/// What doesn't fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Records were read and are in no batch.
    Gap,
    /// A record was given out twice, or is in two batches, or in one without having been read.
    Overlap,
    /// A batch holds a row of a record that it doesn't cover.
    StrayRow,
    /// A commit beyond what the sink has acknowledged, up to there without a gap.
    CommitAhead,
    /// A commit below an earlier one of the same assignment.
    CommitBackward,
}

impl Kind {
    /// The word in the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Gap => "gap",
            Kind::Overlap => "overlap",
            Kind::StrayRow => "stray-row",
            Kind::CommitAhead => "commit-ahead",
            Kind::CommitBackward => "commit-backward",
        }
    }
}

/// One thing that doesn't fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inconsistency {
    /// What kind of thing.
    pub kind: Kind,
    /// Where.
    pub partition: i32,
    /// In words.
    pub detail: String,
}

impl Inconsistency {
    fn new(kind: Kind, partition: i32, detail: String) -> Self {
        Self { kind, partition, detail }
    }
}

/// The account of one consumer.
#[derive(Debug, Default)]
pub struct RangeChecker {
    /// Indexed by partition number: a record costs no search.
    held: Vec<Option<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Read and in no batch yet.
    open: Option<Tally>,
    /// The lowest offset that may be read next.
    next_read: i64,
    /// Batches given to the sink: id, offset after the last record, whether acknowledged.
    sent: VecDeque<(u64, i64, bool)>,
    /// Everything below is acknowledged; `None` before the first acknowledgement.
    durable: Option<i64>,
    committed: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    first: i64,
    last: i64,
    records: u64,
}

impl RangeChecker {
    /// A partition was assigned: reading begins at `start`, and the group has committed `committed`.
    pub fn assigned(&mut self, partition: i32, start: i64, committed: Option<i64>) {
        let Ok(index) = usize::try_from(partition) else { return };
        if self.held.len() <= index {
            self.held.resize_with(index + 1, || None);
        }
        self.held[index] = Some(Held { next_read: start, committed, ..Held::default() });
    }

    /// A partition was taken away.
    pub fn revoked(&mut self, partition: i32) {
        if let Some(held) = usize::try_from(partition).ok().and_then(|i| self.held.get_mut(i)) {
            *held = None;
        }
    }

    /// A record was given to the processor, and taken or refused.
    #[inline]
    pub fn read(&mut self, origin: Origin) -> Option<Inconsistency> {
        let held = self.held_mut(origin.partition)?;
        let Origin { partition, offset } = origin;
        if offset < held.next_read {
            let detail = format!("offset {offset} was given out again; {} was next", held.next_read);
            return Some(Inconsistency::new(Kind::Overlap, partition, detail));
        }
        held.next_read = offset + 1;
        match &mut held.open {
            Some(open) => {
                open.last = offset;
                open.records += 1;
            }
            open => *open = Some(Tally { first: offset, last: offset, records: 1 }),
        }
        None
    }

    /// A batch is on its way to the sink: what it covers, and the origins of its rows.
    pub fn sent(
        &mut self,
        batch_id: u64,
        ranges: &[PartitionRange],
        origins: &[Origin],
    ) -> Vec<Inconsistency> {
        let mut found = Vec::new();
        for range in ranges {
            let partition = range.partition;
            let Some(held) = self.held_mut(partition) else { continue };
            let told = Tally { first: range.first_offset, last: range.last_offset, records: range.records };
            let read = held.open.take();
            if read != Some(told) {
                let kind = match read {
                    Some(read) if read.records > told.records => Kind::Gap,
                    _ => Kind::Overlap,
                };
                let detail = format!("batch {batch_id} covers {told:?}, and {read:?} was read");
                found.push(Inconsistency::new(kind, partition, detail));
            }
            held.sent.push_back((batch_id, range.last_offset + 1, false));
        }
        for (partition, held) in (0..).zip(&mut self.held) {
            if let Some(read) = held.as_mut().and_then(|held| held.open.take()) {
                let detail = format!("{read:?} was read, and batch {batch_id} covers nothing of it");
                found.push(Inconsistency::new(Kind::Gap, partition, detail));
            }
        }
        let covers = |origin: &Origin| {
            ranges.iter().any(|range| {
                range.partition == origin.partition
                    && (range.first_offset..=range.last_offset).contains(&origin.offset)
            })
        };
        if let Some(stray) = origins.iter().find(|origin| !covers(origin)) {
            let detail =
                format!("batch {batch_id} holds a row of offset {}, which it doesn't cover", stray.offset);
            found.push(Inconsistency::new(Kind::StrayRow, stray.partition, detail));
        }
        found
    }

    /// Everything of a batch is durable.
    pub fn acknowledged(&mut self, batch_id: u64) {
        for held in self.held.iter_mut().flatten() {
            held.sent.iter_mut().filter(|(id, ..)| *id == batch_id).for_each(|(_, _, done)| *done = true);
            while let Some((_, end, _)) = held.sent.pop_front_if(|(_, _, done)| *done) {
                held.durable = Some(end);
            }
        }
    }

    /// Kafka has taken a commit of the present assignment.
    pub fn committed(&mut self, partition: i32, next_offset: i64) -> Option<Inconsistency> {
        let held = self.held_mut(partition)?;
        let before = held.committed.replace(next_offset);
        if held.durable.is_none_or(|durable| next_offset > durable) {
            let detail = format!("{next_offset} was committed, and only {:?} is acknowledged", held.durable);
            return Some(Inconsistency::new(Kind::CommitAhead, partition, detail));
        }
        if let Some(before) = before.filter(|&before| next_offset < before) {
            let detail = format!("{next_offset} was committed after {before}");
            return Some(Inconsistency::new(Kind::CommitBackward, partition, detail));
        }
        None
    }

    #[inline]
    fn held_mut(&mut self, partition: i32) -> Option<&mut Held> {
        self.held.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
