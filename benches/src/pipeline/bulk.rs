//! Very many events straight into a topic: whole lives of claims, one after the other.

use anyhow::{Context, Result, bail};
use claims_benches::life;
use claims_schemas::codec;
use claims_verifier::{namespace::Namespace, views::topics};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use std::time::Duration;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Writes about so many events, each claim's into one partition; how many there are.
pub async fn produce(namespace: &Namespace, events: u64) -> Result<u64> {
    let schema_id = topics::latest_schema_id(namespace, &format!("{}-value", namespace.events_topic)).await?;
    let mut client = namespace.kafka_client();
    client.set("compression.type", "lz4").set("linger.ms", "5").set("enable.idempotence", "true");
    let producer: ThreadedProducer<DefaultProducerContext> = client.create()?;
    let (mut value, mut made) = (Vec::new(), 0);
    for claim in 0.. {
        if made >= events {
            break;
        }
        let partition = i32::try_from(claim % u64::try_from(namespace.partitions)?)?;
        for event in life(claim) {
            value.clear();
            codec::encode(&event, schema_id, &mut value)?;
            let key = format!("{}:{}:{}", event.tenant_id, event.claim_id, event.event_id);
            send(
                &producer,
                BaseRecord::to(&namespace.events_topic).partition(partition).key(&key).payload(&value),
            )?;
            made += 1;
        }
    }
    producer.flush(FLUSH_TIMEOUT).context("the last events were not acknowledged")?;
    Ok(made)
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    mut record: BaseRecord<'_, String, Vec<u8>>,
) -> Result<()> {
    while let Err((error, refused)) = producer.send(record) {
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => record = refused,
            error => bail!(error),
        }
        std::thread::sleep(QUEUE_FULL_WAIT);
    }
    Ok(())
}
