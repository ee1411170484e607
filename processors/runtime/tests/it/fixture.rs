//! A topic of the test's own, and the parts of a stage over it.

mod parts;

pub use parts::*;

use claims_runtime::{RuntimeSettings, StageConfig, replay::CommitNote};
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    topic_partition_list::{Offset, TopicPartitionList},
    util::Timeout,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub const PATIENCE: Duration = Duration::from_secs(60);

fn bootstrap() -> String {
    std::env::var("CLAIMS_KAFKA__BOOTSTRAP_SERVERS").unwrap_or_else(|_| "127.0.0.1:9092".into())
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    config
}

/// A topic of the test's own, with its dead-letter topic and consumer group.
pub struct Topic {
    pub name: String,
    pub dead_letters: String,
    pub group: String,
    pub partitions: i32,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    pub async fn new(partitions: i32) -> Self {
        Self::with_config(partitions, &[]).await
    }

    pub async fn with_config(partitions: i32, config: &[(&str, &str)]) -> Self {
        let id = uuid::Uuid::new_v4();
        let admin: AdminClient<_> = client().create().unwrap();
        let reached = tokio::task::block_in_place(|| {
            admin.inner().fetch_metadata(Some("claims-none"), Duration::from_secs(5))
        });
        assert!(reached.is_ok(), "no Kafka at {}: run `cargo xtask up`", bootstrap());
        let topic = Self {
            name: format!("runtime-it-{id}"),
            dead_letters: format!("runtime-it-{id}-dead"),
            group: format!("runtime-it-{id}"),
            partitions,
            producer: client()
                .set("message.max.bytes", "12000000")
                .set("linger.ms", "5")
                .set("queue.buffering.max.messages", "1000000")
                .create()
                .unwrap(),
            admin,
        };
        let mut source = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(1))
            .set("max.message.bytes", "12000000");
        for (name, value) in config {
            source = source.set(name, value);
        }
        let dead = NewTopic::new(&topic.dead_letters, 1, TopicReplication::Fixed(1))
            .set("max.message.bytes", "1000000");
        for result in topic.admin.create_topics([&source, &dead], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        topic
    }

    /// Sends records with values `from..to`, spread over the partitions in turn; returns when Kafka has them all.
    pub async fn send_numbers(&self, numbers: std::ops::Range<u64>) {
        let sends: Vec<_> = numbers
            .map(|n| {
                let text = n.to_string();
                self.producer
                    .send_result(
                        FutureRecord::to(&self.topic())
                            .partition((n % self.partitions as u64) as i32)
                            .key(&text)
                            .payload(&text),
                    )
                    .unwrap()
            })
            .collect();
        for send in sends {
            send.await.unwrap().unwrap();
        }
    }

    fn topic(&self) -> String {
        self.name.clone()
    }

    /// Sends one record; returns its offset.
    pub async fn send(&self, partition: i32, payload: Option<&[u8]>) -> i64 {
        self.send_with(partition, Some(b"key"), payload, &[]).await
    }

    pub async fn send_with(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> i64 {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(rdkafka::message::Header { key, value: Some(*value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.name).partition(partition).headers(owned);
        record.key = key;
        record.payload = payload;
        self.producer.send(record, Timeout::After(PATIENCE)).await.unwrap().offset
    }

    /// A client that may ask for what the group has committed, without being in it.
    pub fn group_client(&self) -> BaseConsumer {
        client().set("group.id", &self.group).create().unwrap()
    }

    /// The group's committed offset of every partition.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.committed_by(&self.group_client())
    }

    /// The same, without a client made for it.
    pub fn committed_by(&self, consumer: &BaseConsumer) -> BTreeMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&self.name, partition);
        }
        let committed = claims_runtime::committed_offsets(consumer, &list, PATIENCE).unwrap();
        committed
            .elements()
            .iter()
            .filter_map(|e| match e.offset() {
                Offset::Offset(offset) => Some((e.partition(), offset)),
                _ => None,
            })
            .collect()
    }

    /// Commits an offset for the group, while nobody is in it.
    pub fn commit(&self, partition: i32, offset: i64) {
        let consumer: BaseConsumer = client().set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    }

    /// The same with what the commit carries.
    pub fn commit_noted(&self, partition: i32, offset: i64, note: &CommitNote) {
        let consumer: BaseConsumer = client().set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.name, partition);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(note.to_metadata());
        consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    }

    /// The group's committed offsets with what they carry.
    pub fn committed_noted(&self) -> BTreeMap<i32, (i64, CommitNote)> {
        let consumer: BaseConsumer = client().set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(&self.name, partition);
        }
        let committed = claims_runtime::committed_offsets(&consumer, &list, PATIENCE).unwrap();
        let element = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match e.offset() {
            Offset::Offset(offset) => {
                Some((e.partition(), (offset, CommitNote::from_metadata(e.metadata()))))
            }
            _ => None,
        };
        committed.elements().iter().filter_map(element).collect()
    }

    /// The topic's id.
    pub fn id(&self) -> Option<String> {
        claims_runtime::describe_topic(self.admin.inner(), &self.name, PATIENCE).unwrap().topic_id
    }

    /// Deletes the topic and makes another one of the same name.
    pub async fn make_anew(&self) {
        let old = self.id();
        self.admin.delete_topics(&[&self.name], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the topic could not be made anew");
            let topic = NewTopic::new(&self.name, self.partitions, TopicReplication::Fixed(1));
            // While the deletion is under way, it exists already.
            if self.admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        until("the new topic's id is known", || self.described_id().is_some_and(|id| Some(id) != old)).await;
    }

    fn described_id(&self) -> Option<String> {
        claims_runtime::describe_topic(self.admin.inner(), &self.name, PATIENCE).ok()?.topic_id
    }

    /// Removes the records below `offset`.
    pub async fn delete_below(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        self.admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    /// Sets the `cleanup.policy` of the dead-letter topic.
    pub async fn set_dead_letter_cleanup(&self, policy: &str) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(&self.dead_letters))
            .set("cleanup.policy", policy)
            .set("max.message.bytes", "1000000");
        self.admin.alter_configs([&config], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        // Until the broker goes by it.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// The dead letters, once there are `count`.
    pub async fn dead_letters(&self, count: usize) -> Vec<DeadRecord> {
        let consumer: BaseConsumer = client().set("group.id", "none").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.dead_letters, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} dead letters", found.len());
            let polled = tokio::task::block_in_place(|| consumer.poll(Duration::from_millis(100)));
            let Some(Ok(message)) = polled else { continue };
            let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
                let text = |v: Option<&[u8]>| String::from_utf8_lossy(v.unwrap_or_default()).into_owned();
                headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect()
            });
            found.push(DeadRecord {
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().map(<[u8]>::to_vec),
                headers,
            });
        }
        found
    }

    /// How many dead letters there are by now.
    pub fn dead_letter_count(&self) -> i64 {
        let consumer: BaseConsumer = client().set("group.id", "none").create().unwrap();
        let (low, high) = consumer.fetch_watermarks(&self.dead_letters, 0, PATIENCE).unwrap();
        high - low
    }

    pub fn config(&self, settings: RuntimeSettings) -> StageConfig {
        StageConfig {
            client_properties: vec![("bootstrap.servers".into(), bootstrap())],
            group_id: self.group.clone(),
            topic: self.name.clone(),
            dead_letter_topic: self.dead_letters.clone(),
            settings,
        }
    }
}

pub struct DeadRecord {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

/// Limits that make tests fast.
pub fn quick() -> RuntimeSettings {
    RuntimeSettings {
        max_batch_records: 100,
        max_batch_age_ms: 20,
        commit_interval_ms: 50,
        sink_retry_min_backoff_ms: 5,
        sink_retry_max_backoff_ms: 20,
        stall_timeout_ms: 60_000,
        ..RuntimeSettings::default()
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !tokio::task::block_in_place(&mut condition) {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
