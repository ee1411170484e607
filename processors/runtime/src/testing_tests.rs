use super::*;
use crate::{Payload, Record, Rows};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Sums the lengths of values per partition; writes the sums of a batch when it is closed.
#[derive(Default)]
struct Sums {
    /// Durable, as if in a local store: per partition the next offset and the sum.
    stored: BTreeMap<i32, (i64, i64)>,
    live: BTreeMap<i32, (i64, i64)>,
    closed: BTreeMap<u64, BTreeMap<i32, (i64, i64)>>,
    touched: BTreeMap<i32, Origin>,
}

impl Processor for Sums {
    type Row = i64;

    fn name(&self) -> &'static str {
        "sums"
    }

    fn assigned(&mut self, partition: i32, _: Option<i64>) -> Result<Option<i64>, ProcessError> {
        let stored = self.stored.get(&partition).copied();
        self.live.insert(partition, stored.unwrap_or_default());
        Ok(stored.map(|(next, _)| next))
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<i64>) -> Result<(), ProcessError> {
        let length = match record.payload {
            Payload::Value(b"bad") => {
                return Err(ProcessError::Poison { reason: "bad", detail: String::new() });
            }
            Payload::Value(bytes) => bytes.len() as i64,
            Payload::Tombstone => 0,
        };
        let Origin { partition, offset } = record.origin;
        let sum = self.live.entry(partition).or_default();
        if offset >= sum.0 {
            *sum = (offset + 1, sum.1 + length);
        }
        self.touched.insert(partition, record.origin);
        rows.reserve_bytes(8);
        Ok(())
    }

    fn close_batch(&mut self, id: u64, rows: &mut Rows<i64>) -> Result<(), ProcessError> {
        for (partition, origin) in std::mem::take(&mut self.touched) {
            rows.push(origin, self.live[&partition].1, 8);
        }
        self.closed.insert(id, self.live.clone());
        Ok(())
    }

    fn batch_acknowledged(&mut self, id: u64, next_offsets: &[(i32, i64)]) -> Result<(), ProcessError> {
        let closed = self.closed.remove(&id).unwrap_or_default();
        for (partition, _) in next_offsets {
            self.stored.insert(*partition, closed[partition]);
        }
        Ok(())
    }
}

#[test]
fn refused_records_are_charged_and_leave_nothing() {
    let mut driver = Driver::new(Sums::default());
    driver.assign(0, None).unwrap();
    driver.feed(TestRecord::value(0, 0, "abc")).unwrap();
    let refused = TestRecord::value(0, 4, "bad").key("k").header("tenant", "acme");
    assert_eq!(driver.feed(refused).unwrap(), Outcome::DeadLettered { reason: "bad" });
    assert_eq!(driver.feed(TestRecord::value(0, 4, "again")).unwrap(), Outcome::Skipped);
    let batch = driver.close_batch().unwrap().unwrap();
    assert_eq!(batch.ranges, vec![range(0, 0, 4, 2)]);
    assert_eq!(batch.rows, vec![3]);
    let letter = &driver.dead_letters()[0];
    assert_eq!((letter.origin.offset, letter.key.as_deref()), (4, Some(&b"k"[..])));
    assert_eq!(letter.headers, vec![("tenant".to_owned(), b"acme".to_vec())]);
    driver.acknowledge_all().unwrap();
    assert_eq!(driver.committable(), vec![(0, 5)]);
}

#[test]
fn a_record_given_once_more_is_written_alone_and_moves_no_offset() {
    let mut driver = Driver::new(Sums::default());
    driver.assign(0, None).unwrap();
    let refused = TestRecord::value(0, 1, "bad");
    driver.feed(TestRecord::value(0, 0, "abc")).unwrap();
    driver.feed(refused.clone()).unwrap();
    driver.feed(TestRecord::value(0, 2, "de")).unwrap();
    assert!(matches!(driver.retry(&TestRecord::value(0, 3, "x")).unwrap(), Again::NotNow), "still to come");
    assert!(matches!(driver.retry(&TestRecord::value(1, 0, "x")).unwrap(), Again::NotNow), "not assigned");
    let first = driver.close_batch().unwrap().unwrap().id;
    assert!(matches!(driver.retry(&refused).unwrap(), Again::Refused { reason: "bad" }));
    let Again::Batch(batch, Effect::Applied) = driver.retry(&TestRecord::value(0, 1, "mended")).unwrap()
    else {
        panic!("not taken");
    };
    assert!(batch.is_retry);
    assert_eq!((batch.ranges, batch.rows.len()), (vec![range(0, 1, 1, 1)], 1));
    driver.acknowledge(batch.id).unwrap();
    assert_eq!(driver.committable(), vec![], "the batch before it is not acknowledged");
    driver.acknowledge(first).unwrap();
    assert_eq!(driver.committable(), vec![(0, 3)], "as without the retry");
    driver.commit();
    let Again::Batch(batch, _) = driver.retry(&TestRecord::value(0, 1, "mended")).unwrap() else { panic!() };
    driver.acknowledge(batch.id).unwrap();
    assert_eq!(driver.committable(), vec![]);
    let Again::Batch(batch, _) = driver.retry(&TestRecord::value(0, 1, "mended")).unwrap() else { panic!() };
    driver.revoke(0).unwrap();
    driver.acknowledge(batch.id).unwrap();
    assert_eq!(driver.committable(), vec![], "of a partition that is gone nothing counts");
}

#[test]
fn restored_records_give_no_rows_even_at_the_close() {
    let mut driver = Driver::new(Sums::default());
    assert_eq!(driver.assign(0, Some(3)).unwrap(), 0, "no state: from the beginning");
    for offset in 0..3 {
        driver.feed(TestRecord::value(0, offset, "xx")).unwrap();
    }
    let batch = driver.close_batch().unwrap().unwrap();
    assert!(batch.rows.is_empty());
    driver.acknowledge(batch.id).unwrap();
    assert!(driver.committable().is_empty());
    driver.feed(TestRecord::value(0, 3, "xx")).unwrap();
    assert_eq!(driver.close_batch().unwrap().unwrap().rows, vec![8]);
}

#[test]
fn a_revoked_partition_takes_its_rows_out_of_the_open_batch() {
    let mut driver = Driver::new(Lengths);
    driver.assign(0, None).unwrap();
    driver.assign(1, None).unwrap();
    driver.feed(TestRecord::value(0, 0, "a")).unwrap();
    driver.feed(TestRecord::value(1, 0, "bb")).unwrap();
    driver.revoke(0).unwrap();
    let batch = driver.close_batch().unwrap().unwrap();
    assert_eq!((batch.rows, batch.ranges), (vec![2], vec![range(1, 0, 0, 1)]));
}

struct Lengths;

impl Processor for Lengths {
    type Row = usize;

    fn name(&self) -> &'static str {
        "lengths"
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<usize>) -> Result<(), ProcessError> {
        if let Payload::Value(bytes) = record.payload {
            rows.push(record.origin, bytes.len(), 8);
        }
        Ok(())
    }
}

proptest! {
    /// However the records are batched, acknowledged and committed, and wherever it crashes: with its store or
    /// without, the processor ends with the same state, and every offset has been in an acknowledged batch.
    #[test]
    fn a_crash_anywhere_changes_nothing(
        gaps in prop::collection::vec((0..3i32, 1..4i64, 0..5usize), 1..80),
        batch_records in 1..20usize,
        crash_after in 0..80usize,
        commit_every in 1..4usize,
        lost_store in any::<bool>(),
    ) {
        let mut next = [0i64; 3];
        let records: Vec<TestRecord> = gaps
            .iter()
            .map(|&(partition, gap, length)| {
                next[partition as usize] += gap;
                TestRecord::value(partition, next[partition as usize], "x".repeat(length))
            })
            .collect();
        let mut whole = Driver::new(Sums::default());
        (0..3).try_for_each(|p| whole.assign(p, None).map(drop)).unwrap();
        whole.run(records.clone(), batch_records).unwrap();

        let mut driver = Driver::new(Sums::default());
        (0..3).try_for_each(|p| driver.assign(p, None).map(drop)).unwrap();
        let mut durable = BTreeSet::new();
        let crash_after = crash_after.min(records.len());
        for (i, record) in records[..crash_after].iter().enumerate() {
            driver.feed(record.clone()).unwrap();
            if (i + 1) % batch_records == 0 {
                let batch = driver.close_batch().unwrap().unwrap();
                durable.extend(batch.ranges.iter().flat_map(|r| (r.first_offset..=r.last_offset).map(|o| (r.partition, o))));
                driver.acknowledge(batch.id).unwrap();
                if i % commit_every == 0 {
                    driver.commit();
                }
            }
        }
        let stored = if lost_store { BTreeMap::new() } else { driver.processor().stored.clone() };
        let survived = driver.crash();
        for (&partition, &committed) in &survived.committed {
            let is_there = |o| records.iter().any(|r| r.origin() == Origin { partition, offset: o });
            let is_safe = (1..committed.unwrap_or(0)).all(|o| durable.contains(&(partition, o)) || !is_there(o));
            prop_assert!(is_safe);
        }
        let mut again = Driver::restart(Sums { stored, ..Sums::default() }, survived).unwrap();
        again.run(records[crash_after..].to_vec(), batch_records).unwrap();
        prop_assert_eq!(&again.processor().stored, &whole.processor().stored);
    }
}
