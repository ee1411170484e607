//! Events as records: key, value, partition and headers of one after the other in one buffer, ready to be handed over.

use crate::partitioner;
use claims_schemas::{EncodeError, Event, EventType, EventView, codec};

/// What a record is made with, beside its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFormat {
    /// The id of the registered schema.
    pub schema_id: u32,
    /// Partitions of the topic.
    pub partitions: i32,
}

/// Records in the order to publish them. Its memory is reused.
#[derive(Debug)]
pub struct Records {
    format: RecordFormat,
    /// Key, correlation id, value; key, correlation id, value; …
    bytes: Vec<u8>,
    places: Vec<Place>,
    failure: Option<EncodeError>,
}

/// Where a record's parts end; each begins where the one before ends.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    tenant_end: usize,
    key_end: usize,
    correlation_end: usize,
    end: usize,
    partition: i32,
    event_type: EventType,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The partition of its claim.
    pub partition: i32,
    /// `tenant:claim_id:event_id`.
    pub key: &'a [u8],
    /// Framed Avro.
    pub value: &'a [u8],
    /// For its header.
    pub event_type: EventType,
    /// For its header.
    pub tenant: &'a [u8],
    /// For its header.
    pub correlation_id: &'a [u8],
}

impl Records {
    /// None yet.
    pub fn new(format: RecordFormat) -> Self {
        Self { format, bytes: Vec::new(), places: Vec::new(), failure: None }
    }

    /// How they are made.
    pub fn format(&self) -> RecordFormat {
        self.format
    }

    /// Appends an event's record. One that can't be encoded is the end: neither it nor one after it is appended.
    pub fn push(&mut self, event: &EventView<'_>) {
        if self.failure.is_some() {
            return;
        }
        let start = self.bytes.len();
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(event.tenant_id.as_bytes());
        let tenant_end = bytes.len();
        bytes.push(b':');
        bytes.extend_from_slice(event.claim_id.as_bytes());
        let partition = partitioner::partition_of(&bytes[start..], self.format.partitions);
        bytes.push(b':');
        bytes.extend_from_slice(event.event_id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
        let key_end = bytes.len();
        bytes.extend_from_slice(event.correlation_id.as_bytes());
        let correlation_end = bytes.len();
        if let Err(error) = codec::encode_view(event, self.format.schema_id, bytes) {
            bytes.truncate(start);
            self.failure = Some(error);
            return;
        }
        let (end, event_type) = (bytes.len(), event.event_type());
        self.places.push(Place { start, tenant_end, key_end, correlation_end, end, partition, event_type });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Why they end early.
    pub fn failure(&self) -> Option<&EncodeError> {
        self.failure.as_ref()
    }

    /// The record at a place from 0.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let Place { start, tenant_end, key_end, correlation_end, end, partition, event_type } =
            *self.places.get(index)?;
        Some(Record {
            partition,
            key: &self.bytes[start..key_end],
            value: &self.bytes[correlation_end..end],
            event_type,
            tenant: &self.bytes[start..tenant_end],
            correlation_id: &self.bytes[key_end..correlation_end],
        })
    }

    /// Keeps the first few. Since nothing is appended after a failure, cutting off a record cuts off the failure that
    /// came after it; one that no record is cut off before may be of an earlier row, and stays.
    pub fn truncate(&mut self, length: usize) {
        if let Some(first) = self.places.get(length) {
            self.bytes.truncate(first.start);
            self.places.truncate(length);
            self.failure = None;
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.failure = None;
    }
}

/// What a reader makes of events: the events themselves, or their records.
#[derive(Debug)]
pub enum Emitted {
    /// Events with texts of their own.
    Events(Vec<Event>),
    /// Records for Kafka.
    Records(Records),
}

impl Default for Emitted {
    fn default() -> Self {
        Self::Events(Vec::new())
    }
}

impl Emitted {
    /// Another one of the same form, empty.
    pub fn another(&self) -> Self {
        match self {
            Self::Events(_) => Self::Events(Vec::new()),
            Self::Records(records) => Self::Records(Records::new(records.format())),
        }
    }

    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        match self {
            Self::Events(events) => events.push(event),
            Self::Records(records) => records.push(&EventView::from(&event)),
        }
    }

    /// Appends an event whose texts stand elsewhere.
    pub fn push_view(&mut self, event: &EventView<'_>) {
        match self {
            Self::Events(events) => events.push(event.to_event()),
            Self::Records(records) => records.push(event),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Records(records) => records.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first few.
    pub fn truncate(&mut self, length: usize) {
        match self {
            Self::Events(events) => events.truncate(length),
            Self::Records(records) => records.truncate(length),
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        match self {
            Self::Events(events) => events.clear(),
            Self::Records(records) => records.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Generator, GeneratorSettings};

    const FORMAT: RecordFormat = RecordFormat { schema_id: 7, partitions: 5 };

    fn generated() -> Vec<Event> {
        Generator::new(GeneratorSettings { events: 50, seed: 3 }).collect()
    }

    #[test]
    fn a_record_has_the_parts_of_its_event() {
        let (events, mut records) = (generated(), Records::new(FORMAT));
        events.iter().for_each(|event| records.push(&event.into()));
        assert_eq!(records.len(), events.len());
        for (index, event) in events.iter().enumerate() {
            let (key, mut value) = (event.record_key(), Vec::new());
            codec::encode(event, 7, &mut value).unwrap();
            let expected = Record {
                partition: partitioner::partition_of(event.partition_key().as_bytes(), 5),
                key: key.as_bytes(),
                value: &value,
                event_type: event.event_type(),
                tenant: event.tenant_id.as_bytes(),
                correlation_id: event.correlation_id.as_bytes(),
            };
            assert_eq!(records.get(index), Some(expected));
        }
        assert_eq!(records.get(events.len()), None);
    }

    #[test]
    fn what_is_cut_off_leaves_nothing_behind() {
        let (events, mut records) = (generated(), Records::new(FORMAT));
        events.iter().for_each(|event| records.push(&event.into()));
        records.truncate(20);
        records.truncate(30);
        records.push(&(&events[40]).into());
        assert_eq!(records.len(), 21);
        assert_eq!(records.get(20).unwrap().key, events[40].record_key().as_bytes());
        assert_eq!(records.get(19).unwrap().key, events[19].record_key().as_bytes());
        records.clear();
        assert!(records.is_empty() && records.get(0).is_none());
    }

    #[test]
    fn an_event_that_cannot_be_encoded_is_the_end() {
        let mut records = Records::new(FORMAT);
        let mut events = generated();
        events[1].version = u64::MAX;
        events.iter().for_each(|event| records.push(&event.into()));
        assert_eq!(records.len(), 1);
        assert!(records.failure().unwrap().to_string().contains("can't be encoded"));
        assert_eq!(records.get(0).unwrap().key, events[0].record_key().as_bytes());
    }

    #[test]
    fn a_failure_is_cut_off_with_the_record_before_it() {
        let mut records = Records::new(FORMAT);
        let mut events = generated();
        events[3].version = u64::MAX;
        events.iter().for_each(|event| records.push(&event.into()));
        records.truncate(3);
        assert!(records.failure().is_some(), "nothing was cut off");
        records.truncate(2);
        assert!(records.failure().is_none());
        records.push(&(&events[4]).into());
        assert_eq!(records.len(), 3);
        assert_eq!(records.get(2).unwrap().key, events[4].record_key().as_bytes());
    }
}
