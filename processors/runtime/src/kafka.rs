//! The Kafka consumer of a stage: its settings, and its callbacks turned into letters to the loop.

use crate::{StageConfig, event_loop::Letter, mailbox::Mailbox, replay::CommitNote};
use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList},
    types::RDKafkaRespErr,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What may be overridden in the client properties: sizes that keep the process small, and times.
const TUNABLES: [(&str, &str); 7] = [
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "2097152"),
    // The default of a second stalls a consumer that is slower than the broker.
    ("fetch.queue.backoff.ms", "10"),
    ("max.poll.interval.ms", "300000"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.refresh.interval.ms", "5000"),
];

/// What comes in one answer is in memory that the kernel clears first and gets back: of many partitions no more than of few.
const FETCH_MAX_BYTES: u64 = 4 * 1024 * 1024;
const FETCH_MAX_PROPERTY: &str = "fetch.max.bytes";
const MESSAGE_MAX_PROPERTY: &str = "message.max.bytes";

/// The broker may wait for a so manieth part of what a batch may …
const FETCH_WAITS_IN_BATCH_AGE: u64 = 10;
/// … unless that is little: an idle topic would be asked more often than by librdkafka's default, for nothing …
const MIN_FETCH_WAIT_MS: u64 = 50;
/// … and librdkafka's default at most, on which its own timeouts go.
const MAX_FETCH_WAIT_MS: u64 = 500;
/// As much is always worth an answer.
const PATIENT_FETCH_BYTES: u64 = 64 * 1024;
/// One says nothing without the other.
const FETCH_WAIT_PROPERTY: &str = "fetch.wait.max.ms";
const FETCH_BYTES_PROPERTY: &str = "fetch.min.bytes";

/// What the runtime's promises rest on.
const FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("allow.auto.create.topics", "false"),
];

/// A member that died without leaving is noticed after this long …
pub(crate) const SESSION_TIMEOUT_MS: u64 = 10_000;
/// … or, where its place is kept for it (static membership), after this long.
pub(crate) const STATIC_SESSION_TIMEOUT_MS: u64 = 45_000;
/// Overrides both.
pub(crate) const SESSION_TIMEOUT_PROPERTY: &str = "session.timeout.ms";

pub(crate) type KafkaConsumer = BaseConsumer<Context>;

/// What the group wants of this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebalanceEvent {
    Assign(Vec<i32>),
    Revoke { partitions: Vec<i32>, lost: bool },
}

/// Callbacks. They run inside `poll`, and only leave letters: the loop drains, commits and answers the group itself.
/// librdkafka keeps sending heartbeats while it waits for that answer, and pauses the partitions meanwhile.
pub(crate) struct Context {
    mailbox: Arc<Mailbox<Letter>>,
    closing: AtomicBool,
}

impl Context {
    /// From now on, revocations are answered at once: everything is drained already.
    pub fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = partitions.elements().iter().map(|e| e.partition()).collect();
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if !self.closing.load(Ordering::Acquire) {
                self.mailbox.post(Letter::Rebalance(RebalanceEvent::Assign(numbers)));
            }
            return;
        }
        if self.closing.load(Ordering::Acquire) {
            let _ = answer_revocation(consumer, partitions);
        } else {
            let lost = consumer.assignment_lost();
            self.mailbox.post(Letter::Rebalance(RebalanceEvent::Revoke { partitions: numbers, lost }));
        }
    }
}

/// Tells the group that the partitions are given up.
pub(crate) fn answer_revocation(
    consumer: &KafkaConsumer,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

/// Tells the group that the partitions are taken, and where reading begins.
pub(crate) fn answer_assignment(
    consumer: &KafkaConsumer,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(partitions),
    }
}

/// How long the broker may gather records before it answers. Batches that wait for a second have no use for an answer every
/// few milliseconds, which at moderate rates costs the broker and us more than the records themselves. Nothing is set where
/// the user has set either: bytes to wait for beside his time could be a delay that he never asked for.
fn patience(
    max_batch_age_ms: u64,
    of_the_user: &[(String, String)],
) -> impl Iterator<Item = (&'static str, String)> {
    let wait_ms = (max_batch_age_ms / FETCH_WAITS_IN_BATCH_AGE).min(MAX_FETCH_WAIT_MS);
    let is_set =
        of_the_user.iter().any(|(name, _)| name == FETCH_WAIT_PROPERTY || name == FETCH_BYTES_PROPERTY);
    let pays = wait_ms >= MIN_FETCH_WAIT_MS && !is_set;
    let properties = [(FETCH_WAIT_PROPERTY, wait_ms), (FETCH_BYTES_PROPERTY, PATIENT_FETCH_BYTES)];
    properties.into_iter().filter(move |_| pays).map(|(name, value)| (name, value.to_string()))
}

/// How much the brokers may send in one answer. librdkafka refuses less than the largest message that the user allows.
fn fetch_max_bytes(of_the_user: &[(String, String)]) -> u64 {
    let allowed = of_the_user.iter().rev().find(|(name, _)| name == MESSAGE_MAX_PROPERTY);
    allowed.and_then(|(_, value)| value.parse().ok()).unwrap_or(0).max(FETCH_MAX_BYTES)
}

/// Our own settings, over those the user's, over those what may not be changed.
fn client(own: &[(&str, String)], of_the_user: &[(String, String)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.extend(TUNABLES.map(|(name, value)| (name.to_owned(), value.to_owned())));
    client.set(FETCH_MAX_PROPERTY, fetch_max_bytes(of_the_user).to_string());
    client.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    client.extend(of_the_user.iter().cloned());
    client.extend(FIXED.map(|(name, value)| (name.to_owned(), value.to_owned())));
    client
}

/// A consumer that wakes the mailbox when there is something to poll.
pub(crate) fn consumer(
    config: &StageConfig,
    mailbox: &Arc<Mailbox<Letter>>,
) -> KafkaResult<Arc<KafkaConsumer>> {
    let mut own: Vec<_> = patience(config.settings.max_batch_age_ms, &config.client_properties).collect();
    own.extend(config.settings.instance_id.iter().map(|id| ("group.instance.id", id.clone())));
    own.push((SESSION_TIMEOUT_PROPERTY, config.session_timeout().as_millis().to_string()));
    own.push(("heartbeat.interval.ms", "2000".to_owned()));
    let mut client = client(&own, &config.client_properties);
    client.set("group.id", &config.group_id);
    let context = Context { mailbox: Arc::clone(mailbox), closing: AtomicBool::new(false) };
    let mut consumer: KafkaConsumer = client.create_with_context(context)?;
    let nudged = Arc::clone(mailbox);
    consumer.set_nonempty_callback(move || nudged.nudge());
    Ok(Arc::new(consumer))
}

/// Answers what has nothing to do with the group, over connections on which no fetch is waiting.
pub(crate) struct LookupClient(BaseConsumer<Silent>);

/// What a client outside the group says of brokers that are away, the group's own says too.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Silent {}

/// What is the member's alone, or would fill a queue that is seldom looked at.
const NOT_FOR_LOOKUPS: [&str; 6] = [
    "group.id",
    "group.instance.id",
    SESSION_TIMEOUT_PROPERTY,
    "max.poll.interval.ms",
    "statistics.interval.ms",
    "debug",
];
/// Events of a [`LookupClient`] that are taken at once, at most …
const MAX_EVENTS_DISCARDED: usize = 1_000;
/// … and none is left when so many looks in a row find nothing: what isn't an error looks like nothing.
const EMPTY_LOOKS: usize = 16;

impl LookupClient {
    pub fn new(of_the_user: &[(String, String)]) -> KafkaResult<Self> {
        let mut client = client(&[], of_the_user);
        for name in NOT_FOR_LOOKUPS {
            client.remove(name);
        }
        Ok(Self(client.create_with_context(Silent)?))
    }

    /// The first offset of a partition, and the one after its last.
    pub fn fetch_watermarks(
        &self,
        topic: &str,
        partition: i32,
        timeout: Duration,
    ) -> KafkaResult<(i64, i64)> {
        self.0.fetch_watermarks(topic, partition, timeout)
    }

    pub fn client(&self) -> &Client<impl ClientContext + use<>> {
        self.0.client()
    }

    /// Nobody polls this client, and librdkafka keeps each loss of a connection until somebody does.
    pub fn discard_events(&self) {
        let mut empty_looks = 0;
        for _ in 0..MAX_EVENTS_DISCARDED {
            empty_looks = if self.0.poll(Duration::ZERO).is_some() { 0 } else { empty_looks + 1 };
            if empty_looks == EMPTY_LOOKS {
                break;
            }
        }
    }
}

/// A list of one topic's partitions.
pub(crate) fn list(topic: &str, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    list
}

/// The same with an offset each.
pub(crate) fn list_at(
    topic: &str,
    offsets: impl IntoIterator<Item = (i32, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// The same with what each commit carries.
pub(crate) fn list_noted<'a>(
    topic: &str,
    commits: impl IntoIterator<Item = (i32, i64, &'a CommitNote)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset, note) in commits {
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(note.to_metadata());
    }
    Ok(list)
}

/// What an error of `poll` or `commit` means for the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Severity {
    /// librdkafka goes on trying by itself.
    Passing,
    /// Waiting doesn't mend it; in words, with what to do.
    Final(String),
}

/// Judges an error of a processor's stage.
pub(crate) fn severity(error: &KafkaError, config: &StageConfig, processor: &str) -> Severity {
    let (topic, group) = (&config.topic, &config.group_id);
    if let KafkaError::MessageConsumptionFatal(code) = error {
        return Severity::Final(format!("the consumer of group {group} can't go on: {code}"));
    }
    Severity::Final(match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            out_of_range_help(topic, group, processor)
        }
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::Fatal),
        ) => format!("group {group} on topic {topic}: {code}"),
        _ => return Severity::Passing,
    })
}

/// Whether the broker asked doesn't know the topic.
pub(crate) fn is_missing_topic(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition))
}

/// What to do about a missing topic.
pub(crate) fn missing_topic_help(topic: &str) -> String {
    format!("topic {topic} does not exist; make it with `claims topics apply`")
}

/// What to do about offsets that the log doesn't have.
pub(crate) fn out_of_range_help(topic: &str, group: &str, processor: &str) -> String {
    format!(
        "group {group} stands at an offset that topic {topic} doesn't have (any more): records were removed before they \
         were read, or the topic was made anew. Nothing was skipped. `claims replay {processor} --to-beginning` goes on \
         from the oldest record there is; with --dry-run it shows first what that leaves out"
    )
}

/// What to do about a topic that isn't the one that the group's offsets are of.
pub(crate) fn made_anew_help(topic: &str, processor: &str, old: &str, new: &str) -> String {
    format!(
        "topic {topic} was deleted and made anew: the group's offsets are of the one with id {old}, it now has id {new}. \
         What the views hold comes from the old one. If the new one holds the same events, go on with `claims replay \
         {processor} --to-beginning`; else empty the views first"
    )
}

/// What to do about records that were removed before a processor's own state had them.
pub(crate) fn removed_help(topic: &str, processor: &str, partition: i32, needed: i64, low: i64) -> String {
    format!(
        "partition {partition} of topic {topic}: the state that {processor} keeps beside its views needs the records from offset \
         {needed} on, but the log begins at {low}. Records were removed before this state had them (it is new, was lost, or \
         is behind). Nothing was skipped. A process whose state has them can take the partition; to do without them, \
         `claims replay {processor} --to-beginning` goes on from the oldest record there is, and docs/replay.md says what \
         that leaves of the views. If all there is was made from {low} on in the first place, and only the state of this \
         process is missing, `claims replay {processor} --shift 0 --accept-log-start` goes on where it is"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(properties: &[(&str, &str)]) -> Vec<(String, String)> {
        properties.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_the_user_sets_for_consumers_is_no_error_beside_our_own() {
        let bytes = |of_the_user: &[(&str, &str)]| {
            let of_the_user = pairs(of_the_user);
            LookupClient::new(&of_the_user).map(|_| ()).unwrap();
            let client = client(&[], &of_the_user);
            client.create::<BaseConsumer>().map(|_| ()).unwrap();
            client.get(FETCH_MAX_PROPERTY).map(str::to_owned)
        };
        assert_eq!(bytes(&[]).as_deref(), Some("4194304"));
        assert_eq!(bytes(&[("message.max.bytes", "1000")]).as_deref(), Some("4194304"));
        assert_eq!(bytes(&[("message.max.bytes", "16777216")]).as_deref(), Some("16777216"));
        let both = [("message.max.bytes", "16777216"), ("fetch.max.bytes", "33554432")];
        assert_eq!(bytes(&both).as_deref(), Some("33554432"));
        assert_eq!(bytes(&[("receive.message.max.bytes", "5000000")]).as_deref(), Some("4194304"));
    }

    #[test]
    fn settings_of_a_group_are_not_for_look_ups() {
        let of_a_member = [("max.poll.interval.ms", "20000"), ("group.instance.id", "one"), ("debug", "all")];
        assert!(LookupClient::new(&pairs(&of_a_member)).is_ok());
    }

    #[test]
    fn the_broker_gathers_records_only_for_batches_that_wait_for_long() {
        let of = |age_ms, of_the_user: &[(&str, &str)]| {
            let pairs = of_the_user.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            patience(age_ms, &pairs.collect::<Vec<_>>())
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        for age_ms in [0, 25, 499] {
            assert!(of(age_ms, &[]).is_empty(), "{age_ms}");
        }
        assert_eq!(of(500, &[]), ["fetch.wait.max.ms=50", "fetch.min.bytes=65536"]);
        assert_eq!(of(1_000, &[("linger.ms", "5")]), ["fetch.wait.max.ms=100", "fetch.min.bytes=65536"]);
        assert_eq!(of(60_000, &[]), ["fetch.wait.max.ms=500", "fetch.min.bytes=65536"]);
        for name in ["fetch.wait.max.ms", "fetch.min.bytes"] {
            assert!(of(60_000, &[(name, "5000")]).is_empty(), "{name}");
        }
    }
}
