//! Reading the dead-letter topic: what was refused, and what became of it.

use super::headers::*;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    topic_partition_list::{Offset, TopicPartitionList},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The clocks of two brokers, or of a broker and a processor, may differ by so much: a scan that begins at a time
/// begins this much earlier.
const CLOCK_MARGIN_MS: i64 = 10 * 60 * 1_000;
const POLL_WAIT: Duration = Duration::from_millis(100);

/// The dead-letter topic could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("dead-letter topic {topic}: {detail}")]
pub struct ScanError {
    topic: String,
    detail: String,
}

/// Which refused record an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coordinates {
    /// The topic that it stands in.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// What an entry of the topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// The record was refused.
    Refused,
    /// A retry was about to be written.
    RetryStarted,
    /// The record was given to its processor again.
    Retried {
        /// One of the outcomes in the headers' names.
        outcome: String,
    },
    /// Somebody is done with it.
    Discarded,
}

/// One entry of the dead-letter topic, without key and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The processor that refused the record.
    pub processor: String,
    /// Which record; `None` where it stood in no topic (a row of a file).
    pub coordinates: Option<Coordinates>,
    /// What the entry says.
    pub kind: EntryKind,
}

impl Entry {
    /// What these headers say; `header` gives the value of one. `None` for what this build doesn't know.
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let kind = match header(HEADER_RESOLUTION) {
            None => EntryKind::Refused,
            Some(RESOLUTION_RETRY_STARTED) => EntryKind::RetryStarted,
            Some(RESOLUTION_RETRIED) => {
                EntryKind::Retried { outcome: header(HEADER_OUTCOME).unwrap_or_default().to_owned() }
            }
            Some(RESOLUTION_DISCARDED) => EntryKind::Discarded,
            Some(_) => return None,
        };
        let coordinates = header(HEADER_TOPIC).and_then(|topic| {
            Some(Coordinates {
                topic: topic.to_owned(),
                partition: header(HEADER_PARTITION)?.parse().ok()?,
                offset: header(HEADER_OFFSET)?.parse().ok()?,
            })
        });
        Some(Self { processor: header(HEADER_PROCESSOR)?.to_owned(), coordinates, kind })
    }

    fn of_message(message: &BorrowedMessage<'_>) -> Option<Self> {
        let headers = message.headers()?;
        let found: BTreeMap<&str, &str> =
            headers.iter().filter_map(|h| Some((h.key, std::str::from_utf8(h.value?).ok()?))).collect();
        Self::from_headers(|name| found.get(name).copied())
    }
}

/// Gives `visit` every entry that the dead-letter topic holds now, in the order of each of its partitions. With
/// `since_ms` (milliseconds since the Unix epoch) those written before that time may be left out. A topic that isn't
/// there holds none. Blocks; without any answer for `timeout` it is an error.
pub fn scan(
    client_properties: &[(String, String)],
    topic: &str,
    since_ms: Option<i64>,
    timeout: Duration,
    mut visit: impl FnMut(Entry),
) -> Result<(), ScanError> {
    let failed = |error: KafkaError| ScanError { topic: topic.to_owned(), detail: error.to_string() };
    let mut config: ClientConfig = client_properties.iter().cloned().collect();
    config
        .set("group.id", "claims.dead-letter-scan")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let mut open = BTreeMap::new();
    let starts = starts(&consumer, topic, since_ms, timeout, &mut open).map_err(failed)?;
    if open.is_empty() {
        return Ok(());
    }
    consumer.assign(&starts).map_err(failed)?;
    let mut deadline = Instant::now() + timeout;
    while !open.is_empty() {
        match consumer.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                deadline = Instant::now() + timeout;
                if open.get(&message.partition()).is_some_and(|&end| message.offset() + 1 >= end) {
                    open.remove(&message.partition());
                }
                if let Some(entry) = Entry::of_message(&message) {
                    visit(entry);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            // The client connects again by itself; the deadline bounds that.
            Some(Err(_)) | None if Instant::now() < deadline => {}
            _ => {
                let detail = format!("no answer within {} ms", timeout.as_millis());
                return Err(ScanError { topic: topic.to_owned(), detail });
            }
        }
    }
    Ok(())
}

/// Where to begin in each partition; into `open`, where each of them ends.
fn starts(
    consumer: &BaseConsumer,
    topic: &str,
    since_ms: Option<i64>,
    timeout: Duration,
    open: &mut BTreeMap<i32, i64>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut starts = TopicPartitionList::new();
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(starts) };
    if let Some(error) = found.error() {
        let code = RDKafkaErrorCode::from(error);
        return match code {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(starts),
            code => Err(KafkaError::MetadataFetch(code)),
        };
    }
    for partition in found.partitions().iter().map(|partition| partition.id()) {
        let (low, high) = consumer.fetch_watermarks(topic, partition, timeout)?;
        if low < high {
            open.insert(partition, high);
            let from =
                since_ms.map_or(Offset::Offset(low), |ms| Offset::Offset((ms - CLOCK_MARGIN_MS).max(0)));
            starts.add_partition_offset(topic, partition, from)?;
        }
    }
    if since_ms.is_none() || open.is_empty() {
        return Ok(starts);
    }
    let found = consumer.offsets_for_times(starts, timeout)?;
    let mut starts = TopicPartitionList::new();
    for element in found.elements() {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => {
                starts.add_partition_offset(topic, element.partition(), Offset::Offset(offset))?
            }
            // Nothing in it is that young.
            _ => {
                open.remove(&element.partition());
            }
        }
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pairs: &[(&'static str, &'static str)]) -> Option<Entry> {
        Entry::from_headers(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn headers_say_what_an_entry_is_about() {
        let place = [
            (HEADER_PROCESSOR, "audit"),
            (HEADER_TOPIC, "t"),
            (HEADER_PARTITION, "3"),
            (HEADER_OFFSET, "17"),
        ];
        let with = |more: &[(&'static str, &'static str)]| entry(&[&place[..], more].concat());
        let refused = with(&[]).unwrap();
        assert_eq!(refused.kind, EntryKind::Refused);
        assert_eq!(refused.coordinates, Some(Coordinates { topic: "t".into(), partition: 3, offset: 17 }));
        let retried = with(&[(HEADER_RESOLUTION, RESOLUTION_RETRIED), (HEADER_OUTCOME, OUTCOME_APPLIED)]);
        assert_eq!(retried.unwrap().kind, EntryKind::Retried { outcome: OUTCOME_APPLIED.into() });
        let started = with(&[(HEADER_RESOLUTION, RESOLUTION_RETRY_STARTED)]);
        assert_eq!(started.unwrap().kind, EntryKind::RetryStarted);
        assert_eq!(with(&[(HEADER_RESOLUTION, "of a later build")]), None);
    }

    #[test]
    fn a_row_of_a_file_has_no_coordinates() {
        assert_eq!(entry(&[(HEADER_PROCESSOR, "ingress")]).unwrap().coordinates, None);
        assert_eq!(entry(&[(HEADER_TOPIC, "t")]), None, "nobody refused it");
    }
}
