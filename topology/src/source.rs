//! The topic that a processor reads, as it finds it: its id, and which ids the group's offsets tell of.
//!
//! What a processor keeps (tables, a local store) says which topic it was made from. If that topic was deleted and made
//! anew, going on would mix both. That somebody has decided to go on shows in the group's offsets: `claims replay` notes
//! the topic's id with them, Kafka removes those of a deleted topic, and a stage that still runs goes on noting the old one.

use crate::{
    config::Config,
    kafka::{client_config, group_id},
};
use claims_runtime::{TopicDescription, TopicIdError, committed_offsets, describe_topic, replay::CommitNote};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use std::{collections::BTreeSet, time::Duration};

/// The events topic, seen by one processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTopic {
    /// Its id; `None`: the cluster is too old to give topics ids.
    pub topic_id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
    /// The ids that the committed offsets of the processor's group are noted with.
    pub noted_ids: BTreeSet<String>,
}

impl SourceTopic {
    /// Whether the group's offsets are of this very topic.
    pub fn is_taken(&self) -> bool {
        self.topic_id.as_ref().is_some_and(|id| self.noted_ids.contains(id))
    }
}

/// Looks at the events topic and at the processor's committed offsets.
pub async fn source_topic(config: &Config, processor: &str) -> Result<SourceTopic, TopicIdError> {
    let mut client = client_config(&config.kafka);
    client.set("group.id", group_id(&config.kafka, processor));
    let topic = config.topics.events.clone();
    let timeout = timeout(config);
    blocking(&config.topics.events, move || {
        let unavailable = |e: &dyn std::fmt::Display| TopicIdError::Unavailable {
            topic: topic.clone(),
            detail: e.to_string(),
        };
        let consumer: BaseConsumer = client.create().map_err(|e| unavailable(&e))?;
        let TopicDescription { topic_id, partitions } = describe_topic(consumer.client(), &topic, timeout)?;
        let mut wanted = TopicPartitionList::new();
        for partition in 0..partitions {
            wanted.add_partition(&topic, partition);
        }
        let committed = committed_offsets(&consumer, &wanted, timeout).map_err(|e| unavailable(&e))?;
        let noted = |metadata: &str| CommitNote::from_metadata(metadata).topic_id;
        let noted_ids = committed.elements().iter().filter_map(|element| noted(element.metadata())).collect();
        Ok(SourceTopic { topic_id, partitions, noted_ids })
    })
    .await
}

/// Describes a topic.
pub async fn describe(config: &Config, topic: &str) -> Result<TopicDescription, TopicIdError> {
    let (client, name, timeout) = (client_config(&config.kafka), topic.to_owned(), timeout(config));
    blocking(topic, move || {
        let unavailable = |e: rdkafka::error::KafkaError| TopicIdError::Unavailable {
            topic: name.clone(),
            detail: e.to_string(),
        };
        let consumer: BaseConsumer = client.create().map_err(unavailable)?;
        describe_topic(consumer.client(), &name, timeout)
    })
    .await
}

fn timeout(config: &Config) -> Duration {
    Duration::from_millis(config.kafka.request_timeout_ms)
}

async fn blocking<T: Send + 'static>(
    topic: &str,
    work: impl FnOnce() -> Result<T, TopicIdError> + Send + 'static,
) -> Result<T, TopicIdError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(TopicIdError::Unavailable { topic: topic.to_owned(), detail: e.to_string() }))
}
