//! A record of a topic, as a processor sees it.

use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, Message as _, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where a record stands in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The partition's number.
    pub partition: i32,
    /// The record's offset in the partition.
    pub offset: i64,
}

/// A record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The bytes as they stand in the topic, framing included.
    Value(&'a [u8]),
    /// A null value: the key's earlier records are to be forgotten.
    Tombstone,
}

/// One record, borrowed from the consumer or from a test.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Partition and offset.
    pub origin: Origin,
    /// When the broker appended it (`LogAppendTime`), milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    /// The record's key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub payload: Payload<'a>,
    /// The record's headers.
    pub headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// A record as it was consumed.
    #[inline]
    pub(crate) fn of_message(message: &'a BorrowedMessage<'a>) -> Self {
        let appended_at_ms = match message.timestamp() {
            Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) => at,
            Timestamp::NotAvailable => 0,
        };
        Self {
            origin: Origin { partition: message.partition(), offset: message.offset() },
            appended_at_ms,
            key: message.key(),
            payload: message.payload().map_or(Payload::Tombstone, Payload::Value),
            headers: Headers::Consumed(message),
        }
    }
}

/// A record's headers: the broker's, or a test's own.
#[derive(Clone, Copy, Default)]
pub enum Headers<'a> {
    /// No headers.
    #[default]
    None,
    /// Of a consumed message; parsed when first asked for.
    Consumed(&'a BorrowedMessage<'a>),
    /// Given by hand.
    Given(&'a [(String, Vec<u8>)]),
}

/// Names only: values may hold personal data.
impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        self.for_each(|name, _| {
            list.entry(&name);
        });
        list.finish()
    }
}

impl<'a> Headers<'a> {
    /// The last value of a header, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        match *self {
            Headers::None => None,
            Headers::Consumed(message) => {
                let headers = message.headers()?;
                let last_first = (0..headers.count()).rev();
                last_first.filter_map(|i| consumed_header(headers, i)).find(|h| h.key == name)?.value
            }
            Headers::Given(headers) => {
                headers.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
            }
        }
    }

    /// Gives every header to `visit` in order; a null value is given as an empty one.
    pub fn for_each(&self, mut visit: impl FnMut(&'a str, &'a [u8])) {
        match *self {
            Headers::None => {}
            Headers::Consumed(message) => {
                let Some(headers) = message.headers() else { return };
                (0..headers.count())
                    .filter_map(|i| consumed_header(headers, i))
                    .for_each(|h| visit(h.key, h.value.unwrap_or_default()));
            }
            Headers::Given(headers) => headers.iter().for_each(|(key, value)| visit(key, value)),
        }
    }
}

/// One header, or none if its name isn't UTF-8: the binding panics on such a name, and a record must not be able to
/// end the process.
fn consumed_header(headers: &BorrowedHeaders, index: usize) -> Option<Header<'_, &[u8]>> {
    catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten()
}

/// A record that outlives the consumer's buffer: one that waits for its schema, or one in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Partition and offset.
    pub origin: Origin,
    /// When the broker appended it, milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OwnedRecord {
    /// A copy of `record`.
    pub fn copy_of(record: &Record<'_>) -> Self {
        let mut headers = Vec::new();
        record.headers.for_each(|name, value| headers.push((name.to_owned(), value.to_vec())));
        let payload = match record.payload {
            Payload::Value(bytes) => Some(bytes.to_vec()),
            Payload::Tombstone => None,
        };
        Self {
            origin: record.origin,
            appended_at_ms: record.appended_at_ms,
            key: record.key.map(<[u8]>::to_vec),
            payload,
            headers,
        }
    }

    /// The record as a processor sees it.
    pub fn as_record(&self) -> Record<'_> {
        Record {
            origin: self.origin,
            appended_at_ms: self.appended_at_ms,
            key: self.key.as_deref(),
            payload: self.payload.as_deref().map_or(Payload::Tombstone, Payload::Value),
            headers: if self.headers.is_empty() { Headers::None } else { Headers::Given(&self.headers) },
        }
    }
}
