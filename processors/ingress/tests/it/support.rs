use claims_runtime::{Payload, SchemaResolver};
use claims_schemas::{Event, SchemaCache};
use claims_topology::{Config, kafka::client_config, registry::RegistryResolver};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use std::{collections::HashMap, time::Duration};

/// A configuration with topics of its own, which are made.
pub async fn config() -> Config {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let mut config = Config::default();
    config.topics.events = format!("it-ingress-{id}.events");
    config.topics.state = format!("it-ingress-{id}.state");
    config.topics.dead_letters = format!("it-ingress-{id}.dead-letters");
    config.topics.partitions = 3;
    claims_topology::topics::ensure(&config)
        .await
        .unwrap_or_else(|error| panic!("Kafka is needed: run `cargo xtask up` ({error})"));
    config
}

/// A record as read back.
pub struct Read {
    pub partition: i32,
    pub key: String,
    pub value: Vec<u8>,
    pub headers: HashMap<String, String>,
}

/// Everything in a topic, partition by partition.
pub fn read_all(config: &Config, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = client_config(&config.kafka)
        .set("group.id", "it-ingress-unused")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let timeout = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), timeout).unwrap();
    let mut read = Vec::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), timeout).unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut next = low;
        while next < high {
            let message = consumer.poll(timeout).expect("a record in time").unwrap();
            next = message.offset() + 1;
            read.push(Read {
                partition: message.partition(),
                key: String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap(),
                value: message.payload().unwrap_or_default().to_vec(),
                headers: message
                    .headers()
                    .map(|headers| {
                        headers
                            .iter()
                            .map(|h| {
                                (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap()).into_owned())
                            })
                            .collect()
                    })
                    .unwrap_or_default(),
            });
        }
    }
    read
}

/// The events in the events topic.
pub async fn read_events(config: &Config) -> Vec<(Read, Event)> {
    let cache = SchemaCache::default();
    let resolver = RegistryResolver::new(config, cache.clone()).unwrap();
    let mut events = Vec::new();
    for record in read_all(config, &config.topics.events) {
        let id = claims_schemas::codec::schema_id(&record.value).unwrap();
        resolver.resolve(id).await.unwrap();
        let event = cache.decode(&record.value).unwrap();
        events.push((record, event));
    }
    let _ = Payload::Tombstone;
    events
}
