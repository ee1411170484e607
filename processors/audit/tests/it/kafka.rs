//! The whole stage: topic, registry, processor, sink, commits.

use claims_audit::{Report, SegmentStore, ShowOptions, VerifyOptions, run, show, verify};
use claims_runtime::{
    Shutdown,
    retry::{Retried, RetryRequest, retry},
};
use claims_schemas::{Event, EventData, Timestamp, codec, events::ClaimNoteAdded};
use claims_topology::{Config, kafka, registry, topics};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

const PARTITIONS: i32 = 2;
const LIMIT: Duration = Duration::from_secs(60);
const RUN_XTASK: &str = "the services must be up: run `cargo xtask up`";

/// A topic, a group and a store of one test.
struct Stage {
    config: Config,
    producer: FutureProducer,
    schema_id: u32,
    _folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4().simple();
        let mut config = Config::default();
        config.topics.events = format!("audit-it-{id}.events");
        config.topics.state = format!("audit-it-{id}.state");
        config.topics.dead_letters = format!("audit-it-{id}.dead-letters");
        config.topics.partitions = PARTITIONS;
        config.kafka.group_prefix = format!("audit-it-{id}");
        config.audit.store = folder.path().display().to_string();
        config.audit.runtime.max_batch_age_ms = 100;
        config.audit.runtime.commit_interval_ms = 50;
        topics::ensure(&config).await.expect(RUN_XTASK);
        let schema_id = registry::ensure_registered(&config).await.expect(RUN_XTASK).event;
        let producer = kafka::client_config(&config.kafka).create().unwrap();
        Self { config, producer, schema_id, _folder: folder }
    }

    async fn produce(&self, partition: i32, key: &str, value: Option<&[u8]>) {
        let record = FutureRecord { payload: value, ..FutureRecord::to(&self.config.topics.events) };
        let record = record.key(key).partition(partition);
        self.producer.send(record, LIMIT).await.map_err(|(error, _)| error).expect(RUN_XTASK);
    }

    async fn produce_event(&self, claim: u64, version: u64) {
        let event = Event {
            tenant_id: "acme".into(),
            event_id: Uuid::from_u128(u128::from(claim * 1_000 + version)),
            claim_id: format!("claim-{claim}"),
            version,
            occurred_at: Timestamp(1_700_000_000_000),
            recorded_at: Timestamp::now(),
            correlation_id: "corr".into(),
            causation_id: None,
            user_id: None,
            source: None,
            data: EventData::from(ClaimNoteAdded { author: None, note: "n".into(), kind: None }),
        };
        let mut value = Vec::new();
        codec::encode(&event, self.schema_id, &mut value).unwrap();
        let partition = (claim % PARTITIONS as u64) as i32;
        self.produce(partition, &event.record_key(), Some(&value)).await;
    }

    fn start(&self) -> Running {
        let (trigger, shutdown) = Shutdown::new();
        let config = self.config.clone();
        let task = tokio::spawn(async move { run(&config, shutdown).await.map_err(|e| e.to_string()) });
        Running { trigger, task }
    }

    async fn report(&self) -> Report {
        let store = SegmentStore::open(&self.config.audit).unwrap();
        verify(&store, &VerifyOptions::default()).await.unwrap()
    }

    fn consumer(&self) -> BaseConsumer {
        let mut client = kafka::client_config(&self.config.kafka);
        client.set("group.id", kafka::group_id(&self.config.kafka, "audit"));
        client.create().unwrap()
    }

    /// What the group has committed, per partition.
    fn committed(&self) -> Vec<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.config.topics.events, 0, PARTITIONS - 1);
        let found = claims_runtime::committed_offsets(&self.consumer(), &list, LIMIT).expect(RUN_XTASK);
        let offset = |offset| if let Offset::Offset(at) = offset { Some(at) } else { None };
        found.elements().iter().map(|element| offset(element.offset())).collect()
    }

    fn records_in(&self, topic: &str) -> i64 {
        let consumer = self.consumer();
        let partitions = consumer.fetch_metadata(Some(topic), LIMIT).unwrap().topics()[0].partitions().len();
        (0..partitions as i32).map(|p| consumer.fetch_watermarks(topic, p, LIMIT).unwrap().1).sum()
    }
}

struct Running {
    trigger: claims_runtime::ShutdownTrigger,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    /// Waits for a condition, while the stage must go on.
    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !condition().await {
            assert!(!self.task.is_finished(), "the stage ended before: {what}");
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(self) {
        self.trigger.stop();
        self.task.await.unwrap().unwrap();
    }

    /// Waits for the error that ends the stage.
    async fn fails(self) -> String {
        tokio::time::timeout(LIMIT, self.task).await.expect("it ends").unwrap().unwrap_err()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_reach_the_trail_once_through_restarts_and_replays() {
    let mut stage = Stage::new().await;
    for claim in 0..40 {
        for version in 1..=5 {
            stage.produce_event(claim, version).await;
        }
    }
    stage.produce(1, "a bad one", Some(b"not Avro")).await;
    stage.produce(0, "acme:claim-0:00000000-0000-0000-0000-000000000001", None).await;
    let running = stage.start();
    running.until("201 records are in the trail", async || stage.report().await.records == 201).await;
    running.until("all of it is committed", async || stage.committed() == [Some(101), Some(101)]).await;
    running.stop().await;
    let first = stage.report().await;
    assert!(first.holds, "{first:?}");
    assert_eq!(first.chains.iter().map(|chain| (chain.events, chain.tombstones)).max(), Some((100, 1)));
    assert_eq!(stage.records_in(&stage.config.topics.dead_letters), 1);

    // On from where it stood, with a copy of an event.
    stage.produce_event(0, 1).await;
    let running = stage.start();
    running.until("the copy is in the trail", async || stage.report().await.records == 202).await;
    running.stop().await;
    let options = ShowOptions {
        topic: stage.config.topics.events.clone(),
        tenant_id: Some("acme".into()),
        claim_id: "claim-0".into(),
    };
    let found = show(&SegmentStore::open(&stage.config.audit).unwrap(), &options).await.unwrap();
    let copies: Vec<_> = found.records.iter().map(|record| record.copy_of_offset.is_some()).collect();
    assert_eq!(copies, [false, false, false, false, false, false, true], "5 events, a tombstone, a copy");
    assert!(found.holds && found.records.iter().all(|record| record.latency_ms >= 0));

    // A group that has committed nothing reads all of it again, and the trail stays as it is.
    let before = stage.report().await;
    stage.config.kafka.group_prefix.push_str("-again");
    let running = stage.start();
    running.until("all is read again", async || stage.committed() == [Some(102), Some(101)]).await;
    running.stop().await;
    assert_eq!(stage.report().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_end_of_the_trail_stops_the_stage_and_a_reset_mends_it() {
    let stage = Stage::new().await;
    let bad = b"not Avro".as_slice();
    stage.produce_event(0, 1).await;
    stage.produce(0, "a bad one", Some(bad)).await;
    let running = stage.start();
    running.until("both are committed", async || stage.committed()[0] == Some(2)).await;
    running.stop().await;
    // The last record was refused, so it is rightly not in the trail: this start is like any other.
    let running = stage.start();
    stage.produce_event(0, 2).await;
    running.until("the next one is committed", async || stage.committed()[0] == Some(3)).await;
    running.stop().await;
    assert_eq!(stage.records_in(&stage.config.topics.dead_letters), 1, "refused once, reported once");

    let last = SegmentStore::segment_path(&stage.config.topics.events, 0, 1);
    std::fs::remove_file(std::path::Path::new(&stage.config.audit.store).join(last)).unwrap();
    let error = stage.start().fails().await;
    assert!(
        error.contains("needs offset 1 next") && error.contains("offset 2 is not in the trail"),
        "{error}"
    );

    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&stage.config.topics.events, 0, Offset::Offset(1)).unwrap();
    stage.consumer().commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
    let running = stage.start();
    running.until("it is back", async || stage.report().await.records == 2).await;
    running.stop().await;
    assert!(stage.report().await.holds);
}

/// A registry that knows no schema; its address.
async fn empty_registry() -> String {
    let unknown = async || {
        let body = serde_json::json!({ "error_code": 40403, "message": "Schema not found" });
        (axum::http::StatusCode::NOT_FOUND, axum::Json(body))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(unknown);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_schema_came_late_is_no_lost_end_and_can_be_put_back() {
    let mut stage = Stage::new().await;
    for claim in 0..2 {
        stage.produce_event(claim, 1).await;
    }
    let running = stage.start();
    running.until("the first two are committed", async || stage.committed() == [Some(1), Some(1)]).await;
    running.stop().await;

    // Refused at the very end of the trails, since the registry knows no schema for a while.
    let registry = std::mem::replace(&mut stage.config.registry.url, empty_registry().await);
    for claim in 0..2 {
        stage.produce_event(claim, 2).await;
    }
    let running = stage.start();
    running.until("both are refused", async || stage.committed() == [Some(2), Some(2)]).await;
    running.stop().await;
    stage.config.registry.url = registry;
    assert_eq!(stage.records_in(&stage.config.topics.dead_letters), 2);

    // Now they could be decoded, and nothing was lost.
    let running = stage.start();
    stage.produce_event(1, 3).await;
    running.until("the stage goes on", async || stage.committed()[1] == Some(3)).await;
    assert_eq!(stage.report().await.records, 3);

    // Partition 0 has not gone past its record: it is put back. Partition 1 has: the chain is not to be bent.
    let request = |partition| RetryRequest {
        topic: stage.config.topics.events.clone(),
        partition,
        offset: 1,
        appended_at_ms: None,
    };
    let put_back = async |partition| retry("audit", &request(partition)).await.unwrap();
    assert_eq!(put_back(0).await, Retried::Applied);
    assert_eq!(put_back(0).await, Retried::AlreadyThere);
    let refused = put_back(1).await;
    let Retried::Refused { detail, .. } = &refused else { panic!("{refused:?}") };
    assert!(detail.contains("the chain has gone past"), "{detail}");
    let report = stage.report().await;
    assert!(report.holds && report.records == 4, "{report:?}");
    assert_eq!(stage.committed(), [Some(2), Some(3)]);

    // A record that was put back is in the trail: if it is missing later, the end of the trail was lost.
    running.stop().await;
    let last = SegmentStore::segment_path(&stage.config.topics.events, 0, 1);
    std::fs::remove_file(std::path::Path::new(&stage.config.audit.store).join(last)).unwrap();
    let error = stage.start().fails().await;
    assert!(error.contains("offset 1 is not in the trail"), "{error}");
}
