use super::*;
use crate::record::AsEntry as _;
use claims_runtime::testing::{Driver, Outcome, TestRecord};
use claims_schemas::{Event, EventData, Timestamp, codec::CLAIM_EVENT_SCHEMA, events::ClaimNoteAdded};
use uuid::Uuid;

const SCHEMA_ID: u32 = 7;

fn note(version: u64) -> Event {
    Event {
        tenant_id: "acme".into(),
        event_id: Uuid::from_u128(u128::from(version)),
        claim_id: "c:1".into(),
        version,
        occurred_at: Timestamp(1_000),
        recorded_at: Timestamp(2_000),
        correlation_id: "corr".into(),
        causation_id: None,
        user_id: Some("u".into()),
        source: None,
        data: EventData::from(ClaimNoteAdded { author: None, note: "n".into(), kind: None }),
    }
}

fn record(offset: i64, event: &Event) -> TestRecord {
    let mut value = Vec::new();
    codec::encode(event, SCHEMA_ID, &mut value).unwrap();
    TestRecord::value(2, offset, value).key(event.record_key())
}

fn processor(ends: &TrailEnds) -> AuditProcessor {
    let schemas = SchemaCache::default();
    schemas.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).unwrap();
    AuditProcessor::new(schemas, ends.clone())
}

#[test]
fn an_event_becomes_an_entry_with_its_bytes_and_envelope() {
    let mut driver = Driver::new(processor(&TrailEnds::default()));
    driver.assign(2, None).unwrap();
    let record = record(5, &note(3)).header(HEADER_TRACEPARENT, "00-trace-span-01");
    driver.feed(record).unwrap();
    let row = driver.close_batch().unwrap().unwrap().rows.remove(0);
    let (entry, content) = row.as_refs();
    assert_eq!((entry.partition, entry.offset, entry.appended_at_ms), (2, 5, 5));
    assert_eq!(entry.kind, RecordKind::Event);
    assert_eq!(entry.tenant_id, Some("acme"));
    assert_eq!(entry.claim_id, Some("c:1"));
    assert_eq!(entry.event_type, Some("ClaimNoteAdded"));
    assert_eq!(entry.version, Some(3));
    let content = content.unwrap();
    assert_eq!(content.key, Some(note(3).record_key().as_bytes()));
    assert_eq!(content.value.and_then(codec::schema_id), Some(SCHEMA_ID));
    assert_eq!(content.schema_id, Some(i64::from(SCHEMA_ID)));
    assert_eq!(content.occurred_at_ms, Some(1_000));
    assert_eq!(content.traceparent, Some("00-trace-span-01"));
}

#[test]
fn a_tombstone_is_an_entry_named_by_its_key() {
    let mut driver = Driver::new(processor(&TrailEnds::default()));
    driver.assign(2, None).unwrap();
    let key = note(1).record_key();
    driver.feed(TestRecord::tombstone(2, 0).key(key.clone()).header(HEADER_CORRELATION_ID, "why")).unwrap();
    driver.feed(TestRecord::tombstone(2, 1).key(vec![0xff, b':', 0xff])).unwrap();
    driver.feed(TestRecord::tombstone(2, 2)).unwrap();
    let rows = driver.close_batch().unwrap().unwrap().rows;
    let rows: Vec<_> = rows.iter().map(|row| row.as_refs()).map(|(e, c)| (e, c.unwrap())).collect();
    assert!(rows.iter().all(|(entry, _)| entry.kind == RecordKind::Tombstone));
    let (entry, content) = &rows[0];
    assert_eq!((entry.tenant_id, entry.claim_id), (Some("acme"), Some("c:1")));
    assert_eq!(content.correlation_id, Some("why"));
    assert_eq!((content.key, content.value), (Some(key.as_bytes()), None));
    assert_eq!((rows[1].0.tenant_id, rows[1].0.claim_id), (None, None));
    assert_eq!(rows[2].1.key, None);
}

#[test]
fn what_cannot_be_decoded_is_refused_or_waits() {
    let mut driver = Driver::new(processor(&TrailEnds::default()));
    driver.assign(2, None).unwrap();
    let refused = Outcome::DeadLettered { reason: REASON_MALFORMED };
    assert_eq!(driver.feed(TestRecord::value(2, 0, "not Avro")).unwrap(), refused);
    assert_eq!(
        driver.feed(TestRecord::value(2, 1, [0, 0, 0, 0, 99, 1])).unwrap(),
        Outcome::SchemaMissing(99)
    );
    assert_eq!(driver.close_batch().unwrap().unwrap().rows, vec![]);
}

#[test]
fn a_committed_record_that_the_trail_lacks_stops_the_stage() {
    let ends = TrailEnds::default();
    ends.set(2, Some(3));
    let mut driver = Driver::new(processor(&ends));
    assert_eq!(driver.assign(2, Some(7)).unwrap(), 4, "reads again from where the trail ends");
    // A refused record was rightly left out.
    driver.feed(TestRecord::value(2, 4, "not Avro")).unwrap();
    let error = driver.feed(record(5, &note(1))).unwrap_err();
    let ProcessError::Fatal(text) = error else { panic!("{error:?}") };
    assert!(text.contains("needs offset 4 next") && text.contains("committed 7"), "{text}");
    assert!(text.contains("offset 5 is not in the trail"), "{text}");
}

#[test]
fn what_the_dead_letters_hold_is_rightly_missing() {
    let ends = TrailEnds::default();
    ends.set(2, Some(3));
    ends.set_refused(2, BTreeSet::from([4]));
    let mut driver = Driver::new(processor(&ends));
    assert_eq!(driver.assign(2, Some(6)).unwrap(), 4);
    assert_eq!(driver.feed(record(4, &note(1))).unwrap(), Outcome::Taken);
    assert!(driver.feed(record(5, &note(2))).is_err(), "of this one there is no dead letter");
    assert_eq!(driver.close_batch().unwrap().unwrap().rows, vec![], "it is not in the trail all the same");
}

#[test]
fn an_empty_trail_of_a_group_that_has_committed_stops_too() {
    let ends = TrailEnds::default();
    ends.set(2, None);
    let mut driver = Driver::new(processor(&ends));
    assert_eq!(driver.assign(2, Some(7)).unwrap(), 0);
    assert!(matches!(driver.feed(record(0, &note(1))), Err(ProcessError::Fatal(_))));
}

#[test]
fn a_trail_that_is_ahead_or_level_reads_on_from_the_commit() {
    for (end, committed) in [(Some(6), 7), (Some(9), 7)] {
        let ends = TrailEnds::default();
        ends.set(2, end);
        let mut driver = Driver::new(processor(&ends));
        assert_eq!(driver.assign(2, Some(committed)).unwrap(), 7);
        assert_eq!(driver.feed(record(7, &note(1))).unwrap(), Outcome::Taken);
        assert_eq!(driver.close_batch().unwrap().unwrap().rows.len(), 1);
    }
}

#[test]
fn a_trail_needs_its_next_offset_also_where_nothing_is_committed() {
    for (end, needed) in [(Some(9), Some(10)), (None, None)] {
        let ends = TrailEnds::default();
        ends.set(2, end);
        assert_eq!(processor(&ends).assigned(2, None), Ok(needed), "{end:?}");
    }
    assert_eq!(processor(&TrailEnds::default()).assigned(2, None), Ok(None), "nobody has looked");
}
