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
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Writes that wait while one is under way; with more, the fold waits.
const MAX_QUEUED_WRITES: usize = 1;
/// Everything under way is written within this time, or the stage ends: a stop has about 9 s in all.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

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

/// How a write is done; another one in tests.
type Commit = fn(StateWrite) -> Result<(), StoreError>;

/// The thread, once something is to be written.
pub(crate) struct StateWriter {
    commit: Commit,
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
    fn start(commit: Commit) -> std::io::Result<Self> {
        let (writes, orders) = sync_channel::<StateWrite>(MAX_QUEUED_WRITES);
        let (reports, results) = channel();
        let work = move || {
            for order in orders {
                let result = commit(order);
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
    /// Writes it all in one step.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { mut write, claims } = self;
        for (partition, rows) in &claims {
            rows.iter().for_each(|row| write.claim(partition, &row.claim));
        }
        write.commit()
    }
}

impl Default for StateWriter {
    fn default() -> Self {
        Self::with(StateWrite::commit)
    }
}

impl StateWriter {
    /// A writer that writes in this way.
    pub fn with(commit: Commit) -> Self {
        Self { commit, running: None, under_way: VecDeque::new() }
    }

    /// Writes, some time; `written` is told by [`written`](Self::written) once the store has it.
    pub fn write(&mut self, write: StateWrite, written: Vec<Written>) -> Result<(), StoreError> {
        let running = match self.running.take() {
            Some(running) => running,
            None => Running::start(self.commit).map_err(StoreError::Thread)?,
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

    /// Waits until the store has everything, for at most [`FINISH_TIMEOUT`]; what it has taken since it was asked last.
    pub fn finish(&mut self) -> Result<Vec<Written>, StoreError> {
        let mut all = Vec::new();
        let Some(running) = &self.running else { return Ok(all) };
        let until = Instant::now() + FINISH_TIMEOUT;
        while !self.under_way.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            running.results.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => StoreError::Stuck { seconds: FINISH_TIMEOUT.as_secs() },
                RecvTimeoutError::Disconnected => StoreError::WriterEnded,
            })??;
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
    /// What was taken is written, and whatever the thread holds of the store is let go; unless the store hangs.
    fn drop(&mut self) {
        let finished = self.finish();
        if let Err(error) = &finished {
            tracing::error!(%error, "the end of the local store's writes");
        }
        if let Some(Running { writes, results, thread }) = self.running.take() {
            drop(writes);
            // A thread that hangs is left behind: the slot stays taken until the process is gone.
            if !matches!(finished, Err(StoreError::Stuck { .. })) {
                let _ = thread.join();
            }
            drop(results);
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
    fn after_an_error_nothing_is_written_and_it_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        // The second claim can't be written.
        let mut writer = StateWriter::with(|order| {
            let is_bad = order.claims[0].1[0].claim.state.claim_id == "c2";
            if is_bad { Err(StoreError::Thread(std::io::Error::other("full"))) } else { order.commit() }
        });
        let mut told = Vec::new();
        let mut errors = Vec::new();
        for number in 1..=5 {
            let (write, written) = order(&store, number);
            errors.extend(writer.write(write, written).err());
            match writer.written() {
                Ok(written) => told.extend(written.into_iter().map(|w| w.batch_id)),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(writer.finish().err());
        assert_eq!(store.partition(0).unwrap().next_offset(), Some(1));
        assert_eq!(told.iter().filter(|&&id| id != 1).count(), 0, "{told:?}");
        let full = errors.iter().filter(|error| error.to_string().contains("full")).count();
        assert_eq!(full, 1, "{errors:?}");
        assert!(errors.iter().all(|e| matches!(e, StoreError::Thread(_) | StoreError::WriterEnded)));
    }

    #[test]
    fn a_store_that_hangs_does_not_hang_the_stage() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), None, &identity()).unwrap();
        let mut writer = StateWriter::with(|_| {
            std::thread::sleep(4 * FINISH_TIMEOUT);
            Ok(())
        });
        let (write, written) = order(&store, 1);
        writer.write(write, written).unwrap();
        let begun = Instant::now();
        assert!(matches!(writer.finish(), Err(StoreError::Stuck { .. })));
        drop(writer);
        assert!(begun.elapsed() < 3 * FINISH_TIMEOUT);
    }
}
