//! A short-lived look into a topic: without joining its consumer group, without committing, every wait bounded.

use crate::exit::{Away, NoTopic};
use anyhow::bail;
use claims_runtime::{committed_offsets, describe_topic, replay::CommitNote};
use claims_topology::{config::KafkaConfig, kafka::client_config};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const SPAN_POLL_WAIT: Duration = Duration::from_millis(100);

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Offset of the oldest record.
    pub start: i64,
    /// Offset that the next record will get.
    pub end: i64,
}

/// What came of one poll.
pub enum Polled<'a> {
    /// A record.
    Record(BorrowedMessage<'a>),
    /// The end of this partition is reached.
    End(i32),
    /// Nothing for now.
    Nothing,
}

/// Reads topics as a consumer without a group of its own.
pub struct Reader {
    consumer: BaseConsumer,
    servers: String,
    timeout: Duration,
}

impl Reader {
    /// A reader. `group` is the group whose committed offsets are asked for; it is not joined.
    pub fn new(kafka: &KafkaConfig, group: &str) -> anyhow::Result<Self> {
        let consumer = client_config(kafka)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            .create()?;
        Ok(Self {
            consumer,
            servers: kafka.bootstrap_servers.clone(),
            timeout: Duration::from_millis(kafka.request_timeout_ms),
        })
    }

    /// The topic's partitions, ascending.
    pub fn partitions(&self, topic: &str) -> anyhow::Result<Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout).map_err(|e| self.away(&e))?;
        let mut partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic)
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect();
        if partitions.is_empty() {
            return Err(NoTopic { topic: topic.to_owned() }.into());
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Where each partition begins and ends.
    pub fn bounds(&self, topic: &str, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, Bounds>> {
        partitions
            .iter()
            .map(|&partition| {
                let (start, end) = self
                    .consumer
                    .fetch_watermarks(topic, partition, self.timeout)
                    .map_err(|error| self.away(&error))?;
                Ok((partition, Bounds { start, end }))
            })
            .collect()
    }

    /// The group's committed offset of each partition; `None` where it has none.
    pub fn committed(&self, topic: &str, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, Option<i64>>> {
        let committed = self.committed_with_notes(topic, partitions)?;
        Ok(committed.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect())
    }

    /// The same with what each commit carries.
    pub fn committed_with_notes(
        &self,
        topic: &str,
        partitions: &[i32],
    ) -> anyhow::Result<BTreeMap<i32, (Option<i64>, CommitNote)>> {
        let mut wanted = TopicPartitionList::new();
        for &partition in partitions {
            wanted.add_partition(topic, partition);
        }
        let answer =
            committed_offsets(&self.consumer, &wanted, self.timeout).map_err(|error| self.away(&error))?;
        let mut committed = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let note = CommitNote::from_metadata(element.metadata());
            committed.insert(element.partition(), (offset, note));
        }
        Ok(committed)
    }

    /// The first offset at a time (milliseconds since the Unix epoch) or later; nothing for partitions that have none.
    pub fn offsets_at(
        &self,
        topic: &str,
        partitions: &[i32],
        at_ms: i64,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let mut times = TopicPartitionList::new();
        for &partition in partitions {
            times.add_partition_offset(topic, partition, Offset::Offset(at_ms.max(0)))?;
        }
        let found =
            self.consumer.offsets_for_times(times, self.timeout).map_err(|error| self.away(&error))?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    /// The id that Kafka gave the topic when it was made; `None` of a cluster that gives none.
    pub fn topic_id(&self, topic: &str) -> anyhow::Result<Option<String>> {
        Ok(describe_topic(self.consumer.client(), topic, self.timeout)?.topic_id)
    }

    /// Begins to read these partitions at these offsets, and no others.
    pub fn start(&self, topic: &str, offsets: &BTreeMap<i32, i64>) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            assignment.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        Ok(self.consumer.assign(&assignment)?)
    }

    /// Reads no more of one partition.
    pub fn pause(&self, topic: &str, partition: i32) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        self.consumer.pause(&list)
    }

    /// Waits for the next record, for so long at most.
    pub fn poll(&self, wait: Duration) -> anyhow::Result<Polled<'_>> {
        match self.consumer.poll(wait) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            // The client connects again by itself; who waits has a limit of his own.
            Some(Err(error)) if is_passing(&error) => Ok(Polled::Nothing),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The records of one partition with offsets from `from` up to (not with) `until`.
    pub fn span<'a>(
        &'a self,
        topic: &'a str,
        partition: i32,
        from: i64,
        until: i64,
    ) -> anyhow::Result<Span<'a>> {
        if from < until {
            self.start(topic, &BTreeMap::from([(partition, from)]))?;
        }
        Ok(Span { reader: self, topic, partition, next: from, until })
    }

    /// How long one question may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn away(&self, error: &KafkaError) -> Away {
        Away { what: "Kafka", address: self.servers.clone(), detail: error.to_string() }
    }
}

/// A part of one partition, read from its start.
pub struct Span<'a> {
    reader: &'a Reader,
    topic: &'a str,
    partition: i32,
    next: i64,
    until: i64,
}

impl Span<'_> {
    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<BorrowedMessage<'_>>> {
        let deadline = Instant::now() + self.reader.timeout;
        while self.next < self.until {
            match self.reader.poll(SPAN_POLL_WAIT)? {
                Polled::Record(record) => {
                    self.next = record.offset() + 1;
                    return Ok((record.offset() < self.until).then_some(record));
                }
                Polled::End(ended) if ended == self.partition => self.next = self.until,
                Polled::Nothing if Instant::now() > deadline => bail!(
                    "no further record of {} within {:?}; Kafka has stopped answering",
                    self.topic,
                    self.reader.timeout
                ),
                Polled::End(_) | Polled::Nothing => tokio::task::yield_now().await,
            }
        }
        Ok(None)
    }
}

fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut))
}
