//! Encoded records into a topic, with the client library alone.

use super::{records, say_done, say_ready};
use anyhow::{Result, bail};
use claims_runtime::OwnedRecord;
use claims_verifier::namespace::Namespace;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use std::time::Duration;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);
/// Delivery reports are taken after so many records, by the thread that hands them over, as the product's: a thread of their
/// own would cost more.
const RECORDS_PER_POLL: usize = 512;

/// From the topic that is read into the namespace's own, with the product's settings.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let headers: Vec<OwnedHeaders> = all.iter().map(headers_of).collect();
    let mut client = namespace.kafka_client();
    client
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("enable.idempotence", "true")
        .set("acks", "all");
    let producer: BaseProducer<DefaultProducerContext> = client.create()?;
    let topic = namespace.topic("claims.events.v1");
    say_ready();
    for ((number, record), headers) in all.iter().enumerate().zip(headers) {
        if number % RECORDS_PER_POLL == 0 {
            take_reports(&producer);
        }
        let mut message: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&topic).partition(record.origin.partition).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.payload.as_deref();
        while let Err((error, refused)) = producer.send(message) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => message = refused,
                error => bail!(error),
            }
            producer.poll(QUEUE_FULL_WAIT);
        }
    }
    producer.flush(FLUSH_TIMEOUT)?;
    say_done(all.len() as u64);
    // What is measured is over; who measures ends the process.
    std::future::pending().await
}

/// All that are there, without waiting: one poll takes those of one request's share of a partition.
fn take_reports(producer: &BaseProducer<DefaultProducerContext>) {
    let mut in_flight = producer.in_flight_count();
    while in_flight > 0 {
        producer.poll(Duration::ZERO);
        let left = producer.in_flight_count();
        if left >= in_flight {
            break;
        }
        in_flight = left;
    }
}

fn headers_of(record: &OwnedRecord) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record
        .headers
        .iter()
        .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
