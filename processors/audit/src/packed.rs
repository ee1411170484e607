//! A record of the topic on its way into the trail: one piece of memory for all its texts and bytes.

use crate::record::{AsEntry, ContentRef, EntryRef, RecordKind};

/// Length of a field that is absent.
const ABSENT: u32 = u32::MAX;
const TEXTS: usize = 9;
const NUMBERS: usize = 4;

/// What an [`Entry`](crate::record::Entry) with its content holds, in about a third of the memory: a batch keeps tens of
/// thousands.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedEntry {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it, milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    kind: RecordKind,
    /// A bit for each of `numbers` that is present.
    present: u8,
    key: u32,
    value: u32,
    texts: [u32; TEXTS],
    numbers: [i64; NUMBERS],
    /// The texts one after the other, then key and value; of each only its length is kept beside.
    bytes: Box<[u8]>,
}

/// The texts of a record, in the order in which they are packed.
fn texts<'a>(entry: &EntryRef<'a>, content: &ContentRef<'a>) -> [Option<&'a str>; TEXTS] {
    [
        entry.tenant_id,
        entry.claim_id,
        entry.event_type,
        content.event_id,
        content.correlation_id,
        content.causation_id,
        content.user_id,
        content.source,
        content.traceparent,
    ]
}

impl PackedEntry {
    /// A copy of a record that is not erased. Each field must be shorter than 4 GiB, which Kafka's are by far.
    pub fn new(entry: &EntryRef<'_>, content: &ContentRef<'_>) -> Self {
        let texts = texts(entry, content);
        let numbers = [entry.version, content.schema_id, content.occurred_at_ms, content.recorded_at_ms];
        let raw = [content.key, content.value];
        let fields = || texts.iter().map(|text| text.map(str::as_bytes)).chain(raw).flatten();
        let mut bytes = Vec::with_capacity(fields().map(<[u8]>::len).sum());
        fields().for_each(|field| bytes.extend_from_slice(field));
        Self {
            partition: entry.partition,
            offset: entry.offset,
            appended_at_ms: entry.appended_at_ms,
            kind: entry.kind,
            present: (0..NUMBERS).fold(0, |bits, i| bits | u8::from(numbers[i].is_some()) << i),
            key: length(content.key),
            value: length(content.value),
            texts: texts.map(|text| length(text.map(str::as_bytes))),
            numbers: numbers.map(Option::unwrap_or_default),
            // Of the exact size: nothing is copied again.
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// How much memory the record holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    fn number(&self, index: usize) -> Option<i64> {
        (self.present >> index & 1 == 1).then_some(self.numbers[index])
    }
}

fn length(field: Option<&[u8]>) -> u32 {
    field.map_or(ABSENT, |bytes| u32::try_from(bytes.len()).unwrap_or(ABSENT))
}

impl AsEntry for PackedEntry {
    fn as_refs(&self) -> (EntryRef<'_>, Option<ContentRef<'_>>) {
        let present = |&&length: &&u32| length != ABSENT;
        let text_bytes = self.texts.iter().filter(present).map(|&length| length as usize).sum();
        let (texts, mut raw) = self.bytes.split_at_checked(text_bytes).unwrap_or_default();
        // They were texts when they were packed, so the default never comes; the check is cheaper than a second piece of
        // memory for what is no text.
        let mut texts = std::str::from_utf8(texts).unwrap_or_default();
        let mut text = |index: usize| {
            let (text, rest) = texts.split_at_checked(self.texts[index] as usize)?;
            texts = rest;
            Some(text)
        };
        let [
            tenant_id,
            claim_id,
            event_type,
            event_id,
            correlation_id,
            causation_id,
            user_id,
            source,
            traceparent,
        ] = std::array::from_fn(&mut text);
        let mut bytes = |length: u32| {
            let (bytes, rest) = raw.split_at_checked(length as usize)?;
            raw = rest;
            Some(bytes)
        };
        let (key, value) = (bytes(self.key), bytes(self.value));
        let (partition, offset, appended_at_ms) = (self.partition, self.offset, self.appended_at_ms);
        let version = self.number(0);
        let entry = EntryRef {
            partition,
            offset,
            appended_at_ms,
            kind: self.kind,
            tenant_id,
            claim_id,
            event_type,
            version,
        };
        let content = ContentRef {
            key,
            value,
            schema_id: self.number(1),
            event_id,
            occurred_at_ms: self.number(2),
            recorded_at_ms: self.number(3),
            correlation_id,
            causation_id,
            user_id,
            source,
            traceparent,
        };
        (entry, Some(content))
    }
}

/// Place and size only: the rest may be personal data.
impl std::fmt::Debug for PackedEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedEntry")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("kind", &self.kind)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
