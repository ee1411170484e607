//! The raw records of a batch, kept until it is acknowledged so that one the sink refuses can be dead-lettered whole.

use crate::{Origin, Payload, Record};
use std::collections::HashMap;

const NONE: u32 = u32::MAX;

/// A spent arena that holds more than this, in bytes, is not used again.
const MAX_REUSED_BYTES: usize = 16 * 1024 * 1024;

/// Keys and payloads of a batch's records, one after the other in one piece of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arena {
    bytes: Vec<u8>,
    records: Vec<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    origin: Origin,
    appended_at_ms: i64,
    start: usize,
    /// Bytes kept, or [`NONE`].
    key: u32,
    /// Bytes kept, or [`NONE`] for a tombstone.
    payload: u32,
    payload_original_bytes: usize,
}

/// A record as it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptRecord<'a> {
    /// Partition and offset.
    pub origin: Origin,
    /// When the broker appended it, milliseconds since the Unix epoch.
    pub appended_at_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The payload, cut at the limit; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// How long the payload was.
    pub payload_original_bytes: usize,
}

impl Arena {
    /// Copies a record; of key and payload at most `max_bytes` each.
    #[inline]
    pub fn keep(&mut self, record: &Record<'_>, max_bytes: usize) {
        let start = self.bytes.len();
        let (payload, payload_original_bytes) = match record.payload {
            Payload::Value(bytes) => (self.append(Some(bytes), max_bytes), bytes.len()),
            Payload::Tombstone => (NONE, 0),
        };
        let key = self.append(record.key, max_bytes);
        self.records.push(Kept {
            origin: record.origin,
            appended_at_ms: record.appended_at_ms,
            start,
            key,
            payload,
            payload_original_bytes,
        });
    }

    #[inline]
    fn append(&mut self, bytes: Option<&[u8]>, max_bytes: usize) -> u32 {
        let Some(bytes) = bytes else { return NONE };
        let kept = &bytes[..bytes.len().min(max_bytes).min(NONE as usize - 1)];
        self.bytes.extend_from_slice(kept);
        kept.len() as u32
    }

    /// Memory held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Kept>()
    }

    /// An empty arena with room for about as much as this one holds.
    pub fn successor(&self) -> Self {
        Self { bytes: Vec::with_capacity(self.bytes.len()), records: Vec::with_capacity(self.records.len()) }
    }

    /// The same memory without the records: touching fresh pages costs more than copying a record. `None` if there is
    /// none, or too much to be held in vain.
    pub fn emptied(mut self) -> Option<Self> {
        let held = self.bytes.capacity() + self.records.capacity() * size_of::<Kept>();
        self.bytes.clear();
        self.records.clear();
        (1..=MAX_REUSED_BYTES).contains(&held).then_some(self)
    }

    /// Where each record is, by origin. Built only when a sink refused something.
    pub fn by_origin(&self) -> HashMap<Origin, KeptRecord<'_>> {
        self.records.iter().map(|kept| (kept.origin, self.get(kept))).collect()
    }

    fn get(&self, kept: &Kept) -> KeptRecord<'_> {
        let payload_len = if kept.payload == NONE { 0 } else { kept.payload as usize };
        let payload = &self.bytes[kept.start..kept.start + payload_len];
        let key_start = kept.start + payload_len;
        KeptRecord {
            origin: kept.origin,
            appended_at_ms: kept.appended_at_ms,
            key: (kept.key != NONE).then(|| &self.bytes[key_start..key_start + kept.key as usize]),
            payload: (kept.payload != NONE).then_some(payload),
            payload_original_bytes: kept.payload_original_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OwnedRecord;

    fn record(offset: i64, key: Option<&[u8]>, payload: Option<&[u8]>) -> OwnedRecord {
        OwnedRecord {
            origin: Origin { partition: 1, offset },
            appended_at_ms: 100 + offset,
            key: key.map(<[u8]>::to_vec),
            payload: payload.map(<[u8]>::to_vec),
            headers: vec![],
        }
    }

    #[test]
    fn gives_back_what_it_was_given() {
        let mut arena = Arena::default();
        arena.keep(&record(3, Some(b"k3"), Some(b"payload")).as_record(), 100);
        arena.keep(&record(5, Some(b""), None).as_record(), 100);
        arena.keep(&record(9, None, Some(b"0123456789")).as_record(), 4);
        let index = arena.by_origin();
        let at = |offset| index[&Origin { partition: 1, offset }];
        assert_eq!((at(3).key, at(3).payload), (Some(&b"k3"[..]), Some(&b"payload"[..])));
        assert_eq!((at(5).key, at(5).payload), (Some(&b""[..]), None));
        assert_eq!((at(9).key, at(9).payload), (None, Some(&b"0123"[..])));
        assert_eq!(at(9).payload_original_bytes, 10);
        assert_eq!(at(9).appended_at_ms, 109);
    }

    #[test]
    fn memory_is_used_again_without_what_it_held() {
        let mut arena = Arena::default();
        arena.keep(&record(3, Some(b"old key"), Some(b"old payload")).as_record(), 100);
        let room = arena.bytes.capacity();
        let mut arena = arena.emptied().unwrap();
        assert_eq!((arena.held_bytes(), arena.bytes.capacity()), (0, room));
        arena.keep(&record(9, Some(b"k"), None).as_record(), 100);
        let index = arena.by_origin();
        assert_eq!(index.len(), 1);
        assert_eq!(index[&Origin { partition: 1, offset: 9 }].key, Some(&b"k"[..]));
        let mut large = Arena::default();
        large.keep(&record(1, None, Some(&vec![0; MAX_REUSED_BYTES + 1])).as_record(), usize::MAX);
        assert_eq!(large.emptied(), None);
    }
}
