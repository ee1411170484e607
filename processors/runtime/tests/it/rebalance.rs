//! Members come and go under load.

use crate::fixture::*;
use claims_runtime::{Batch, RuntimeSettings, Shutdown, Sink, SinkError, run_stage};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn members_join_and_leave_under_load_and_nothing_is_lost() {
    let topic = Topic::new(6).await;
    topic.send_numbers(0..2_000).await;
    let sink = Recording::new();
    let settings = RuntimeSettings { max_batch_records: 50, ..quick() };
    let first = Running::start(topic.config(settings.clone()), Plain::new(), &sink, Registry::none());
    until("the first member has begun", || sink.len() > 500).await;
    let is_over = AtomicBool::new(false);
    let send = async {
        let mut sent = 2_000;
        while !is_over.load(Ordering::SeqCst) {
            topic.send_numbers(sent..sent + 60).await;
            sent += 60;
        }
        sent
    };
    let churn = async {
        let other = Recording::new();
        let second = Running::start(topic.config(settings.clone()), Plain::new(), &other, Registry::none());
        until("the second member gets partitions", || other.len() > 100).await;
        assert_eq!(other.assigned.lock().unwrap().iter().flatten().count(), 3);
        // What is committed is never more than what either sink has.
        for _ in 0..20 {
            let committed = topic.committed();
            let (mine, theirs) = (sink.highest(), other.highest());
            for (partition, offset) in committed {
                let written = mine.get(&partition).max(theirs.get(&partition)).copied().unwrap_or(-1);
                assert!(offset <= written + 1, "partition {partition}: {offset} > {written} + 1");
            }
        }
        second.stop().await;
        let written = sink.len();
        until("the first member has all partitions again", || {
            sink.assigned.lock().unwrap().iter().flatten().count() == 9 && sink.len() > written
        })
        .await;
        is_over.store(true, Ordering::SeqCst);
        other
    };
    let (total, other) = tokio::join!(send, churn);
    let all = |a: &Recording, b: &Recording| a.texts().union(&b.texts()).cloned().collect::<BTreeSet<_>>();
    until("everything arrived at one or the other", || all(&sink, &other).len() as u64 == total).await;
    first.stop().await;
    let committed = topic.committed();
    assert_eq!(committed.values().sum::<i64>() as u64, total, "{committed:?}");
    // A cooperative handover after a drain: nothing was written twice.
    assert_eq!(sink.len() + other.len(), total as usize);
    let revoked: BTreeSet<i32> = sink.revoked.lock().unwrap()[0].iter().copied().collect();
    assert_eq!(revoked.len(), 3, "only the partitions that moved were taken: {revoked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partition_is_drained_and_committed_before_it_goes() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..20).await;
    let sink = Recording::with(1, 0, |_| Ok(()));
    let first = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("a write hangs", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let other = Recording::new();
    let second = Running::start(topic.config(quick()), Plain::new(), &other, Registry::none());
    // The handover waits for the batch that is being written; only then is it committed, and goes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(other.assigned.lock().unwrap().iter().flatten().next().is_none(), "not before the drain");
    sink.gate.add_permits(1_000);
    until("one partition moved", || other.assigned.lock().unwrap().iter().flatten().count() == 1).await;
    topic.send_numbers(20..40).await;
    until("everything arrived", || sink.len() + other.len() == 40).await;
    second.stop().await;
    first.stop().await;
    assert_eq!(topic.committed(), BTreeMap::from([(0, 20), (1, 20)]));
    assert_eq!(sink.texts().intersection(&other.texts()).count(), 0, "nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_delays_a_rebalance_no_longer_than_the_drain_timeout() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..20).await;
    let sink = Recording::with(1, 0, |_| Ok(()));
    let settings = RuntimeSettings { drain_timeout_ms: 1_000, ..quick() };
    let first = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("a write hangs", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let other = Recording::new();
    let second = Running::start(topic.config(quick()), Plain::new(), &other, Registry::none());
    until("the second member reads its half", || other.len() == 10).await;
    let moved = other.assigned.lock().unwrap().iter().flatten().copied().next().unwrap();
    until("the second member commits it", || topic.committed().get(&moved) == Some(&10)).await;
    // The straggler's acknowledgement comes now, in an assignment that is over: it moves nothing of that partition.
    sink.gate.add_permits(1_000);
    until("the kept partition is committed", || topic.committed() == BTreeMap::from([(0, 10), (1, 10)]))
        .await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_revocation_drains_only_once() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..20).await;
    let sink = Recording::with(1, 0, |_| Ok(()));
    let settings = RuntimeSettings { drain_timeout_ms: 4_000, ..quick() };
    let first = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("a write hangs", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let other = Recording::new();
    let second = Running::start(topic.config(quick()), Plain::new(), &other, Registry::none());
    // The group has asked for a partition by then, and waits for the drain.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(other.assigned.lock().unwrap().iter().flatten().next().is_none(), "still draining");
    let took = first.stop().await;
    assert!(took < Duration::from_millis(5_500), "the stop has one drain timeout, not two: {took:?}");
    until("the other member has everything", || other.len() == 20).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_members_come_back_without_a_rebalance() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..10).await;
    let settings = RuntimeSettings { instance_id: Some("slot-1".into()), ..quick() };
    let sink = Recording::new();
    let first = Running::start(topic.config(settings.clone()), Plain::new(), &sink, Registry::none());
    until("ten", || sink.len() == 10).await;
    first.stop().await;
    topic.send_numbers(10..20).await;
    let second = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("twenty", || sink.len() == 20).await;
    second.stop().await;
    assert_eq!(topic.committed(), BTreeMap::from([(0, 10), (1, 10)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_assignment_commits_nothing_and_is_read_again() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    topic.send(0, Some(b"block:9000")).await;
    topic.send_numbers(20..30).await;
    let mut config = topic.config(RuntimeSettings { max_batch_records: 1_000, ..quick() });
    for name in ["max.poll.interval.ms", "session.timeout.ms"] {
        config.client_properties.push((name.into(), "6000".into()));
    }
    let sink = Recording::new();
    let processor = Plain::new();
    let (revoked, acknowledged) = (Arc::clone(&processor.revoked), Arc::clone(&processor.acknowledged));
    let running = Running::start(config, processor, &sink, Registry::none());
    // While the loop is blocked, the group takes the partition away without asking.
    until("the loss is noticed", || revoked.lock().unwrap().len() == 1).await;
    let committed = topic.committed().get(&0).copied().unwrap_or(0);
    assert!(committed <= 10, "a lost assignment commits nothing: {committed}");
    until("everything arrived in the next one", || sink.texts().len() == 21).await;
    until("and is committed", || topic.committed() == BTreeMap::from([(0, 21)])).await;
    running.stop().await;
    let acknowledged = acknowledged.lock().unwrap();
    assert_eq!(acknowledged.last().unwrap().1, vec![(0, 21)]);
}

/// Never ready for its partitions.
#[derive(Default)]
struct NeverReady {
    is_asked: AtomicBool,
}

impl Sink for NeverReady {
    type Row = String;

    async fn assigned(&self, _: &[i32]) -> Result<(), SinkError> {
        self.is_asked.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn write(&self, _: &Batch<String>) -> Result<(), SinkError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_an_assignment_lets_go_of_the_sink() {
    let topic = Topic::new(1).await;
    let (trigger, shutdown) = Shutdown::new();
    let sink = Arc::new(NeverReady::default());
    let stage = run_stage(topic.config(quick()), Plain::new(), Arc::clone(&sink), Registry::none(), shutdown);
    let stage = tokio::spawn(stage);
    until("partitions are assigned", || sink.is_asked.load(Ordering::SeqCst)).await;
    trigger.stop();
    stage.await.unwrap().unwrap();
    // Whoever starts next wants what it holds: the local store, say.
    until("nothing of the stage is left", || Arc::strong_count(&sink) == 1).await;
}
