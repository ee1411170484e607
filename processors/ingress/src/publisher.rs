//! Events into Kafka: idempotent, acks=all, never awaited one by one, bounded in what is under way.

use crate::{
    delivery::{Delivery, Reachability, Receipt},
    metrics,
    records::{Record, RecordFormat, Records},
    rejects::{MAX_PAYLOAD_BYTES, Reject},
    reports::{InPassing, ReportedProducer},
};
use claims_runtime::dead_letter::{
    HEADER_DETAIL, HEADER_FAILED_AT_MS, HEADER_PAYLOAD_ORIGINAL_BYTES, HEADER_PAYLOAD_TRUNCATED,
    HEADER_PROCESSOR, HEADER_REASON,
};
use claims_schemas::{EncodeError, Event, Timestamp};
use claims_topology::{
    Config,
    kafka::client_config,
    registry,
    topics::{HEADER_CORRELATION_ID, HEADER_EVENT_TYPE, HEADER_TENANT, HEADER_TRACEPARENT},
};
use rdkafka::{
    ClientConfig, ClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext},
};
use std::{sync::Arc, time::Duration};

/// How long the brokers may take to say which topics there are.
const METADATA_TIMEOUT_MS: u64 = 10_000;
/// Records wait this long for others to share a request with.
const LINGER_MS: &str = "5";
/// Bytes handed over and not yet acknowledged, at most.
const MAX_IN_FLIGHT_KBYTES: &str = "131072";
/// What librdkafka also calls `acks`; of the two the one set last would win.
const ACKS_BY_ITS_OTHER_NAME: &str = "request.required.acks";
/// A full queue is asked again after this long.
const QUEUE_FULL_WAIT_MS: u64 = 2;
/// Records that share a receipt, at most.
const RECORDS_PER_RECEIPT: u32 = 512;
/// The name under which ingress writes dead letters.
const PROCESSOR: &str = "ingress";
/// Header of a dead letter: the file that the row came from.
pub const HEADER_SOURCE_FILE: &str = "source-file";
/// Header of a dead letter: the line on which the row begins, from 1.
pub const HEADER_SOURCE_LINE: &str = "source-line";

/// Why events can't be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The client could not be made, or the cluster doesn't answer.
    #[error("Kafka at {servers}: {detail}; is it running? (`cargo xtask up` starts one)")]
    Unreachable {
        /// The configured bootstrap servers.
        servers: String,
        /// What happened.
        detail: String,
    },
    /// The topic isn't there.
    #[error("topic {0} does not exist: run `claims topics apply`")]
    NoTopic(String),
    /// The registry didn't give a schema id.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The event can't be written as Avro.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The thread that takes the delivery reports could not be started.
    #[error("the thread for delivery reports: {0}")]
    Thread(#[source] std::io::Error),
    /// As many records are under way as may be: wait and try again.
    #[error("the queue to Kafka is full")]
    QueueFull,
    /// The client refused the record.
    #[error("Kafka client: {0}")]
    Refused(KafkaError),
    /// Records were handed over, but Kafka did not acknowledge them.
    #[error("Kafka did not acknowledge {failed} of {handed_over} records: {detail}; repeating them is safe")]
    NotAcknowledged {
        /// How many failed.
        failed: u64,
        /// Of how many.
        handed_over: u64,
        /// The first failure.
        detail: String,
    },
}

/// The connection to Kafka, shared by all who publish.
pub struct Publisher {
    producer: ReportedProducer<Context>,
    reachability: Arc<Reachability>,
    events_topic: String,
    dead_letters_topic: String,
    format: RecordFormat,
    published: ::metrics::Counter,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("events_topic", &self.events_topic)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// What is done with the delivery reports.
struct Context {
    reachability: Arc<Reachability>,
    failed: ::metrics::Counter,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.reachability.set_down(true);
        }
        tracing::warn!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Arc<Receipt>) {
        match result {
            Ok(_) => {
                self.reachability.set_down(false);
                receipt.report(None);
            }
            Err((error, _)) => {
                self.failed.increment(1);
                receipt.report(Some(error.to_string()));
            }
        }
    }
}

impl Publisher {
    /// Registers the event schema, finds the topic, and opens the producer.
    pub async fn connect(config: &Config) -> Result<Self, PublishError> {
        let partitions = tokio::task::spawn_blocking({
            let config = config.clone();
            move || count_partitions(&config)
        })
        .await
        .map_err(|error| unreachable_broker(config, error))??;
        let ids = registry::ensure_registered(config).await?;
        Self::open(config, partitions, ids.event)
    }

    fn open(config: &Config, partitions: i32, schema_id: u32) -> Result<Self, PublishError> {
        let reachability = Arc::new(Reachability::default());
        let context = Context {
            reachability: Arc::clone(&reachability),
            failed: ::metrics::counter!(metrics::EVENTS_FAILED),
        };
        let producer: BaseProducer<Context> = producer_config(config)
            .create_with_context(context)
            .map_err(|error| unreachable_broker(config, error))?;
        let producer = ReportedProducer::start(producer).map_err(PublishError::Thread)?;
        Ok(Self {
            producer,
            reachability,
            events_topic: config.topics.events.clone(),
            dead_letters_topic: config.topics.dead_letters.clone(),
            format: RecordFormat { schema_id, partitions },
            published: ::metrics::counter!(metrics::EVENTS_PUBLISHED),
        })
    }

    /// A handle for one thread or task, counting into a delivery of its own.
    pub fn sender(self: &Arc<Self>) -> Sender {
        let delivery = Arc::new(Delivery::default());
        let receipt = Receipt::new(&delivery, self.published.clone());
        let one = Records::new(self.format);
        Sender { publisher: Arc::clone(self), delivery, receipt, on_receipt: 0, in_passing: None, one }
    }

    /// How records for this connection are made.
    pub fn format(&self) -> RecordFormat {
        self.format
    }

    /// Whether events can be sent as far as is known: the brokers are there, and the producer has not failed.
    pub fn is_usable(&self) -> bool {
        !self.is_down() && self.failure().is_none()
    }

    /// Why this producer sends nothing any more, whatever happens: another one must be made. An idempotent producer
    /// ends so when it can't know any more that records go in once and in order.
    pub fn failure(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, detail)| format!("{code}: {detail}"))
    }

    /// Whether all brokers were away when last heard of.
    pub fn is_down(&self) -> bool {
        self.reachability.is_down()
    }

    /// Asks the brokers for a sign of life, waiting at most `timeout`; blocks. Clears [`is_down`](Self::is_down).
    pub fn probe(&self, timeout: Duration) -> bool {
        let alive = self.producer.client().fetch_metadata(Some(&self.events_topic), timeout).is_ok();
        self.reachability.set_down(!alive);
        alive
    }
}

fn producer_config(config: &Config) -> ClientConfig {
    let ingress = &config.ingress;
    let mut client = client_config(&config.kafka);
    client
        .set("compression.type", "lz4")
        .set("linger.ms", LINGER_MS)
        .set("queue.buffering.max.messages", ingress.max_in_flight_events.max(1).to_string())
        .set("queue.buffering.max.kbytes", MAX_IN_FLIGHT_KBYTES)
        .set("delivery.timeout.ms", ingress.delivery_timeout_ms.to_string());
    // What the user passes through wins here too.
    for (name, value) in &config.kafka.properties {
        client.set(name, value.expose());
    }
    // Except over what keeps acknowledged events from being lost or written twice.
    client.remove(ACKS_BY_ITS_OTHER_NAME).set("enable.idempotence", "true").set("acks", "all");
    client
}

/// A consumer asks for all topics: asking for one by name could make the broker create it.
fn count_partitions(config: &Config) -> Result<i32, PublishError> {
    let client: BaseConsumer =
        client_config(&config.kafka).create().map_err(|error| unreachable_broker(config, error))?;
    let metadata = client
        .fetch_metadata(None, Duration::from_millis(METADATA_TIMEOUT_MS))
        .map_err(|error| unreachable_broker(config, error))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == config.topics.events);
    match topic.map(|topic| topic.partitions().len() as i32) {
        Some(partitions) if partitions > 0 => Ok(partitions),
        _ => Err(PublishError::NoTopic(config.topics.events.clone())),
    }
}

fn unreachable_broker(config: &Config, error: impl std::fmt::Display) -> PublishError {
    PublishError::Unreachable { servers: config.kafka.bootstrap_servers.clone(), detail: error.to_string() }
}

/// One thread's or task's way into Kafka.
#[derive(Debug)]
pub struct Sender {
    publisher: Arc<Publisher>,
    delivery: Arc<Delivery>,
    receipt: Arc<Receipt>,
    /// Records that hold a share of it.
    on_receipt: u32,
    /// While many records are handed over by a thread that may block: it takes the reports too.
    in_passing: Option<InPassing>,
    /// For events that come one by one; reused.
    one: Records,
}

impl Sender {
    /// How records for this sender are made.
    pub fn format(&self) -> RecordFormat {
        self.publisher.format
    }

    /// What became of the records of this sender.
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Hands records over without waiting, from the one at `next` on, which then is the place of the first that was
    /// not taken. `traceparent`: the W3C trace context they came with.
    pub fn try_send(
        &mut self,
        records: &Records,
        next: &mut usize,
        traceparent: Option<&str>,
    ) -> Result<(), PublishError> {
        while let Some(record) = records.get(*next) {
            self.try_send_record(record, traceparent)?;
            *next += 1;
        }
        Ok(())
    }

    fn try_send_record(&mut self, record: Record<'_>, traceparent: Option<&str>) -> Result<(), PublishError> {
        let event_type = record.event_type.as_str().as_bytes();
        let mut headers = OwnedHeaders::new_with_capacity(4)
            .insert(Header { key: HEADER_EVENT_TYPE, value: Some(event_type) })
            .insert(Header { key: HEADER_TENANT, value: Some(record.tenant) })
            .insert(Header { key: HEADER_CORRELATION_ID, value: Some(record.correlation_id) });
        if let Some(traceparent) = traceparent {
            headers = headers.insert(Header { key: HEADER_TRACEPARENT, value: Some(traceparent) });
        }
        let share = self.share();
        let publisher = &*self.publisher;
        let message = BaseRecord::with_opaque_to(&publisher.events_topic, share)
            .partition(record.partition)
            .key(record.key)
            .payload(record.value)
            .headers(headers);
        hand_over(publisher, &self.delivery, message)
    }

    /// Hands records over like [`try_send`](Self::try_send), blocking the thread while the queue is full. Ends with
    /// an error once records of this sender have failed, which happens after the delivery timeout when Kafka is away.
    pub fn send_records(&mut self, records: &Records, next: &mut usize) -> Result<(), PublishError> {
        self.in_passing.get_or_insert_with(|| self.publisher.producer.in_passing());
        self.with_room(|sender| sender.try_send(records, next, None))
    }

    /// The same for one event.
    pub fn send(&mut self, event: &Event) -> Result<(), PublishError> {
        let mut one = std::mem::replace(&mut self.one, Records::new(self.publisher.format));
        one.clear();
        one.push(&event.into());
        let sent = match one.failure() {
            Some(error) => Err(error.clone().into()),
            None => self.send_records(&one, &mut 0),
        };
        self.one = one;
        sent
    }

    /// Writes a refused row to the dead-letter topic, blocking while the queue is full.
    pub fn send_reject(&mut self, source_name: &str, reject: &Reject) -> Result<(), PublishError> {
        ::metrics::counter!(metrics::REJECTED, "reason" => reject.reason).increment(1);
        self.with_room(|sender| sender.try_send_reject(source_name, reject))
    }

    /// A share of the receipt for one more record.
    fn share(&mut self) -> Arc<Receipt> {
        if self.on_receipt == RECORDS_PER_RECEIPT {
            self.close_receipt();
            if self.in_passing.is_some() {
                self.publisher.producer.take_reports();
            }
        }
        self.on_receipt += 1;
        Arc::clone(&self.receipt)
    }

    /// Gives up the sender's own share: from here on the receipt counts as soon as the reports are in.
    fn close_receipt(&mut self) {
        self.receipt = Receipt::new(&self.delivery, self.publisher.published.clone());
        self.on_receipt = 0;
    }

    /// Waits until every record handed over is acknowledged or has failed; the client's delivery timeout bounds it.
    pub async fn settled(&mut self) {
        self.close_receipt();
        self.in_passing = None;
        self.delivery.settled().await;
    }

    /// Waits until Kafka has acknowledged everything that was handed over.
    pub async fn flush(&mut self) -> Result<(), PublishError> {
        self.settled().await;
        self.acknowledged_so_far()
    }

    fn with_room(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        loop {
            match attempt(self) {
                Err(PublishError::QueueFull) => {
                    self.acknowledged_so_far()?;
                    // Reports make room.
                    self.publisher.producer.producer().poll(Duration::from_millis(QUEUE_FULL_WAIT_MS));
                }
                done => return done,
            }
        }
    }

    fn acknowledged_so_far(&self) -> Result<(), PublishError> {
        let delivery = &self.delivery;
        if delivery.failed() == 0 {
            return Ok(());
        }
        Err(PublishError::NotAcknowledged {
            failed: delivery.failed(),
            handed_over: delivery.handed_over(),
            detail: delivery.first_error().unwrap_or("no reason given").to_owned(),
        })
    }

    fn try_send_reject(&mut self, source_name: &str, reject: &Reject) -> Result<(), PublishError> {
        let share = self.share();
        let publisher = &*self.publisher;
        let kept = reject.payload.len().min(MAX_PAYLOAD_BYTES);
        let mut headers = OwnedHeaders::new_with_capacity(8);
        for (key, value) in reject_headers(source_name, reject, kept) {
            headers = headers.insert(Header { key, value: Some(&value) });
        }
        let record = BaseRecord::with_opaque_to(&publisher.dead_letters_topic, share)
            .key(source_name.as_bytes())
            .payload(&reject.payload[..kept])
            .headers(headers);
        hand_over(publisher, &self.delivery, record)
    }
}

fn reject_headers(source_name: &str, reject: &Reject, kept: usize) -> Vec<(&'static str, String)> {
    let detail = match &reject.field {
        Some(field) => format!("{field}: {}", reject.detail),
        None => reject.detail.clone(),
    };
    let mut headers = vec![
        (HEADER_PROCESSOR, PROCESSOR.to_owned()),
        (HEADER_REASON, reject.reason.to_owned()),
        (HEADER_DETAIL, detail),
        (HEADER_SOURCE_FILE, source_name.to_owned()),
        (HEADER_SOURCE_LINE, reject.line.to_string()),
        (HEADER_FAILED_AT_MS, Timestamp::now().0.to_string()),
    ];
    if (kept as u64) < reject.original_bytes {
        headers.push((HEADER_PAYLOAD_TRUNCATED, "true".to_owned()));
        headers.push((HEADER_PAYLOAD_ORIGINAL_BYTES, reject.original_bytes.to_string()));
    }
    headers
}

fn hand_over(
    publisher: &Publisher,
    delivery: &Delivery,
    record: BaseRecord<'_, [u8], [u8], Arc<Receipt>>,
) -> Result<(), PublishError> {
    delivery.hand_over();
    match publisher.producer.producer().send(record) {
        Ok(()) => Ok(()),
        Err((error, _)) => {
            delivery.take_back();
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                ::metrics::counter!(metrics::QUEUE_FULL).increment(1);
                return Err(PublishError::QueueFull);
            }
            Err(PublishError::Refused(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_the_user_win_except_over_what_keeps_events_safe() {
        let mut config = Config::default();
        for (name, value) in [
            ("linger.ms", "77"),
            ("acks", "0"),
            ("request.required.acks", "1"),
            ("enable.idempotence", "false"),
        ] {
            config.kafka.properties.insert(name.into(), value.to_owned().into());
        }
        let client = producer_config(&config);
        assert_eq!(client.get("linger.ms"), Some("77"));
        assert_eq!(client.get("acks"), Some("all"));
        assert_eq!(client.get("request.required.acks"), None);
        assert_eq!(client.get("enable.idempotence"), Some("true"));
    }
}
