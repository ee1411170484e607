use crate::support;
use claims_ingress::{
    generate::{Generator, GeneratorSettings, generate_into_kafka},
    import::{Counts, import_into_kafka, write_ndjson},
    partitioner,
    publisher::{PublishError, Publisher},
    source::{
        Input,
        ndjson::{Dialect, NdjsonSource},
    },
};
use std::{collections::HashSet, io::Cursor, sync::Arc};

async fn publisher(config: &claims_topology::Config) -> Arc<Publisher> {
    Arc::new(Publisher::connect(config).await.unwrap_or_else(|error| panic!("run `cargo xtask up`: {error}")))
}

#[tokio::test]
async fn generated_events_arrive_keyed_partitioned_and_with_headers() {
    let config = support::config().await;
    let publisher = publisher(&config).await;
    let settings = GeneratorSettings { events: 2_000, seed: 1 };
    assert_eq!(generate_into_kafka(&publisher, settings, None, |_| {}).await.unwrap(), 2_000);

    let read = support::read_events(&config).await;
    assert_eq!(read.len(), 2_000);
    let mut partitions = HashSet::new();
    for (record, event) in &read {
        assert_eq!(record.key, event.record_key());
        assert_eq!(record.partition, partitioner::partition_of(event.partition_key().as_bytes(), 3));
        assert_eq!(record.headers["event-type"], event.event_type().as_str());
        assert_eq!(record.headers["tenant"], event.tenant_id);
        assert_eq!(record.headers["correlation-id"], event.correlation_id);
        partitions.insert(record.partition);
    }
    assert_eq!(partitions.len(), 3);
    let ids: HashSet<_> = read.iter().map(|(_, event)| event.event_id).collect();
    let expected: HashSet<_> = Generator::new(settings).map(|event| event.event_id).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn canonical_ndjson_goes_in_and_its_bad_lines_become_dead_letters() {
    let config = support::config().await;
    let publisher = publisher(&config).await;
    let events: Vec<_> = Generator::new(GeneratorSettings { events: 300, seed: 2 }).collect();
    let mut text = Vec::new();
    for (i, event) in events.iter().enumerate() {
        write_ndjson(&mut text, event).unwrap();
        if i == 99 {
            text.extend_from_slice(b"{\"broken\": \n");
        }
    }
    let input = Input::from_reader("events.ndjson", None, Cursor::new(text)).unwrap();
    let source = NdjsonSource::new(input, Dialect::Canonical, "default", 100_000);
    let (counts, end) =
        import_into_kafka(&publisher, "events.ndjson", Box::new(source), false, |_, _| {}).await;
    end.unwrap();
    let expected = Counts {
        rows_read: 301,
        rows_rejected: 1,
        events_emitted: 300,
        rejected_by_reason: [("invalid-json", 1)].into(),
        ..Counts::default()
    };
    assert_eq!(counts, expected);

    let mut read: Vec<_> = support::read_events(&config).await.into_iter().map(|(_, event)| event).collect();
    let mut sent = events;
    read.sort_by_key(|event| (event.event_id, event.recorded_at));
    sent.sort_by_key(|event| (event.event_id, event.recorded_at));
    assert_eq!(read, sent);

    let dead = support::read_all(&config, &config.topics.dead_letters);
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].value, b"{\"broken\": ");
    for (header, value) in [
        ("processor", "ingress"),
        ("reason", "invalid-json"),
        ("source-file", "events.ndjson"),
        ("source-line", "101"),
    ] {
        assert_eq!(dead[0].headers[header], value, "{header}");
    }
}

#[tokio::test]
async fn a_missing_topic_is_named_and_not_created() {
    let mut config = support::config().await;
    config.topics.events.push_str("-missing");
    let error = Publisher::connect(&config).await.unwrap_err();
    assert!(matches!(&error, PublishError::NoTopic(topic) if *topic == config.topics.events), "{error}");
    let again = Publisher::connect(&config).await.unwrap_err();
    assert!(matches!(again, PublishError::NoTopic(_)));
}
