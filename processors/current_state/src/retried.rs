//! Records that were refused, and given again later, perhaps to another member of the group.
//!
//! A local store that has gone past such a record while it was refused doesn't hold it: the member that wrote the retry
//! has it in a store of its own. So whoever gets a partition asks the dead-letter topic for the retries of it, and folds
//! again from the oldest that its store doesn't know. A retry is noted there before its effect.

use crate::{processor::NAME, store::StateStore};
use claims_runtime::{
    SinkError,
    dead_letter::scan::{EntryKind, scan},
};
use claims_topology::{Config, kafka};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Offsets of records given again, by partition: found by the sink as partitions are assigned, used by the processor.
#[derive(Debug, Clone, Default)]
pub struct Retried(Arc<Mutex<BTreeMap<i32, BTreeSet<i64>>>>);

impl Retried {
    /// Notes that this record was given again.
    pub fn add(&self, partition: i32, offset: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default().insert(offset);
    }

    /// Takes what was found of a partition.
    pub(crate) fn take(&self, partition: i32) -> BTreeSet<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition).unwrap_or_default()
    }
}

/// Asks the dead-letter topic.
pub struct RetriedLookup {
    store: Arc<StateStore>,
    found: Retried,
    client_properties: Vec<(String, String)>,
    dead_letters: String,
    events: String,
    timeout: Duration,
}

impl RetriedLookup {
    /// A lookup for the stores of `store`, whose answers go into `found`.
    pub fn new(config: &Config, store: Arc<StateStore>, found: Retried) -> Self {
        Self {
            store,
            found,
            client_properties: kafka::client_properties(&config.kafka),
            dead_letters: config.topics.dead_letters.clone(),
            events: config.topics.events.clone(),
            timeout: Duration::from_millis(config.kafka.request_timeout_ms),
        }
    }

    /// Finds the retries of these partitions since their stores were last written: until then whoever had the store
    /// had the partition, and nobody else could retry.
    pub async fn look_up(self: &Arc<Self>, partitions: &[i32]) -> Result<(), SinkError> {
        let (this, partitions) = (Arc::clone(self), partitions.to_vec());
        let looked = tokio::task::spawn_blocking(move || this.look_up_blocking(&partitions)).await;
        looked.unwrap_or_else(|error| Err(SinkError::Transient(error.to_string())))
    }

    fn look_up_blocking(&self, partitions: &[i32]) -> Result<(), SinkError> {
        let mut since_ms = i64::MAX;
        let mut stored = BTreeSet::new();
        for &partition in partitions {
            let store = self.store.partition(partition).map_err(|e| SinkError::Fatal(e.to_string()))?;
            // An empty store is folded from the beginning, with whatever this build takes.
            if store.next_offset().is_some() {
                stored.insert(partition);
                since_ms = since_ms.min(store.written_at_ms().unwrap_or(0));
            }
        }
        if stored.is_empty() {
            return Ok(());
        }
        scan(&self.client_properties, &self.dead_letters, Some(since_ms), self.timeout, |entry| {
            let Some(at) = entry.coordinates.filter(|at| at.topic == self.events) else { return };
            let is_retry = matches!(entry.kind, EntryKind::RetryStarted | EntryKind::Retried { .. });
            if is_retry && entry.processor == NAME && stored.contains(&at.partition) {
                self.found.add(at.partition, at.offset);
            }
        })
        .map_err(|error| SinkError::Transient(error.to_string()))
    }
}
