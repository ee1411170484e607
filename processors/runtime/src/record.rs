//! A record of a topic, as a processor sees it.

use rdkafka::message::{BorrowedHeaders, Headers as _};

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

/// A record's headers: the broker's, or a test's own.
#[derive(Clone, Copy, Default)]
pub enum Headers<'a> {
    /// No headers.
    #[default]
    None,
    /// As consumed.
    Consumed(&'a BorrowedHeaders),
    /// Given by hand.
    Given(&'a [(String, Vec<u8>)]),
}

/// Names only: values may hold personal data.
impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Headers::None => f.write_str("[]"),
            Headers::Consumed(headers) => f.debug_list().entries(headers.iter().map(|h| h.key)).finish(),
            Headers::Given(headers) => f.debug_list().entries(headers.iter().map(|(key, _)| key)).finish(),
        }
    }
}

impl<'a> Headers<'a> {
    /// The last value of a header, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        match *self {
            Headers::None => None,
            Headers::Consumed(headers) => (0..headers.count())
                .rev()
                .map(|i| headers.get(i))
                .find(|h| h.key == name)
                .and_then(|h| h.value),
            Headers::Given(headers) => {
                headers.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
            }
        }
    }
}
