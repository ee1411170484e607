//! Refused records: written with all coordinates, before their offset counts, without holding up the good ones.

use crate::fixture::*;
use claims_runtime::{SinkError, dead_letter as names};
use std::{collections::BTreeMap, sync::atomic::Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_written_with_its_coordinates() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"good")).await;
    let headers: [(&str, &[u8]); 2] = [("tenant", b"acme"), ("event-type", b"ClaimCreated")];
    topic.send_with(0, Some(b"acme:1"), Some(b"poison"), &headers).await;
    topic.send(0, Some(b"good too")).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let letters = topic.dead_letters(1).await;
    until("all three are committed", || topic.committed().get(&0) == Some(&3)).await;
    running.stop().await;
    assert_eq!(sink.len(), 2);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"acme:1"[..]));
    assert_eq!(letter.payload.as_deref(), Some(&b"poison"[..]));
    let has = |name: &str, value: &str| {
        assert_eq!(letter.headers.get(name).map(String::as_str), Some(value), "{name}");
    };
    has(names::HEADER_TOPIC, &topic.name);
    has(names::HEADER_PARTITION, "0");
    has(names::HEADER_OFFSET, "1");
    has(names::HEADER_PROCESSOR, "plain");
    has(names::HEADER_REASON, "malformed");
    has(names::HEADER_DETAIL, "it says so");
    has("original-header.tenant", "acme");
    has("original-header.event-type", "ClaimCreated");
    assert!(letter.headers[names::HEADER_TIMESTAMP_MS].parse::<i64>().unwrap() > 1_600_000_000_000);
    assert!(letter.headers[names::HEADER_FAILED_AT_MS].parse::<i64>().unwrap() > 1_600_000_000_000);
    assert!(!letter.headers.contains_key(names::HEADER_PAYLOAD_TRUNCATED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ten_megabyte_record_is_cut_and_says_so() {
    let topic = Topic::new(1).await;
    let mut payload = b"poison".to_vec();
    payload.resize(10_000_000, b'x');
    topic.send(0, Some(&payload)).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let letters = topic.dead_letters(1).await;
    running.stop().await;
    assert_eq!(letters[0].payload.as_ref().unwrap(), &payload[..256 * 1024]);
    assert_eq!(letters[0].headers[names::HEADER_PAYLOAD_TRUNCATED], "true");
    assert_eq!(letters[0].headers[names::HEADER_PAYLOAD_ORIGINAL_BYTES], "10000000");
    assert_eq!(topic.committed(), BTreeMap::from([(0, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_less_gets_a_shorter_dead_letter() {
    let topic = Topic::new(1).await;
    let mut payload = b"poison".to_vec();
    payload.resize(3_000_000, b'x');
    topic.send(0, Some(&payload)).await;
    // More than the dead-letter topic takes (1 MiB by default).
    let settings = claims_runtime::RuntimeSettings { max_dead_letter_payload_bytes: 2_500_000, ..quick() };
    let mut config = topic.config(settings);
    config.client_properties.push(("compression.type".into(), "none".into()));
    let running = Running::start(config, Plain::new(), &Recording::new(), Registry::none());
    let letters = topic.dead_letters(1).await;
    running.stop().await;
    assert_eq!(letters[0].payload.as_ref().unwrap().len(), 2_500_000 / 4);
    assert_eq!(letters[0].headers[names::HEADER_PAYLOAD_ORIGINAL_BYTES], "3000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_refused_batch_only_the_bad_rows_are_dead_lettered() {
    let topic = Topic::new(1).await;
    for n in 0..64 {
        let text = if n == 13 || n == 40 { format!("bad {n}") } else { format!("good {n}") };
        topic.send_with(0, Some(format!("key {n}").as_bytes()), Some(text.as_bytes()), &[]).await;
    }
    let sink = Recording::answering(|batch| match batch.rows.iter().any(|row| row.starts_with("bad")) {
        true => Err(SinkError::Poison("a value out of range".into())),
        false => Ok(()),
    });
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    let letters = topic.dead_letters(2).await;
    until("all are committed", || topic.committed().get(&0) == Some(&64)).await;
    running.stop().await;
    assert_eq!(sink.len(), 62);
    assert!(sink.rows.lock().unwrap().is_sorted(), "parts are written in order");
    let told: Vec<_> = letters
        .iter()
        .map(|l| {
            (l.headers[names::HEADER_OFFSET].clone(), String::from_utf8(l.payload.clone().unwrap()).unwrap())
        })
        .collect();
    assert_eq!(told, vec![("13".into(), "bad 13".into()), ("40".into(), "bad 40".into())]);
    assert_eq!(letters[0].key.as_deref(), Some(&b"key 13"[..]));
    assert_eq!(letters[0].headers[names::HEADER_REASON], names::REASON_SINK_REFUSED);
    assert_eq!(letters[0].headers[names::HEADER_DETAIL], "a value out of range");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_written_holds_its_offset() {
    let topic = Topic::new(1).await;
    topic.send(0, Some(b"good")).await;
    topic.send(0, Some(b"poison")).await;
    let mut config = topic.config(quick());
    config.dead_letter_topic = "not a legal topic name".into();
    let sink = Recording::new();
    let running = Running::start(config, Plain::new(), &sink, Registry::none());
    let error = running.error().await.to_string();
    assert!(error.contains("dead-letter topic"), "{error}");
    assert!(topic.committed().get(&0).is_none_or(|&offset| offset <= 1), "{:?}", topic.committed());
    assert_eq!(sink.writing.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_is_not_utf8_ends_nothing() {
    let topic = Topic::new(1).await;
    // The binding only sends valid names; a long one with every plane of Unicode must come back whole at least.
    let name = "é漢𝄞".repeat(20);
    topic.send_with(0, None, Some(b"poison"), &[(name.as_str(), b"v")]).await;
    let running = Running::start(topic.config(quick()), Plain::new(), &Recording::new(), Registry::none());
    let letters = topic.dead_letters(1).await;
    running.stop().await;
    assert_eq!(letters[0].headers[&format!("original-header.{name}")], "v");
    assert_eq!(letters[0].key, None);
}
