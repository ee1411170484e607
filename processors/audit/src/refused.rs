//! Which records are rightly missing at the end of a trail.
//!
//! A record that was refused is committed and not in the trail. If it could be decoded now (its schema came later), it
//! looks like one that the trail has lost. The dead-letter topic tells them apart.

use claims_runtime::{
    SinkError, committed_offsets,
    dead_letter::{
        OUTCOME_ALREADY_THERE, OUTCOME_APPLIED,
        scan::{EntryKind, scan},
    },
};
use claims_topology::{Config, kafka};
use rdkafka::{TopicPartitionList, consumer::BaseConsumer};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Where a trail ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailEnd {
    /// The offset that it needs next.
    pub next_offset: i64,
    /// When its last record was appended to the topic, milliseconds since the Unix epoch; `None`: it is empty.
    pub appended_at_ms: Option<i64>,
}

/// Asks the dead-letter topic.
#[derive(Debug, Clone)]
pub struct RefusedLookup {
    client_properties: Vec<(String, String)>,
    group_id: String,
    topic: String,
    dead_letters: String,
    timeout: Duration,
}

impl RefusedLookup {
    /// A lookup for the configured topics and the audit's consumer group.
    pub fn new(config: &Config) -> Self {
        Self {
            client_properties: kafka::client_properties(&config.kafka),
            group_id: kafka::group_id(&config.kafka, crate::processor::NAME),
            topic: config.topics.events.clone(),
            dead_letters: config.topics.dead_letters.clone(),
            timeout: Duration::from_millis(config.kafka.request_timeout_ms),
        }
    }

    /// Of each partition whose trail ends before what the group has committed: the offsets from the trail's end on that
    /// were refused, and that no retry has brought into the trail since.
    pub async fn look_up(
        &self,
        ends: BTreeMap<i32, TrailEnd>,
    ) -> Result<BTreeMap<i32, BTreeSet<i64>>, SinkError> {
        let this = self.clone();
        let looked = tokio::task::spawn_blocking(move || this.look_up_blocking(ends)).await;
        looked.unwrap_or_else(|error| Err(SinkError::Transient(error.to_string())))
    }

    fn look_up_blocking(
        &self,
        mut ends: BTreeMap<i32, TrailEnd>,
    ) -> Result<BTreeMap<i32, BTreeSet<i64>>, SinkError> {
        let away = |error: &dyn std::fmt::Display| SinkError::Transient(error.to_string());
        let mut client: rdkafka::ClientConfig = self.client_properties.iter().cloned().collect();
        let consumer: BaseConsumer = client.set("group.id", &self.group_id).create().map_err(|e| away(&e))?;
        let mut list = TopicPartitionList::new();
        for &partition in ends.keys() {
            list.add_partition(&self.topic, partition);
        }
        let committed = committed_offsets(&consumer, &list, self.timeout).map_err(|e| away(&e))?;
        ends.retain(|&partition, end| {
            let element = committed.find_partition(&self.topic, partition);
            element.and_then(|e| e.offset().to_raw()).is_some_and(|committed| committed > end.next_offset)
        });
        let Some(since_ms) = ends.values().map(|end| end.appended_at_ms.unwrap_or(0)).min() else {
            return Ok(BTreeMap::new());
        };
        let (mut refused, mut put_back) = (BTreeSet::new(), BTreeSet::new());
        scan(&self.client_properties, &self.dead_letters, Some(since_ms), self.timeout, |entry| {
            let Some(at) = entry.coordinates.filter(|at| at.topic == self.topic) else { return };
            let is_missing = ends.get(&at.partition).is_some_and(|end| at.offset >= end.next_offset);
            if entry.processor != crate::processor::NAME || !is_missing {
                return;
            }
            match entry.kind {
                EntryKind::Refused => drop(refused.insert((at.partition, at.offset))),
                EntryKind::Retried { outcome }
                    if outcome == OUTCOME_APPLIED || outcome == OUTCOME_ALREADY_THERE =>
                {
                    put_back.insert((at.partition, at.offset));
                }
                _ => {}
            }
        })
        .map_err(|e| away(&e))?;
        let mut found: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for (partition, offset) in refused.difference(&put_back) {
            found.entry(*partition).or_default().insert(*offset);
        }
        Ok(found)
    }
}
