//! What a stage refused, on its way to the dead-letter topic.

mod headers;
mod producer;
pub mod scan;

pub use headers::*;
pub(crate) use producer::{DeadLetterError, DeadLetterProducer};

use crate::{Origin, Payload, Record, arena::KeptRecord};

/// The key of a dead letter is the original key, cut at this many bytes.
pub const MAX_KEY_BYTES: usize = 64 * 1024;
/// Of the original headers, no more than this many bytes are carried.
pub const MAX_HEADERS_BYTES: usize = 64 * 1024;
/// The detail is cut at this many bytes.
pub const MAX_DETAIL_BYTES: usize = 2 * 1024;

/// Reason of records whose schema id the registry doesn't know, or whose schema is none.
pub const REASON_UNKNOWN_SCHEMA: &str = "unknown-schema";
/// Reason of a retry in vain: the record uses what this build doesn't know.
pub const REASON_UPGRADE_NEEDED: &str = "upgrade-needed";
/// Reason of records that the sink refused.
pub const REASON_SINK_REFUSED: &str = "sink-refused";

/// A refused record, with all that is needed to find, judge and repair it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the record stands.
    pub origin: Origin,
    /// When the broker appended the record, milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    /// A stable word for metrics and filters.
    pub reason: &'static str,
    /// What was wrong.
    pub detail: String,
    /// The schema id in the payload's framing, if it has one.
    pub schema_id: Option<u32>,
    /// The record's key, cut at [`MAX_KEY_BYTES`].
    pub key: Option<Vec<u8>>,
    /// Whether the key was cut.
    pub key_truncated: bool,
    /// The record's payload, cut; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// How long the payload was.
    pub payload_original_bytes: usize,
    /// The record's own headers. A record refused by the sink has none here: they aren't kept beside the payload,
    /// which holds the same facts.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Whether some of the headers were left out.
    pub headers_truncated: bool,
}

impl DeadLetter {
    /// Of a record that the processor refused.
    pub fn of_record(
        record: &Record<'_>,
        reason: &'static str,
        detail: String,
        max_payload_bytes: usize,
    ) -> Self {
        let (payload, payload_original_bytes) = match record.payload {
            Payload::Value(bytes) => (Some(bytes), bytes.len()),
            Payload::Tombstone => (None, 0),
        };
        let mut letter = Self::of_kept(
            &KeptRecord {
                origin: record.origin,
                appended_at_ms: record.appended_at_ms,
                key: record.key,
                payload,
                payload_original_bytes,
            },
            reason,
            detail,
            max_payload_bytes,
        );
        let mut bytes = 0;
        record.headers.for_each(|name, value| {
            bytes += name.len() + value.len();
            if bytes <= MAX_HEADERS_BYTES {
                letter.headers.push((name.to_owned(), value.to_vec()));
            } else {
                letter.headers_truncated = true;
            }
        });
        letter
    }

    /// Of a record that the sink refused.
    pub(crate) fn of_kept(
        kept: &KeptRecord<'_>,
        reason: &'static str,
        detail: String,
        max_payload_bytes: usize,
    ) -> Self {
        let cut = |bytes: &[u8], max: usize| bytes[..bytes.len().min(max)].to_vec();
        Self {
            origin: kept.origin,
            appended_at_ms: kept.appended_at_ms,
            reason,
            detail: cut_text(detail, MAX_DETAIL_BYTES),
            schema_id: kept.payload.and_then(framed_schema_id),
            key: kept.key.map(|key| cut(key, MAX_KEY_BYTES)),
            key_truncated: kept.key.is_some_and(|key| key.len() > MAX_KEY_BYTES),
            payload: kept.payload.map(|payload| cut(payload, max_payload_bytes)),
            payload_original_bytes: kept.payload_original_bytes,
            headers: Vec::new(),
            headers_truncated: false,
        }
    }

    /// Whether the payload was cut.
    pub fn is_payload_truncated(&self) -> bool {
        self.payload.as_ref().map_or(0, Vec::len) < self.payload_original_bytes
    }

    /// About how much memory it holds.
    pub fn held_bytes(&self) -> usize {
        let bytes = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        size_of::<Self>() + self.detail.len() + bytes(&self.key) + bytes(&self.payload) + headers
    }
}

/// What became of a dead letter, to be written to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Where the refused record stands.
    pub origin: Origin,
    /// Its key, cut at [`MAX_KEY_BYTES`].
    pub key: Option<Vec<u8>>,
    /// One of the resolutions in the headers' names.
    pub resolution: &'static str,
    /// One of the outcomes, for a retry that came to an end.
    pub outcome: Option<&'static str>,
    /// Why it was refused again: a stable word, and words.
    pub refusal: Option<(String, String)>,
}

impl Trace {
    /// A retry of `record` is about to be written.
    pub fn retry_started(record: &Record<'_>) -> Self {
        Self {
            origin: record.origin,
            key: record.key.map(|key| key[..key.len().min(MAX_KEY_BYTES)].to_vec()),
            resolution: RESOLUTION_RETRY_STARTED,
            outcome: None,
            refusal: None,
        }
    }

    /// The retry came to its end.
    pub fn ended(mut self, outcome: &'static str, refusal: Option<(String, String)>) -> Self {
        self.resolution = RESOLUTION_RETRIED;
        self.outcome = Some(outcome);
        self.refusal = refusal.map(|(reason, detail)| (reason, cut_text(detail, MAX_DETAIL_BYTES)));
        self
    }
}

/// The schema id of Confluent's framing: a zero byte, then the id in four bytes.
fn framed_schema_id(payload: &[u8]) -> Option<u32> {
    match payload {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn cut_text(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OwnedRecord;

    fn record(payload: Option<Vec<u8>>) -> OwnedRecord {
        OwnedRecord {
            origin: Origin { partition: 2, offset: 7 },
            appended_at_ms: 1,
            key: Some(vec![b'k'; 100_000]),
            payload,
            headers: vec![("a".into(), vec![1]), ("big".into(), vec![0; 70_000])],
        }
    }

    #[test]
    fn everything_is_cut_and_says_so() {
        let owned = record(Some([vec![0, 0, 0, 1, 2], vec![9; 1_000]].concat()));
        let letter = DeadLetter::of_record(&owned.as_record(), "malformed", "é".repeat(5_000), 10);
        assert_eq!(letter.schema_id, Some(258));
        assert!(letter.is_payload_truncated() && letter.key_truncated && letter.headers_truncated);
        assert_eq!((letter.payload.as_ref().unwrap().len(), letter.payload_original_bytes), (10, 1_005));
        assert_eq!(letter.key.as_ref().unwrap().len(), MAX_KEY_BYTES);
        assert_eq!(letter.headers, vec![("a".to_string(), vec![1])]);
        assert_eq!(letter.detail.len(), MAX_DETAIL_BYTES);
    }

    #[test]
    fn a_tombstone_stays_one() {
        let letter = DeadLetter::of_record(&record(None).as_record(), "r", String::new(), 10);
        assert_eq!((letter.payload.as_ref(), letter.schema_id), (None, None));
        assert!(!letter.is_payload_truncated());
    }
}
