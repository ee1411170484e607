//! The consuming half of a floor: records are counted, never looked at, and for every batch of them a prepared batch is
//! written. Offsets are committed once it is.

use super::{group, say_done, say_ready};
use anyhow::{Context, Result};
use claims_verifier::namespace::Namespace;
use futures::{StreamExt, stream::FuturesOrdered};
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    topic_partition_list::Offset,
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A batch is written at this age however few records it has.
const BATCH_AGE: Duration = Duration::from_millis(crate::ours::MAX_BATCH_AGE_MS);
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// Offsets after the last record read, by partition.
type Position = HashMap<i32, i64>;

/// A consumer with the product's own settings, in the floor's group.
pub fn consumer(namespace: &Namespace) -> Result<BaseConsumer> {
    let mut client = namespace.kafka_client();
    client
        .set("group.id", group(namespace))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.message.max.bytes", "2097152")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[&namespace.events_topic])?;
    Ok(consumer)
}

/// Consumes for ever, in batches of `batch_records`. For the first records `write` gets the first rows, and so on,
/// `in_flight` batches at a time.
pub async fn pump<W, F>(namespace: &Namespace, batch_records: usize, in_flight: usize, write: W) -> Result<()>
where
    W: Fn(Range<usize>) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let consumer = Arc::new(consumer(namespace)?);
    let (sender, mut batches) = mpsc::channel(1);
    let reading = Arc::clone(&consumer);
    say_ready();
    let mut reader = tokio::task::spawn_blocking(move || read(&reading, batch_records, &sender));
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            Some((rows, position)) = batches.recv(), if under_way.len() < in_flight => {
                let rows: Range<usize> = rows;
                // On a thread of its own, as the product's sink.
                let written = tokio::spawn(write(rows.clone()));
                under_way.push_back(async move { written.await?.map(|()| (rows.end, position)) });
            }
            Some(written) = under_way.next() => {
                let (rows, position): (usize, Position) = written?;
                commit(&consumer, &namespace.events_topic, &position)?;
                say_done(rows as u64);
            }
            ended = &mut reader => return ended?,
        }
    }
}

/// Cuts what comes into batches, until nobody wants them.
fn read(
    consumer: &BaseConsumer,
    batch_records: usize,
    sender: &mpsc::Sender<(Range<usize>, Position)>,
) -> Result<()> {
    let (mut first, mut next, mut begun, mut position) = (0, 0, None, Position::new());
    loop {
        if let Some(message) = consumer.poll(POLL_TIMEOUT) {
            let message = message?;
            position.insert(message.partition(), message.offset() + 1);
            next += 1;
            begun.get_or_insert_with(Instant::now);
        }
        let is_old = begun.is_some_and(|begun: Instant| begun.elapsed() >= BATCH_AGE);
        if next - first >= batch_records || (is_old && next > first) {
            sender.blocking_send((first..next, position.clone())).context("nobody writes any more")?;
            (first, begun) = (next, None);
        }
    }
}

/// Tells the group what is done.
pub fn commit(consumer: &BaseConsumer, topic: &str, position: &Position) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (&partition, &next) in position {
        offsets.add_partition_offset(topic, partition, Offset::Offset(next))?;
    }
    Ok(consumer.commit(&offsets, CommitMode::Async)?)
}
