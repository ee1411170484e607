use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(partition: i32, offset: i64) -> Origin {
    Origin { partition, offset }
}

fn offsets(ledger: &OffsetLedger) -> Vec<(i32, i64)> {
    ledger.committable().iter().map(|c| (c.partition, c.next_offset)).collect()
}

#[test]
fn nothing_is_committable_before_its_batch_is_complete() {
    let mut ledger = OffsetLedger::new();
    ledger.assign(0, 5, Some(5));
    assert_eq!(ledger.charge(at(0, 5)), Admission::Admitted);
    assert_eq!(ledger.charge(at(0, 9)), Admission::Admitted, "a gap is no matter");
    let ranges = ledger.close_batch(1);
    assert_eq!(ranges, vec![PartitionRange { partition: 0, first_offset: 5, last_offset: 9, records: 2 }]);
    assert!(offsets(&ledger).is_empty() && ledger.is_outstanding(0));
    assert!(ledger.complete(1));
    assert_eq!(ledger.next_acknowledged(), Some(Acknowledged { batch_id: 1, next_offsets: vec![(0, 10)] }));
    assert_eq!(offsets(&ledger), vec![(0, 10)]);
    assert!(!ledger.is_outstanding(0));
    let commit = ledger.committable()[0];
    ledger.committed(commit);
    assert!(offsets(&ledger).is_empty());
}

#[test]
fn a_later_batch_waits_for_the_earlier() {
    let mut ledger = OffsetLedger::new();
    ledger.assign(0, 0, None);
    ledger.charge(at(0, 0));
    ledger.close_batch(1);
    ledger.charge(at(0, 1));
    ledger.close_batch(2);
    ledger.complete(2);
    assert_eq!(ledger.next_acknowledged(), None);
    ledger.complete(1);
    assert_eq!(ledger.next_acknowledged().unwrap().batch_id, 1);
    assert_eq!(ledger.next_acknowledged().unwrap().batch_id, 2);
}

#[test]
fn what_was_given_before_or_is_not_assigned_is_not_charged() {
    let mut ledger = OffsetLedger::new();
    ledger.assign(1, 3, None);
    assert_eq!(ledger.charge(at(1, 2)), Admission::AlreadyCharged);
    assert_eq!(ledger.charge(at(0, 2)), Admission::NotAssigned);
    assert_eq!(ledger.charge(at(-1, 2)), Admission::NotAssigned);
    ledger.charge(at(1, 3));
    assert_eq!(ledger.charge(at(1, 3)), Admission::AlreadyCharged);
    assert_eq!(ledger.open_records(), 1);
}

#[test]
fn a_straggler_of_an_older_assignment_counts_for_nothing() {
    let mut ledger = OffsetLedger::new();
    let first = ledger.assign(0, 0, None);
    ledger.assign(1, 0, None);
    ledger.charge(at(0, 0));
    ledger.charge(at(1, 0));
    ledger.close_batch(1);
    ledger.revoke(0);
    let second = ledger.assign(0, 0, None);
    assert!(second > first);
    assert!(ledger.complete(1), "the kept partition still waits for it");
    assert_eq!(ledger.next_acknowledged().unwrap().next_offsets, vec![(1, 1)]);
    assert_eq!(offsets(&ledger), vec![(1, 1)]);
    ledger.committed(Committable { partition: 0, epoch: first, next_offset: 1 });
    assert_eq!(ledger.durable_offset(0), Some(0), "nor does a commit of the older assignment");
}

#[test]
fn a_batch_whose_partitions_are_all_gone_blocks_nobody() {
    let mut ledger = OffsetLedger::new();
    ledger.assign(0, 0, None);
    ledger.charge(at(0, 0));
    ledger.close_batch(1);
    ledger.assign(1, 0, None);
    ledger.charge(at(1, 0));
    ledger.close_batch(2);
    ledger.revoke(0);
    ledger.complete(2);
    assert_eq!(ledger.next_acknowledged().unwrap().batch_id, 2);
    assert!(!ledger.complete(1));
}

#[test]
fn restoring_never_commits_backwards() {
    let mut ledger = OffsetLedger::new();
    ledger.assign(0, 2, Some(10));
    for offset in 2..8 {
        ledger.charge(at(0, offset));
    }
    ledger.close_batch(1);
    ledger.complete(1);
    assert_eq!(ledger.next_acknowledged().unwrap().next_offsets, vec![(0, 8)]);
    assert!(offsets(&ledger).is_empty());
    assert_eq!(ledger.durable_offset(0), Some(10));
}

#[derive(Debug, Clone)]
enum Step {
    Charge { partition: i32, gap: i64 },
    Close,
    Complete { which: usize },
    Acknowledge,
    Commit,
    Revoke { partition: i32 },
    Assign { partition: i32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3i32, 1..4i64).prop_map(|(partition, gap)| Step::Charge { partition, gap }),
        3 => Just(Step::Close),
        3 => any::<usize>().prop_map(|which| Step::Complete { which }),
        3 => Just(Step::Acknowledge),
        2 => Just(Step::Commit),
        1 => (0..3i32).prop_map(|partition| Step::Revoke { partition }),
        1 => (0..3i32).prop_map(|partition| Step::Assign { partition }),
    ];
    prop::collection::vec(step, 1..200)
}

/// What a partition's present assignment has seen, kept in the plainest way.
#[derive(Debug, Default)]
struct Model {
    next: i64,
    /// Charged offsets with the batch they are in, `None` while it is open.
    charged: BTreeMap<i64, Option<u64>>,
    last_commit: i64,
}

proptest! {
    /// In any order of charges, completions, revocations and assignments: what is committable lies beyond no
    /// offset whose batch isn't complete, and commits of one assignment only go forward.
    #[test]
    fn never_past_an_incomplete_offset(steps in steps()) {
        let mut ledger = OffsetLedger::new();
        let mut models: BTreeMap<i32, Model> = BTreeMap::new();
        let (mut last_batch, mut closed, mut completed) = (0u64, Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Assign { partition } => {
                    models.insert(partition, Model::default());
                    ledger.assign(partition, 0, None);
                }
                Step::Revoke { partition } => {
                    models.remove(&partition);
                    ledger.revoke(partition);
                }
                Step::Charge { partition, gap } => match models.get_mut(&partition) {
                    None => prop_assert_eq!(ledger.charge(at(partition, gap)), Admission::NotAssigned),
                    Some(model) => {
                        model.next += gap;
                        prop_assert_eq!(ledger.charge(at(partition, model.next)), Admission::Admitted);
                        prop_assert_eq!(ledger.charge(at(partition, model.next)), Admission::AlreadyCharged);
                        model.charged.insert(model.next, None);
                    }
                },
                Step::Close => {
                    last_batch += 1;
                    let ranges = ledger.close_batch(last_batch);
                    let mut open = 0;
                    for model in models.values_mut() {
                        for batch in model.charged.values_mut().filter(|b| b.is_none()) {
                            *batch = Some(last_batch);
                            open += 1;
                        }
                    }
                    prop_assert_eq!(ranges.iter().map(|r| r.records).sum::<u64>(), open);
                    closed.push(last_batch);
                }
                Step::Complete { which } => {
                    if !closed.is_empty() {
                        let batch = closed.swap_remove(which % closed.len());
                        ledger.complete(batch);
                        completed.push(batch);
                    }
                }
                Step::Acknowledge => {
                    let mut last = 0;
                    while let Some(acknowledged) = ledger.next_acknowledged() {
                        prop_assert!(acknowledged.batch_id > last);
                        prop_assert!(completed.contains(&acknowledged.batch_id));
                        last = acknowledged.batch_id;
                    }
                }
                Step::Commit => for commit in ledger.committable() {
                    ledger.committed(commit);
                },
            }
            for commit in ledger.committable() {
                let model = models.get_mut(&commit.partition).expect("only of assigned partitions");
                prop_assert!(commit.next_offset >= model.last_commit);
                model.last_commit = commit.next_offset;
                let is_durable = |batch: &Option<u64>| batch.is_some_and(|id| completed.contains(&id));
                prop_assert!(model.charged.range(..commit.next_offset).all(|(_, batch)| is_durable(batch)));
            }
        }
    }

    /// When everything is completed, everything is committable: nothing is forgotten.
    #[test]
    fn all_complete_means_all_committable(
        batches in prop::collection::vec(prop::collection::vec((0..4i32, 1..9i64), 1..20), 1..20),
        order in any::<u64>(),
    ) {
        let mut ledger = OffsetLedger::new();
        (0..4).for_each(|p| { ledger.assign(p, 0, None); });
        let mut next = [0i64; 4];
        for (id, batch) in (1..).zip(&batches) {
            for &(partition, gap) in batch {
                next[partition as usize] += gap;
                ledger.charge(at(partition, next[partition as usize]));
            }
            ledger.close_batch(id);
        }
        let mut ids: Vec<u64> = (1..=batches.len() as u64).collect();
        ids.sort_by_key(|id| id.wrapping_mul(order | 1));
        let mut acknowledged = 0;
        for id in ids {
            ledger.complete(id);
            while ledger.next_acknowledged().is_some() {
                acknowledged += 1;
            }
        }
        prop_assert_eq!(acknowledged, batches.len());
        let expected: Vec<_> =
            (0..4).filter(|&p| next[p as usize] > 0).map(|p| (p, next[p as usize] + 1)).collect();
        prop_assert_eq!(offsets(&ledger), expected);
        prop_assert_eq!(ledger.unacknowledged_batches(), 0);
    }
}
