//! Writing dead letters: acknowledged by all replicas before their offsets count.

use super::{headers::*, *};
use futures::{StreamExt as _, stream::FuturesUnordered};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Dead letters of one batch on their way at the same time.
const MAX_OUTSTANDING: usize = 64;
/// One attempt to write a dead letter.
const MESSAGE_TIMEOUT_MS: u64 = 30_000;
const RETRY_BACKOFF_MS: u64 = 500;
/// Room for key, headers and framing beside the payload.
const MESSAGE_OVERHEAD_BYTES: usize = 256 * 1024;

/// Why dead letters can't be written, however long one waits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadLetterError {
    #[error(
        "the dead-letter topic {topic} takes no records ({source}); run `claims topics apply`, or check its rights"
    )]
    Refused { topic: String, source: KafkaError },
    #[error("no producer for dead letters: {0}")]
    Producer(KafkaError),
}

/// The producer, made when the first dead letter comes.
pub(crate) struct DeadLetterProducer {
    topic: String,
    source_topic: String,
    processor: &'static str,
    config: ClientConfig,
    producer: Mutex<Option<FutureProducer>>,
}

impl DeadLetterProducer {
    pub fn new(
        client_properties: &[(String, String)],
        topic: &str,
        source_topic: &str,
        processor: &'static str,
        max_payload_bytes: usize,
    ) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS.to_string())
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "32768")
            .set("compression.type", "lz4")
            .set("linger.ms", "5");
        config.extend(client_properties.iter().cloned());
        config.set("enable.idempotence", "true").set("acks", "all");
        if config.get("message.max.bytes").is_none() {
            let max_bytes = (max_payload_bytes + MESSAGE_OVERHEAD_BYTES).max(1_000_000);
            config.set("message.max.bytes", max_bytes.to_string());
        }
        Self {
            topic: topic.to_owned(),
            source_topic: source_topic.to_owned(),
            processor,
            config,
            producer: Mutex::new(None),
        }
    }

    /// Writes all of them, waiting as long as Kafka is away. `waiting` hears of every failed attempt.
    pub async fn write_all(
        &self,
        letters: &[DeadLetter],
        waiting: &(dyn Fn(String) + Sync),
    ) -> Result<(), DeadLetterError> {
        let mut outstanding = FuturesUnordered::new();
        for letter in letters {
            if outstanding.len() == MAX_OUTSTANDING {
                outstanding.next().await.transpose()?;
            }
            outstanding.push(self.write(letter, waiting));
        }
        while let Some(result) = outstanding.next().await {
            result?;
        }
        Ok(())
    }

    /// The dead-letter topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes what became of a dead letter, waiting as long as Kafka is away: give it a deadline.
    pub async fn write_trace(
        &self,
        trace: &Trace,
        waiting: &(dyn Fn(String) + Sync),
    ) -> Result<(), DeadLetterError> {
        loop {
            let mut record =
                FutureRecord::<[u8], [u8]>::to(&self.topic).headers(self.headers_of_trace(trace));
            record.key = trace.key.as_deref();
            let producer = self.producer()?;
            let queue_timeout = Timeout::After(Duration::from_millis(MESSAGE_TIMEOUT_MS));
            let Err((error, _)) = producer.send(record, queue_timeout).await else { return Ok(()) };
            if is_final(&error) {
                return Err(DeadLetterError::Refused { topic: self.topic.clone(), source: error });
            }
            if producer_is_broken(&producer) {
                self.replace_producer();
            }
            waiting(format!("dead-letter topic {}: {error}", self.topic));
            tokio::time::sleep(Duration::from_millis(RETRY_BACKOFF_MS)).await;
        }
    }

    async fn write(
        &self,
        letter: &DeadLetter,
        waiting: &(dyn Fn(String) + Sync),
    ) -> Result<(), DeadLetterError> {
        let mut max_payload_bytes = usize::MAX;
        loop {
            let payload = letter.payload.as_deref().map(|bytes| &bytes[..bytes.len().min(max_payload_bytes)]);
            let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic)
                .headers(self.headers_of(letter, payload.map_or(0, <[u8]>::len)));
            record.key = letter.key.as_deref();
            record.payload = payload;
            let producer = self.producer()?;
            let queue_timeout = Timeout::After(Duration::from_millis(MESSAGE_TIMEOUT_MS));
            let Err((error, _)) = producer.send(record, queue_timeout).await else { return Ok(()) };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageSizeTooLarge) if payload.is_some_and(|p| !p.is_empty()) => {
                    max_payload_bytes = payload.map_or(0, <[u8]>::len) / 2;
                    continue;
                }
                _ if is_final(&error) => {
                    return Err(DeadLetterError::Refused { topic: self.topic.clone(), source: error });
                }
                _ if producer_is_broken(&producer) => self.replace_producer(),
                _ => {}
            }
            waiting(format!("dead-letter topic {}: {error}", self.topic));
            tokio::time::sleep(Duration::from_millis(RETRY_BACKOFF_MS)).await;
        }
    }

    fn headers_of_trace(&self, trace: &Trace) -> OwnedHeaders {
        let (partition, offset) = (trace.origin.partition.to_string(), trace.origin.offset.to_string());
        let at = chrono::Utc::now().timestamp_millis().to_string();
        let refusal = trace.refusal.as_ref();
        let pairs = [
            (HEADER_RESOLUTION, Some(trace.resolution)),
            (HEADER_OUTCOME, trace.outcome),
            (HEADER_TOPIC, Some(self.source_topic.as_str())),
            (HEADER_PARTITION, Some(partition.as_str())),
            (HEADER_OFFSET, Some(offset.as_str())),
            (HEADER_PROCESSOR, Some(self.processor)),
            (HEADER_REASON, refusal.map(|(reason, _)| reason.as_str())),
            (HEADER_DETAIL, refusal.map(|(_, detail)| detail.as_str())),
            (HEADER_RESOLVED_AT_MS, Some(at.as_str())),
        ];
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .fold(OwnedHeaders::new_with_capacity(pairs.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            })
    }

    fn headers_of(&self, letter: &DeadLetter, payload_bytes: usize) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(16 + letter.headers.len());
        let mut add = |key: &str, value: &[u8]| {
            let filled = std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0));
            headers = filled.insert(Header { key, value: Some(value) });
        };
        add(HEADER_TOPIC, self.source_topic.as_bytes());
        add(HEADER_PARTITION, letter.origin.partition.to_string().as_bytes());
        add(HEADER_OFFSET, letter.origin.offset.to_string().as_bytes());
        add(HEADER_TIMESTAMP_MS, letter.appended_at_ms.to_string().as_bytes());
        add(HEADER_PROCESSOR, self.processor.as_bytes());
        add(HEADER_REASON, letter.reason.as_bytes());
        add(HEADER_DETAIL, letter.detail.as_bytes());
        if let Some(id) = letter.schema_id {
            add(HEADER_SCHEMA_ID, id.to_string().as_bytes());
        }
        add(HEADER_FAILED_AT_MS, chrono::Utc::now().timestamp_millis().to_string().as_bytes());
        if payload_bytes < letter.payload_original_bytes {
            add(HEADER_PAYLOAD_TRUNCATED, b"true");
            add(HEADER_PAYLOAD_ORIGINAL_BYTES, letter.payload_original_bytes.to_string().as_bytes());
        }
        if letter.key_truncated {
            add(HEADER_KEY_TRUNCATED, b"true");
        }
        if letter.headers_truncated {
            add(HEADER_HEADERS_TRUNCATED, b"true");
        }
        for (name, value) in &letter.headers {
            add(&format!("{ORIGINAL_HEADER_PREFIX}{name}"), value);
        }
        headers
    }

    fn producer(&self) -> Result<FutureProducer, DeadLetterError> {
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self.config.create().map_err(DeadLetterError::Producer)?;
        Ok(slot.insert(producer).clone())
    }

    /// An idempotent producer with a fatal error sends nothing more: the next attempt makes a new one.
    fn replace_producer(&self) {
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Errors that waiting doesn't mend.
fn is_final(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        error.rdkafka_error_code(),
        Some(
            UnknownTopic
                | UnknownTopicOrPartition
                | TopicAuthorizationFailed
                | ClusterAuthorizationFailed
                | MessageSizeTooLarge
                | PolicyViolation
        )
    )
}

fn producer_is_broken(producer: &FutureProducer) -> bool {
    use rdkafka::producer::Producer as _;
    producer.client().fatal_error().is_some()
}
