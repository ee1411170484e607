//! The processor alone: what it refuses, what it reports once, what it writes.

use crate::events::*;
use claims_current_state::{
    CurrentState,
    claim::Claim,
    places::{ListView, Place},
    processor::{REASON_INVALID, REASON_MALFORMED, REASON_SUPERSEDED},
    retried::Retried,
    store::{StateStore, StoreIdentity},
};
use claims_runtime::{
    Effect, Processor,
    testing::{Again, Driver, Outcome, TestRecord},
};
use claims_schemas::{Event, EventData, Status, events::*};
use std::path::Path;

const NOW_MS: i64 = DAY_MS + 3_600_000;

fn driver(folder: &Path) -> Driver<CurrentState> {
    let identity = StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 2 };
    Driver::new(CurrentState::new(schemas(), StateStore::open(folder, Some("test"), &identity).unwrap()))
}

fn record(offset: i64, event: &Event) -> TestRecord {
    TestRecord::value(0, offset, encoded(event)).appended_at_ms(NOW_MS)
}

fn three() -> [Event; 3] {
    [
        event("t", "c", 1, created("cust")),
        event("t", "c", 2, assigned("a1")),
        event("t", "c", 2, assigned("a2")),
    ]
}

#[test]
fn what_is_refused_says_why_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    let refused = |reason| Outcome::DeadLettered { reason };
    let good = event("t", "c", 1, created("cust"));
    let mut truncated = encoded(&good);
    truncated.truncate(20);
    let mut future = good.clone();
    future.occurred_at.0 += 100 * 365 * 86_400_000;
    let mut unknown_schema = encoded(&good);
    unknown_schema[4] = 99;
    let feed = |driver: &mut Driver<_>, offset, value: Vec<u8>| {
        driver.feed(TestRecord::value(0, offset, value).appended_at_ms(NOW_MS)).unwrap()
    };
    assert_eq!(feed(&mut driver, 0, truncated), refused(REASON_MALFORMED));
    assert_eq!(feed(&mut driver, 1, vec![1, 2, 3]), refused(REASON_MALFORMED));
    assert_eq!(feed(&mut driver, 2, encoded(&future)), refused(REASON_INVALID));
    assert_eq!(feed(&mut driver, 3, unknown_schema), Outcome::SchemaMissing(99));
    assert_eq!(driver.feed(TestRecord::tombstone(0, 4)).unwrap(), Outcome::Taken);
    assert_eq!(feed(&mut driver, 5, encoded(&good)), Outcome::Taken);
    let batch = driver.close_batch().unwrap().unwrap();
    assert_eq!(batch.rows.len(), 1);
    assert_eq!(batch.rows[0].claim.state.status(), Status::Created);
}

#[test]
fn a_claim_is_written_once_per_batch_with_its_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    driver.feed(record(0, &event("t", "c", 1, created("cust")))).unwrap();
    let first = driver.close_batch().unwrap().unwrap();
    // The first batch is still in flight: its claims are found in memory.
    for (offset, event) in [
        event("t", "c", 2, assigned("a1")),
        event("t", "c", 3, started()),
        event("t", "other", 1, created("cust")),
        event("t", "c", 4, reassigned("a2")),
    ]
    .iter()
    .enumerate()
    {
        driver.feed(record(1 + offset as i64, event)).unwrap();
    }
    let second = driver.close_batch().unwrap().unwrap();
    assert_eq!((first.rows.len(), second.rows.len()), (1, 2));
    let at = second.rows.iter().position(|row| row.claim.state.claim_id == "c").unwrap();
    let row = &second.rows[at];
    assert_eq!(second.origins[at].offset, 4, "a row stands for its last record");
    let stands_for: Vec<_> = row.origins.iter().map(|origin| origin.offset).collect();
    assert_eq!(stands_for, [1, 2, 4], "if it is refused, so are they all");
    assert_eq!(row.claim.state.revision(), 4);
    assert_eq!(row.timeline.len(), 3);
    let mut left: Vec<_> = row.left.iter().map(|p| (p.view, p.key.as_str())).collect();
    left.sort();
    assert_eq!(
        left,
        [(ListView::Status, "CREATED"), (ListView::Status, "ASSIGNED"), (ListView::Assignee, "a1")]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_conflict_is_reported_once_however_often_offsets_are_reset() {
    let folder = tempfile::tempdir().unwrap();
    let reports = |driver: &Driver<CurrentState>| {
        driver.dead_letters().iter().filter(|letter| letter.reason == REASON_SUPERSEDED).count()
    };
    let records = || three().iter().zip(0..).map(|(e, offset)| record(offset, e)).collect::<Vec<_>>();
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        driver.run(records(), 10).unwrap();
        assert_eq!(reports(&driver), 1);
    }
    for committed in [None, Some(0), Some(1), Some(3)] {
        let mut driver = driver(folder.path());
        let start = driver.assign(0, committed).unwrap();
        let rows = driver.run(records().into_iter().filter(|r| r.origin().offset >= start), 1).unwrap();
        assert_eq!(reports(&driver), 0, "committed at {committed:?}");
        assert!(rows.iter().all(|(_, row)| row.claim.state.agent_id.value.as_deref() == Some("a1")));
    }
}

#[test]
fn a_conflict_in_a_batch_that_never_got_through_is_reported_again() {
    let folder = tempfile::tempdir().unwrap();
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        for (offset, event) in three().iter().enumerate() {
            driver.feed(record(offset as i64, event)).unwrap();
        }
        driver.close_batch().unwrap();
        // Crashed before the batch, and so its dead letter, was acknowledged.
    }
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    driver.run(three().iter().zip(0..).map(|(e, offset)| record(offset, e)), 10).unwrap();
    assert_eq!(driver.dead_letters().len(), 1);
}

#[test]
fn a_new_conflict_after_a_replay_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    driver.run(three().iter().zip(0..).map(|(e, offset)| record(offset, e)), 1).unwrap();
    let again = event("t", "c", 1, created("another"));
    assert_eq!(driver.feed(record(3, &again)).unwrap(), Outcome::DeadLettered { reason: REASON_SUPERSEDED });
}

#[test]
fn copies_of_an_import_change_nothing_and_a_replay_writes_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let events = [event("t", "c", 1, created("cust")), event("t", "c", 2, assigned("a1"))];
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        driver.run(events.iter().zip(0..).map(|(e, offset)| record(offset, e)), 10).unwrap();
        let copies = driver.run(events.iter().zip(2..).map(|(e, offset)| record(offset, e)), 10).unwrap();
        let revisions: Vec<u64> = copies.iter().map(|(_, row)| row.claim.state.revision()).collect();
        assert_eq!(revisions, [2], "the creation stands behind what came after it");
        assert!(copies[0].1.timeline.is_empty(), "its entry is there");
    }
    let mut driver = driver(folder.path());
    assert_eq!(driver.assign(0, Some(0)).unwrap(), 0);
    let again = driver.run(events.iter().zip(0..).map(|(e, offset)| record(offset, e)), 10).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1.claim.state.revision(), 2);
    assert_eq!(again[0].1.timeline.len(), 2);
}

#[test]
fn a_lost_store_is_filled_without_writing() {
    let events = [event("t", "c", 1, created("cust")), event("t", "c", 2, assigned("a1"))];
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    assert_eq!(driver.assign(0, Some(2)).unwrap(), 0, "the store needs the topic from its beginning");
    let rows = driver.run(events.iter().zip(0..).map(|(e, offset)| record(offset, e)), 1).unwrap();
    assert_eq!(rows.len(), 0);
    let rows = driver.run([record(2, &event("t", "c", 3, started()))], 1).unwrap();
    assert_eq!(rows[0].1.claim.state.revision(), 3);
    let left: Vec<_> = rows[0].1.left.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(left, ["ASSIGNED"], "what was written before the loss is deleted");
}

#[test]
fn tenants_never_meet() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    let events = [
        event("t1", "c", 1, created("cust-1")),
        event("t2", "c", 1, created("cust-2")),
        event("t2", "c", 2, assigned("a")),
    ];
    let rows = driver.run(events.iter().zip(0..).map(|(e, offset)| record(offset, e)), 10).unwrap();
    let mut seen: Vec<_> = rows
        .iter()
        .map(|(_, row)| (row.claim.state.tenant_id.as_str(), row.claim.state.customer_id.value.as_deref()))
        .collect();
    seen.sort();
    assert_eq!(seen, [("t1", Some("cust-1")), ("t2", Some("cust-2"))]);
}

#[test]
fn what_a_revoked_partition_held_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    driver.assign(1, None).unwrap();
    let mine = event("t", "c0", 1, created("cust"));
    let kept = event("t", "c1", 1, created("cust"));
    driver.feed(record(0, &mine)).unwrap();
    driver.feed(TestRecord::value(1, 0, encoded(&kept)).appended_at_ms(NOW_MS)).unwrap();
    driver.revoke(0).unwrap();
    let batch = driver.close_batch().unwrap().unwrap();
    assert_eq!(batch.rows.len(), 1);
    assert_eq!(batch.rows[0].claim.state.claim_id, "c1");
    driver.acknowledge(batch.id).unwrap();
    assert_eq!(driver.committable(), [(1, 1)]);
    // Assigned again, its records come again.
    driver.assign(0, None).unwrap();
    let rows = driver.run([record(0, &mine)], 1).unwrap();
    assert_eq!(rows.len(), 1);
}

#[test]
fn an_erased_claim_keeps_no_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    let events = [
        event("t", "c", 1, created("cust")),
        event("t", "c", 3, ClaimErased::default()),
        event("t", "c", 2, note()),
    ];
    let rows = driver.run(events.iter().zip(0..).map(|(e, offset)| record(offset, e)), 10).unwrap();
    let row = &rows[0].1;
    assert_eq!(row.claim.state.status(), Status::Erased);
    let told: Vec<_> = row.timeline.iter().map(|entry| entry.version).collect();
    assert_eq!(told, [3]);
    assert!(row.left.iter().any(|p| p.view == ListView::Customer && p.key == "cust"));
}

/// A refused event of a later schema, with the events around it, and what a processor makes of it whose cache knows
/// that schema.
fn with_a_late_schema() -> (TestRecord, Vec<TestRecord>) {
    let mut late = encoded(&event("t", "c", 2, assigned("a1")));
    late[4] = 99;
    let late = TestRecord::value(0, 1, late).appended_at_ms(NOW_MS);
    let first = record(0, &event("t", "c", 1, created("cust")));
    let last = record(2, &event("t", "c", 3, started()));
    (late.clone(), vec![first, late, last])
}

/// Runs all but the refused record, as if it had been dead-lettered.
fn run_without(driver: &mut Driver<CurrentState>, refused: &TestRecord, records: &[TestRecord]) {
    let others = records.iter().filter(|r| r.origin() != refused.origin()).cloned();
    driver.run(others, 10).unwrap();
}

fn with_schema_99(folder: &Path, retried: &Retried) -> Driver<CurrentState> {
    let identity = StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 2 };
    let cache = schemas();
    cache.insert(99, claims_schemas::codec::CLAIM_EVENT_SCHEMA).unwrap();
    let store = StateStore::open(folder, Some("test"), &identity).unwrap();
    Driver::new(CurrentState::new(cache, store).with_retried(retried.clone()))
}

#[test]
fn a_retry_is_written_with_the_state_that_all_events_make() {
    let folder = tempfile::tempdir().unwrap();
    let (late, records) = with_a_late_schema();
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        run_without(&mut driver, &late, &records);
        assert!(matches!(driver.retry(&late).unwrap(), Again::SchemaMissing(99)));
    }
    let mut driver = with_schema_99(folder.path(), &Retried::default());
    driver.assign(0, Some(3)).unwrap();
    let Again::Batch(batch, Effect::Applied) = driver.retry(&late).unwrap() else { panic!("not applied") };
    let state = &batch.rows[0].claim.state;
    assert_eq!((state.revision(), state.status()), (3, Status::Processing));
    assert_eq!(state.agent_id.value.as_deref(), Some("a1"));
    assert_eq!(batch.rows[0].timeline.len(), 1);
    driver.acknowledge(batch.id).unwrap();
    let Again::Batch(again, Effect::AlreadyThere) = driver.retry(&late).unwrap() else { panic!("not there") };
    assert_eq!(again.rows[0].claim.state, *state, "the same row once more");
    driver.acknowledge(again.id).unwrap();
    let superseded = record(2, &event("t", "c", 2, assigned("a2")));
    assert!(matches!(driver.retry(&superseded).unwrap(), Again::Refused { reason: REASON_SUPERSEDED }));
}

#[test]
fn a_store_that_missed_a_retry_is_folded_anew_from_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let (late, records) = with_a_late_schema();
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        run_without(&mut driver, &late, &records);
    }
    // Another member was given the record again; now the partition comes back here.
    let retried = Retried::default();
    retried.add(0, 1);
    {
        let mut driver = with_schema_99(folder.path(), &retried);
        assert_eq!(driver.assign(0, Some(3)).unwrap(), 1);
        let rows = driver.run(records[1..].iter().cloned(), 10).unwrap();
        assert!(rows.is_empty(), "the other member has written them");
        let rows = driver.run([record(3, &event("t", "c", 4, resolved("done")))], 10).unwrap();
        assert_eq!(rows[0].1.claim.state.revision(), 4);
    }
    retried.add(0, 1);
    let mut driver = with_schema_99(folder.path(), &retried);
    assert_eq!(driver.assign(0, Some(4)).unwrap(), 4, "the store knows by now");
}

#[test]
fn folding_anew_that_broke_off_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let late = |offset, event: &Event| {
        let mut value = encoded(event);
        value[4] = 99;
        TestRecord::value(0, offset, value).appended_at_ms(NOW_MS)
    };
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        let others =
            [(0, 1, EventData::from(created("cust"))), (2, 3, started().into()), (4, 5, note().into())];
        let others = others.map(|(offset, version, data)| record(offset, &event("t", "c", version, data)));
        driver.run(others, 10).unwrap();
    }
    let complete_at = || {
        let identity = StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 2 };
        let store = StateStore::open(folder.path(), Some("test"), &identity).unwrap();
        store.partition(0).unwrap().written_at_ms().unwrap()
    };
    let before = complete_at();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let late = [late(1, &event("t", "c", 2, assigned("a1"))), late(3, &event("t", "c", 4, resolved("done")))];
    let retried = Retried::default();
    for (goes_on_to_the_end, complete) in [(false, false), (true, true)] {
        retried.add(0, 1);
        retried.add(0, 3);
        let mut driver = with_schema_99(folder.path(), &retried);
        assert_eq!(driver.assign(0, Some(5)).unwrap(), 1);
        driver.run(late[..1].iter().cloned(), 10).unwrap();
        if goes_on_to_the_end {
            driver.run(late[1..].iter().cloned(), 10).unwrap();
        }
        drop(driver);
        // The lookup begins at this time: while it stands, both are found again.
        assert_eq!(complete_at() > before, complete);
    }
}

#[test]
fn a_claim_whose_creation_never_came_has_stood_among_those_of_no_date() {
    let mut claim = Claim::empty("t", "c");
    claim.apply(&(&event("t", "c", 1, assigned("a1"))).into());
    claim.apply(&(&event("t", "c", 2, resolved("done"))).into());
    let left = claim.history.left(&claim.state);
    let stood = |p: &Place| p.view == ListView::Status && p.key == "ASSIGNED" && p.created_at.is_none();
    assert!(left.iter().any(stood), "{left:?}");
}

#[test]
fn without_an_offset_a_store_says_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let processor = || {
        let identity = StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: 2 };
        CurrentState::new(schemas(), StateStore::open(folder.path(), Some("test"), &identity).unwrap())
    };
    assert_eq!(processor().assigned(0, None).unwrap(), None, "no store: whatever there is");
    {
        let mut driver = driver(folder.path());
        driver.assign(0, None).unwrap();
        driver.run([record(0, &event("t", "c", 1, created("cust")))], 10).unwrap();
    }
    assert_eq!(processor().assigned(0, None).unwrap(), Some(1));
    assert_eq!(processor().assigned(1, None).unwrap(), None);
}

#[test]
fn a_copy_is_written_again_only_where_compaction_may_change_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut driver = driver(folder.path());
    driver.assign(0, None).unwrap();
    let [v1, v2, v3] = [
        event("t", "c", 1, created("cust")),
        event("t", "c", 2, assigned("a1")),
        event("t", "c", 3, started()),
    ];
    let mut feed = |records: &[(i64, &Event)]| {
        for (offset, event) in records {
            assert_eq!(driver.feed(record(*offset, event)).unwrap(), Outcome::Taken);
        }
        let Some(batch) = driver.close_batch().unwrap() else { return Vec::new() };
        driver.acknowledge(batch.id).unwrap();
        batch.rows
    };
    assert_eq!(feed(&[(0, &v1), (1, &v2)]).len(), 1);
    assert!(
        feed(&[(2, &v2)]).is_empty(),
        "the newest event again: whoever meets it later meets it last, too"
    );
    let again = feed(&[(3, &v1)]);
    let nowhere = Place { view: ListView::Assignee, key: "a1".into(), created_at: None };
    assert!(again[0].left.contains(&nowhere), "{:?}", again[0].left);
    assert_eq!(again[0].claim.state.revision(), 2);
    // What comes next deletes no more than it must.
    let next = feed(&[(4, &v3)]);
    assert!(!next[0].left.contains(&nowhere) && !next[0].claim.disordered, "{:?}", next[0].left);
    // Where events come in any order, a copy of the newest may be met earlier, too.
    let far = event("t", "c", 9, note());
    assert_eq!(feed(&[(5, &far), (6, &event("t", "c", 8, note()))]).len(), 1);
    assert_eq!(feed(&[(7, &far)]).len(), 1);
}
