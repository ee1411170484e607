//! One entry of the dead-letter topic.

use claims_ingress::publisher::{HEADER_SOURCE_FILE, HEADER_SOURCE_LINE};
use claims_runtime::dead_letter::{
    HEADER_FAILED_AT_MS, HEADER_OFFSET, HEADER_PARTITION, HEADER_PROCESSOR, HEADER_TOPIC,
    scan::{Coordinates, Entry},
};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Header of a resolution: the dead letter's own place, by which one without coordinates is found.
pub const HEADER_LETTER: &str = "letter";

/// A place in the dead-letter topic: `PARTITION:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once(':')
            .and_then(|(partition, offset)| {
                let place = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
                (place.partition >= 0 && place.offset >= 0).then_some(place)
            })
            .ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, such as 0:17"))
    }
}

/// Which refusal an entry is about: the same record refused again by the same processor is the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// A record of a topic.
    Record { processor: String, at: Coordinates },
    /// A row of a file.
    Row { processor: String, file: String, line: String },
    /// Neither is known: the dead letter itself.
    Letter(Place),
}

/// One entry, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Its partition in the dead-letter topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The key as text.
    pub key: Option<String>,
    /// Length of the payload; `None`: a tombstone.
    pub payload_bytes: Option<usize>,
    /// All headers.
    pub headers: BTreeMap<String, String>,
    /// When it was written, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub written_at_ms: i64,
    /// The key as it is.
    #[serde(skip)]
    pub raw_key: Option<Vec<u8>>,
}

impl Letter {
    /// Of a consumed record.
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(text),
            payload_bytes: message.payload().map(<[u8]>::len),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default()))
                .collect(),
            written_at_ms: message.timestamp().to_millis().unwrap_or(0),
            raw_key: message.key().map(<[u8]>::to_vec),
        }
    }

    /// Its place.
    pub fn place(&self) -> Place {
        Place { partition: self.partition, offset: self.offset }
    }

    /// A header's value; empty if it isn't there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What it says, in the words of the runtime.
    pub fn entry(&self) -> Option<Entry> {
        Entry::from_headers(|name| self.headers.get(name).map(String::as_str))
    }

    /// Which refusal it is about.
    pub fn identity(&self) -> Identity {
        let processor = self.header(HEADER_PROCESSOR).to_owned();
        if let Some(at) = self.entry().and_then(|entry| entry.coordinates) {
            return Identity::Record { processor, at };
        }
        match (self.headers.get(HEADER_SOURCE_FILE), self.headers.get(HEADER_SOURCE_LINE)) {
            (Some(file), Some(line)) => Identity::Row { processor, file: file.clone(), line: line.clone() },
            _ => Identity::Letter(self.header(HEADER_LETTER).parse().unwrap_or_else(|_| self.place())),
        }
    }

    /// Where the record stood: a place in a topic, or a line of an input.
    pub fn origin(&self) -> String {
        if let Some(topic) = self.headers.get(HEADER_TOPIC) {
            return format!("{topic} {}:{}", self.header(HEADER_PARTITION), self.header(HEADER_OFFSET));
        }
        match (self.headers.get(HEADER_SOURCE_FILE), self.headers.get(HEADER_SOURCE_LINE)) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            _ => String::new(),
        }
    }

    /// When it was refused, milliseconds since the Unix epoch.
    pub fn failed_at_ms(&self) -> i64 {
        self.header(HEADER_FAILED_AT_MS).parse().unwrap_or(self.written_at_ms)
    }
}

/// A time in milliseconds since the Unix epoch, as text; empty for none.
pub fn time_text(at_ms: i64) -> String {
    let at = (at_ms > 0).then(|| chrono::DateTime::from_timestamp_millis(at_ms)).flatten();
    at.map_or_else(String::new, |at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_partition_and_offset() {
        assert_eq!("2:17".parse(), Ok(Place { partition: 2, offset: 17 }));
        for wrong in ["", "2", "2:", ":17", "-1:17", "2:-1", "a:b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
