//! Which offsets were given out, which of them are durable, and what may therefore be committed.
//!
//! Pure. Every offset that a processor was given is charged here (tombstones and refused records too) to the open
//! batch; offsets missing from a compacted log are simply never charged. Batches complete in any order and are
//! acknowledged in the order of their ids, so what is acknowledged is, for every partition, the contiguous completed
//! frontier. A partition that is taken away and comes back gets a new epoch: what is still in flight from the older one
//! counts for nothing.

use crate::{Origin, PartitionRange};
use std::collections::VecDeque;

/// The account of one consumer's offsets.
#[derive(Debug, Default)]
pub struct OffsetLedger {
    /// Indexed by partition number, so that charging a record costs no search.
    slots: Vec<Option<Slot>>,
    batches: VecDeque<Entry>,
    last_epoch: u64,
    open_records: u64,
}

#[derive(Debug)]
struct Slot {
    epoch: u64,
    /// Where reading began.
    start: i64,
    /// The lowest offset that may be charged next.
    position: i64,
    open: Option<PartitionRange>,
    /// The offset after the last acknowledged record.
    frontier: Option<i64>,
    committed: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    batch_id: u64,
    ranges: Vec<(u64, PartitionRange)>,
    /// Epoch and partition of a record given once more: it charges no offset.
    extra: Option<(u64, i32)>,
    completed: bool,
}

/// A batch whose turn to be acknowledged has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The batch.
    pub batch_id: u64,
    /// For every partition still held: the offset after the batch's last record.
    pub next_offsets: Vec<(i32, i64)>,
}

/// What may be committed of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committable {
    /// The partition.
    pub partition: i32,
    /// The assignment that it belongs to.
    pub epoch: u64,
    /// The offset to commit: the next one to be read after a restart.
    pub next_offset: i64,
}

/// What the ledger says to an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may be given out.
    Admitted,
    /// It was given out before in this assignment.
    AlreadyCharged,
    /// Its partition isn't assigned.
    NotAssigned,
}

impl OffsetLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a partition: reading starts at `start`, and `committed` is what the group has committed so far. Returns
    /// the assignment's epoch.
    pub fn assign(&mut self, partition: i32, start: i64, committed: Option<i64>) -> u64 {
        self.revoke(partition);
        let Ok(index) = usize::try_from(partition) else { return 0 };
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.last_epoch += 1;
        self.slots[index] = Some(Slot {
            epoch: self.last_epoch,
            start,
            position: start,
            open: None,
            frontier: None,
            committed,
        });
        self.last_epoch
    }

    /// Forgets a partition, in the open and in every unacknowledged batch.
    pub fn revoke(&mut self, partition: i32) {
        let Some(slot) = usize::try_from(partition).ok().and_then(|i| self.slots.get_mut(i)) else { return };
        if let Some(open) = slot.take().and_then(|slot| slot.open) {
            self.open_records -= open.records;
        }
        for entry in &mut self.batches {
            entry.ranges.retain(|(_, range)| range.partition != partition);
            entry.extra.take_if(|(_, held)| *held == partition);
        }
        self.batches.retain(|entry| !entry.ranges.is_empty() || entry.extra.is_some());
    }

    /// Whether an offset may be given out.
    pub fn admits(&self, origin: Origin) -> Admission {
        match self.slot(origin.partition) {
            None => Admission::NotAssigned,
            Some(slot) if origin.offset < slot.position => Admission::AlreadyCharged,
            Some(_) => Admission::Admitted,
        }
    }

    /// Charges an offset to the open batch. Changes nothing unless it is admitted.
    pub fn charge(&mut self, origin: Origin) -> Admission {
        let Some(slot) = self.slot_mut(origin.partition) else { return Admission::NotAssigned };
        if origin.offset < slot.position {
            return Admission::AlreadyCharged;
        }
        slot.position = origin.offset + 1;
        match &mut slot.open {
            Some(range) => {
                range.last_offset = origin.offset;
                range.records += 1;
            }
            open => {
                *open = Some(PartitionRange {
                    partition: origin.partition,
                    first_offset: origin.offset,
                    last_offset: origin.offset,
                    records: 1,
                });
            }
        }
        self.open_records += 1;
        Admission::Admitted
    }

    /// Number of records charged to the open batch.
    pub fn open_records(&self) -> u64 {
        self.open_records
    }

    /// Closes the open batch under `batch_id` (greater than any before) and returns what it covers, ascending by
    /// partition. Does nothing when nothing was charged.
    pub fn close_batch(&mut self, batch_id: u64) -> Vec<PartitionRange> {
        let ranges: Vec<_> = self
            .slots
            .iter_mut()
            .flatten()
            .filter_map(|slot| slot.open.take().map(|range| (slot.epoch, range)))
            .collect();
        self.open_records = 0;
        let covered = ranges.iter().map(|&(_, range)| range).collect();
        if !ranges.is_empty() {
            self.batches.push_back(Entry { batch_id, ranges, extra: None, completed: false });
        }
        covered
    }

    /// Enters a batch with one record given once more, below what was given out. It has its turn like any other, and
    /// moves no offset. False, and nothing happens, if the partition isn't assigned.
    pub fn enter_extra(&mut self, batch_id: u64, partition: i32) -> bool {
        let Some(epoch) = self.slot(partition).map(|slot| slot.epoch) else { return false };
        let extra = Some((epoch, partition));
        self.batches.push_back(Entry { batch_id, ranges: Vec::new(), extra, completed: false });
        true
    }

    /// Marks a batch as durable. False if nothing of it counts any more.
    pub fn complete(&mut self, batch_id: u64) -> bool {
        match self.batches.iter_mut().find(|entry| entry.batch_id == batch_id) {
            Some(entry) => {
                entry.completed = true;
                true
            }
            None => false,
        }
    }

    /// The next batch in order, if it is complete; its offsets become committable.
    pub fn next_acknowledged(&mut self) -> Option<Acknowledged> {
        let entry = self.batches.pop_front_if(|entry| entry.completed)?;
        let mut next_offsets = Vec::with_capacity(entry.ranges.len());
        for (epoch, range) in entry.ranges {
            if let Some(slot) = self.slot_mut(range.partition).filter(|slot| slot.epoch == epoch) {
                slot.frontier = Some(range.last_offset + 1);
                next_offsets.push((range.partition, range.last_offset + 1));
            }
        }
        if let Some((epoch, partition)) = entry.extra
            && self.slot(partition).is_some_and(|slot| slot.epoch == epoch)
            && let Some(offset) = self.durable_offset(partition)
        {
            next_offsets.push((partition, offset));
        }
        Some(Acknowledged { batch_id: entry.batch_id, next_offsets })
    }

    /// Everything acknowledged beyond what is committed.
    pub fn committable(&self) -> Vec<Committable> {
        self.held()
            .filter_map(|(partition, slot)| {
                let next_offset = slot.frontier?;
                let ahead = slot.committed.is_none_or(|committed| next_offset > committed);
                ahead.then_some(Committable { partition, epoch: slot.epoch, next_offset })
            })
            .collect()
    }

    /// Notes that Kafka has taken a commit. One from an older assignment is ignored.
    pub fn committed(&mut self, commit: Committable) {
        if let Some(slot) = self.slot_mut(commit.partition).filter(|slot| slot.epoch == commit.epoch) {
            slot.committed = Some(slot.committed.map_or(commit.next_offset, |c| c.max(commit.next_offset)));
        }
    }

    /// Whether any offset of the partition was given out and isn't acknowledged.
    pub fn is_outstanding(&self, partition: i32) -> bool {
        self.slot(partition).is_some_and(|slot| slot.open.is_some())
            || self.batches.iter().any(|entry| {
                entry.ranges.iter().any(|(_, range)| range.partition == partition)
                    || entry.extra.is_some_and(|(_, held)| held == partition)
            })
    }

    /// Number of batches closed and not acknowledged.
    pub fn unacknowledged_batches(&self) -> usize {
        self.batches.len()
    }

    /// The epoch of a partition's present assignment.
    pub fn epoch(&self, partition: i32) -> Option<u64> {
        self.slot(partition).map(|slot| slot.epoch)
    }

    /// The assigned partitions, ascending.
    pub fn partitions(&self) -> Vec<i32> {
        self.held().map(|(partition, _)| partition).collect()
    }

    /// The offset up to which everything is durable: acknowledged, else committed, else where reading began.
    pub fn durable_offset(&self, partition: i32) -> Option<i64> {
        let slot = self.slot(partition)?;
        Some(match (slot.frontier, slot.committed) {
            (Some(frontier), Some(committed)) => frontier.max(committed),
            (Some(offset), None) | (None, Some(offset)) => offset,
            (None, None) => slot.start,
        })
    }

    /// Something that may be committed at any time, and changes nothing: of some partition what is acknowledged or committed
    /// already. `None` if nothing is.
    pub fn known(&self) -> Option<Committable> {
        self.held().find_map(|(partition, slot)| {
            let next_offset = slot.frontier.max(slot.committed)?;
            Some(Committable { partition, epoch: slot.epoch, next_offset })
        })
    }

    fn held(&self) -> impl Iterator<Item = (i32, &Slot)> {
        (0..).zip(&self.slots).filter_map(|(partition, slot)| Some((partition, slot.as_ref()?)))
    }

    fn slot(&self, partition: i32) -> Option<&Slot> {
        self.slots.get(usize::try_from(partition).ok()?)?.as_ref()
    }

    fn slot_mut(&mut self, partition: i32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
