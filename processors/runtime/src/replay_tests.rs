use super::*;
use proptest::prelude::*;

fn facts(partition: i32, committed: Option<i64>, low: i64, high: i64) -> PartitionFacts {
    PartitionFacts { partition, committed, note: CommitNote::default(), low, high, at_time: None }
}

fn plan(target: ReplayTarget, rate: Option<u32>, facts: &[PartitionFacts]) -> ReplayPlan {
    ReplayPlan::new("r1".into(), Some("topic".into()), target, rate, facts).unwrap()
}

fn any_facts() -> impl Strategy<Value = PartitionFacts> {
    (0..50_i64, 0..100_i64, proptest::option::of(0..200_i64), proptest::option::of(0..200_i64), 0..=100_i64)
        .prop_map(|(low, records, committed, until, at)| {
            let high = low + records;
            let replay = until.map(|until| ReplayNote { id: "r0".into(), until, max_records_per_s: None });
            PartitionFacts {
                partition: 0,
                committed,
                note: CommitNote { replay, ..CommitNote::default() },
                low,
                high,
                at_time: (at <= records).then_some(low + at),
            }
        })
}

fn any_target() -> impl Strategy<Value = ReplayTarget> {
    prop_oneof![
        Just(ReplayTarget::Beginning),
        Just(ReplayTarget::End),
        any::<i64>().prop_map(ReplayTarget::Offset),
        (-10..250_i64).prop_map(ReplayTarget::Offset),
        any::<i64>().prop_map(|at_ms| ReplayTarget::Time { at_ms }),
        any::<i64>().prop_map(ReplayTarget::Shift),
        (-100..100_i64).prop_map(ReplayTarget::Shift),
    ]
}

proptest! {
    #[test]
    fn a_move_stays_in_the_log_and_its_counts_are_those_of_the_offsets(
        target in any_target(),
        facts in any_facts(),
    ) {
        let Ok(plan) = ReplayPlan::new("r1".into(), None, target, None, std::slice::from_ref(&facts)) else {
            prop_assert!(matches!(target, ReplayTarget::Shift(_)) && facts.committed.is_none());
            return Ok(());
        };
        let planned = &plan.moves[0];
        prop_assert!((facts.low..=facts.high).contains(&planned.to));
        // By counting: what lies in the log, was read, and comes again; or was not read, and is passed over.
        let read = |offset: &i64| facts.committed.is_some_and(|committed| *offset < committed);
        let again = (planned.to..facts.high).filter(read).count() as i64;
        let left_out = (facts.low..planned.to).filter(|offset| !read(offset)).count() as i64;
        prop_assert_eq!((planned.records_again, planned.records_left_out), (again, left_out));
        if let Some(replay) = &planned.replay {
            prop_assert!(replay.until > planned.to && replay.until <= facts.high);
            prop_assert!((planned.to..replay.until).count() as i64 >= again);
        } else {
            prop_assert_eq!(again, 0);
        }
    }

    #[test]
    fn shares_of_a_rate_are_no_more_than_the_rate(
        offsets in proptest::collection::vec((0..10_000_i64, 0..10_000_i64), 1..20),
        rate in 20..100_000_u32,
    ) {
        let facts: Vec<_> =
            (0..).zip(&offsets).map(|(p, &(low, records))| facts(p, Some(low + records), low, low + records)).collect();
        let plan = plan(ReplayTarget::Beginning, Some(rate), &facts);
        let shares: Vec<u32> =
            plan.moves.iter().filter_map(|m| m.replay.as_ref()?.max_records_per_s).collect();
        prop_assert_eq!(shares.len(), plan.moves.iter().filter(|m| m.records_again > 0).count());
        // Every share is one record a second at least, or nothing would ever come.
        prop_assert!(shares.iter().all(|&share| share >= 1));
        prop_assert!(shares.iter().sum::<u32>() <= rate + shares.len() as u32);
    }

    #[test]
    fn notes_come_back_from_metadata(
        topic_id in proptest::option::of(".*"),
        until: i64,
        rate: Option<u32>,
        begins_at: Option<i64>,
    ) {
        let replay = Some(ReplayNote { id: "r".into(), until, max_records_per_s: rate });
        for replay in [None, replay] {
            let note = CommitNote { topic_id: topic_id.clone(), replay, begins_at };
            prop_assert_eq!(CommitNote::from_metadata(&note.to_metadata()), note);
        }
    }

    #[test]
    fn metadata_of_others_says_nothing(text in ".*") {
        prop_assert_eq!(CommitNote::from_metadata(&text), CommitNote::default());
    }
}

#[test]
fn offsets_beyond_the_log_are_clamped_and_said_to_be() {
    let known = [facts(0, Some(50), 10, 100)];
    let to = |target| {
        let planned = plan(target, None, &known).moves.remove(0);
        (planned.to, planned.records_again, planned.records_left_out, planned.remarks)
    };
    assert_eq!(to(ReplayTarget::Offset(3)), (10, 40, 0, vec![Remark::BeforeLog { wanted: 3 }]));
    assert_eq!(to(ReplayTarget::Shift(70)), (100, 0, 50, vec![Remark::BeyondLog { wanted: 120 }]));
    assert_eq!(to(ReplayTarget::Time { at_ms: 5 }), (100, 0, 50, vec![Remark::NothingSoYoung]));
}

#[test]
fn a_group_that_stands_outside_the_log_is_said_to() {
    let planned = plan(
        ReplayTarget::Beginning,
        None,
        &[facts(0, Some(5), 10, 100), facts(1, Some(500), 10, 100), facts(2, None, 10, 100)],
    );
    let told: Vec<_> = planned.moves.iter().map(|m| (m.records_again, m.remarks.clone())).collect();
    assert_eq!(
        told,
        [
            (0, vec![Remark::CommittedBeforeLog]),
            (90, vec![Remark::CommittedBeyondLog]),
            (0, vec![Remark::NothingCommitted])
        ]
    );
}

#[test]
fn what_has_left_the_log_is_done_without_only_where_somebody_said_so() {
    let ours = CommitNote { topic_id: Some("x".into()), ..CommitNote::default() }.to_metadata();
    let begins_at = |metadata: &str, committed, low| CommitNote::found(metadata, committed, low).begins_at;
    assert_eq!(begins_at(&ours, Some(40), 40), None, "a stage that happened to stand there");
    assert_eq!(begins_at("", Some(40), 40), Some(40), "reset to the earliest by Kafka's tool");
    assert_eq!(begins_at("", Some(41), 40), None);
    assert_eq!(begins_at("", None, 40), Some(40), "a new group");
    assert_eq!(begins_at("", None, 0), None, "nothing is missing");
    let noted = |at| CommitNote { begins_at: Some(at), ..CommitNote::default() };
    assert_eq!(begins_at(&noted(40).to_metadata(), Some(70), 60), Some(40));

    let note_of = |target, note: &CommitNote, low| {
        let known = PartitionFacts { note: note.clone(), ..facts(0, Some(80), low, 100) };
        let plan = plan(target, None, &[known]);
        plan.note(&plan.moves[0]).begins_at
    };
    let none = CommitNote::default();
    assert_eq!(note_of(ReplayTarget::Beginning, &none, 40), Some(40));
    assert_eq!(note_of(ReplayTarget::Beginning, &none, 0), None);
    assert_eq!(
        note_of(ReplayTarget::Offset(3), &none, 40),
        Some(40),
        "clamped to the start, as the plan says"
    );
    assert_eq!(note_of(ReplayTarget::Offset(50), &none, 40), None);
    assert_eq!(note_of(ReplayTarget::Offset(50), &noted(40), 40), Some(40), "it was said before");
    assert_eq!(note_of(ReplayTarget::Offset(50), &noted(30), 40), None, "more was removed since");
}

#[test]
fn the_start_of_a_log_can_be_accepted_without_moving_an_offset() {
    let known = [facts(0, Some(80), 40, 100), facts(1, Some(80), 0, 100)];
    let plain = plan(ReplayTarget::Shift(0), None, &known);
    let accepting = plain.clone().accepting_log_start(&known);
    let notes = |plan: &ReplayPlan| -> Vec<_> {
        plan.moves.iter().map(|planned| (planned.to, plan.note(planned).begins_at)).collect()
    };
    assert_eq!(notes(&plain), [(80, None), (80, None)]);
    assert_eq!(notes(&accepting), [(80, Some(40)), (80, None)], "the second log has lost nothing");
    assert_eq!(accepting.moves[0].remarks, [Remark::LogStartAccepted { low: 40 }]);
    assert_eq!(accepting.moves[1], plain.moves[1]);
    assert_eq!((accepting.records_again(), accepting.records_left_out()), (0, 0));
}

#[test]
fn a_replay_within_a_replay_reaches_as_far_as_the_first() {
    let first = plan(ReplayTarget::Beginning, Some(100), &[facts(0, Some(80), 0, 100)]);
    assert_eq!(first.moves[0].replay.as_ref().unwrap().until, 80);
    let half_way = PartitionFacts { note: first.note(&first.moves[0]), ..facts(0, Some(40), 0, 100) };
    let again = plan(ReplayTarget::Shift(-10), None, &[half_way]);
    assert_eq!(
        again.moves[0].replay,
        Some(ReplayNote { id: "r1".into(), until: 80, max_records_per_s: None }),
        "and the rate is the new one's"
    );
}

#[test]
fn a_shift_needs_something_to_shift_and_a_plan_partitions() {
    let none = ReplayPlan::new("r".into(), None, ReplayTarget::Shift(-1), None, &[facts(3, None, 0, 9)]);
    assert_eq!(none, Err(PlanError::NothingToShift(3)));
    let none = ReplayPlan::new("r".into(), None, ReplayTarget::End, None, &[]);
    assert_eq!(none, Err(PlanError::NoPartitions));
    let slow = [facts(0, Some(9), 0, 9), facts(1, Some(9), 0, 9)];
    let slow = ReplayPlan::new("r".into(), None, ReplayTarget::Beginning, Some(1), &slow);
    assert_eq!(slow, Err(PlanError::RateTooLow { limit: 1, partitions: 2 }));
}

#[test]
fn a_note_of_another_version_says_nothing() {
    assert_eq!(CommitNote::from_metadata(r#"{"claims":2,"topic_id":"x"}"#), CommitNote::default());
    let newer = r#"{"claims":1,"topic_id":"x","something":"else"}"#;
    assert_eq!(CommitNote::from_metadata(newer).topic_id.as_deref(), Some("x"));
}
