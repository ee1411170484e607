//! Replays that travel with commits, and offsets that don't belong to the topic any more.

use crate::fixture::{Plain, Recording, Registry, Running, Topic, quick, until};
use claims_runtime::replay::{CommitNote, ReplayNote};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

fn note(topic: &Topic, until: i64, max_records_per_s: Option<u32>) -> CommitNote {
    let replay = ReplayNote { id: "r1".into(), until, max_records_per_s };
    CommitNote { topic_id: topic.id(), replay: Some(replay), begins_at: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_its_rate_over_restarts_and_ends_where_it_began() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..9_000).await;
    topic.commit_noted(0, 0, &note(&topic, 600, Some(200)));
    let (sink, begun) = (Recording::new(), Instant::now());
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("a part of the replay", || sink.len() > 100).await;
    running.stop().await;
    let (at, kept) = topic.committed_noted()[&0].clone();
    assert!((100..600).contains(&at), "{at}");
    assert_eq!(kept, note(&topic, 600, Some(200)), "whoever takes over knows of the replay");

    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("everything", || sink.len() == 9_000).await;
    let took = begun.elapsed();
    running.stop().await;
    // 600 records at 200 a second, the rest at once. Stops and starts take away from the rate, never add to it.
    assert!(took >= Duration::from_millis(2_900), "{took:?}");
    assert!(took < Duration::from_secs(30), "the rest was held back, too: {took:?}");
    let kept = topic.committed_noted()[&0].clone();
    assert_eq!(kept, (9_000, CommitNote { topic_id: topic.id(), ..CommitNote::default() }));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_partitions_do_not_wait_for_a_replayed_one() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..4_000).await;
    topic.commit_noted(0, 0, &note(&topic, 2_000, Some(100)));
    topic.commit(1, 0);
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("all of the live partition", || sink.highest().get(&1) == Some(&1_999)).await;
    let replayed = sink.highest().get(&0).copied().unwrap_or(0);
    assert!(replayed < 1_000, "the other one keeps its rate: {replayed}");
    until("some of the replayed one", || sink.highest().get(&0).copied().unwrap_or(0) > replayed + 50).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_set_by_others_carry_no_note_and_are_as_good() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    topic.commit(0, 20);
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("the rest", || sink.len() == 30).await;
    running.stop().await;
    let note = CommitNote { topic_id: topic.id(), ..CommitNote::default() };
    assert_eq!(topic.committed_noted(), BTreeMap::from([(0, (50, note))]));
    assert!(topic.id().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_the_stage_that_reads_it() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("all of it", || topic.committed() == BTreeMap::from([(0, 50)])).await;
    topic.make_anew().await;
    // More than the old one had: its end can't be told from the position.
    topic.send_numbers(0..200).await;
    let error = running.error().await.to_string();
    assert!(error.contains("claims replay plain --to-beginning"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_topic_made_anew_are_refused_until_they_are_reset() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    let old = CommitNote { topic_id: topic.id(), ..CommitNote::default() };
    topic.make_anew().await;
    topic.send_numbers(0..200).await;
    topic.commit_noted(0, 50, &old);
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let error = running.error().await.to_string();
    assert!(error.contains("made anew") && error.contains("claims replay plain --to-beginning"), "{error}");
    assert_eq!(sink.len(), 0);

    topic.commit_noted(0, 0, &CommitNote { topic_id: topic.id(), ..CommitNote::default() });
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("all of the new one", || sink.len() == 200).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_behind_the_start_of_the_log_is_refused_until_somebody_does_without() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    topic.delete_below(0, 20).await;
    let own = CommitNote { topic_id: topic.id(), ..CommitNote::default() };
    let sink = Recording::new();
    let start = |needs| {
        let processor = Plain { needs: Some(needs), ..Plain::new() };
        Running::start(topic.config(quick()), processor, &sink, Registry::none())
    };
    for committed in [30, 20] {
        topic.commit_noted(0, committed, &own);
        let error = start(10).error().await.to_string();
        assert!(error.contains("from offset 10 on, but the log begins at 20"), "{error}");
        assert!(error.contains("claims replay plain --to-beginning"), "{error}");
        assert_eq!((sink.len(), topic.committed()), (0, BTreeMap::from([(0, committed)])));
    }
    // State that lacks nothing of what was removed.
    topic.commit_noted(0, 45, &own);
    let running = start(20);
    until("the rest", || sink.len() == 5).await;
    running.stop().await;
    // Reset to the earliest by Kafka's own tool.
    topic.commit(0, 20);
    let running = start(10);
    until("all that is left", || sink.len() == 35).await;
    running.stop().await;
    let kept = CommitNote { begins_at: Some(20), ..own };
    assert_eq!(topic.committed_noted(), BTreeMap::from([(0, (50, kept.clone()))]));
    // What was said holds for whoever comes next, until more is removed.
    topic.commit_noted(0, 40, &kept);
    let running = start(0);
    until("the rest again", || sink.len() == 45).await;
    running.stop().await;
    topic.delete_below(0, 25).await;
    let error = start(0).error().await.to_string();
    assert!(error.contains("the log begins at 25"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_begins_with_what_is_left_of_the_log() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    topic.delete_below(0, 20).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("all that is left", || topic.committed() == BTreeMap::from([(0, 50)])).await;
    running.stop().await;
    assert_eq!(sink.len(), 30);
    // A member on another machine: its state is made of the same records.
    let processor = Plain { needs: Some(0), ..Plain::new() };
    let seen = std::sync::Arc::clone(&processor.seen);
    let running = Running::start(topic.config(quick()), processor, &sink, Registry::none());
    until("its state is restored", || seen.lock().unwrap().len() == 30).await;
    running.stop().await;
    assert_eq!(sink.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_lacks_removed_records_is_refused_where_nothing_is_committed_too() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    topic.delete_below(0, 20).await;
    let sink = Recording::new();
    let start = |needs| {
        let processor = Plain { needs, ..Plain::new() };
        Running::start(topic.config(quick()), processor, &sink, Registry::none())
    };
    let error = start(Some(10)).error().await.to_string();
    assert!(error.contains("from offset 10 on, but the log begins at 20"), "{error}");
    assert_eq!(sink.len(), 0);
    let running = start(None);
    until("all that is left", || topic.committed() == BTreeMap::from([(0, 50)])).await;
    running.stop().await;
    assert_eq!(sink.len(), 30);
}
