use super::*;
use crate::{state_writer::StateWrite, store::StoreIdentity};
use claims_runtime::testing::{Again, Driver, TestRecord};
use claims_schemas::{Event, Urgency, codec, events::*};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use uuid::Uuid;

const SCHEMA_ID: u32 = 7;
const NOW_MS: i64 = 1_751_932_800_000;

fn processor(folder: &Path) -> CurrentState {
    let identity = StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 2 };
    let schemas = SchemaCache::default();
    schemas.insert(SCHEMA_ID, codec::CLAIM_EVENT_SCHEMA).unwrap();
    CurrentState::new(schemas, StateStore::open(folder, Some("test"), &identity).unwrap())
}

#[test]
fn with_another_partition_the_first_keeps_half_as_much() {
    const ROOM_BYTES: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut processor = processor(folder.path()).with_max_recent_bytes(ROOM_BYTES);
    processor.assigned(0, None).unwrap();
    let at_hand = &mut processor.partitions.get_mut(&0).unwrap().at_hand;
    let add = |n: usize| at_hand.add(0, Claim::empty("t", &format!("c{n:04}")));
    let slots: Vec<Slot> = (0..2_000).map(add).collect();
    for &slot in &slots {
        at_hand.open(slot);
        at_hand.close(slot, 1);
    }
    at_hand.stored(1, slots, ROOM_BYTES);
    let alone = at_hand.len();
    assert!(alone < 2_000);
    processor.assigned(1, None).unwrap();
    processor.batch_acknowledged(2, &[(1, 1)]).unwrap();
    assert_eq!(processor.partitions[&0].at_hand.len(), alone / 2);
}

/// One for each test that holds the local store's writes up.
static GATES: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
/// Longer than anything takes that doesn't wait for the store.
const HELD_UP: Duration = Duration::from_millis(300);

/// Writes once the gate is open.
fn gated<const GATE: usize>(order: StateWrite) -> Result<(), StoreError> {
    while !GATES[GATE].load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    order.commit()
}

fn driver<const GATE: usize>(folder: &Path) -> Driver<CurrentState> {
    let mut processor = processor(folder).with_max_recent_bytes(0);
    processor.writer = StateWriter::with(gated::<GATE>);
    let mut driver = Driver::new(processor);
    driver.assign(0, None).unwrap();
    driver
}

/// The gate opens while `waiting` waits.
fn opens_meanwhile<const GATE: usize>(waiting: impl FnOnce()) {
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(HELD_UP);
            GATES[GATE].store(true, Ordering::SeqCst);
        });
        waiting();
        assert!(GATES[GATE].load(Ordering::SeqCst), "it did not wait for the store");
    });
}

fn record(version: u64) -> TestRecord {
    let data = match version {
        1 => ClaimCreated {
            customer_id: "cust".into(),
            customer_name: None,
            customer_email: None,
            claim_type: "defect".into(),
            title: None,
            description: "It broke".into(),
            product_id: None,
            order_id: None,
            urgency: Urgency::High,
            claimed: None,
        }
        .into(),
        _ => ClaimClosed::default().into(),
    };
    let event = Event {
        tenant_id: "t".into(),
        event_id: Uuid::from_u128(version.into()),
        claim_id: "c".into(),
        version,
        occurred_at: Timestamp(NOW_MS),
        recorded_at: Timestamp(NOW_MS),
        correlation_id: "test".into(),
        causation_id: None,
        user_id: None,
        source: None,
        data,
    };
    let mut value = Vec::new();
    codec::encode(&event, SCHEMA_ID, &mut value).unwrap();
    TestRecord::value(0, version as i64 - 1, value).appended_at_ms(NOW_MS)
}

/// One record, a batch by itself, acknowledged by the sink; the claim's revision in it.
fn written(driver: &mut Driver<CurrentState>, version: u64) -> u64 {
    driver.feed(record(version)).unwrap();
    let batch = driver.close_batch().unwrap().unwrap();
    driver.acknowledge(batch.id).unwrap();
    batch.rows[0].claim.state.revision()
}

#[test]
fn a_claim_stays_at_hand_until_the_store_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver::<0>(folder.path());
    assert_eq!(written(&mut driver, 1), 1);
    assert_eq!(written(&mut driver, 2), 2, "the store doesn't have the first event yet");
    assert_eq!(driver.processor().partitions[&0].at_hand.len(), 1);
    GATES[0].store(true, Ordering::SeqCst);
    let processor = driver.processor();
    let told = processor.writer.finish().unwrap();
    processor.stored(told);
    assert_eq!(processor.partitions[&0].at_hand.len(), 0, "there is no room for claims that the store has");
    assert_eq!(written(&mut driver, 3), 3);
}

#[test]
fn a_partition_is_given_back_once_the_store_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver::<1>(folder.path());
    written(&mut driver, 1);
    written(&mut driver, 2);
    opens_meanwhile::<1>(|| driver.revoke(0).unwrap());
    assert_eq!(driver.processor().store.partition(0).unwrap().next_offset(), Some(2));
}

#[test]
fn a_retried_record_is_done_once_the_store_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver::<2>(folder.path());
    written(&mut driver, 2);
    let Again::Batch(batch, Effect::Applied) = driver.retry(&record(1)).unwrap() else {
        panic!("not applied")
    };
    opens_meanwhile::<2>(|| driver.acknowledge(batch.id).unwrap());
    let partition = driver.processor().store.partition(0).unwrap();
    assert!(partition.retried().contains(&0));
}
