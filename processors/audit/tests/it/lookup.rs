//! Looking a claim up.

use crate::support::{TOPIC, Trail, batch, entry, offsets};
use claims_audit::{ShowOptions, record::RecordKind, segment::write::Segment, show};
use claims_runtime::Sink;

fn claim(claim_id: &str) -> ShowOptions {
    ShowOptions { topic: TOPIC.into(), tenant_id: Some("acme".into()), claim_id: claim_id.into() }
}

#[tokio::test]
async fn all_records_of_a_claim_with_their_coordinates() {
    let trail = Trail::new();
    let sink = trail.sink();
    sink.write(&offsets(0..10)).await.unwrap();
    sink.write(&batch((10..20).map(|o| entry(1, o)).collect())).await.unwrap();
    sink.write(&offsets([11, 12])).await.unwrap();
    let found = show(&trail.store, &claim("claim-0-2")).await.unwrap();
    assert!(found.holds);
    let places: Vec<_> = found.records.iter().map(|r| (r.partition, r.offset, r.position)).collect();
    assert_eq!(places, [(0, 2, 3), (0, 7, 8), (0, 12, 12)]);
    let first = &found.records[0];
    assert_eq!(first.event_id.as_deref(), Some("event-0-2"));
    assert_eq!(first.latency_ms, first.processed_at.0 - first.appended_at.0);
    assert_eq!(first.occurred_at.unwrap().to_string(), "2020-09-13T12:26:40.000Z");
    assert!(first.holds && !first.erased && first.copy_of_offset.is_none());
    assert!(show(&trail.store, &claim("nobody")).await.unwrap().records.is_empty());
    let other_tenant = ShowOptions { tenant_id: Some("other".into()), ..claim("claim-0-2") };
    assert!(show(&trail.store, &other_tenant).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn segments_without_the_claim_are_not_read() {
    let trail = Trail::new();
    let sink = trail.sink();
    for first in 0..20 {
        let mut records = vec![entry(0, first)];
        records[0].claim_id = Some(format!("only-{first}"));
        sink.write(&batch(records)).await.unwrap();
    }
    let found = show(&trail.store, &claim("only-7")).await.unwrap();
    assert_eq!((found.records.len(), found.segments), (1, 20));
    assert!(found.segments_read < 5, "{}", found.segments_read);
}

#[tokio::test]
async fn copies_conflicts_and_tombstones_are_marked() {
    let trail = Trail::new();
    let mut records: Vec<_> = (0..4).map(|offset| entry(0, offset)).collect();
    for (i, record) in records.iter_mut().enumerate() {
        record.claim_id = Some("c".into());
        record.version = Some(1);
        let event = if i == 2 { "b" } else { "a" };
        record.content.as_mut().unwrap().event_id = Some(event.into());
    }
    records[3].kind = RecordKind::Tombstone;
    records[3].version = None;
    trail.sink().write(&batch(records)).await.unwrap();
    let found = show(&trail.store, &claim("c")).await.unwrap();
    let marks: Vec<_> =
        found.records.iter().map(|r| (r.copy_of_offset, r.superseded_by_offset, r.kind)).collect();
    let event = RecordKind::Event;
    assert_eq!(
        marks,
        [
            (None, None, event),
            (Some(0), None, event),
            (None, Some(0), event),
            (None, None, RecordKind::Tombstone)
        ]
    );
}

#[tokio::test]
async fn a_claim_in_a_tampered_trail_does_not_hold() {
    let trail = Trail::new();
    let sink = trail.sink();
    sink.write(&offsets(0..10)).await.unwrap();
    sink.write(&offsets(10..20)).await.unwrap();
    let (file, mut records) = trail.read(0, 0);
    records[2].entry.content.as_mut().unwrap().value = Some(b"forged".to_vec());
    let segment = Segment::rewrite(TOPIC, 0, file.meta().previous_hash, &records).unwrap();
    std::fs::write(trail.path(0, 0), segment.encode().unwrap()).unwrap();
    let found = show(&trail.store, &claim("claim-0-2")).await.unwrap();
    assert!(!found.holds);
    let held: Vec<_> = found.records.iter().map(|r| r.holds).collect();
    assert_eq!(held, [false, true, true, true]);
    // A hole between the segments is seen as well, though they are not read for this claim.
    std::fs::remove_file(trail.path(0, 0)).unwrap();
    let found = show(&trail.store, &claim("claim-0-2")).await.unwrap();
    assert!(!found.holds && found.records.len() == 2);
}
