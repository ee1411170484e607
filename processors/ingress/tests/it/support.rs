use claims_ingress::{
    import::{Counts, ImportError, Target, import},
    mapping::Mapping,
    rejects::Reject,
    source::{Input, RowSource},
};
use claims_runtime::SchemaResolver;
use claims_schemas::{Event, SchemaCache};
use claims_topology::{Config, kafka::client_config, registry::RegistryResolver};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

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
    events
}

/// A file of the shared test data; `None`, and said loudly, where it isn't there.
pub fn shared_data(file: &str) -> Option<PathBuf> {
    let folder = std::env::var("CLAIMS_SHARED_DATA")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED, NOT TESTED: {} is not there; CLAIMS_SHARED_DATA names its folder", path.display());
    None
}

/// What an import without Kafka found.
#[derive(Default)]
pub struct Collected {
    pub events: Vec<Event>,
    pub rejects: Vec<Reject>,
    pub counts: Counts,
}

impl Target for Collected {
    fn event(&mut self, event: &Event) -> Result<(), ImportError> {
        self.events.push(event.clone());
        Ok(())
    }

    fn reject(&mut self, reject: &Reject) -> Result<(), ImportError> {
        self.rejects.push(reject.clone());
        Ok(())
    }
}

/// Imports with one of the project's mappings.
pub fn collect_mapping(mapping: &str, input: Input) -> Collected {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../mappings/{mapping}.toml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    collect(&text, input)
}

/// Imports with a mapping given as text.
pub fn collect(mapping: &str, input: Input) -> Collected {
    let mapping = Mapping::parse("test.toml", mapping).unwrap_or_else(|error| panic!("{error}"));
    let mut source = mapping.open(input, "default", 1 << 20).unwrap_or_else(|error| panic!("{error}"));
    collect_source(&mut *source)
}

/// Imports from any source.
pub fn collect_source(source: &mut dyn RowSource) -> Collected {
    let mut found = Collected::default();
    let mut counts = Counts::default();
    import(source, &mut found, false, &mut counts, &mut |_, _| {}).unwrap();
    let Counts { rows_read, rows_rejected, rows_without_change, .. } = counts;
    let with_events = rows_read - rows_rejected - rows_without_change;
    assert!(counts.events_emitted >= with_events, "every row is accounted for: {counts:?}");
    found.counts = counts;
    found
}
