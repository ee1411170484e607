use super::*;
use crate::ledger::{Admission, OffsetLedger};
use proptest::prelude::*;

fn at(partition: i32, offset: i64) -> Origin {
    Origin { partition, offset }
}

fn range(first_offset: i64, last_offset: i64, records: u64) -> PartitionRange {
    PartitionRange { partition: 0, first_offset, last_offset, records }
}

fn kinds(found: &[Inconsistency]) -> Vec<Kind> {
    found.iter().map(|i| i.kind).collect()
}

/// A checker that has read these offsets of partition 0.
fn having_read(offsets: &[i64]) -> RangeChecker {
    let mut checker = RangeChecker::default();
    checker.assigned(0, 0, None);
    for &offset in offsets {
        assert_eq!(checker.read(at(0, offset)), None);
    }
    checker
}

#[test]
fn each_kind_is_found() {
    assert_eq!(having_read(&[1, 5, 7]).sent(1, &[range(1, 7, 3)], &[at(0, 5)]), vec![]);
    assert_eq!(
        kinds(&having_read(&[1, 5, 7]).sent(1, &[range(1, 5, 2)], &[])),
        [Kind::Gap],
        "7 is forgotten"
    );
    assert_eq!(kinds(&having_read(&[1, 5, 7]).sent(1, &[range(1, 7, 2)], &[])), [Kind::Gap]);
    assert_eq!(kinds(&having_read(&[1]).sent(1, &[], &[])), [Kind::Gap]);
    assert_eq!(kinds(&having_read(&[1]).sent(1, &[range(0, 1, 2)], &[])), [Kind::Overlap], "0 wasn't read");
    assert_eq!(kinds(&having_read(&[1]).sent(1, &[range(1, 1, 1)], &[at(0, 2)])), [Kind::StrayRow]);

    let mut twice = having_read(&[1, 2]);
    assert_eq!(twice.read(at(0, 2)).unwrap().kind, Kind::Overlap);
    assert_eq!(twice.sent(1, &[range(1, 2, 2)], &[]), vec![]);
    assert_eq!(kinds(&twice.sent(2, &[range(1, 2, 2)], &[])), [Kind::Overlap], "sent again as another batch");
}

#[test]
fn commits_follow_what_is_acknowledged() {
    let mut checker = having_read(&[0, 1]);
    checker.sent(1, &[range(0, 1, 2)], &[]);
    assert_eq!(checker.committed(0, 2).unwrap().kind, Kind::CommitAhead, "nothing is acknowledged");
    checker.read(at(0, 2));
    checker.sent(2, &[range(2, 2, 1)], &[]);
    checker.acknowledged(2);
    assert_eq!(checker.committed(0, 3).unwrap().kind, Kind::CommitAhead, "batch 1 is not");
    checker.acknowledged(1);
    assert_eq!(checker.committed(0, 3), None);
    assert_eq!(checker.committed(0, 2).unwrap().kind, Kind::CommitBackward);
}

#[test]
fn an_offset_reset_begins_a_new_account() {
    let mut checker = having_read(&[0, 1]);
    checker.sent(1, &[range(0, 1, 2)], &[]);
    checker.acknowledged(1);
    assert_eq!(checker.committed(0, 2), None);
    checker.revoked(0);
    assert_eq!(checker.read(at(0, 0)), None, "a straggler of a partition that is gone");
    checker.assigned(0, 0, Some(0));
    assert_eq!(checker.read(at(0, 0)), None);
    checker.sent(2, &[range(0, 0, 1)], &[]);
    checker.acknowledged(2);
    assert_eq!(checker.committed(0, 1), None);
}

#[derive(Debug, Clone)]
enum Step {
    Read { partition: i32, gap: i64 },
    Close,
    Acknowledge { which: usize },
    Commit,
    Reassign { partition: i32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3_i32, 1..4_i64).prop_map(|(partition, gap)| Step::Read { partition, gap }),
        3 => Just(Step::Close),
        4 => any::<usize>().prop_map(|which| Step::Acknowledge { which }),
        3 => Just(Step::Commit),
        1 => (0..3_i32).prop_map(|partition| Step::Reassign { partition }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Beyond any offset that the steps read.
const AHEAD: i64 = 1_000;

/// Runs the ledger and the checker side by side. With `lies`, every third commit is beyond all that was read: one that
/// is only beyond the ledger's frontier may be acknowledged all the same, behind a batch of other partitions that isn't.
fn run(steps: Vec<Step>, lies: bool) -> (Vec<Inconsistency>, usize) {
    let (mut ledger, mut checker) = (OffsetLedger::new(), RangeChecker::default());
    let (mut next, mut batches, mut in_flight) = ([0_i64; 3], 0, Vec::new());
    let (mut found, mut commits, mut lied) = (Vec::new(), 0, 0);
    for partition in 0..3 {
        ledger.assign(partition, 0, None);
        checker.assigned(partition, 0, None);
    }
    for step in steps {
        match step {
            Step::Read { partition, gap } => {
                next[partition as usize] += gap;
                let origin = at(partition, next[partition as usize]);
                assert_eq!(ledger.charge(origin), Admission::Admitted);
                found.extend(checker.read(origin));
            }
            Step::Close => {
                batches += 1;
                let ranges = ledger.close_batch(batches);
                if !ranges.is_empty() {
                    found.extend(checker.sent(batches, &ranges, &[]));
                    in_flight.push(batches);
                }
            }
            Step::Acknowledge { which } if !in_flight.is_empty() => {
                let id = in_flight.remove(which % in_flight.len());
                ledger.complete(id);
                checker.acknowledged(id);
                while ledger.next_acknowledged().is_some() {}
            }
            Step::Acknowledge { .. } => {}
            Step::Commit => {
                for commit in ledger.committable() {
                    commits += 1;
                    let lie = lies && commits % 3 == 0;
                    lied += usize::from(lie);
                    found.extend(
                        checker.committed(commit.partition, commit.next_offset + if lie { AHEAD } else { 0 }),
                    );
                    ledger.committed(commit);
                }
            }
            Step::Reassign { partition } => {
                ledger.revoke(partition);
                checker.revoked(partition);
                // Somebody has reset the offset.
                next[partition as usize] /= 2;
                let start = next[partition as usize];
                ledger.assign(partition, start, Some(start));
                checker.assigned(partition, start, Some(start));
            }
        }
    }
    (found, lied)
}

proptest! {
    #[test]
    fn the_ledger_holds_whatever_the_order(steps in steps()) {
        prop_assert_eq!(run(steps, false).0, vec![]);
    }

    #[test]
    fn every_commit_ahead_is_found(steps in steps()) {
        let (found, lied) = run(steps, true);
        prop_assert_eq!(found.iter().filter(|i| i.kind == Kind::CommitAhead).count(), lied);
    }
}
