//! A record of the topic as the trail keeps it.

use crate::chain::{Digest, Salt};
use std::borrow::Cow;

/// What a record of the topic was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A claim event.
    Event,
    /// A null value: the key's earlier records are to be forgotten.
    Tombstone,
}

impl RecordKind {
    /// The word in segments and in the hashed bytes.
    pub const fn as_str(self) -> &'static str {
        match self {
            RecordKind::Event => "event",
            RecordKind::Tombstone => "tombstone",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [RecordKind::Event, RecordKind::Tombstone].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One record of the topic: what stays for good, and the content that can be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it, milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    /// Event or tombstone.
    pub kind: RecordKind,
    /// Whose claim it is. `None` only for a tombstone whose key doesn't tell.
    pub tenant_id: Option<String>,
    /// The claim.
    pub claim_id: Option<String>,
    /// Name of the event type; `None` for a tombstone.
    pub event_type: Option<Cow<'static, str>>,
    /// The event's sequence number within its claim; `None` for a tombstone.
    pub version: Option<i64>,
    /// What an erasure removes; `None` once it has.
    pub content: Option<Content>,
}

/// The part of a record that may tell about a person, and all that could be recomputed from it. An event id of an
/// import is a hash of the content without a salt, so it belongs here too.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The record's key as it stands in the topic.
    pub key: Option<Vec<u8>>,
    /// The record's value as it stands in the topic, framing included; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Registry id of the schema that the value was written with.
    pub schema_id: Option<u32>,
    /// The event's id.
    pub event_id: Option<String>,
    /// When it happened in the business, milliseconds since the Unix epoch.
    pub occurred_at_ms: Option<i64>,
    /// When ingress took it in, milliseconds since the Unix epoch.
    pub recorded_at_ms: Option<i64>,
    /// Correlation id, of the envelope or (tombstones) of the header.
    pub correlation_id: Option<String>,
    /// The event or command that caused it.
    pub causation_id: Option<String>,
    /// Who did it.
    pub user_id: Option<String>,
    /// The system of record it came from.
    pub source: Option<String>,
    /// W3C trace context of the header.
    pub traceparent: Option<String>,
}

/// Sizes only: the rest may be personal data.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("key_bytes", &self.key.as_ref().map(Vec::len))
            .field("value_bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// What stays of an [`Entry`], borrowed: from one, or from the columns of a segment.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct EntryRef<'a> {
    pub partition: i32,
    pub offset: i64,
    pub appended_at_ms: i64,
    pub kind: RecordKind,
    pub tenant_id: Option<&'a str>,
    pub claim_id: Option<&'a str>,
    pub event_type: Option<&'a str>,
    pub version: Option<i64>,
}

/// [`Content`], borrowed.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct ContentRef<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub schema_id: Option<i64>,
    pub event_id: Option<&'a str>,
    pub occurred_at_ms: Option<i64>,
    pub recorded_at_ms: Option<i64>,
    pub correlation_id: Option<&'a str>,
    pub causation_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub source: Option<&'a str>,
    pub traceparent: Option<&'a str>,
}

/// A record in any form that the trail is made from: owned, as a segment gives it back, or packed, as it comes from the
/// topic.
pub trait AsEntry {
    /// What stays of it, and its content (`None`: it was erased), borrowed. Ask once per record: it may cost a check of
    /// the texts.
    fn as_refs(&self) -> (EntryRef<'_>, Option<ContentRef<'_>>);
}

impl AsEntry for Entry {
    fn as_refs(&self) -> (EntryRef<'_>, Option<ContentRef<'_>>) {
        (self.as_ref(), self.content.as_ref().map(Content::as_ref))
    }
}

impl Content {
    /// The same, borrowed.
    pub fn as_ref(&self) -> ContentRef<'_> {
        ContentRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            schema_id: self.schema_id.map(i64::from),
            event_id: self.event_id.as_deref(),
            occurred_at_ms: self.occurred_at_ms,
            recorded_at_ms: self.recorded_at_ms,
            correlation_id: self.correlation_id.as_deref(),
            causation_id: self.causation_id.as_deref(),
            user_id: self.user_id.as_deref(),
            source: self.source.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}

impl Entry {
    /// What stays of it for good, borrowed.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            partition: self.partition,
            offset: self.offset,
            appended_at_ms: self.appended_at_ms,
            kind: self.kind,
            tenant_id: self.tenant_id.as_deref(),
            claim_id: self.claim_id.as_deref(),
            event_type: self.event_type.as_deref(),
            version: self.version,
        }
    }
}

/// An entry in its place in the chain, as read from a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailRecord {
    /// Place in the chain of its partition, from 1.
    pub position: u64,
    /// When the trail took it, milliseconds since the Unix epoch.
    pub processed_at_ms: i64,
    /// The record.
    pub entry: Entry,
    /// The salt of the content's hash; `None` once the content is erased.
    pub salt: Option<Salt>,
    /// Salted hash of the content; stays when the content goes.
    pub content_hash: Digest,
    /// The chain's hash at this record.
    pub chain_hash: Digest,
}

impl TrailRecord {
    /// Time from the broker's append to the trail, milliseconds.
    pub fn latency_ms(&self) -> i64 {
        latency_ms(self.processed_at_ms, self.entry.appended_at_ms)
    }

    /// Whether the content was erased.
    pub fn is_erased(&self) -> bool {
        self.salt.is_none()
    }
}

/// Time from the broker's append to the trail, milliseconds.
pub fn latency_ms(processed_at_ms: i64, appended_at_ms: i64) -> i64 {
    processed_at_ms.saturating_sub(appended_at_ms)
}
