//! Records into batches on a thread of its own, so that the next batch is read while the last one is written.

use super::group;
use crate::ours::{COMMIT_INTERVAL_MS, MAX_BATCH_AGE_MS};
use anyhow::{Context, Result};
use claims_verifier::namespace::Namespace;
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
    topic_partition_list::Offset,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Records of a batch …
const BATCH_RECORDS: usize = 50_000;
/// … or this age, for the last one.
const BATCH_AGE: Duration = Duration::from_millis(MAX_BATCH_AGE_MS);
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// What becomes of records.
pub trait Work: Send + 'static {
    /// What is written.
    type Row: Send + Sync + 'static;
    /// Takes a record.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()>;
    /// What the records since the last call are to be written as.
    fn batch(&mut self) -> Vec<Self::Row>;
}

/// Offsets after the last record read, by partition.
type Position = HashMap<i32, i64>;

/// Commits by itself, every now and then, what it is told is done. The client library's default would commit what was
/// read instead: no faster, and progress could not be seen by it.
fn consumer(namespace: &Namespace) -> Result<BaseConsumer> {
    let mut client = namespace.kafka_client();
    client
        .set("group.id", group(namespace))
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", COMMIT_INTERVAL_MS.to_string())
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[&namespace.events_topic])?;
    Ok(consumer)
}

/// Consumes for ever, one batch written after the other.
pub async fn consume<W: Work>(
    namespace: &Namespace,
    work: W,
    write: impl AsyncFn(Vec<W::Row>) -> Result<()>,
) -> Result<()> {
    let consumer = Arc::new(consumer(namespace)?);
    let (sender, mut batches) = mpsc::channel(1);
    let reading = Arc::clone(&consumer);
    let reader = tokio::task::spawn_blocking(move || read(&reading, work, &sender));
    while let Some((rows, position)) = batches.recv().await {
        write(rows).await?;
        let mut done = TopicPartitionList::new();
        for (partition, next) in position {
            done.add_partition_offset(&namespace.events_topic, partition, Offset::Offset(next))?;
        }
        consumer.store_offsets(&done)?;
    }
    reader.await?
}

/// Cuts what comes into batches.
fn read<W: Work>(
    consumer: &BaseConsumer,
    mut work: W,
    sender: &mpsc::Sender<(Vec<W::Row>, Position)>,
) -> Result<()> {
    let (mut taken, mut begun, mut position) = (0, None, Position::new());
    loop {
        if let Some(message) = consumer.poll(POLL_TIMEOUT) {
            let message = message?;
            work.take(&message)?;
            position.insert(message.partition(), message.offset() + 1);
            taken += 1;
            begun.get_or_insert_with(Instant::now);
        }
        let is_old = begun.is_some_and(|begun: Instant| begun.elapsed() >= BATCH_AGE);
        if taken >= BATCH_RECORDS || (is_old && taken > 0) {
            let position = std::mem::take(&mut position);
            sender.blocking_send((work.batch(), position)).context("nobody writes any more")?;
            (taken, begun) = (0, None);
        }
    }
}
