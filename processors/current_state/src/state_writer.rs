//! Writes to the local store what acknowledged batches leave, on a thread of its own, so that folding goes on meanwhile.
//!
//! The store may be behind what is committed at any time, as after a power failure: whoever opens it reads the missing
//! records again. What must not be: a claim read from the store while a newer one is still on its way there. So claims
//! stay at hand until [`Written`] tells that the store has them.

use crate::{
    at_hand::Slot,
    processor::ClaimWrite,
    store::{PartitionHandle, StoreError, StoreWrite},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel},
    },
    thread::JoinHandle,
};

/// Writes that wait while one is under way; with more, the fold waits.
const MAX_QUEUED_WRITES: usize = 1;

/// What one acknowledgement leaves to be written in one step.
pub(crate) struct StateWrite {
    /// Offsets, and what else is small.
    pub write: StoreWrite,
    /// The claims of each batch and partition, encoded on the writer's thread.
    pub claims: Vec<(PartitionHandle, Vec<Arc<ClaimWrite>>)>,
}

/// A partition's part of a batch that the store holds now.
pub(crate) struct Written {
    pub partition: i32,
    pub batch_id: u64,
    pub slots: Vec<Slot>,
}

/// The thread, once something is to be written.
#[derive(Default)]
pub(crate) struct StateWriter {
    running: Option<Running>,
    /// What each write under way holds, the oldest first.
    under_way: VecDeque<Vec<Written>>,
}

struct Running {
    writes: SyncSender<StateWrite>,
    results: Receiver<Result<(), StoreError>>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start() -> std::io::Result<Self> {
        let (writes, orders) = sync_channel::<StateWrite>(MAX_QUEUED_WRITES);
        let (reports, results) = channel();
        let work = move || {
            for order in orders {
                let result = order.commit();
                let is_error = result.is_err();
                // After an error nothing may be written: a hole in the store would look like a whole.
                if reports.send(result).is_err() || is_error {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("state-writer".into()).spawn(work)?;
        Ok(Self { writes, results, thread })
    }
}

impl StateWrite {
    fn commit(self) -> Result<(), StoreError> {
        let Self { mut write, claims } = self;
        for (partition, rows) in &claims {
            rows.iter().for_each(|row| write.claim(partition, &row.claim));
        }
        write.commit()
    }
}

impl StateWriter {
    /// Writes, some time; `written` is told by [`written`](Self::written) once the store has it.
    pub fn write(&mut self, write: StateWrite, written: Vec<Written>) -> Result<(), StoreError> {
        let running = match self.running.take() {
            Some(running) => running,
            None => Running::start().map_err(StoreError::Thread)?,
        };
        let is_taken = running.writes.send(write).is_ok();
        self.running = Some(running);
        if !is_taken {
            return Err(self.failure());
        }
        self.under_way.push_back(written);
        Ok(())
    }

    /// What the store has taken since it was asked last.
    pub fn written(&mut self) -> Result<Vec<Written>, StoreError> {
        let mut all = Vec::new();
        let Some(running) = &self.running else { return Ok(all) };
        while !self.under_way.is_empty() {
            match running.results.try_recv() {
                Ok(result) => {
                    result?;
                    all.extend(self.under_way.pop_front().into_iter().flatten());
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(StoreError::WriterEnded),
            }
        }
        Ok(all)
    }

    /// Waits until the store has everything; what it has taken since it was asked last.
    pub fn finish(&mut self) -> Result<Vec<Written>, StoreError> {
        let mut all = Vec::new();
        let Some(running) = &self.running else { return Ok(all) };
        while !self.under_way.is_empty() {
            running.results.recv().map_err(|_| StoreError::WriterEnded)??;
            all.extend(self.under_way.pop_front().into_iter().flatten());
        }
        Ok(all)
    }

    /// Why the thread takes nothing more.
    fn failure(&self) -> StoreError {
        let results = self.running.iter().flat_map(|running| running.results.try_iter());
        results.filter_map(Result::err).next().unwrap_or(StoreError::WriterEnded)
    }
}

impl Drop for StateWriter {
    /// What was taken is written, and whatever the thread holds of the store is let go.
    fn drop(&mut self) {
        if let Some(Running { writes, results, thread }) = self.running.take() {
            drop((writes, results));
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        claim::Claim,
        store::{StateStore, StoreIdentity},
    };

    fn identity() -> StoreIdentity {
        StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 1 }
    }

    fn order(store: &StateStore, number: usize) -> (StateWrite, Vec<Written>) {
        let mut partition = store.partition(0).unwrap();
        let mut write = store.write();
        write.next_offset(&mut partition, number as i64);
        let claim = Claim::empty("t", &format!("c{number}"));
        let claims = vec![(partition.handle(), vec![Arc::new(ClaimWrite::of(0, claim))])];
        let written = Written { partition: 0, batch_id: number as u64, slots: vec![number as Slot] };
        (StateWrite { write, claims }, vec![written])
    }

    #[test]
    fn everything_is_written_in_order_and_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        let mut writer = StateWriter::default();
        let mut told = Vec::new();
        for number in 1..=50 {
            let (write, written) = order(&store, number);
            writer.write(write, written).unwrap();
            told.extend(writer.written().unwrap().into_iter().map(|w| w.batch_id));
        }
        told.extend(writer.finish().unwrap().into_iter().map(|w| w.batch_id));
        assert_eq!(told, (1..=50).collect::<Vec<u64>>());
        assert!(writer.finish().unwrap().is_empty());
        let mut partition = store.partition(0).unwrap();
        assert_eq!(partition.next_offset(), Some(50));
        assert!((1..=50).all(|n| partition.get("t", &format!("c{n}")).unwrap().is_some()));
    }

    #[test]
    fn what_was_taken_is_written_when_the_stage_ends_and_the_slot_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        let mut writer = StateWriter::default();
        for number in 1..=3 {
            let (write, written) = order(&store, number);
            writer.write(write, written).unwrap();
        }
        let own = store.folder().to_owned();
        drop(writer);
        drop(store);
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        assert_eq!(store.folder(), own, "its lock was let go");
        assert_eq!(store.partition(0).unwrap().next_offset(), Some(3));
    }

    #[test]
    fn where_the_thread_has_ended_nothing_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        let mut writer = StateWriter::default();
        let (write, written) = order(&store, 1);
        writer.write(write, written).unwrap();
        writer.finish().unwrap();
        // As after an error of the store.
        let (writes, orders) = sync_channel(MAX_QUEUED_WRITES);
        let (_, results) = channel();
        drop(orders);
        if let Some(running) = &mut writer.running {
            (running.writes, running.results) = (writes, results);
        }
        let (write, written) = order(&store, 2);
        assert!(matches!(writer.write(write, written), Err(StoreError::WriterEnded)));
        assert_eq!(store.partition(0).unwrap().next_offset(), Some(1));
    }
}
