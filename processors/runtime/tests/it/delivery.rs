//! Records in, rows out, offsets committed after them.

use crate::fixture::*;
use claims_runtime::{RuntimeSettings, SinkError, StageError};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_and_is_committed_on_stop() {
    let topic = Topic::new(3).await;
    topic.send_numbers(0..3_000).await;
    let sink = Recording::new();
    let processor = Plain::new();
    let acknowledged = Arc::clone(&processor.acknowledged);
    let running = Running::start(topic.config(quick()), processor, &sink, Registry::none());
    until("3000 rows", || sink.len() == 3_000).await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(topic.committed(), BTreeMap::from([(0, 1_000), (1, 1_000), (2, 1_000)]));
    assert_eq!(sink.texts().len(), 3_000);
    let ids: Vec<u64> = acknowledged.lock().unwrap().iter().map(|(id, _)| *id).collect();
    assert!(ids.is_sorted() && ids.first() == Some(&1), "{ids:?}");
    assert_eq!(sink.revoked.lock().unwrap().last().unwrap(), &vec![0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was_committed() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..100).await;
    let first = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &first, Registry::none());
    until("the first hundred", || first.len() == 100).await;
    running.stop().await;
    topic.send_numbers(100..150).await;
    let second = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &second, Registry::none());
    until("the rest", || second.len() >= 50).await;
    running.stop().await;
    let expected = (100..150u64).map(|n| n.to_string()).collect();
    assert_eq!(second.texts(), expected);
    assert_eq!(second.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_while_running_and_never_pass_the_sink() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    // The first batch goes through, the second is held at the gate.
    let sink = Recording::with(1, 1, |_| Ok(()));
    let settings = RuntimeSettings { max_batch_records: 5, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("the second batch is being written", || {
        sink.writing.load(Ordering::SeqCst) == 1 && sink.len() == 5
    })
    .await;
    until("the first batch is committed", || topic.committed().get(&0) == Some(&5)).await;
    sink.gate.add_permits(100);
    until("all is committed", || topic.committed().get(&0) == Some(&10)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_error_is_repeated_with_the_same_batch() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..50).await;
    let failures = AtomicUsize::new(3);
    let sink = Recording::answering(move |_| {
        let left = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map_or(Ok(()), |_| Err(SinkError::Transient("away".into())))
    });
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("50 rows", || sink.len() == 50).await;
    running.stop().await;
    let batches = sink.batches.lock().unwrap();
    let attempts: Vec<_> = batches.iter().take(4).map(|&(id, attempt, _)| (id, attempt)).collect();
    assert_eq!(attempts, vec![(1, 1), (1, 2), (1, 3), (1, 4)]);
    assert!(batches[..4].iter().all(|batch| batch.2 == batches[0].2), "the same rows each time");
    assert_eq!(topic.committed(), BTreeMap::from([(0, 50)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_does_not_pass_ends_the_stage_without_a_commit() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..5).await;
    let sink = Recording::answering(|_| Err(SinkError::Transient("still away".into())));
    let settings = RuntimeSettings { sink_retry_deadline_ms: 200, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    let error = running.error().await;
    assert!(matches!(&error, StageError::Sink { detail, .. } if detail.contains("still away")), "{error}");
    assert_eq!(topic.committed(), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_of_sink_or_processor_ends_the_stage_at_once() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"a")).await;
    let sink = Recording::answering(|_| Err(SinkError::Fatal("fenced".into())));
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let error = running.error().await;
    assert!(matches!(&error, StageError::Sink { detail, .. } if detail == "fenced"), "{error}");
    topic.send(0, Some(b"fatal")).await;
    let running = Running::start(topic.config(quick()), Plain::new(), &Recording::new(), Registry::none());
    let error = running.error().await;
    assert!(matches!(&error, StageError::Processor { detail, .. } if detail.contains("broken")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_sink_ends_the_stage_with_an_error() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"a")).await;
    let sink = Recording::answering(|_| panic!("a bug in the sink"));
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let error = running.error().await;
    assert!(matches!(&error, StageError::Sink { detail, .. } if detail.contains("panicked")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_and_rowless_batches_are_committed_without_the_sink() {
    let topic = Topic::new(1).await;
    for _ in 0..5 {
        topic.send(0, None).await;
    }
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("the tombstones are committed", || topic.committed().get(&0) == Some(&5)).await;
    running.stop().await;
    assert!(sink.batches.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn state_behind_the_commit_is_restored_without_rows() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..100).await;
    topic.send(0, Some(b"poison in the old part")).await;
    topic.commit(0, 101);
    topic.send_numbers(200..220).await;
    let sink = Recording::new();
    let processor = Plain { needs: Some(30), ..Plain::new() };
    let (seen, acknowledged) = (Arc::clone(&processor.seen), Arc::clone(&processor.acknowledged));
    let settings = RuntimeSettings { max_batch_records: 40, ..quick() };
    let running = Running::start(topic.config(settings), processor, &sink, Registry::none());
    until("the new rows", || sink.len() == 20).await;
    running.stop().await;
    assert_eq!(sink.texts(), (200..220u64).map(|n| n.to_string()).collect());
    let seen: Vec<i64> = seen.lock().unwrap().iter().map(|o| o.offset).collect();
    assert_eq!(seen, (30..100).chain(101..121).collect::<Vec<_>>(), "restore records, then new ones");
    let first = acknowledged.lock().unwrap().first().cloned();
    assert_eq!(first, Some((1, vec![(0, 70)])), "restore batches are acknowledged too");
    assert_eq!(topic.committed(), BTreeMap::from([(0, 121)]));
    // A dead letter written long ago isn't written again: the only one there is the new one.
    topic.send(0, Some(b"poison in the new part")).await;
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let letters = topic.dead_letters(1).await;
    running.stop().await;
    assert_eq!(letters[0].headers["original-offset"], "121");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_batches_in_flight_are_acknowledged_in_order() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..400).await;
    let sink = Recording::with(4, 0, |_| Ok(()));
    let processor = Plain::new();
    let acknowledged = Arc::clone(&processor.acknowledged);
    let settings = RuntimeSettings { max_batch_records: 50, ..quick() };
    let running = Running::start(topic.config(settings), processor, &sink, Registry::none());
    until("four writes at once", || sink.max_writing.load(Ordering::SeqCst) == 4).await;
    sink.gate.add_permits(100);
    until("400 rows", || sink.len() == 400).await;
    running.stop().await;
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.iter().map(|(id, _)| *id).eq(1..=acknowledged.len() as u64));
    assert_eq!(topic.committed(), BTreeMap::from([(0, 200), (1, 200)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_sink_no_longer_than_the_drain_timeout() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    let sink = Recording::with(1, 0, |_| Ok(()));
    let settings = RuntimeSettings { drain_timeout_ms: 500, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("a write hangs", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let took = running.stop().await;
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(topic.committed(), BTreeMap::new(), "nothing durable, nothing committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sink_bounds_what_is_held() {
    let topic = Topic::new(2).await;
    let record = vec![b'x'; 1_000];
    for chunk in 0..20 {
        let sends = (0..100).map(|i| topic.send((chunk * 100 + i) % 2, Some(&record)));
        futures::future::join_all(sends).await;
    }
    let settings = RuntimeSettings {
        max_batch_bytes: 100_000,
        pause_above_bytes: 400_000,
        resume_below_bytes: 200_000,
        ..quick()
    };
    let processor = Plain::new();
    let seen = Arc::clone(&processor.seen);
    let sink = Recording::with(1, 0, |_| Ok(()));
    let running = Running::start(topic.config(settings), processor, &sink, Registry::none());
    until("a write waits", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let is_paused = || {
        claims_runtime::health::stages().iter().any(|s| s.processor == "plain" && s.records_completed == 0)
            && seen.lock().unwrap().len() > 150
    };
    until("it holds some", is_paused).await;
    // Row and raw record count: about 2 kB each. Half a second is twice the time after which partitions pause.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = seen.lock().unwrap().len();
    assert!(held < 300, "{held} records of 1 kB held under a limit of 400 kB");
    sink.gate.add_permits(10_000);
    until("all rows after all", || sink.len() == 2_000).await;
    assert_eq!(seen.lock().unwrap().len(), 2_000, "what was dropped at the pause is fetched once");
    running.stop().await;
    assert_eq!(topic.committed(), BTreeMap::from([(0, 1_000), (1, 1_000)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_the_log_lost_are_an_error_and_not_a_jump() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..20).await;
    topic.commit(0, 5);
    topic.delete_below(0, 10).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let error = running.error().await.to_string();
    assert!(error.contains("committed at 5") && error.contains("reaches from 10 to 20"), "{error}");
    assert!(error.contains("claims replay plain --to-beginning"), "{error}");
    assert_eq!(sink.len(), 0);
    topic.commit(0, 500);
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let error = running.error().await.to_string();
    assert!(error.contains("committed at 500"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named() {
    let topic = Topic::new(1).await;
    let mut config = topic.config(quick());
    config.topic = format!("{}-missing", topic.name);
    let running = Running::start(config, Plain::new(), &Recording::new(), Registry::none());
    let error = running.error().await.to_string();
    assert!(error.contains("does not exist") && error.contains("claims topics apply"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_stage_leaves_the_group_for_the_next() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..5).await;
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let sink = Recording::answering(move |_| match switch.load(Ordering::SeqCst) {
        true => Err(SinkError::Fatal("broken".into())),
        false => Ok(()),
    });
    Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none()).error().await;
    broken.store(false, Ordering::SeqCst);
    let begun = std::time::Instant::now();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("the next one has them", || sink.len() == 5).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "not only after the session timeout of 10 s");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_fails_before_it_has_its_partitions_leaves_them_to_the_next() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..5).await;
    let sink = Recording::new();
    sink.refuses_partitions.store(true, Ordering::SeqCst);
    Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none()).error().await;
    sink.refuses_partitions.store(false, Ordering::SeqCst);
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("the next one has them", || sink.len() == 5).await;
    running.stop().await;
}
