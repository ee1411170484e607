//! The whole stage: records in Kafka, `run`, and the views compared with the model.

use crate::{
    random::random_log,
    support::{Database, T0, event},
    views::{agrees, created},
};
use claims_analytics::AnalyticsError;
use claims_runtime::{Origin, Shutdown, ShutdownTrigger};
use claims_schemas::{Event, Timestamp, codec::encode};
use claims_topology::{Config, kafka::client_config, registry::ensure_registered, topics};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// Topics, a group and a database of the test's own.
struct Pipeline {
    config: Config,
    database: Database,
    schema_id: u32,
    producer: FutureProducer,
}

type Running = (ShutdownTrigger, JoinHandle<Result<(), AnalyticsError>>);

impl Pipeline {
    async fn new() -> Self {
        let database = Database::empty().await;
        let name = format!("it-analytics-{}", Uuid::new_v4().simple());
        let mut config = Config::default();
        config.topics.events = format!("{name}.events");
        config.topics.state = format!("{name}.state");
        config.topics.dead_letters = format!("{name}.dead-letters");
        config.topics.partitions = 4;
        config.kafka.group_prefix = name;
        config.analytics.clickhouse = database.config.clone();
        config.analytics.runtime.max_batch_age_ms = 100;
        config.analytics.runtime.max_batch_records = 300;
        topics::ensure(&config).await.expect("topics; run `cargo xtask up`");
        let schema_id = ensure_registered(&config).await.expect("schemas; run `cargo xtask up`").event;
        let producer = client_config(&config.kafka).create().expect("a producer");
        Self { config, database, schema_id, producer }
    }

    /// Writes values into their partitions and gives the offsets they got.
    async fn produce(&self, values: impl IntoIterator<Item = (i32, Option<Vec<u8>>)>) -> Vec<Origin> {
        let values: Vec<_> = values.into_iter().collect();
        let mut deliveries = vec![];
        for (i, (partition, value)) in values.iter().enumerate() {
            let key = format!("key-{i}");
            let mut record = FutureRecord::<str, [u8]>::to(&self.config.topics.events);
            record = record.partition(*partition).key(&key);
            if let Some(value) = value {
                record = record.payload(value);
            }
            deliveries.push(self.producer.send_result(record).expect("the queue has room"));
        }
        let mut origins = vec![];
        for delivery in deliveries {
            let delivered = delivery.await.expect("the producer lives").expect("delivered");
            origins.push(Origin { partition: delivered.partition, offset: delivered.offset });
        }
        origins
    }

    /// Writes a log's events in their order and gives the log as Kafka has it.
    async fn produce_log(&self, log: &[(Origin, Event)]) -> Vec<(Origin, Event)> {
        let values = log.iter().map(|(origin, event)| (origin.partition, Some(self.encoded(event))));
        let origins = self.produce(values).await;
        origins.into_iter().zip(log).map(|(origin, (_, event))| (origin, event.clone())).collect()
    }

    fn encoded(&self, event: &Event) -> Vec<u8> {
        let mut value = vec![];
        encode(event, self.schema_id, &mut value).expect("encoded");
        value
    }

    fn start(&self) -> Running {
        let (trigger, shutdown) = Shutdown::new();
        let config = self.config.clone();
        (trigger, tokio::spawn(async move { claims_analytics::run(&config, shutdown).await }))
    }

    async fn stop((trigger, task): Running) {
        let started = Instant::now();
        trigger.stop();
        task.await.expect("no panic").expect("a clean end");
        assert!(started.elapsed() < Duration::from_secs(10), "the stop took {:?}", started.elapsed());
    }

    /// Waits until the group has committed the end of every partition.
    async fn drained(&self, running: &Running) {
        let consumer: BaseConsumer = client_config(&self.config.kafka)
            .set("group.id", format!("{}.analytics", self.config.kafka.group_prefix))
            .create()
            .expect("a consumer");
        let until = Instant::now() + DEADLINE;
        loop {
            let lag = self.lag(&consumer);
            if lag == 0 {
                return;
            }
            assert!(!running.1.is_finished(), "the stage ended");
            assert!(Instant::now() < until, "{lag} records are left");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn lag(&self, consumer: &BaseConsumer) -> i64 {
        let timeout = Timeout::After(Duration::from_secs(10));
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_range(&self.config.topics.events, 0, self.config.topics.partitions - 1);
        let committed = claims_runtime::committed_offsets(consumer, &list, Duration::from_secs(10))
            .expect("committed offsets");
        committed
            .elements()
            .iter()
            .map(|element| {
                let (_, end) = consumer
                    .fetch_watermarks(element.topic(), element.partition(), timeout)
                    .expect("watermarks");
                end - element.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(0)
            })
            .sum()
    }

    fn dead_letters(&self) -> i64 {
        let consumer: BaseConsumer = client_config(&self.config.kafka).create().expect("a consumer");
        let topic = &self.config.topics.dead_letters;
        let timeout = Timeout::After(Duration::from_secs(10));
        let metadata = consumer.fetch_metadata(Some(topic), timeout).expect("metadata");
        let partitions = metadata.topics()[0].partitions();
        partitions
            .iter()
            .map(|p| consumer.fetch_watermarks(topic, p.id(), timeout).expect("watermarks"))
            .map(|(start, end)| end - start)
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_the_views_across_crashes_and_replays() {
    let mut pipeline = Pipeline::new().await;
    let log = pipeline.produce_log(&random_log(3, 600)).await;
    let half = log.len() / 2;

    // A process that vanishes while it works: its future is dropped, nothing is drained or committed by it.
    let running = pipeline.start();
    let until = Instant::now() + DEADLINE;
    while pipeline
        .database
        .client
        .query_raw("SELECT count() FROM event_log")
        .fetch_one::<u64>()
        .await
        .unwrap_or(0)
        == 0
    {
        assert!(!running.1.is_finished() && Instant::now() < until, "no row arrives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.1.abort();
    assert!(running.1.await.is_err_and(|e| e.is_cancelled()));

    let running = pipeline.start();
    pipeline.drained(&running).await;
    agrees(&pipeline.database, &log).await;

    // The first half once more, as a repeated import writes it: the copies lose against the first.
    let again = pipeline.produce_log(&log[..half]).await;
    pipeline.drained(&running).await;
    Pipeline::stop(running).await;
    let all: Vec<_> = log.iter().cloned().chain(again).collect();
    agrees(&pipeline.database, &all).await;

    // A replay from zero, by a group without offsets, with batches of another size.
    pipeline.config.kafka.group_prefix.push_str("-replay");
    pipeline.config.analytics.runtime.max_batch_records = 1_000;
    let running = pipeline.start();
    pipeline.drained(&running).await;
    Pipeline::stop(running).await;
    agrees(&pipeline.database, &all).await;
    assert_eq!(pipeline.dead_letters(), 0);
    pipeline.database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_are_dead_letters_and_the_good_ones_around_them_arrive() {
    let pipeline = Pipeline::new().await;
    let good = |n: u64| event(&format!("c{n}"), 1, created("k"));
    let mut from_the_future = good(90);
    from_the_future.occurred_at = Timestamp(T0 + 100 * 365 * 86_400_000);
    let truncated = {
        let mut value = pipeline.encoded(&good(91));
        value.truncate(value.len() / 2);
        value
    };
    let wrong_magic = {
        let mut value = pipeline.encoded(&good(92));
        value[0] = 7;
        value
    };
    let unknown_schema = {
        let mut value = pipeline.encoded(&good(93));
        value[1..5].copy_from_slice(&2_000_000_000_u32.to_be_bytes());
        value
    };
    let (first, second) = (good(1), good(2));
    let values = [
        Some(pipeline.encoded(&first)),
        Some(truncated),
        Some(wrong_magic),
        Some(unknown_schema),
        Some(vec![]),
        Some(pipeline.encoded(&from_the_future)),
        None, // a tombstone: neither a row nor a dead letter
        Some(pipeline.encoded(&second)),
    ];
    let origins = pipeline.produce(values.into_iter().map(|value| (1, value))).await;
    let running = pipeline.start();
    pipeline.drained(&running).await;
    Pipeline::stop(running).await;
    agrees(&pipeline.database, &[(origins[0], first), (origins[7], second)]).await;
    assert_eq!(pipeline.dead_letters(), 5);
    pipeline.database.drop().await;
}
