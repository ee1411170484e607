//! The whole stage: events in Kafka, tables and state topic out.

use crate::{
    events::*,
    tables::{cql, drop_keyspace, list_all},
};
use claims_current_state::{
    CurrentStateError,
    places::ListView,
    processor::REASON_SUPERSEDED,
    read::{ClaimReader, ClaimView},
    run,
    state_topic::HEADER_REVISION,
};
use claims_runtime::Shutdown;
use claims_schemas::{Event, codec, events::*};
use claims_topology::{Config, kafka, registry, topics};
use futures::TryStreamExt;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::Headers,
    producer::{FutureProducer, FutureRecord},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    config: Config,
    folder: tempfile::TempDir,
    schema_id: u32,
    producer: FutureProducer,
    /// Of the stage's group, but never subscribed: asks for offsets and sets them back.
    group: BaseConsumer,
}

struct Running {
    task: JoinHandle<Result<(), CurrentStateError>>,
    trigger: claims_runtime::ShutdownTrigger,
}

impl Stage {
    /// Topics, group, keyspace and store of its own.
    async fn new(partitions: i32) -> Self {
        let unique = Uuid::new_v4().simple().to_string();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.topics.events = format!("it.{unique}.events");
        config.topics.state = format!("it.{unique}.state");
        config.topics.dead_letters = format!("it.{unique}.dead");
        config.topics.partitions = partitions;
        config.kafka.group_prefix = format!("it.{unique}");
        config.current_state.cql = cql();
        config.current_state.state_dir = folder.path().to_str().unwrap().to_owned();
        topics::ensure(&config).await.expect("run `cargo xtask up` first");
        let schema_id = registry::ensure_registered(&config).await.expect("run `cargo xtask up` first").event;
        let producer = kafka::client_config(&config.kafka).set("linger.ms", "5").create().unwrap();
        let group = consumer(&config, &kafka::group_id(&config.kafka, "current-state"));
        Self { config, folder, schema_id, producer, group }
    }

    async fn send(&self, events: &[Event]) {
        let mut sent = Vec::new();
        for event in events {
            let mut value = Vec::new();
            codec::encode(event, self.schema_id, &mut value).unwrap();
            let partition = partition(&event.partition_key(), self.config.topics.partitions);
            let key = event.record_key();
            let record =
                FutureRecord::to(&self.config.topics.events).key(&key).payload(&value).partition(partition);
            sent.push(self.producer.send_result(record).map_err(|(e, _)| e).unwrap());
        }
        for delivery in sent {
            delivery.await.unwrap().map_err(|(e, _)| e).unwrap();
        }
    }

    fn start(&self) -> Running {
        let (trigger, shutdown) = Shutdown::new();
        let config = self.config.clone();
        Running { task: tokio::spawn(async move { run(&config, shutdown).await }), trigger }
    }

    /// Records of the events topic that the group has not committed.
    fn lag(&self) -> i64 {
        let group = &self.group;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.config.topics.partitions {
            list.add_partition(&self.config.topics.events, partition);
        }
        let committed = claims_runtime::committed_offsets(group, &list, PATIENCE).unwrap();
        let topic = &self.config.topics.events;
        committed
            .elements()
            .iter()
            .map(|e| {
                let (_, end) = group.fetch_watermarks(topic, e.partition(), PATIENCE).unwrap();
                end - e.offset().to_raw().filter(|&o| o >= 0).unwrap_or(0)
            })
            .sum()
    }

    async fn caught_up(&self, running: &mut Running) {
        let begun = Instant::now();
        loop {
            if self.lag() == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{} records behind", self.lag());
            if running.task.is_finished() {
                panic!("the stage ended: {:?}", (&mut running.task).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn reset_to(&self, offset: i64) {
        let mut list = TopicPartitionList::new();
        for partition in 0..self.config.topics.partitions {
            list.add_partition_offset(&self.config.topics.events, partition, Offset::Offset(offset)).unwrap();
        }
        self.group.commit(&list, CommitMode::Sync).unwrap();
    }

    /// Every record of a topic: key, value and a header.
    fn read_all(&self, topic: &str, header: &str) -> Vec<(String, Option<Vec<u8>>, Option<String>)> {
        let consumer = consumer(&self.config, &format!("it.{}", Uuid::new_v4()));
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        let mut wanted = 0;
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
            wanted += high - low;
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        let begun = Instant::now();
        while (found.len() as i64) < wanted {
            assert!(begun.elapsed() < PATIENCE);
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message.unwrap();
            let header = message.headers().and_then(|headers| {
                headers
                    .iter()
                    .find(|h| h.key == header)
                    .and_then(|h| Some(String::from_utf8_lossy(h.value?).into_owned()))
            });
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            found.push((key, message.payload().map(<[u8]>::to_vec), header));
        }
        found
    }

    async fn stop(&self, running: Running) {
        running.trigger.stop();
        tokio::time::timeout(Duration::from_secs(10), running.task)
            .await
            .expect("stops in time")
            .unwrap()
            .unwrap();
    }

    /// As `kill -9` would, but for what only a process can lose: nothing more is written or committed.
    async fn crash(&self, running: Running) {
        running.task.abort();
        if let Ok(ended) = running.task.await {
            panic!("the stage ended by itself: {ended:?}");
        }
        // The loop runs on a thread of its own until it hears of it; the store's lock tells when it has.
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.store_is_locked() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn store_is_locked(&self) -> bool {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() == "lock"
                    && std::fs::File::open(entry.path()).is_ok_and(|f| f.try_lock().is_err())
                {
                    return true;
                }
            }
        }
        false
    }

    fn lose_store(&self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    async fn truncate(&self) {
        let nodes = &self.config.current_state.cql.nodes;
        let session =
            scylla::client::session_builder::SessionBuilder::new().known_nodes(nodes).build().await.unwrap();
        let lists = ListView::ALL.map(ListView::table);
        for table in ["claim_by_id", "claim_timeline", "claim_list_partitions"].iter().chain(&lists) {
            let text = format!("TRUNCATE {}.{table}", self.config.current_state.cql.keyspace);
            session.query_unpaged(text, ()).await.unwrap();
        }
    }

    async fn check(&self, log: &[Event]) {
        let wanted = expected(log);
        let reader = ClaimReader::connect(&self.config.current_state.cql).await.unwrap();
        let claims: Vec<ClaimView> = reader.scan_claims().await.unwrap().try_collect().await.unwrap();
        assert_eq!(claims.len(), wanted.len());
        let found: BTreeMap<_, _> = claims
            .into_iter()
            .map(|c| {
                let created_ms = c.created_at.map(|at| at.timestamp_millis());
                let status = ["UNKNOWN", "CREATED", "ASSIGNED", "PROCESSING", "RESOLVED", "CLOSED", "ERASED"]
                    .into_iter()
                    .find(|s| *s == c.status)
                    .unwrap();
                let (customer, agent, title) = (c.customer_id, c.agent_id, c.title);
                let (resolution, revision) = (c.resolution, c.revision);
                (
                    (c.tenant_id, c.claim_id),
                    Expected { status, customer, agent, title, resolution, created_ms, revision },
                )
            })
            .collect();
        assert_eq!(found, wanted);
        for view in ListView::ALL {
            let mut found: Vec<_> = list_all(&reader, view)
                .await
                .into_iter()
                .map(|item| {
                    let key = match view {
                        ListView::Status => item.status.clone(),
                        ListView::Assignee => item.agent_id.clone().unwrap(),
                        ListView::Customer => item.customer_id.clone().unwrap(),
                        ListView::Created => String::new(),
                    };
                    (item.tenant_id, item.claim_id, key, item.revision)
                })
                .collect();
            found.sort();
            let mut rows: Vec<_> = wanted
                .iter()
                .filter_map(|((tenant, claim), wanted)| {
                    let key = match view {
                        ListView::Status => Some(wanted.status.to_owned()),
                        ListView::Assignee => wanted.agent.clone(),
                        ListView::Customer => wanted.customer.clone(),
                        ListView::Created => wanted.created_ms.map(|_| String::new()),
                    };
                    Some((tenant.clone(), claim.clone(), key?, wanted.revision))
                })
                .collect();
            rows.sort();
            assert_eq!(found, rows, "{view:?}");
        }
        let timeline = reader
            .scan_timeline()
            .await
            .unwrap()
            .try_fold(0_i64, |n, _| async move { Ok(n + 1) })
            .await
            .unwrap();
        let entries: i64 = wanted.values().filter(|w| w.status != "ERASED").map(|w| w.revision).sum();
        let erasures = wanted.values().filter(|w| w.status == "ERASED").count() as i64;
        assert_eq!(timeline, entries + erasures);
    }

    /// The highest revision of each claim in the state topic.
    fn check_states(&self, log: &[Event]) {
        let mut newest: BTreeMap<String, (i64, Option<Vec<u8>>)> = BTreeMap::new();
        for (key, value, revision) in self.read_all(&self.config.topics.state, HEADER_REVISION) {
            let revision: i64 = revision.unwrap().parse().unwrap();
            let slot = newest.entry(key).or_insert((revision, value.clone()));
            if revision >= slot.0 {
                *slot = (revision, value);
            }
        }
        let found: BTreeMap<_, _> =
            newest.into_iter().map(|(key, (revision, value))| (key, (revision, value.is_none()))).collect();
        let wanted: BTreeMap<_, _> = expected(log)
            .into_iter()
            .map(|((tenant, claim), w)| (format!("{tenant}:{claim}"), (w.revision, w.status == "ERASED")))
            .collect();
        assert_eq!(found, wanted);
    }
}

fn consumer(config: &Config, group: &str) -> BaseConsumer {
    kafka::client_config(&config.kafka)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

/// Any stable spread of claims over partitions will do here.
fn partition(key: &str, partitions: i32) -> i32 {
    (key.bytes().map(u32::from).sum::<u32>() % partitions as u32) as i32
}

/// A log of many claims, interleaved, with a copy here and there.
fn log(claims: usize) -> Vec<Event> {
    let mut log = Vec::new();
    let steps: [fn(usize) -> EventData; 6] = [
        |i| created(&format!("cust-{}", i % 50)).into(),
        |i| assigned(&format!("agent-{}", i % 7)).into(),
        |_| started().into(),
        |i| reassigned(&format!("agent-{}", i % 5)).into(),
        |_| resolved("paid").into(),
        |i| if i % 10 == 0 { ClaimErased::default().into() } else { ClaimClosed::default().into() },
    ];
    for (version, step) in (1..).zip(steps) {
        for i in 0..claims {
            if i % 6 + 1 >= version as usize || i % 10 == 0 {
                log.push(event(if i % 3 == 0 { "t1" } else { "t2" }, &format!("c{i}"), version, step(i)));
            }
            if i % 97 == 0 {
                log.push(log[log.len() / 2].clone());
            }
        }
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_become_views_and_states_and_conflicts_become_dead_letters() {
    let stage = Stage::new(3).await;
    let mut events = log(600);
    let conflicting = event("t1", "c0", 2, assigned("agent-9"));
    events.push(conflicting.clone());
    stage.send(&events).await;
    let mut running = stage.start();
    stage.caught_up(&mut running).await;
    stage.check(&events).await;
    stage.check_states(&events);
    let dead = stage.read_all(&stage.config.topics.dead_letters, "reason");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].2.as_deref().is_none_or(|reason| reason == REASON_SUPERSEDED));

    // Events that come later, one by one, are in the views soon after.
    let late = event("t2", "late", 1, created("cust"));
    stage.send(std::slice::from_ref(&late)).await;
    stage.caught_up(&mut running).await;
    events.push(late);
    stage.check(&events).await;
    stage.stop(running).await;
    assert_eq!(stage.lag(), 0);
    drop_keyspace(&stage.config.current_state.cql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_lost_stores_and_resets_leave_the_same_views() {
    let mut stage = Stage::new(2).await;
    stage.config.current_state.runtime.max_batch_records = 100;
    let events = log(600);
    let (first, second) = events.split_at(events.len() / 2);
    stage.send(first).await;
    // Crashed in the middle, twice, once with its store lost.
    for lost in [false, true] {
        let running = stage.start();
        let begun = Instant::now();
        let enough = first.len() as i64 / if lost { 2 } else { 1 };
        while stage.lag() >= enough && begun.elapsed() < PATIENCE && !running.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.crash(running).await;
        if lost {
            stage.lose_store();
        }
    }
    let mut running = stage.start();
    stage.caught_up(&mut running).await;
    stage.check(first).await;
    stage.send(second).await;
    stage.caught_up(&mut running).await;
    stage.check(&events).await;
    stage.stop(running).await;

    // From zero with the store kept, onto the views as they are.
    stage.reset_to(0);
    let mut running = stage.start();
    stage.caught_up(&mut running).await;
    stage.stop(running).await;
    stage.check(&events).await;

    // The views emptied: with the store kept, and with the store lost as well.
    for lost in [false, true] {
        stage.truncate().await;
        stage.reset_to(0);
        if lost {
            stage.lose_store();
        }
        let mut running = stage.start();
        stage.caught_up(&mut running).await;
        stage.stop(running).await;
        stage.check(&events).await;
    }
    drop_keyspace(&stage.config.current_state.cql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_is_not_mistaken_for_the_old_one() {
    let stage = Stage::new(1).await;
    stage.send(&[event("t", "c", 1, created("cust"))]).await;
    let mut running = stage.start();
    stage.caught_up(&mut running).await;
    stage.stop(running).await;

    let admin: rdkafka::admin::AdminClient<_> = kafka::client_config(&stage.config.kafka).create().unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    admin.delete_topics(&[&stage.config.topics.events], &options).await.unwrap();
    let begun = Instant::now();
    while topics::ensure(&stage.config).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let running = stage.start();
    let error = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("belongs to topic") && error.contains("remove this folder"), "{error}");
    drop_keyspace(&stage.config.current_state.cql).await;
}
