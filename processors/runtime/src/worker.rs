//! The requests to Kafka that block: commits, committed offsets, watermarks. Threads of their own make them, so that the loop
//! never stops polling; every answer is a letter. Commits are synchronous ones: the client library tells the result of those
//! alone.
//!
//! Watermarks are asked for partition by partition, and may take seconds. So they have a thread beside that of the commits, and a
//! client outside the group beside the consumer, on whose connections they would stand behind fetches that wait for records.

use crate::{
    event_loop::Letter,
    kafka::{KafkaConsumer, LookupClient, list, list_noted},
    ledger::Committable,
    mailbox::Mailbox,
    offsets::committed_offsets,
    replay::CommitNote,
    topic_id::{TopicIdError, describe_topic},
};
use rdkafka::{
    consumer::{CommitMode, Consumer as _},
    error::{KafkaError, KafkaResult},
    topic_partition_list::{Offset, TopicPartitionList},
};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

/// One request is given up after this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What Kafka says about the topic and the partitions asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookedUp {
    pub topic_id: Option<String>,
    pub found: Vec<Found>,
}

/// What Kafka says about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub partition: i32,
    pub committed: Option<i64>,
    /// What that commit carries, or what its absence says.
    pub note: CommitNote,
    /// First offset in the log.
    pub low: i64,
    /// Offset after the last.
    pub high: i64,
}

/// The ends of partitions, and which topic it is that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub topic_id: Option<String>,
    pub highs: Vec<(i32, i64)>,
}

/// What the group's member asks for.
enum Task {
    Commit(Vec<(Committable, CommitNote)>),
    /// What is committed is committed once more, to hear whether the group takes it.
    Confirm((Committable, CommitNote)),
    /// Committed offsets; the rest of the look-up is the other thread's.
    LookUp(Vec<i32>),
}

/// What is asked for outside the group.
enum Ask {
    /// These partitions, of which this is committed.
    LookUp(Vec<i32>, TopicPartitionList),
    Watermarks(Vec<i32>),
}

/// The threads' handle. At most one task of each kind is outstanding: the loop sees to that.
pub(crate) struct Worker {
    tasks: Option<mpsc::Sender<Task>>,
    asks: Option<mpsc::Sender<Ask>>,
    ended: mpsc::Receiver<()>,
    asks_ended: mpsc::Receiver<()>,
}

impl Worker {
    pub fn start(
        consumer: Arc<KafkaConsumer>,
        lookups: LookupClient,
        topic: String,
        mailbox: Arc<Mailbox<Letter>>,
    ) -> std::io::Result<Self> {
        let (tasks, tasks_inbox) = mpsc::channel();
        let (asks, asks_inbox) = mpsc::channel();
        let (ending, ended) = mpsc::channel::<()>();
        let (asks_ending, asks_ended) = mpsc::channel::<()>();
        let beside = (topic.clone(), Arc::clone(&mailbox), asks.clone());
        thread::Builder::new().name("kafka-requests".into()).spawn(move || {
            let (topic, mailbox, asks) = beside;
            while let Ok(task) = tasks_inbox.recv() {
                if let Some(letter) = carry_out(&consumer, &asks, &topic, task) {
                    mailbox.post(letter);
                }
            }
            drop(consumer);
            drop(ending);
        })?;
        thread::Builder::new().name("kafka-lookups".into()).spawn(move || {
            while let Ok(ask) = asks_inbox.recv() {
                mailbox.post(match ask {
                    Ask::LookUp(partitions, committed) => {
                        Letter::LookedUp(look_up(&lookups, &topic, &partitions, &committed))
                    }
                    Ask::Watermarks(partitions) => Letter::Watermarks(highs(&lookups, &topic, partitions)),
                });
                lookups.discard_events();
            }
            drop(lookups);
            drop(asks_ending);
        })?;
        Ok(Self { tasks: Some(tasks), asks: Some(asks), ended, asks_ended })
    }

    pub fn commit(&self, commits: Vec<(Committable, CommitNote)>) {
        self.send(Task::Commit(commits));
    }

    pub fn confirm(&self, commit: (Committable, CommitNote)) {
        self.send(Task::Confirm(commit));
    }

    pub fn look_up(&self, partitions: Vec<i32>) {
        self.send(Task::LookUp(partitions));
    }

    pub fn watermarks(&self, partitions: Vec<i32>) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask::Watermarks(partitions));
        }
    }

    fn send(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(task);
        }
    }

    /// Ends the thread of the group's requests; false if it is still busy after `timeout`. The other one begins to end.
    pub fn stop(&mut self, timeout: Duration) -> bool {
        (self.tasks, self.asks) = (None, None);
        self.ended.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// Waits for the other thread: a client should be gone before the process is.
    pub fn wait_for_lookups(&self, timeout: Duration) {
        let _ = self.asks_ended.recv_timeout(timeout);
    }
}

fn carry_out(consumer: &KafkaConsumer, asks: &mpsc::Sender<Ask>, topic: &str, task: Task) -> Option<Letter> {
    match task {
        Task::Commit(commits) => {
            let (sent, result) = commit(consumer, topic, &commits);
            let commits = commits.into_iter().map(|(commit, _)| commit).collect();
            Some(Letter::Committed { commits, sent, result })
        }
        Task::Confirm(known) => {
            let (sent, result) = commit(consumer, topic, &[known]);
            Some(Letter::Confirmed { sent, result })
        }
        Task::LookUp(partitions) => {
            let asked = list(topic, partitions.iter().copied());
            let is_passed_on = committed_offsets(consumer, &asked, REQUEST_TIMEOUT).and_then(|committed| {
                asks.send(Ask::LookUp(partitions, committed)).map_err(|_| KafkaError::Canceled)
            });
            is_passed_on.err().map(|error| Letter::LookedUp(Err(error)))
        }
    }
}

/// The ends of partitions, within one timeout for all of them.
fn highs(lookups: &LookupClient, topic: &str, partitions: Vec<i32>) -> KafkaResult<Watermarks> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let highs = partitions
        .into_iter()
        .map(|partition| {
            lookups.fetch_watermarks(topic, partition, left()).map(|(_, high)| (partition, high))
        })
        .collect::<KafkaResult<Vec<_>>>()?;
    Ok(Watermarks { topic_id: topic_id(lookups, topic, left())?, highs })
}

/// Commits, and tells since when the group has known that this is a member if it was taken.
fn commit(
    consumer: &KafkaConsumer,
    topic: &str,
    commits: &[(Committable, CommitNote)],
) -> (Instant, KafkaResult<()>) {
    let noted = commits.iter().map(|(c, note)| (c.partition, c.next_offset, note));
    let sent = Instant::now();
    let result = list_noted(topic, noted).and_then(|offsets| consumer.commit(&offsets, CommitMode::Sync));
    (sent, result)
}

fn topic_id(lookups: &LookupClient, topic: &str, timeout: Duration) -> KafkaResult<Option<String>> {
    use rdkafka::error::RDKafkaErrorCode::{OperationTimedOut, UnknownTopicOrPartition};
    describe_topic(lookups.client(), topic, timeout).map(|topic| topic.topic_id).map_err(|error| {
        KafkaError::MetadataFetch(match error {
            TopicIdError::Unavailable { .. } => OperationTimedOut,
            TopicIdError::Refused { .. } | TopicIdError::Name(_) => UnknownTopicOrPartition,
        })
    })
}

fn look_up(
    lookups: &LookupClient,
    topic: &str,
    partitions: &[i32],
    committed: &TopicPartitionList,
) -> KafkaResult<LookedUp> {
    let topic_id = topic_id(lookups, topic, REQUEST_TIMEOUT)?;
    let found = partitions.iter().map(|&partition| {
        let element = committed
            .find_partition(topic, partition)
            .ok_or_else(|| KafkaError::OffsetFetch(rdkafka::error::RDKafkaErrorCode::UnknownPartition))?;
        element.error()?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let (low, high) = lookups.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        let note = CommitNote::found(element.metadata(), committed, low);
        Ok(Found { partition, committed, note, low, high })
    });
    Ok(LookedUp { topic_id, found: found.collect::<KafkaResult<_>>()? })
}
