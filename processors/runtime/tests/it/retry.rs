//! Refused records given to their processor once more.

use crate::fixture::*;
use claims_runtime::{
    ResolveError, SinkError, dead_letter as names,
    retry::{Retried, RetryError, RetryRequest, retry},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

fn at(topic: &Topic, partition: i32, offset: i64) -> RetryRequest {
    RetryRequest { topic: topic.name.clone(), partition, offset, appended_at_ms: None }
}

/// Resolutions with their outcomes, in order.
fn traces(letters: &[DeadRecord]) -> Vec<(String, String)> {
    let header = |letter: &DeadRecord, name| letter.headers.get(name).cloned().unwrap_or_default();
    letters
        .iter()
        .filter(|letter| letter.headers.contains_key(names::HEADER_RESOLUTION))
        .map(|letter| (header(letter, names::HEADER_RESOLUTION), header(letter, names::HEADER_OUTCOME)))
        .collect()
}

fn trace(resolution: &str, outcome: &str) -> (String, String) {
    (resolution.into(), outcome.into())
}

/// A registry that knows every schema once it is told to.
fn registry() -> (Arc<AtomicBool>, Arc<Registry>) {
    let is_back = Arc::new(AtomicBool::new(false));
    let knows = Arc::clone(&is_back);
    let registry = Registry::answering(move |schema_id, _| match knows.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(ResolveError::NotFound { schema_id }),
    });
    (is_back, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_schema_came_late_is_put_back_and_moves_no_offset() {
    let topic = Topic::new(2).await;
    for text in ["one", "schema:7", "three"] {
        topic.send_with(0, Some(b"k"), Some(text.as_bytes()), &[]).await;
    }
    let (is_back, registry) = registry();
    let processor = Plain { known: Arc::clone(&registry.known), ..Plain::new() };
    let acknowledged = Arc::clone(&processor.acknowledged);
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), processor, &sink, registry);
    until("all are committed", || topic.committed().get(&0) == Some(&3)).await;
    assert_eq!(sink.len(), 2);

    let still = retry("plain", &at(&topic, 0, 1)).await.unwrap();
    assert!(
        matches!(&still, Retried::Refused { reason, .. } if reason == names::REASON_UNKNOWN_SCHEMA),
        "{still:?}"
    );
    is_back.store(true, Ordering::SeqCst);
    assert_eq!(retry("plain", &at(&topic, 0, 1)).await, Ok(Retried::Applied));
    assert_eq!(sink.rows.lock().unwrap().last().unwrap().1, "schema:7");
    assert_eq!(acknowledged.lock().unwrap().last().unwrap().1, vec![(0, 3)], "the offset that it stood at");
    assert_eq!(topic.committed(), BTreeMap::from([(0, 3)]));

    let letters = topic.dead_letters(5).await;
    assert_eq!(
        traces(&letters),
        [
            trace(names::RESOLUTION_RETRY_STARTED, ""),
            trace(names::RESOLUTION_RETRIED, names::OUTCOME_REFUSED),
            trace(names::RESOLUTION_RETRY_STARTED, ""),
            trace(names::RESOLUTION_RETRIED, names::OUTCOME_APPLIED),
        ]
    );
    for letter in &letters {
        assert_eq!(letter.headers[names::HEADER_TOPIC], topic.name);
        assert_eq!(letter.headers[names::HEADER_OFFSET], "1");
        assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
    }
    // The stage goes on as before.
    topic.send(0, Some(b"four")).await;
    until("the next one is committed", || topic.committed().get(&0) == Some(&4)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_again_says_why_and_leaves_no_trace() {
    let topic = Topic::new(1).await;
    for text in ["one", "two", "poison"] {
        topic.send(0, Some(text.as_bytes())).await;
    }
    let running = Running::start(topic.config(quick()), Plain::new(), &Recording::new(), Registry::none());
    until("all are committed", || topic.committed().get(&0) == Some(&3)).await;
    let ask = async |partition, offset| retry("plain", &at(&topic, partition, offset)).await.unwrap_err();
    assert!(matches!(ask(0, 3).await, RetryError::NotReached { .. }));
    assert!(matches!(ask(5, 0).await, RetryError::NotOwned { partition: 5 }));
    // As after a topic was made anew: something else stands there.
    let other = RetryRequest { appended_at_ms: Some(1), ..at(&topic, 0, 1) };
    assert!(matches!(retry("plain", &other).await.unwrap_err(), RetryError::Another { offset: 1, .. }));
    topic.delete_below(0, 1).await;
    assert!(matches!(ask(0, 0).await, RetryError::Gone { .. }));
    let other = retry("none-such", &at(&topic, 0, 0)).await.unwrap_err();
    assert!(matches!(other, RetryError::NoStage { .. }), "{other}");
    assert_eq!(topic.dead_letter_count(), 1);
    assert!(
        matches!(retry("plain", &at(&topic, 0, 2)).await, Ok(Retried::Refused { reason, .. }) if reason == "malformed")
    );
    running.stop().await;
    assert!(matches!(ask(0, 2).await, RetryError::NoStage { .. }), "a stage that has ended takes none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_sink_refuses_again_stays_refused() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"bad")).await;
    topic.send(0, Some(b"good")).await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let takes = Arc::clone(&is_mended);
    let sink = Recording::answering(move |batch| match batch.rows.iter().any(|row| row == "bad") {
        true if !takes.load(Ordering::SeqCst) => Err(SinkError::Poison("out of range".into())),
        _ => Ok(()),
    });
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("both are committed", || topic.committed().get(&0) == Some(&2)).await;
    let refused =
        Retried::Refused { reason: names::REASON_SINK_REFUSED.into(), detail: "out of range".into() };
    assert_eq!(retry("plain", &at(&topic, 0, 0)).await, Ok(refused));
    is_mended.store(true, Ordering::SeqCst);
    assert_eq!(retry("plain", &at(&topic, 0, 0)).await, Ok(Retried::Applied));
    running.stop().await;
    assert_eq!(sink.texts().len(), 2);
    let outcomes: Vec<_> =
        traces(&topic.dead_letters(5).await).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["", names::OUTCOME_REFUSED, "", names::OUTCOME_APPLIED]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_at_once_wait_for_each_other() {
    let topic = Topic::new(1).await;
    for n in 0..20 {
        topic.send(0, Some(format!("schema:{n}").as_bytes())).await;
    }
    let (is_back, registry) = registry();
    let processor = Plain { known: Arc::clone(&registry.known), ..Plain::new() };
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), processor, &sink, registry);
    until("all are committed", || topic.committed().get(&0) == Some(&20)).await;
    is_back.store(true, Ordering::SeqCst);
    let requests: Vec<_> = (0..20).map(|offset| at(&topic, 0, offset)).collect();
    let results = futures::future::join_all(requests.iter().map(|request| retry("plain", request))).await;
    assert!(results.iter().all(|result| *result == Ok(Retried::Applied)), "{results:?}");
    assert_eq!(sink.len(), 20);
    running.stop().await;
}

/// A dead-letter topic that takes no record without a key: nothing that waiting can't mend, as with too few replicas.
const KEYS_ONLY: &str = "compact";

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_start_cannot_be_noted_holds_nothing_up_and_does_nothing() {
    let topic = Topic::new(1).await;
    topic.send_with(0, None, Some(b"schema:7"), &[]).await;
    let (is_back, registry) = registry();
    let processor = Plain { known: Arc::clone(&registry.known), ..Plain::new() };
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), processor, &sink, registry);
    until("it is committed", || topic.committed().get(&0) == Some(&1)).await;
    is_back.store(true, Ordering::SeqCst);
    topic.set_dead_letter_cleanup(KEYS_ONLY).await;

    let request = at(&topic, 0, 0);
    let retrying = tokio::spawn(async move { retry("plain", &request).await });
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    topic.send(0, Some(b"two")).await;
    until("the partition goes on", || topic.committed().get(&0) == Some(&2)).await;
    let refused = retrying.await.unwrap().unwrap_err();
    assert!(matches!(&refused, RetryError::NotNow(why) if why.starts_with("nothing was done")), "{refused}");
    assert_eq!(sink.texts().into_iter().collect::<Vec<_>>(), ["two"]);

    topic.set_dead_letter_cleanup("delete").await;
    assert_eq!(retry("plain", &at(&topic, 0, 0)).await, Ok(Retried::Applied));
    assert_eq!(sink.len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_end_cannot_be_noted_says_that_it_went_through() {
    let topic = Topic::new(1).await;
    topic.send_with(0, None, Some(b"schema:7"), &[]).await;
    let (is_back, registry) = registry();
    let processor = Plain { known: Arc::clone(&registry.known), ..Plain::new() };
    let sink = Recording::with(1, 0, |_| Ok(()));
    let running = Running::start(topic.config(quick()), processor, &sink, registry);
    until("it is committed", || topic.committed().get(&0) == Some(&1)).await;
    is_back.store(true, Ordering::SeqCst);
    let request = at(&topic, 0, 0);
    let retrying = tokio::spawn(async move { retry("plain", &request).await });
    until("it is being written", || sink.writing.load(Ordering::SeqCst) == 1).await;
    topic.set_dead_letter_cleanup(KEYS_ONLY).await;
    sink.gate.add_permits(10);
    let answer = retrying.await.unwrap().unwrap_err();
    assert!(matches!(&answer, RetryError::NotNow(why) if why.starts_with("it went through")), "{answer}");
    topic.set_dead_letter_cleanup("delete").await;
    assert_eq!(retry("plain", &at(&topic, 0, 0)).await, Ok(Retried::Applied), "it can be made again");
    running.stop().await;
}
