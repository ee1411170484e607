//! Writers' schemas: fetched when they are met, waited for without limit, dead-lettered only on the registry's word.

use crate::fixture::*;
use claims_runtime::{ResolveError, health};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A processor that knows what the registry has answered.
fn plain_with(registry: &Arc<Registry>) -> Plain {
    Plain { known: Arc::clone(&registry.known), ..Plain::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_stops_only_the_partition_that_needs_it() {
    let topic = Topic::new(2).await;
    for payload in [&b"before"[..], b"schema:7", b"after"] {
        topic.send(0, Some(payload)).await;
    }
    topic.send(1, Some(b"other partition")).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_away);
    let registry = Registry::answering(move |_, _| match switch.load(Ordering::SeqCst) {
        true => Err(ResolveError::Unavailable("connection refused".into())),
        false => Ok(()),
    });
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), plain_with(&registry), &sink, Arc::clone(&registry));
    let texts = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<BTreeSet<_>>();
    until("what needs no schema", || sink.texts() == texts(&["before", "other partition"])).await;
    until("it asked several times", || registry.asked.load(Ordering::SeqCst) >= 3).await;
    let waits = |s: &health::StageStatus| {
        s.state == health::StageState::WaitingForRegistry
            && !s.ready
            && s.reason.as_deref().is_some_and(|r| r.contains("schema 7"))
    };
    until("the health says so", || health::stages().iter().any(waits)).await;
    topic.send(1, Some(b"still going on")).await;
    until("the other partition goes on", || sink.texts().contains("still going on")).await;
    is_away.store(false, Ordering::SeqCst);
    until("all of them", || sink.len() == 5).await;
    running.stop().await;
    let of_first: Vec<String> = sink
        .rows
        .lock()
        .unwrap()
        .iter()
        .filter(|(origin, _)| origin.partition == 0)
        .map(|(_, text)| text.clone())
        .collect();
    assert_eq!(of_first, ["before", "schema:7", "after"], "in order, each once");
    assert_eq!(topic.committed(), [(0, 3), (1, 2)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_schema_is_a_dead_letter_and_is_asked_for_once() {
    let topic = Topic::new(1).await;
    for _ in 0..20 {
        topic.send(0, Some(b"schema:99")).await;
    }
    topic.send(0, Some(b"good")).await;
    let registry = Registry::none();
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), plain_with(&registry), &sink, Arc::clone(&registry));
    let letters = topic.dead_letters(20).await;
    until("all are committed", || topic.committed().get(&0) == Some(&21)).await;
    running.stop().await;
    assert!(letters.iter().all(|l| l.headers["reason"] == "unknown-schema"));
    assert!(letters[0].headers["detail"].contains("no schema 99"));
    assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
    assert_eq!(sink.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_stays_missing_after_its_fetch_ends_the_stage() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"schema:5")).await;
    let registry = Registry::answering(|_, _| Ok(()));
    // This processor doesn't look where the registry's answers go.
    let running = Running::start(topic.config(quick()), Plain::new(), &Recording::new(), registry);
    let error = running.error().await.to_string();
    assert!(error.contains("schema 5 was fetched"), "{error}");
    assert_eq!(topic.committed(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_an_upgrade_waits_for_one_and_others_go_on() {
    let topic = Topic::new(2).await;
    topic.send(0, Some(b"before")).await;
    topic.send(0, Some(b"upgrade")).await;
    topic.send(0, Some(b"behind it")).await;
    topic.send(1, Some(b"other")).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let says_so = |s: &health::StageStatus| {
        s.state == health::StageState::UpgradeNeeded
            && s.reason.as_deref().is_some_and(|r| r.contains("upgrade needed for offset 1"))
    };
    until("the health says so", || health::stages().iter().any(says_so)).await;
    topic.send(1, Some(b"other again")).await;
    until("the other partition goes on", || sink.len() == 3).await;
    running.stop().await;
    assert_eq!(topic.committed(), [(0, 1), (1, 2)].into(), "nothing is skipped");
    assert!(!sink.texts().contains("behind it"));
    topic.send(0, Some(b"sent meanwhile")).await;

    // The upgraded build goes on in the same group where the older one stopped.
    let upgraded = Plain { is_upgraded: true, ..Plain::new() };
    let running = Running::start(topic.config(quick()), upgraded, &sink, Registry::none());
    until("all are committed", || topic.committed() == [(0, 4), (1, 2)].into()).await;
    running.stop().await;
    let mut written: Vec<(i32, i64, String)> = sink
        .rows
        .lock()
        .unwrap()
        .iter()
        .map(|(origin, text)| (origin.partition, origin.offset, text.clone()))
        .collect();
    // Stable, so that each partition's records stay in the order in which they were written.
    written.sort_by_key(|(partition, ..)| *partition);
    let expected = [
        (0, 0, "before"),
        (0, 1, "upgrade"),
        (0, 2, "behind it"),
        (0, 3, "sent meanwhile"),
        (1, 0, "other"),
        (1, 1, "other again"),
    ];
    assert_eq!(written, expected.map(|(p, o, text)| (p, o, text.to_owned())), "in order, each once");
    assert_eq!(topic.dead_letter_count(), 0);
}
