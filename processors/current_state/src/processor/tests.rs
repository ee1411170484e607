use super::{partition::MAX_UNSTORED_BATCHES, *};
use crate::{at_hand::Slot, state_writer::StateWrite, store::StoreIdentity};
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
    let stored = at_hand.take_unstored(1);
    at_hand.stored(1, stored.slots, ROOM_BYTES);
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
    record_in(0, version)
}

fn record_in(partition: i32, version: u64) -> TestRecord {
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
    TestRecord::value(partition, version as i64 - 1, value).appended_at_ms(NOW_MS)
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

/// A record in a batch by itself, on its way to the sink.
fn closed(driver: &mut Driver<CurrentState>, version: u64) -> u64 {
    driver.feed(record(version)).unwrap();
    driver.close_batch().unwrap().unwrap().id
}

/// How far the store is, once it has what it was given.
fn stored(driver: &mut Driver<CurrentState>) -> (Option<i64>, u64) {
    let processor = driver.processor();
    processor.writer.finish().unwrap();
    let mut partition = processor.store.partition(0).unwrap();
    let revision = partition.get("t", "c").unwrap().map_or(0, |claim| claim.state.revision());
    (partition.next_offset(), revision)
}

fn unheld(folder: &Path, max_unstored_bytes: usize) -> Driver<CurrentState> {
    let mut driver = Driver::new(processor(folder).with_max_unstored_bytes(max_unstored_bytes));
    driver.assign(0, None).unwrap();
    driver
}

#[test]
fn the_store_is_given_several_batches_at_once_and_the_last_when_nothing_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), usize::MAX);
    let mut before = closed(&mut driver, 1);
    for version in 2..=5 {
        let next = closed(&mut driver, version);
        driver.acknowledge(before).unwrap();
        assert_eq!(stored(&mut driver), (None, 0), "a batch is under way");
        before = next;
    }
    driver.feed(record(6)).unwrap();
    driver.acknowledge(before).unwrap();
    assert_eq!(stored(&mut driver), (None, 0), "a batch is open");
    let last = driver.close_batch().unwrap().unwrap().id;
    driver.acknowledge(last).unwrap();
    assert_eq!(stored(&mut driver), (Some(6), 6));
}

#[test]
fn what_the_store_was_not_given_is_bounded_by_bytes_and_by_batches() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), 0);
    let mut before = closed(&mut driver, 1);
    for version in 2..=5 {
        let next = closed(&mut driver, version);
        driver.acknowledge(before).unwrap();
        // Not the claim as it stands since, with the batch that is under way.
        assert_eq!(stored(&mut driver), (Some(version as i64 - 1), version - 1));
        before = next;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), usize::MAX);
    let mut before = closed(&mut driver, 1);
    let batches = MAX_UNSTORED_BATCHES;
    for version in 2..=batches + 10 {
        let next = closed(&mut driver, version);
        driver.acknowledge(before).unwrap();
        let wanted = if version <= batches { (None, 0) } else { (Some(batches as i64), batches) };
        assert_eq!(stored(&mut driver), wanted);
        before = next;
    }
}

#[test]
fn a_partition_that_goes_is_stored_unless_a_batch_is_lost_with_it() {
    for is_lost in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = unheld(folder.path(), usize::MAX);
        let first = closed(&mut driver, 1);
        driver.feed(record(2)).unwrap();
        driver.acknowledge(first).unwrap();
        let second = driver.close_batch().unwrap().unwrap().id;
        if !is_lost {
            // In another partition something is under way, or this would be the end of it.
            driver.assign(1, None).unwrap();
            driver.feed(record_in(1, 1)).unwrap();
            driver.acknowledge(second).unwrap();
            assert_eq!(stored(&mut driver), (None, 0));
        }
        driver.revoke(0).unwrap();
        // The claim at hand was ahead of what the sink is known to have.
        assert_eq!(stored(&mut driver), if is_lost { (None, 0) } else { (Some(2), 2) });
    }
}

#[test]
fn a_retried_record_takes_everything_before_it_into_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), usize::MAX);
    let before = closed(&mut driver, 2);
    let Again::Batch(retried, Effect::Applied) = driver.retry(&record(1)).unwrap() else {
        panic!("not applied")
    };
    let after = closed(&mut driver, 3);
    driver.acknowledge(before).unwrap();
    assert_eq!(stored(&mut driver), (None, 0));
    driver.acknowledge(retried.id).unwrap();
    assert_eq!(stored(&mut driver), (Some(2), 2));
    assert!(driver.processor().store.partition(0).unwrap().retried().contains(&0));
    driver.acknowledge(after).unwrap();
    assert_eq!(stored(&mut driver), (Some(3), 3));
}

#[test]
fn a_partition_without_records_is_stored_while_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), usize::MAX);
    driver.assign(1, None).unwrap();
    let mut before = closed(&mut driver, 1);
    for version in 1..=MAX_UNSTORED_BATCHES + 1 {
        driver.feed(record_in(1, version)).unwrap();
        let next = driver.close_batch().unwrap().unwrap().id;
        driver.acknowledge(before).unwrap();
        let wanted = if before < MAX_UNSTORED_BATCHES { (None, 0) } else { (Some(1), 1) };
        assert_eq!(stored(&mut driver), wanted, "after batch {before}");
        before = next;
    }
}

#[test]
fn an_open_batch_is_not_stored_however_long_the_store_was_given_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = unheld(folder.path(), usize::MAX);
    driver.assign(1, None).unwrap();
    let mut before = closed(&mut driver, 1);
    for version in 1..MAX_UNSTORED_BATCHES {
        driver.feed(record_in(1, version)).unwrap();
        let next = driver.close_batch().unwrap().unwrap().id;
        driver.acknowledge(before).unwrap();
        before = next;
    }
    driver.feed(record(2)).unwrap();
    driver.acknowledge(before).unwrap();
    assert_eq!(stored(&mut driver), (None, 0), "it would hold a record that nobody has acknowledged");
    let last = driver.close_batch().unwrap().unwrap().id;
    driver.acknowledge(last).unwrap();
    assert_eq!(stored(&mut driver), (Some(2), 2));
}
