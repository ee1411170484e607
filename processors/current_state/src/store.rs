//! The local store: every claim of the assigned partitions, and the offset it stands at, on disk.
//!
//! One folder per topic and instance slot, locked by the process that uses it, with one keyspace per partition. The
//! claims of a partition that several batches changed, and the offset after these, are written in one atomic step, by a thread
//! of its own (`state_writer.rs`) and without waiting for the disk: after a crash the store may be behind the committed offset, and
//! the runtime then gives it the missing records again.

mod held;

use crate::claim::{Claim, UnreadableClaim};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use held::Held;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Version of what the store holds and of what the views are made of it. Another version needs a store and views of
/// its own.
pub const PROJECTION_VERSION: u32 = 1;

/// Slots tried when none is named, and so processes on one machine without instance ids.
const MAX_SLOTS: u32 = 64;
/// Blocks of the store kept in memory, in bytes, over all partitions.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Writes kept in memory before they go to disk, in bytes, over all partitions …
const WRITE_BUFFERS_BYTES: u64 = 48 * 1024 * 1024;
/// … but for each partition at least this much …
const MIN_WRITE_BUFFER_BYTES: u64 = 1024 * 1024;
/// … and at most this much.
const MAX_WRITE_BUFFER_BYTES: u64 = 8 * 1024 * 1024;
/// Journal files on disk, in bytes.
const MAX_JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
/// One for flushes, one for compactions; see ADR 15.
const WORKER_THREADS: usize = 2;
const MAX_OPEN_FILES: usize = 256;

/// Keys of claims begin with a tenant, which holds no control characters.
const NEXT_OFFSET_KEY: &[u8] = b"\0next_offset";
/// Offsets of records that were refused at first and are folded in: 8 bytes each.
const RETRIED_KEY: &[u8] = b"\0retried";
/// When the partition's part was last written, milliseconds since the Unix epoch.
const WRITTEN_AT_KEY: &[u8] = b"\0written_at";
const META_KEYSPACE: &str = "meta";
const PARTITION_PREFIX: &str = "partition-";
const IDENTITY_KEY: &[u8] = b"identity";

/// Why the local store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the slot.
    #[error(
        "the local store {0} is in use by another process; give each process its own `instance_id`, or stop the other"
    )]
    InUse(PathBuf),
    /// This process itself has not let go of it yet.
    #[error("the local store {0} is still being closed by this process")]
    StillOpen(PathBuf),
    /// It was made from another topic, or by another build.
    #[error(
        "the local store {folder} belongs to {found}, and not to {wanted}; if that topic was made anew, go on with `claims replay current-state --to-beginning` when it holds the same events, and else empty the views first; if it is another topic or version, remove this folder and empty the views"
    )]
    Foreign {
        /// The slot's folder.
        folder: PathBuf,
        /// What it was made from.
        found: String,
        /// What is wanted now.
        wanted: String,
    },
    /// The storage engine failed.
    #[error("local store {folder}: {source}")]
    Engine {
        /// The slot's folder.
        folder: PathBuf,
        /// What the engine says.
        source: Box<fjall::Error>,
    },
    /// The folder can't be made.
    #[error("local store {folder}: {source}")]
    Folder {
        /// The slot's folder.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no thread to write it on.
    #[error("no thread to write the local store on: {0}")]
    Thread(std::io::Error),
    /// The thread that writes it has ended, because of an error that was told before, or by a panic.
    #[error("the local store is written no more: its thread has ended")]
    WriterEnded,
    /// A write doesn't come to its end.
    #[error("the local store took no write for {seconds} s; is its disk full, or away?")]
    Stuck {
        /// So long it was waited for.
        seconds: u64,
    },
    /// A value in it is damaged.
    #[error("local store {folder}: {source}; remove the folder to fold the claims again from the topic")]
    Unreadable {
        /// The slot's folder.
        folder: PathBuf,
        /// What was wrong.
        source: UnreadableClaim,
    },
}

/// What a store is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The events topic's name.
    pub topic: String,
    /// The topic's id: another one means that the topic was deleted and made again.
    pub topic_id: String,
    /// Its number of partitions.
    pub partitions: i32,
}

impl StoreIdentity {
    /// Whether a store's description is of a topic of this name with another id, and all else the same.
    fn is_made_anew(&self, found: &[u8]) -> bool {
        let found = String::from_utf8_lossy(found);
        let id = found.split_once(" with id ").and_then(|(_, rest)| rest.split(' ').next());
        id.is_some_and(|id| Self { topic_id: id.to_owned(), ..self.clone() }.describe() == found)
    }

    fn describe(&self) -> String {
        format!(
            "topic {} with id {} and {} partitions, projection version {PROJECTION_VERSION}",
            self.topic, self.topic_id, self.partitions
        )
    }
}

/// What becomes of a store that was made from a former topic of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// It is an error.
    Refused,
    /// Somebody has decided to go on: what was folded from the former topic is dropped.
    Taken,
}

/// The store of one process.
pub struct StateStore {
    database: Database,
    folder: PathBuf,
    write_buffer_bytes: u64,
    held: Arc<Held>,
}

/// One partition's part of it.
pub struct PartitionStore {
    keyspace: Keyspace,
    folder: PathBuf,
    next_offset: Option<i64>,
    retried: BTreeSet<i64>,
    written_at_ms: Option<i64>,
    /// The key asked for last: a buffer.
    key: Vec<u8>,
    /// Dropped after the keyspace, which has the lock, too.
    _held: Arc<Held>,
}

impl StateStore {
    /// Opens the store below `state_dir` and locks its slot: the one named by `instance_id`, or else the first free one.
    pub fn open(
        state_dir: &Path,
        instance_id: Option<&str>,
        identity: &StoreIdentity,
    ) -> Result<Self, StoreError> {
        Self::open_any(state_dir, instance_id, identity, Anew::Refused, false)
    }

    /// The same for a process that has one store at a time: where it has not let go of a former one yet, that is an error
    /// ([`StoreError::StillOpen`]), and the next free slot, which knows nothing of its claims, is not taken instead.
    pub fn open_again(
        state_dir: &Path,
        instance_id: Option<&str>,
        identity: &StoreIdentity,
        anew: Anew,
    ) -> Result<Self, StoreError> {
        Self::open_any(state_dir, instance_id, identity, anew, true)
    }

    fn open_any(
        state_dir: &Path,
        instance_id: Option<&str>,
        identity: &StoreIdentity,
        anew: Anew,
        is_only: bool,
    ) -> Result<Self, StoreError> {
        let parent = state_dir.join(safe_name(&identity.topic));
        let folders: Vec<PathBuf> = match instance_id {
            Some(id) => vec![parent.join(format!("instance-{}", safe_name(id)))],
            None => (0..MAX_SLOTS).map(|slot| parent.join(format!("slot-{slot}"))).collect(),
        };
        if is_only && let Some(folder) = folders.iter().find(|folder| Held::has(folder)) {
            return Err(StoreError::StillOpen(folder.clone()));
        }
        let mut in_use = StoreError::InUse(parent);
        for folder in folders {
            match Self::open_slot(folder, identity, anew) {
                Err(error @ StoreError::InUse(_)) => in_use = error,
                opened => return opened,
            }
        }
        Err(in_use)
    }

    fn open_slot(folder: PathBuf, identity: &StoreIdentity, anew: Anew) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&folder)
            .map_err(|source| StoreError::Folder { folder: folder.clone(), source })?;
        let database = Database::builder(&folder)
            .cache_size(CACHE_BYTES)
            .worker_threads(WORKER_THREADS)
            .max_cached_files(Some(MAX_OPEN_FILES))
            .max_journaling_size(MAX_JOURNAL_BYTES)
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => StoreError::InUse(folder.clone()),
                error => engine(&folder, error),
            })?;
        let partitions = u64::from(identity.partitions.max(1).unsigned_abs());
        let write_buffer_bytes =
            (WRITE_BUFFERS_BYTES / partitions).clamp(MIN_WRITE_BUFFER_BYTES, MAX_WRITE_BUFFER_BYTES);
        let held = Arc::new(Held::of(&folder));
        let store = Self { database, folder, write_buffer_bytes, held };
        store.check_identity(identity, anew)?;
        Ok(store)
    }

    fn check_identity(&self, identity: &StoreIdentity, anew: Anew) -> Result<(), StoreError> {
        let meta = self.keyspace(META_KEYSPACE)?;
        let wanted = identity.describe();
        let found = meta.get(IDENTITY_KEY).map_err(|e| engine(&self.folder, e))?;
        let enter = || meta.insert(IDENTITY_KEY, wanted.as_bytes()).map_err(|e| engine(&self.folder, e));
        match found {
            None => enter(),
            Some(found) if *found == *wanted.as_bytes() => Ok(()),
            Some(found) if anew == Anew::Taken && identity.is_made_anew(&found) => {
                tracing::warn!(
                    folder = %self.folder.display(),
                    "the topic was made anew and taken by `claims replay`: what was folded from the former one is dropped"
                );
                self.drop_partitions()?;
                enter()
            }
            Some(found) => Err(StoreError::Foreign {
                folder: self.folder.clone(),
                found: String::from_utf8_lossy(&found).into_owned(),
                wanted,
            }),
        }
    }

    fn drop_partitions(&self) -> Result<(), StoreError> {
        let names = self.database.list_keyspace_names();
        for name in names.iter().filter(|name| name.starts_with(PARTITION_PREFIX)) {
            let keyspace = self.keyspace(name)?;
            self.database.delete_keyspace(keyspace).map_err(|e| engine(&self.folder, e))?;
        }
        Ok(())
    }

    fn keyspace(&self, name: &str) -> Result<Keyspace, StoreError> {
        let write_buffer_bytes = self.write_buffer_bytes;
        self.database
            .keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(write_buffer_bytes))
            .map_err(|e| engine(&self.folder, e))
    }

    /// The slot's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One partition's part.
    pub fn partition(&self, partition: i32) -> Result<PartitionStore, StoreError> {
        let keyspace = self.keyspace(&format!("{PARTITION_PREFIX}{partition}"))?;
        let numbers = |key: &[u8]| -> Result<Vec<i64>, StoreError> {
            let bytes = keyspace.get(key).map_err(|e| engine(&self.folder, e))?;
            let (numbers, rest) = bytes.as_deref().unwrap_or_default().as_chunks::<8>();
            if !rest.is_empty() {
                let source = UnreadableClaim("a number is not 8 bytes".into());
                return Err(StoreError::Unreadable { folder: self.folder.clone(), source });
            }
            Ok(numbers.iter().map(|bytes| i64::from_be_bytes(*bytes)).collect())
        };
        let next_offset = numbers(NEXT_OFFSET_KEY)?.first().copied();
        let written_at_ms = numbers(WRITTEN_AT_KEY)?.first().copied();
        let retried = numbers(RETRIED_KEY)?.into_iter().collect();
        let (folder, key, held) = (self.folder.clone(), Vec::new(), Arc::clone(&self.held));
        Ok(PartitionStore { keyspace, folder, next_offset, retried, written_at_ms, key, _held: held })
    }

    /// Starts an atomic write over any number of partitions.
    pub fn write(&self) -> StoreWrite {
        StoreWrite {
            batch: self.database.batch(),
            folder: self.folder.clone(),
            key: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl PartitionStore {
    /// The offset after the last record folded into it; `None` if there is none yet.
    pub fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// Offsets of records that were refused at first, and are folded in since they were given again.
    pub fn retried(&self) -> &BTreeSet<i64> {
        &self.retried
    }

    /// For writing its claims, on whatever thread.
    pub fn handle(&self) -> PartitionHandle {
        PartitionHandle { keyspace: self.keyspace.clone(), _held: Arc::clone(&self._held) }
    }

    /// When it was last written, milliseconds since the Unix epoch; `None` if an older build wrote it.
    pub fn written_at_ms(&self) -> Option<i64> {
        self.written_at_ms
    }

    /// The claim.
    pub fn get(&mut self, tenant_id: &str, claim_id: &str) -> Result<Option<Claim>, StoreError> {
        put_key(&mut self.key, tenant_id, claim_id);
        let bytes = self.keyspace.get(&self.key).map_err(|e| engine(&self.folder, e))?;
        bytes
            .map(|bytes| Claim::from_bytes(&bytes))
            .transpose()
            .map_err(|source| StoreError::Unreadable { folder: self.folder.clone(), source })
    }
}

/// Where a partition's claims are written.
#[derive(Clone)]
pub struct PartitionHandle {
    keyspace: Keyspace,
    /// Dropped after the keyspace, which has the lock, too.
    _held: Arc<Held>,
}

/// Claims and offsets to be written together.
pub struct StoreWrite {
    batch: fjall::OwnedWriteBatch,
    folder: PathBuf,
    /// The claim added last: buffers.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl StoreWrite {
    /// Adds a claim.
    pub fn claim(&mut self, partition: &PartitionHandle, claim: &Claim) {
        put_key(&mut self.key, &claim.state.tenant_id, &claim.state.claim_id);
        self.value.clear();
        claim.write_bytes(&mut self.value);
        self.batch.insert(&partition.keyspace, self.key.as_slice(), self.value.as_slice());
    }

    /// Adds the offset that the partition now stands at. It never goes back: records of a replay are in the store
    /// already.
    pub fn next_offset(&mut self, partition: &mut PartitionStore, next_offset: i64) {
        let next_offset = partition.next_offset.map_or(next_offset, |known| known.max(next_offset));
        partition.next_offset = Some(next_offset);
        self.batch.insert(&partition.keyspace, NEXT_OFFSET_KEY, next_offset.to_be_bytes());
    }

    /// Notes that the partition holds every record that was given again before this moment, milliseconds since the Unix epoch.
    pub fn complete_at(&mut self, partition: &mut PartitionStore, at_ms: i64) {
        partition.written_at_ms = Some(at_ms);
        self.batch.insert(&partition.keyspace, WRITTEN_AT_KEY, at_ms.to_be_bytes());
    }

    /// Adds offsets of records that were given again and are folded in.
    pub fn retried(&mut self, partition: &mut PartitionStore, offsets: impl IntoIterator<Item = i64>) {
        partition.retried.extend(offsets);
        let bytes: Vec<u8> = partition.retried.iter().flat_map(|offset| offset.to_be_bytes()).collect();
        self.batch.insert(&partition.keyspace, RETRIED_KEY, bytes);
    }

    /// Writes everything, or nothing.
    pub fn commit(self) -> Result<(), StoreError> {
        self.batch.commit().map_err(|e| engine(&self.folder, e))
    }
}

/// A claim's key, `tenant:claim_id`: tenants hold no colon.
fn put_key(key: &mut Vec<u8>, tenant_id: &str, claim_id: &str) {
    key.clear();
    key.extend_from_slice(tenant_id.as_bytes());
    key.push(b':');
    key.extend_from_slice(claim_id.as_bytes());
}

fn engine(folder: &Path, source: fjall::Error) -> StoreError {
    StoreError::Engine { folder: folder.to_owned(), source: Box::new(source) }
}

/// A name as part of a path; anything but letters, digits, `.`, `_` and `-` is replaced.
fn safe_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    if safe.starts_with('.') { format!("_{safe}") } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(topic_id: &str) -> StoreIdentity {
        StoreIdentity { topic: "claims.events.v1".into(), topic_id: topic_id.into(), partitions: 6 }
    }

    fn put(store: &StateStore, partition: &mut PartitionStore, claim_id: &str, next_offset: i64) {
        let mut write = store.write();
        write.claim(&partition.handle(), &Claim::empty("t", claim_id));
        write.next_offset(partition, next_offset);
        write.complete_at(partition, next_offset);
        write.commit().unwrap();
    }

    #[test]
    fn claims_and_offsets_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        {
            let store = StateStore::open(folder.path(), None, &identity("a")).unwrap();
            let mut partition = store.partition(3).unwrap();
            assert_eq!(partition.next_offset(), None);
            put(&store, &mut partition, "c1", 17);
            put(&store, &mut partition, "c2", 12);
            let mut write = store.write();
            write.retried(&mut partition, [9, 4]);
            write.commit().unwrap();
        }
        let store = StateStore::open(folder.path(), None, &identity("a")).unwrap();
        let mut partition = store.partition(3).unwrap();
        assert_eq!(partition.next_offset(), Some(17), "the offset never goes back");
        assert_eq!(partition.retried(), &BTreeSet::from([4, 9]));
        assert_eq!(partition.written_at_ms(), Some(12), "as it was told last");
        assert_eq!(partition.get("t", "c1").unwrap(), Some(Claim::empty("t", "c1")));
        assert_eq!(partition.get("t", "c3").unwrap(), None);
        assert_eq!(store.partition(4).unwrap().get("t", "c1").unwrap(), None);
    }

    #[test]
    fn a_store_of_another_topic_is_refused_with_both_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(StateStore::open(folder.path(), None, &identity("a")).unwrap());
        let error = StateStore::open(folder.path(), None, &identity("b")).err().unwrap().to_string();
        assert!(error.contains("with id a") && error.contains("with id b"), "{error}");
    }

    #[test]
    fn a_topic_made_anew_begins_with_an_empty_store_where_that_was_decided() {
        let folder = tempfile::tempdir().unwrap();
        {
            let store = StateStore::open(folder.path(), None, &identity("a")).unwrap();
            let mut partition = store.partition(3).unwrap();
            put(&store, &mut partition, "c1", 17);
        }
        let open = |identity| StateStore::open_again(folder.path(), None, identity, Anew::Taken);
        let more = StoreIdentity { partitions: 7, ..identity("b") };
        assert!(matches!(open(&more), Err(StoreError::Foreign { .. })), "partitions can't be matched");
        let store = open(&identity("b")).unwrap();
        let mut partition = store.partition(3).unwrap();
        assert_eq!((partition.next_offset(), partition.get("t", "c1").unwrap()), (None, None));
        drop((partition, store));
        let store = StateStore::open(folder.path(), None, &identity("b")).unwrap();
        assert_eq!(store.partition(3).unwrap().next_offset(), None);
    }

    #[test]
    fn each_process_has_a_slot_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateStore::open(folder.path(), None, &identity("a")).unwrap();
        let second = StateStore::open(folder.path(), None, &identity("a")).unwrap();
        assert_ne!(first.folder(), second.folder());
        let named = StateStore::open(folder.path(), Some("pod/1"), &identity("a")).unwrap();
        assert!(named.folder().ends_with("instance-pod_1"));
        assert!(matches!(
            StateStore::open(folder.path(), Some("pod/1"), &identity("a")),
            Err(StoreError::InUse(_))
        ));
    }
}
