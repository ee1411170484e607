//! Noting in the dead-letter topic that somebody is done with refused records.

use super::letter::{HEADER_LETTER, Letter};
use anyhow::Context;
use claims_ingress::publisher::{HEADER_SOURCE_FILE, HEADER_SOURCE_LINE};
use claims_runtime::dead_letter::{
    HEADER_OFFSET, HEADER_PARTITION, HEADER_PROCESSOR, HEADER_REASON, HEADER_RESOLUTION,
    HEADER_RESOLVED_AT_MS, HEADER_TOPIC, RESOLUTION_DISCARDED,
};
use claims_topology::{Config, kafka::client_config};
use futures::{StreamExt, TryStreamExt};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use std::time::Duration;

/// Notes on their way at the same time.
const MAX_OUTSTANDING: usize = 256;

/// Writes one note for each of these dead letters, into its own partition: there it comes after it. Returns when Kafka
/// has all of them.
pub async fn discard(config: &Config, letters: &[Letter]) -> anyhow::Result<()> {
    let topic = &config.topics.dead_letters;
    let timeout = Duration::from_millis(config.kafka.request_timeout_ms);
    let producer: FutureProducer = client_config(&config.kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", config.kafka.request_timeout_ms.to_string())
        .create()?;
    futures::stream::iter(letters)
        .map(|letter| {
            let producer = &producer;
            async move {
                let mut record = FutureRecord::<[u8], [u8]>::to(topic)
                    .partition(letter.partition)
                    .headers(headers(letter, chrono::Utc::now().timestamp_millis()));
                record.key = letter.raw_key.as_deref();
                let sent = producer.send(record, Timeout::After(timeout)).await;
                sent.map(drop)
                    .map_err(|(error, _)| error)
                    .with_context(|| format!("{} was not discarded, nor were those after it", letter.place()))
            }
        })
        .buffered(MAX_OUTSTANDING)
        .try_collect::<()>()
        .await
}

fn headers(letter: &Letter, now_ms: i64) -> OwnedHeaders {
    const CARRIED: [&str; 7] = [
        HEADER_TOPIC,
        HEADER_PARTITION,
        HEADER_OFFSET,
        HEADER_PROCESSOR,
        HEADER_REASON,
        HEADER_SOURCE_FILE,
        HEADER_SOURCE_LINE,
    ];
    let own = [
        (HEADER_RESOLUTION, RESOLUTION_DISCARDED.to_owned()),
        (HEADER_RESOLVED_AT_MS, now_ms.to_string()),
        (HEADER_LETTER, letter.place().to_string()),
    ];
    let carried = CARRIED.iter().filter_map(|&name| Some((name, letter.headers.get(name)?.clone())));
    own.into_iter().chain(carried).fold(OwnedHeaders::new_with_capacity(10), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(&value) })
    })
}
