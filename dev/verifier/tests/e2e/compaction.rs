//! Overlapping and interrupted imports, compaction, and a run from zero into empty views.

use crate::support::{LIMIT, assert_views, fresh, generate, head, ingest, process, records, remove};
use anyhow::Result;
use claims_verifier::{model::Model, namespace::Namespace, pipeline::Pipeline};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn after_compaction_a_run_from_zero_gives_the_same_views() -> Result<()> {
    let pipeline = fresh("compaction", 3)?;
    let file = generate(&pipeline, 30_000, 5)?;
    ingest(&pipeline, &head(&file, 9_000)?)?;
    ingest(&pipeline, &file)?;
    ingest(&pipeline, &head(&file, 20_000)?)?;
    let mut model = Model::default();
    for part in [head(&file, 9_000)?, file.clone(), head(&file, 20_000)?] {
        model.add_ndjson(&part)?;
    }
    process(&pipeline).await?;
    assert_views(&pipeline, &model).await?;
    let before = records(&pipeline)?;

    // Enough copies to reach every partition: a segment is closed only when something is appended behind it.
    compact(&pipeline, &head(&file, 200)?, model.distinct_events()).await?;
    let after = records(&pipeline)?;
    assert!(after < before, "compaction removed nothing: {before} records before, {after} after");
    eprintln!("compaction: {before} records before, {after} after, {} distinct", model.distinct_events());

    // Other views on the same log, from zero.
    let mut namespace = Namespace::new(
        &format!("{}_again", pipeline.namespace.name),
        &pipeline.namespace.dir.join("again"),
        pipeline.namespace.partitions,
    )?;
    namespace.events_topic.clone_from(&pipeline.namespace.events_topic);
    let again = Pipeline::new(namespace)?;
    // Exit code 3: the events topic differs from its spec, by what `compact` has set on purpose.
    let applied = again.output(&["topics", "apply"])?;
    assert_eq!(applied.status.code(), Some(3), "{}", String::from_utf8_lossy(&applied.stderr));
    again.run(&["schemas", "register"])?;
    process(&again).await?;
    assert_views(&again, &model).await?;
    remove(again).await?;
    remove(pipeline).await
}

/// Makes the broker compact soon, and waits until little more than one record a key is left. Only closed segments
/// are compacted, so further copies are written now and then to close the open ones.
async fn compact(pipeline: &Pipeline, nudge: &std::path::Path, distinct: u64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = pipeline.namespace.kafka_client().create()?;
    let topic = ResourceSpecifier::Topic(&pipeline.namespace.events_topic);
    let config = AlterConfig::new(topic)
        .set("cleanup.policy", "compact")
        .set("message.timestamp.type", "LogAppendTime")
        .set("segment.ms", "1000")
        .set("min.cleanable.dirty.ratio", "0.01")
        .set("min.compaction.lag.ms", "0")
        .set("max.compaction.lag.ms", "1000");
    for outcome in admin.alter_configs(&[config], &AdminOptions::new()).await? {
        outcome.map_err(|(resource, code)| anyhow::anyhow!("{resource:?}: {code}"))?;
    }
    let start = Instant::now();
    while records(pipeline)? >= distinct + distinct / 10 {
        anyhow::ensure!(start.elapsed() < LIMIT, "nothing was compacted within {} s", LIMIT.as_secs());
        ingest(pipeline, nudge)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}
