//! Looking at records: lag, tail, dead letters.

use crate::support::{Scene, text};
use claims_runtime::dead_letter::{
    HEADER_DETAIL, HEADER_OFFSET, HEADER_PARTITION, HEADER_PROCESSOR, HEADER_REASON, HEADER_TOPIC,
};
use claims_topology::kafka::client_config;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::time::Duration;

const EVENTS: i64 = 300;

fn with_events() -> Scene {
    let scene = Scene::prepared();
    let generated = scene.claims(&["generate", "--events", &EVENTS.to_string(), "--seed", "5"]);
    assert!(generated.status.success(), "{}", text(&generated));
    scene
}

#[test]
fn lag_counts_what_is_not_committed_and_since_when() {
    let scene = with_events();
    let lags = scene.json(0, &["lag", "--json"]);
    assert_eq!(lags.as_array().unwrap().len(), 3);
    for lag in lags.as_array().unwrap() {
        assert_eq!(lag["lag_records"], EVENTS);
        assert!(lag["lag_ms"].as_i64().unwrap() > 0, "{lag}");
        assert!(lag["partitions"].as_array().unwrap().iter().all(|p| p["committed_offset"].is_null()));
    }
    // The audit commits all of partition 0 and one record of partition 1.
    let end = lags[0]["partitions"][0]["end_offset"].as_i64().unwrap();
    let consumer: BaseConsumer = client_config(&scene.config.kafka)
        .set("group.id", format!("{}.audit", scene.config.kafka.group_prefix))
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&scene.config.topics.events, 0, Offset::Offset(end)).unwrap();
    offsets.add_partition_offset(&scene.config.topics.events, 1, Offset::Offset(1)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();

    let lags = scene.json(0, &["lag", "--json", "audit"]);
    assert_eq!(lags[0]["lag_records"], EVENTS - end - 1);
    assert_eq!(lags[0]["partitions"][0]["lag_records"], 0);
    assert_eq!(lags[0]["partitions"][0]["lag_ms"], 0);
    assert_eq!(lags[0]["partitions"][1]["committed_offset"], 1);
    assert_eq!(scene.lag("analytics"), EVENTS, "the others are where they were");

    scene.stdout(3, &["lag", "audit", "--fail-above", "0"]);
    scene.stdout(0, &["lag", "audit", "--fail-above", "1000"]);
}

#[test]
fn tail_shows_events_by_tenant_claim_and_type() {
    let scene = with_events();
    let all = ["tail", "--from-beginning", "--no-follow"];
    let lines = |more: &[&str]| -> Vec<serde_json::Value> {
        let text = scene.stdout(0, &[&all[..], &["--json"], more].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let events = lines(&[]);
    assert_eq!(events.len() as i64, EVENTS);
    let of_type = |name: &str| events.iter().filter(|event| event["event_type"] == name).count();
    assert_eq!(lines(&["--type", "ClaimCreated"]).len(), of_type("ClaimCreated"));
    assert!(of_type("ClaimCreated") > 0);

    let (tenant, claim) = (events[0]["tenant_id"].as_str().unwrap(), events[0]["claim_id"].as_str().unwrap());
    let of_claim = lines(&["--tenant", tenant, "--claim", claim]);
    let expected = events.iter().filter(|e| e["tenant_id"] == tenant && e["claim_id"] == claim).count();
    assert_eq!(of_claim.len(), expected);
    assert_eq!(lines(&["--tenant", "nobody"]).len(), 0);
    assert_eq!(lines(&["--limit", "7"]).len(), 7);
    assert_eq!(scene.stdout(0, &all).lines().count() as i64, EVENTS);
}

#[test]
fn records_that_are_no_events_do_not_stop_tail() {
    let scene = with_events();
    let topic = &scene.config.topics.events;
    let producer: BaseProducer = client_config(&scene.config.kafka).create().unwrap();
    let garbage = |payload: &'static [u8]| BaseRecord::to(topic).key("k").payload(payload).partition(0);
    producer.send(garbage(b"no frame")).unwrap();
    producer.send(garbage(&[0, 0x7f, 0, 0, 0, 1, 2, 3])).unwrap();
    producer.send(BaseRecord::<str, [u8]>::to(topic).key("gone").partition(0)).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    let output = scene.claims(&["tail", "--from-beginning", "--no-follow"]);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(out.lines().count() as i64, EVENTS + 1, "the tombstone is shown");
    assert!(out.contains("tombstone gone"));
    assert_eq!(errors.lines().filter(|line| line.contains("can't be decoded")).count(), 2, "{errors}");
}

#[test]
fn dead_letters_are_listed_counted_and_shown() {
    let scene = Scene::prepared();
    assert!(scene.stdout(0, &["dead-letters", "list"]).contains("no open dead letters"));
    let topic = &scene.config.topics.dead_letters;
    let producer: BaseProducer = client_config(&scene.config.kafka).create().unwrap();
    for (n, reason) in ["malformed", "superseded", "malformed"].into_iter().enumerate() {
        let offset = n.to_string();
        let pairs = [
            (HEADER_TOPIC, "claims.events.v1"),
            (HEADER_PARTITION, "2"),
            (HEADER_OFFSET, &offset),
            (HEADER_PROCESSOR, "analytics"),
            (HEADER_REASON, reason),
            (HEADER_DETAIL, "wrong\nin many ways"),
        ];
        let headers = pairs.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::to(topic).key("acme:claim_1:e").payload("\0\x01payload").headers(headers);
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();

    let list = scene.stdout(0, &["dead-letters", "list"]);
    assert!(list.contains("claims.events.v1 2:1") && list.contains("superseded"), "{list}");
    assert!(!list.contains("payload"), "payloads are not listed: {list}");
    assert_eq!(list.lines().count(), 4, "one line each: {list}");
    let chosen = scene.json(0, &["dead-letters", "list", "--reason", "malformed", "--limit", "1", "--json"]);
    assert_eq!(chosen.as_array().unwrap().len(), 1);
    assert_eq!(chosen[0]["headers"][HEADER_OFFSET], "2", "the latest");
    let counts = scene.json(0, &["dead-letters", "list", "--summary", "--json"]);
    assert_eq!(counts[0]["count"], 2);

    let shown = scene.stdout(0, &["dead-letters", "show", "0:1"]);
    assert!(shown.contains("reason: superseded") && shown.contains("payload: 9 bytes"), "{shown}");
    assert_eq!(scene.stdout(0, &["dead-letters", "show", "0:1", "--payload", "-"]), "\0\x01payload");
    let missing = scene.claims(&["dead-letters", "show", "0:99"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("0 up to 3"), "{}", text(&missing));
}
