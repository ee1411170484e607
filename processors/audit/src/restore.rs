//! Seeding the events topic anew from the trail, after it was lost.
//!
//! Every record goes back into its partition, in the order of the chain, key and value byte by byte. Offsets are new
//! ones, so the restored topic gets a trail of its own; the old one stays as it is.

use crate::{
    record::{RecordKind, TrailRecord},
    segment::{
        SegmentError,
        read::{Columns, SegmentFile},
    },
    store::{SegmentStore, StoreError},
    verify::{self, VerifyOptions},
};
use claims_topology::{
    Config,
    kafka::client_config,
    topics::{HEADER_CORRELATION_ID, HEADER_EVENT_TYPE, HEADER_TENANT, HEADER_TRACEPARENT},
};
use futures::{StreamExt, stream::FuturesUnordered};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Records handed to the producer and not yet acknowledged, at most.
const MAX_IN_FLIGHT_RECORDS: usize = 20_000;
/// Bytes waiting in the producer, at most, in KiB.
const MAX_IN_FLIGHT_KBYTES: &str = "65536";
/// A record that Kafka has not acknowledged by then ends the restore.
const DELIVERY_TIMEOUT_MS: &str = "120000";
/// One look at the cluster may take so long.
const METADATA_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries while the producer's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Why nothing, or not everything, was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The trail doesn't hold: what it says can't be trusted.
    #[error(
        "the trail of topic {topic} in {store} doesn't hold ({findings} findings): see `claims audit verify`"
    )]
    Broken {
        /// The topic.
        topic: String,
        /// The store.
        store: String,
        /// Number of findings.
        findings: u64,
    },
    /// There is no trail of the topic.
    #[error("the store {store} has no trail of topic {topic}; it has: {others}")]
    NoTrail {
        /// The topic.
        topic: String,
        /// The store.
        store: String,
        /// Topics that it has trails of.
        others: String,
    },
    /// A segment can't be read.
    #[error("segment {segment}: {source}")]
    Segment {
        /// The segment.
        segment: String,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// The topic is missing, or isn't as it was.
    #[error("{0}")]
    Topic(String),
    /// Kafka didn't take a record.
    #[error(
        "{written} records were acknowledged, then Kafka refused one: {source}. Running it again with --append writes \
         all of them once more: copies change nothing"
    )]
    Kafka {
        /// Records acknowledged.
        written: u64,
        /// What Kafka said.
        source: KafkaError,
    },
}

/// What to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The topic whose trail is read, and which is written to.
    pub topic: String,
    /// Write although the topic holds records already. What it holds becomes copies, which change nothing.
    pub append: bool,
    /// Only look: verify the trail and the topic, count, write nothing.
    pub dry_run: bool,
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Events written and acknowledged.
    pub events: u64,
    /// Tombstones written and acknowledged.
    pub tombstones: u64,
    /// Records whose content was erased: they can't be, and must not be, brought back.
    pub erased: u64,
    /// Records by the registry's id of their schema. The registry must still know these ids.
    pub schema_ids: BTreeMap<u32, u64>,
    /// Partitions.
    pub partitions: u64,
}

/// Writes the trail of a topic into it. `progress` gets (records done, records in all).
pub async fn restore(
    config: &Config,
    store: &SegmentStore,
    options: &RestoreOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Restored, RestoreError> {
    let topic = options.topic.as_str();
    let verified =
        verify::verify(store, &VerifyOptions { topic: Some(topic.to_owned()), ..Default::default() }).await?;
    if verified.chains.is_empty() {
        let others = store.topics().await?;
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        return Err(RestoreError::NoTrail {
            topic: topic.to_owned(),
            store: store.name().to_owned(),
            others,
        });
    }
    let findings = verified.chains.iter().map(|chain| chain.findings_total).sum();
    if findings > 0 {
        let store = store.name().to_owned();
        return Err(RestoreError::Broken { topic: topic.to_owned(), store, findings });
    }
    let partitions: Vec<i32> = verified.chains.iter().map(|chain| chain.partition).collect();
    check_topic(config, options, &partitions).await?;
    let mut writer = Writer::new(config, options)?;
    for &partition in &partitions {
        for folder in store.folders(topic, partition).await?.numbers {
            for sequence in store.segments(topic, partition, folder).await?.numbers {
                let bytes = store.get(topic, partition, sequence).await?;
                let segment = |source| RestoreError::Segment {
                    segment: SegmentStore::segment_path(topic, partition, sequence),
                    source,
                };
                let file = SegmentFile::open(bytes).map_err(segment)?;
                for record in file.records(Columns::All).map_err(segment)? {
                    writer.write(partition, record.map_err(segment)?).await?;
                }
                progress(writer.done(), verified.records);
            }
        }
    }
    let mut restored = writer.finish().await?;
    progress(verified.records, verified.records);
    restored.partitions = partitions.len() as u64;
    Ok(restored)
}

/// The topic must be there with at least the partitions of the trail, and empty unless asked otherwise.
async fn check_topic(
    config: &Config,
    options: &RestoreOptions,
    partitions: &[i32],
) -> Result<(), RestoreError> {
    let (client, topic, append) = (client_config(&config.kafka), options.topic.clone(), options.append);
    let wanted = partitions.last().map_or(0, |last| last + 1);
    let configured = config.topics.partitions;
    let checked = tokio::task::spawn_blocking(move || -> Result<Result<(), String>, KafkaError> {
        let consumer: BaseConsumer = client.create()?;
        // Asking for all of them: asking for one by name could make the broker create it.
        let metadata = consumer.fetch_metadata(None, METADATA_TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.map_or(0, |found| found.partitions().len() as i32);
        if found == 0 {
            return Ok(Err(format!("topic {topic} does not exist; make it with `claims topics apply`")));
        }
        if found != configured || found < wanted {
            return Ok(Err(format!(
                "topic {topic} has {found} partitions, the trail at least {wanted}, the configuration \
                 {configured} (topics.partitions): all three must be alike, since a claim's partition follows from \
                 their number"
            )));
        }
        let mut records = 0;
        for partition in 0..found {
            let (low, high) = consumer.fetch_watermarks(&topic, partition, METADATA_TIMEOUT)?;
            records += high - low;
        }
        if records > 0 && !append {
            return Ok(Err(format!(
                "topic {topic} holds records already (about {records}); --append writes all the same: events that it \
                 holds become copies, which change nothing"
            )));
        }
        Ok(Ok(()))
    })
    .await;
    match checked {
        Ok(Ok(result)) => result.map_err(RestoreError::Topic),
        Ok(Err(source)) => Err(RestoreError::Kafka { written: 0, source }),
        Err(error) => {
            Err(RestoreError::Topic(format!("topic {} could not be checked: {error}", options.topic)))
        }
    }
}

/// Sends records in order, with a bounded number on their way.
struct Writer<'a> {
    producer: Option<FutureProducer>,
    topic: &'a str,
    in_flight: FuturesUnordered<DeliveryFuture>,
    acknowledged: u64,
    restored: Restored,
}

impl<'a> Writer<'a> {
    fn new(config: &Config, options: &'a RestoreOptions) -> Result<Self, RestoreError> {
        let mut client = client_config(&config.kafka);
        client
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", MAX_IN_FLIGHT_KBYTES)
            .set("queue.buffering.max.messages", MAX_IN_FLIGHT_RECORDS.to_string())
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            .remove("request.required.acks")
            .set("enable.idempotence", "true")
            .set("acks", "all");
        let producer = match options.dry_run {
            true => None,
            false => Some(client.create().map_err(|source| RestoreError::Kafka { written: 0, source })?),
        };
        Ok(Self {
            producer,
            topic: &options.topic,
            in_flight: FuturesUnordered::new(),
            acknowledged: 0,
            restored: Restored::default(),
        })
    }

    /// Records looked at.
    fn done(&self) -> u64 {
        self.restored.events + self.restored.tombstones + self.restored.erased
    }

    async fn write(&mut self, partition: i32, record: TrailRecord) -> Result<(), RestoreError> {
        let entry = record.entry;
        let Some(content) = entry.content else {
            self.restored.erased += 1;
            return Ok(());
        };
        match entry.kind {
            RecordKind::Event => self.restored.events += 1,
            RecordKind::Tombstone => self.restored.tombstones += 1,
        }
        if let Some(schema_id) = content.schema_id {
            *self.restored.schema_ids.entry(schema_id).or_default() += 1;
        }
        let headers = [
            (HEADER_EVENT_TYPE, entry.event_type.as_deref()),
            (HEADER_TENANT, entry.tenant_id.as_deref()),
            (HEADER_CORRELATION_ID, content.correlation_id.as_deref()),
            (HEADER_TRACEPARENT, content.traceparent.as_deref()),
        ];
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers.into_iter().filter(|(_, value)| value.is_some()) {
            owned = owned.insert(Header { key, value });
        }
        self.send(partition, content.key.as_deref(), content.value.as_deref(), owned).await
    }

    async fn send(
        &mut self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), RestoreError> {
        let Some(producer) = &self.producer else { return Ok(()) };
        let mut record = FutureRecord::<[u8], [u8]>::to(self.topic).partition(partition).headers(headers);
        record.key = key;
        record.payload = value;
        loop {
            match producer.send_result(record) {
                Ok(delivery) => {
                    self.in_flight.push(delivery);
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((source, _)) => return Err(RestoreError::Kafka { written: self.acknowledged, source }),
            }
        }
        while self.in_flight.len() >= MAX_IN_FLIGHT_RECORDS {
            self.one_delivered().await?;
        }
        Ok(())
    }

    async fn one_delivered(&mut self) -> Result<(), RestoreError> {
        let failed = |written, source| Err(RestoreError::Kafka { written, source });
        match self.in_flight.next().await {
            None | Some(Ok(Ok(_))) => {
                self.acknowledged += 1;
                Ok(())
            }
            Some(Ok(Err((source, _)))) => failed(self.acknowledged, source),
            Some(Err(_)) => failed(self.acknowledged, KafkaError::Canceled),
        }
    }

    async fn finish(mut self) -> Result<Restored, RestoreError> {
        while !self.in_flight.is_empty() {
            self.one_delivered().await?;
        }
        if let Some(producer) = &self.producer
            && let Some((code, _)) = producer.client().fatal_error()
        {
            return Err(RestoreError::Kafka {
                written: self.acknowledged,
                source: KafkaError::MessageProduction(code),
            });
        }
        Ok(self.restored)
    }
}
