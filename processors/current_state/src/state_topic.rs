//! The current state of every claim as records, for other teams: topic `claims.state.v1`.
//!
//! Key `tenant:claim_id`, in the partition of the claim's events; the value is the state with its revision, or null for
//! an erased claim. Readers keep the highest revision.

use crate::{
    metrics as names,
    processor::{ClaimWrite, NAME},
};
use claims_runtime::{Batch, Confirmation, Membership, SinkError};
use claims_schemas::{Status, codec};
use claims_topology::{Config, kafka, topics};
use futures::future::join_all;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer, future_producer::DeliveryFuture},
};
use std::{sync::Arc, time::Duration};

/// Header: the state's revision, in decimal.
pub const HEADER_REVISION: &str = "revision";

/// Records handed over before their acknowledgements are waited for: few enough to get through within the delivery
/// timeout on a slow way.
const MAX_OUTSTANDING_RECORDS: usize = 1_000;
/// Memory of the producer's queue, in KiB.
const MAX_QUEUE_KBYTES: &str = "65536";
/// A record not acknowledged by Kafka for this long fails its batch, which is then tried again.
const MAX_DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the producer's queue is full.
const QUEUE_FULL_PAUSE_MS: u64 = 10;

/// Whether a batch's partitions are this process's, looked at before each record: it may be stopped between any two.
struct Lease<'a> {
    membership: &'a Membership,
    confirmation: Confirmation,
}

impl<'a> Lease<'a> {
    async fn begin(membership: &'a Membership) -> Result<Self, SinkError> {
        Ok(Self { membership, confirmation: membership.confirm().await? })
    }

    async fn holds(&mut self, partition: i32) -> Result<bool, SinkError> {
        if self.confirmation == Confirmation::Certain && !self.membership.is_certain() {
            self.confirmation = self.membership.confirm().await?;
        }
        Ok(!self.membership.has_lost(partition))
    }
}

/// Writes current states.
pub struct StatePublisher {
    producer: FutureProducer,
    topic: String,
    schema_id: u32,
}

impl StatePublisher {
    /// A publisher that frames states with `schema_id`. What still waits in a process that was stopped for longer than
    /// the group's `session_timeout` expires before it is sent: its partitions have another owner by then, and older
    /// states must not come behind that one's (docs/adr/0012-late-states.md).
    pub fn new(config: &Config, schema_id: u32, session_timeout: Duration) -> Result<Self, SinkError> {
        let delivery_timeout = (session_timeout / 2).min(MAX_DELIVERY_TIMEOUT);
        let mut client = kafka::client_config(&config.kafka);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", MAX_QUEUE_KBYTES)
            .set("delivery.timeout.ms", delivery_timeout.as_millis().to_string());
        // What the user set for all clients wins, as everywhere.
        for (name, value) in &config.kafka.properties {
            client.set(name, value.expose());
        }
        let producer = client.create().map_err(|e| SinkError::Fatal(format!("Kafka producer: {e}")))?;
        Ok(Self { producer, topic: config.topics.state.clone(), schema_id })
    }

    /// Writes the claims' states; `Ok` once Kafka has acknowledged every one. Those of partitions that were taken away
    /// meanwhile are left to their next owner, and none is handed over while it isn't certain that this process is still a
    /// member of its group.
    pub async fn publish(&self, batch: &Batch<Arc<ClaimWrite>>) -> Result<(), SinkError> {
        let mut value = Vec::with_capacity(1024);
        let mut lease = Lease::begin(&batch.membership).await?;
        for chunk in batch.rows.chunks(MAX_OUTSTANDING_RECORDS) {
            let mut deliveries = Vec::with_capacity(chunk.len());
            for write in chunk {
                deliveries.extend(self.send(write, &mut lease, &mut value).await?);
            }
            for delivery in join_all(deliveries).await {
                match delivery {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(self.classify(&error)),
                    Err(_) => return Err(SinkError::Transient("the Kafka producer was closed".into())),
                }
            }
            metrics::counter!(
                names::PROJECTIONS_UPDATED_TOTAL, "service" => NAME, "projection_type" => "state_topic", "status" => "ok"
            )
            .increment(chunk.len() as u64);
        }
        Ok(())
    }

    /// Hands a state over, unless its partition is gone.
    async fn send(
        &self,
        write: &ClaimWrite,
        lease: &mut Lease<'_>,
        value: &mut Vec<u8>,
    ) -> Result<Option<DeliveryFuture>, SinkError> {
        let state = &write.claim.state;
        let key = format!("{}:{}", state.tenant_id, state.claim_id);
        let revision = state.revision().to_string();
        value.clear();
        let erased = state.status() == Status::Erased;
        if !erased {
            codec::encode_state(state, self.schema_id, value)
                .map_err(|e| SinkError::Poison(e.to_string()))?;
        }
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: topics::HEADER_TENANT, value: Some(state.tenant_id.as_str()) })
            .insert(Header { key: HEADER_REVISION, value: Some(&revision) });
        let mut record =
            FutureRecord::<str, [u8]>::to(&self.topic).key(&key).partition(write.partition).headers(headers);
        if !erased {
            record = record.payload(value.as_slice());
        }
        loop {
            if !lease.holds(write.partition).await? {
                return Ok(None);
            }
            match self.producer.send_result(record) {
                Ok(delivery) => return Ok(Some(delivery)),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    tokio::time::sleep(Duration::from_millis(QUEUE_FULL_PAUSE_MS)).await;
                }
                Err((error, _)) => return Err(self.classify(&error)),
            }
        }
    }

    fn classify(&self, error: &KafkaError) -> SinkError {
        let detail = format!("topic {}: {error}", self.topic);
        if self.producer.client().fatal_error().is_some() {
            return SinkError::Fatal(detail);
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                SinkError::Poison(detail)
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::InvalidTopic,
            ) => SinkError::Fatal(detail),
            _ => SinkError::Transient(detail),
        }
    }
}
