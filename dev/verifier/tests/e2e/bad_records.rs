//! Records that can't be decoded, between good ones: each ends as a dead letter of every processor, with its
//! coordinates and a reason, and the good ones arrive.

use crate::support::{assert_views_besides, fresh, generate, head, ingest, process, records, remove};
use anyhow::{Context, Result};
use claims_verifier::{
    model::Model,
    pipeline::{PROCESSORS, Pipeline},
    views::topics::{each_record, header},
};
use rdkafka::{
    Message,
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{collections::BTreeMap, time::Duration};

/// A record from the log, to make bad ones of.
fn a_good_value(pipeline: &Pipeline) -> Result<Vec<u8>> {
    let mut value = None;
    each_record(&pipeline.namespace, &pipeline.namespace.events_topic, |message| {
        value = message.payload().map(<[u8]>::to_vec);
        Ok(())
    })?;
    value.context("an empty log")
}

/// What is wrong with each: its name, its key, its value.
fn bad_values(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let with = |from: usize, bytes: &[u8]| {
        let mut value = good.to_vec();
        value.splice(from..from + bytes.len(), bytes.iter().copied());
        value
    };
    let mut huge = good[..5].to_vec();
    huge.resize(10 * 1024 * 1024, 0xff);
    vec![
        ("truncated Avro", good[..good.len() / 2].to_vec()),
        ("wrong magic byte", with(0, &[7])),
        ("unknown schema id", with(1, &99_999_999_u32.to_be_bytes())),
        ("nothing but a frame", good[..5].to_vec()),
        ("empty", Vec::new()),
        ("bytes after the end", [good, b"more"].concat()),
        ("a record of 10 MB", huge),
    ]
}

/// Writes the bad values and a tombstone; (partition, offset) by what is wrong.
fn produce(
    pipeline: &Pipeline,
    bad: &[(&'static str, Vec<u8>)],
) -> Result<BTreeMap<(i32, i64), &'static str>> {
    let producer: BaseProducer =
        pipeline.namespace.kafka_client().set("message.max.bytes", "16777216").create()?;
    let topic = &pipeline.namespace.events_topic;
    for (what, value) in bad {
        producer
            .send(BaseRecord::to(topic).partition(0).key(*what).payload(value))
            .map_err(|(error, _)| error)
            .with_context(|| format!("send {what}"))?;
        producer.flush(Duration::from_secs(30))?;
    }
    producer.send(BaseRecord::<str, [u8]>::to(topic).partition(0).key("a tombstone")).map_err(|(e, _)| e)?;
    producer.flush(Duration::from_secs(30))?;
    let mut places = BTreeMap::new();
    each_record(&pipeline.namespace, topic, |message| {
        let key = message.key().map(String::from_utf8_lossy).unwrap_or_default();
        if let Some((what, _)) = bad.iter().find(|(what, _)| *what == key) {
            places.insert((message.partition(), message.offset()), *what);
        }
        Ok(())
    })?;
    anyhow::ensure!(places.len() == bad.len(), "only these arrived: {places:?}");
    Ok(places)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_as_a_dead_letter_and_the_good_ones_arrive() -> Result<()> {
    let pipeline = fresh("bad", 2)?;
    let file = generate(&pipeline, 3_000, 9)?;
    let first = head(&file, 1_000)?;
    ingest(&pipeline, &first)?;
    let bad = bad_values(&a_good_value(&pipeline)?);
    let places = produce(&pipeline, &bad)?;
    ingest(&pipeline, &file)?;
    process(&pipeline).await?;

    let mut letters: BTreeMap<(String, i32, i64), String> = BTreeMap::new();
    each_record(&pipeline.namespace, &pipeline.namespace.dead_letters_topic(), |message| {
        let text =
            |name: &str| header(message, name).with_context(|| format!("a dead letter without {name}"));
        if text("reason")? == "superseded" {
            return Ok(());
        }
        assert_eq!(text("original-topic")?, pipeline.namespace.events_topic);
        let place =
            (text("processor")?, text("original-partition")?.parse()?, text("original-offset")?.parse()?);
        if places.get(&(place.1, place.2)) == Some(&"a record of 10 MB") {
            assert_eq!(text("payload-truncated")?, "true");
            assert!(message.payload().map_or(0, <[u8]>::len) < 1024 * 1024, "its dead letter should be cut");
        }
        assert!(letters.insert(place, text("reason")?).is_none(), "one letter a record and processor");
        Ok(())
    })?;
    for processor in PROCESSORS {
        for ((partition, offset), what) in &places {
            let reason = letters.remove(&(processor.to_owned(), *partition, *offset));
            let reason = reason.with_context(|| format!("{processor} has no dead letter for: {what}"))?;
            let wanted = if *what == "unknown schema id" { "unknown-schema" } else { "malformed" };
            assert_eq!(reason, wanted, "{processor}, {what}");
        }
    }
    assert!(letters.is_empty(), "letters for good records: {letters:?}");

    let mut model = Model::from_ndjson(&first)?;
    model.add_ndjson(&file)?;
    let good_and_tombstone = records(&pipeline)? - places.len() as u64;
    assert_views_besides(&pipeline, &model, good_and_tombstone).await?;
    remove(pipeline).await
}
