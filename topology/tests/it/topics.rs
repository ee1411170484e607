use crate::{UP, config};
use claims_topology::{
    Config,
    topics::{self, Change, TopicsError},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use std::time::{Duration, Instant};

fn admin(config: &Config) -> AdminClient<DefaultClientContext> {
    claims_topology::kafka::client_config(&config.kafka).create().unwrap()
}

async fn delete(config: &Config) {
    let names = [&config.topics.events, &config.topics.state, &config.topics.dead_letters];
    let names = names.map(String::as_str);
    admin(config).delete_topics(&names, &AdminOptions::new()).await.unwrap();
}

/// The broker answers before every part of it knows of a change.
async fn eventually<F, R>(what: &str, mut look: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(20);
    while !look().await {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn in_order(config: &Config) -> bool {
    topics::plan_for(config).await.unwrap().is_in_order()
}

#[tokio::test]
async fn missing_topics_are_made_as_specified_once() {
    let config = config();
    let plan = topics::plan_for(&config).await.expect(UP);
    assert_eq!(plan.missing().count(), 3);

    let applied = topics::apply(&config, false).await.unwrap();
    assert_eq!(applied.created.len(), 3);
    eventually("topics as specified", || in_order(&config)).await;
    let observed = topics::observe(&config).await.unwrap();
    assert_eq!(observed[&config.topics.events].partitions, 3);
    assert_eq!(observed[&config.topics.dead_letters].partitions, 1);
    assert_eq!(observed[&config.topics.events].settings["cleanup.policy"], "compact");

    assert_eq!(topics::apply(&config, true).await.unwrap(), topics::Applied::default());
    delete(&config).await;
}

#[tokio::test]
async fn drift_is_shown_and_changed_only_when_asked() {
    let mut config = config();
    topics::ensure(&config).await.expect(UP);
    eventually("topics as specified", || in_order(&config)).await;
    // Somebody sets something else on the topic, and something that the spec doesn't speak of.
    let request = AlterConfig::new(ResourceSpecifier::Topic(&config.topics.events))
        .set("cleanup.policy", "compact,delete")
        .set("file.delete.delay.ms", "12345");
    for answer in admin(&config).alter_configs(&[request], &AdminOptions::new()).await.unwrap() {
        answer.unwrap();
    }
    eventually("drift", || async { !in_order(&config).await }).await;
    // The request took all other settings away, so that those without a broker default of the same value drift too.
    let plan = topics::plan_for(&config).await.unwrap();
    assert!(plan.topics[0].1.changes().contains(&Change::Setting {
        key: "cleanup.policy".into(),
        wanted: "compact".into(),
        actual: Some("compact,delete".into()),
    }));

    let applied = topics::apply(&config, false).await.unwrap();
    assert_eq!(applied.left_drifted, [config.topics.events.clone()]);
    assert!(!in_order(&config).await, "drift must not be changed unasked");

    let applied = topics::apply(&config, true).await.unwrap();
    assert_eq!(applied.altered[0].0, config.topics.events);
    eventually("topics as specified", || in_order(&config)).await;
    let observed = topics::observe(&config).await.unwrap();
    assert_eq!(
        observed[&config.topics.events].settings["file.delete.delay.ms"], "12345",
        "what isn't ours is left as it was"
    );

    // A changed wish is a drift too.
    config.topics.settings.insert("state".into(), [("segment.ms".to_owned(), "60000".to_owned())].into());
    assert!(!in_order(&config).await);
    delete(&config).await;
}

#[tokio::test]
async fn a_partition_count_is_never_changed() {
    let mut config = config();
    topics::ensure(&config).await.expect(UP);
    eventually("topics as specified", || in_order(&config)).await;
    config.topics.partitions = 6;
    let error = topics::apply(&config, true).await.unwrap_err();
    assert!(matches!(error, TopicsError::PartitionCount { wanted: 6, actual: 3, .. }), "{error}");
    assert!(error.to_string().contains("new topic"), "{error}");
    assert_eq!(topics::observe(&config).await.unwrap()[&config.topics.events].partitions, 3);
    delete(&config).await;
}

#[tokio::test]
async fn two_processes_may_make_the_topics_at_once() {
    let config = config();
    let (a, b) = tokio::join!(topics::ensure(&config), topics::ensure(&config));
    a.expect(UP);
    b.unwrap();
    eventually("topics as specified", || in_order(&config)).await;
    delete(&config).await;
}

#[tokio::test]
async fn a_kafka_that_is_away_is_said_to_be_away_in_time() {
    let mut config = config();
    // Nothing listens on the discard port.
    config.kafka.bootstrap_servers = "127.0.0.1:9".into();
    config.kafka.request_timeout_ms = 1_000;
    let begun = Instant::now();
    let error = topics::plan_for(&config).await.unwrap_err();
    assert!(matches!(error, TopicsError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
