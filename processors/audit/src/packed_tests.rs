use super::*;
use crate::{
    processor::{AuditProcessor, TrailEnds},
    record::{Content, Entry},
};
use claims_runtime::testing::{Driver, Outcome, TestRecord};
use claims_schemas::{
    Event, EventData, SchemaCache, Timestamp,
    codec::{self, CLAIM_EVENT_SCHEMA},
    events::{ClaimAssigned, ClaimNoteAdded},
};
use claims_topology::topics::{HEADER_CORRELATION_ID, HEADER_TRACEPARENT};
use proptest::{collection::vec, option, prelude::*};
use std::borrow::Cow;
use uuid::Uuid;

const SCHEMA_ID: u32 = 7;

/// The record with fields of its own.
fn unpacked(packed: &PackedEntry) -> Entry {
    let (entry, content) = packed.as_refs();
    let text = |text: Option<&str>| text.map(str::to_owned);
    Entry {
        partition: entry.partition,
        offset: entry.offset,
        appended_at_ms: entry.appended_at_ms,
        kind: entry.kind,
        tenant_id: text(entry.tenant_id),
        claim_id: text(entry.claim_id),
        event_type: text(entry.event_type).map(Cow::Owned),
        version: entry.version,
        content: content.map(|content| Content {
            key: content.key.map(<[u8]>::to_vec),
            value: content.value.map(<[u8]>::to_vec),
            schema_id: content.schema_id.map(|id| u32::try_from(id).unwrap()),
            event_id: text(content.event_id),
            occurred_at_ms: content.occurred_at_ms,
            recorded_at_ms: content.recorded_at_ms,
            correlation_id: text(content.correlation_id),
            causation_id: text(content.causation_id),
            user_id: text(content.user_id),
            source: text(content.source),
            traceparent: text(content.traceparent),
        }),
    }
}

/// What an event's entry holds, field by field and owned.
fn entry_of(event: &Event, offset: i64, key: Option<Vec<u8>>, value: Vec<u8>, trace: Option<&str>) -> Entry {
    Entry {
        partition: 2,
        offset,
        appended_at_ms: offset,
        kind: RecordKind::Event,
        tenant_id: Some(event.tenant_id.clone()),
        claim_id: Some(event.claim_id.clone()),
        event_type: Some(Cow::Borrowed(event.event_type().as_str())),
        version: Some(i64::try_from(event.version).unwrap()),
        content: Some(Content {
            key,
            value: Some(value),
            schema_id: Some(SCHEMA_ID),
            event_id: Some(event.event_id.to_string()),
            occurred_at_ms: Some(event.occurred_at.0),
            recorded_at_ms: Some(event.recorded_at.0),
            correlation_id: Some(event.correlation_id.clone()),
            causation_id: event.causation_id.clone(),
            user_id: event.user_id.clone(),
            source: event.source.clone(),
            traceparent: trace.map(str::to_owned),
        }),
    }
}

/// What a tombstone's entry holds.
fn tombstone_of(offset: i64, key: Option<Vec<u8>>, header: Option<&str>) -> Entry {
    let text = key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let named = match parts.as_slice() {
        [tenant, claim @ .., event] if !claim.is_empty() => {
            Some([*tenant, &claim.join(":"), *event].map(str::to_owned))
        }
        _ => None,
    };
    let [tenant_id, claim_id, event_id] =
        match named.filter(|parts| parts.iter().all(|part| !part.is_empty())) {
            Some(parts) => parts.map(Some),
            None => [const { None }; 3],
        };
    Entry {
        partition: 2,
        offset,
        appended_at_ms: offset,
        kind: RecordKind::Tombstone,
        tenant_id,
        claim_id,
        event_type: None,
        version: None,
        content: Some(Content {
            key,
            event_id,
            correlation_id: header.map(str::to_owned),
            traceparent: header.map(str::to_owned),
            ..Content::default()
        }),
    }
}

/// Text, no text, too long, or not there.
fn any_header() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(prop_oneof![
        "[a-f0-9-]{0,60}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..8),
        vec(Just(b'a'), 1_020..1_030),
    ])
}

/// What the trail keeps of a header.
fn kept(header: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(header.filter(|header| header.len() <= 1_024)?).ok()
}

/// The row that the processor makes of a record with this key, and with this header under both names.
fn row_of(mut record: TestRecord, key: Option<Vec<u8>>, header: Option<&[u8]>) -> Entry {
    if let Some(key) = key {
        record = record.key(key);
    }
    for name in [HEADER_TRACEPARENT, HEADER_CORRELATION_ID] {
        if let Some(header) = header {
            record = record.header(name, header);
        }
    }
    let mut driver = driver();
    assert_eq!(driver.feed(record).unwrap(), Outcome::Taken);
    unpacked(&driver.close_batch().unwrap().unwrap().rows[0])
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let text = || option::of("\\PC{0,12}");
    let raw = || option::of(vec(any::<u8>(), 0..12));
    let number = || option::of(any::<i64>());
    let content = (
        (raw(), raw(), option::of(any::<u32>()), text()),
        (number(), number(), text(), text()),
        (text(), text(), text()),
    );
    let content =
        content.prop_map(|((key, value, schema_id, event_id), (occurred, recorded, corr, cause), rest)| {
            Content {
                key,
                value,
                schema_id,
                event_id,
                occurred_at_ms: occurred,
                recorded_at_ms: recorded,
                correlation_id: corr,
                causation_id: cause,
                user_id: rest.0,
                source: rest.1,
                traceparent: rest.2,
            }
        });
    let rest = (any::<i32>(), any::<i64>(), any::<i64>(), any::<bool>(), text(), text(), text(), number());
    (rest, content).prop_map(
        |((partition, offset, appended_at_ms, event, tenant, claim, name, version), content)| Entry {
            partition,
            offset,
            appended_at_ms,
            kind: if event { RecordKind::Event } else { RecordKind::Tombstone },
            tenant_id: tenant,
            claim_id: claim,
            event_type: name.map(Cow::Owned),
            version,
            content: Some(content),
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = || "\\PC{1,20}";
    let data = prop_oneof![
        (option::of(text()), text())
            .prop_map(|(author, note)| { EventData::from(ClaimNoteAdded { author, note, kind: None }) }),
        (text(), text()).prop_map(|(agent_id, agent_name)| {
            let (assignment_reason, estimated_resolution_time) = (None, None);
            EventData::from(ClaimAssigned {
                agent_id,
                agent_name,
                assignment_reason,
                estimated_resolution_time,
            })
        }),
    ];
    let envelope = (text(), any::<u128>(), text(), 1..i64::MAX as u64, any::<i64>(), any::<i64>());
    let rest = (text(), option::of(text()), option::of(text()), option::of(text()), data);
    (envelope, rest).prop_map(|((tenant_id, id, claim_id, version, occurred_at, recorded_at), rest)| Event {
        tenant_id,
        event_id: Uuid::from_u128(id),
        claim_id,
        version,
        occurred_at: Timestamp(occurred_at),
        recorded_at: Timestamp(recorded_at),
        correlation_id: rest.0,
        causation_id: rest.1,
        user_id: rest.2,
        source: rest.3,
        data: rest.4,
    })
}

fn driver() -> Driver<AuditProcessor> {
    let schemas = SchemaCache::default();
    schemas.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).unwrap();
    let mut driver = Driver::new(AuditProcessor::new(schemas, TrailEnds::default()));
    driver.assign(2, None).unwrap();
    driver
}

#[test]
fn a_row_is_small() {
    assert!(size_of::<PackedEntry>() <= 120, "{}", size_of::<PackedEntry>());
}

#[test]
fn debug_shows_no_content() {
    let entry = entry_of(&event(), 1, None, vec![], None);
    let packed = PackedEntry::new(&entry.as_ref(), &entry.content.as_ref().unwrap().as_ref());
    let text = format!("{packed:?}");
    assert!(text.contains("offset: 1") && !text.contains("c-1"), "{text}");
}

fn event() -> Event {
    Event {
        tenant_id: "acme".into(),
        event_id: Uuid::nil(),
        claim_id: "c-1".into(),
        version: 1,
        occurred_at: Timestamp(1),
        recorded_at: Timestamp(2),
        correlation_id: "corr".into(),
        causation_id: None,
        user_id: None,
        source: None,
        data: EventData::from(ClaimNoteAdded { author: None, note: "n".into(), kind: None }),
    }
}

proptest! {
    #[test]
    fn a_packed_entry_gives_back_what_was_packed(entry in any_entry()) {
        let content = entry.content.as_ref().unwrap().as_ref();
        prop_assert_eq!(unpacked(&PackedEntry::new(&entry.as_ref(), &content)), entry);
    }

    #[test]
    fn a_row_holds_every_field_of_its_event(
        event in any_event(), key in option::of(vec(any::<u8>(), 0..20)), header in any_header(),
    ) {
        let mut value = Vec::new();
        codec::encode(&event, SCHEMA_ID, &mut value).unwrap();
        let row = row_of(TestRecord::value(2, 5, value.clone()), key.clone(), header.as_deref());
        prop_assert_eq!(row, entry_of(&event, 5, key, value, kept(header.as_deref())));
    }

    #[test]
    fn a_row_holds_every_field_of_its_tombstone(
        key in option::of(prop_oneof![vec(any::<u8>(), 0..20), "[ab:]{0,9}".prop_map(String::into_bytes)]),
        header in any_header(),
    ) {
        let row = row_of(TestRecord::tombstone(2, 5), key.clone(), header.as_deref());
        prop_assert_eq!(row, tombstone_of(5, key, kept(header.as_deref())));
    }
}
