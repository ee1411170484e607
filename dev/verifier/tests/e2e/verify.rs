//! `claims verify` on views that are right, on views changed by hand, and while events come in.

use crate::support::{LIMIT, fresh, generate, ingest, process, remove, stop, until};
use anyhow::{Context, Result, bail};
use claims_verifier::{
    pipeline::{PROCESSORS, Pipeline},
    views::topics::each_record,
};
use rdkafka::{
    Message,
    producer::{BaseProducer, BaseRecord, Producer},
};
use scylla::value::CqlTimestamp;
use serde_json::Value;
use std::collections::BTreeSet;

const EVENTS: u64 = 5_000;

/// What `claims verify --json` reports, and its exit code.
fn verify(pipeline: &Pipeline, more: &[&str]) -> Result<(Value, Option<i32>)> {
    let output = pipeline.output(&[&["verify", "--json"], more].concat())?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((report, output.status.code()))
}

/// View, claim and what differs, of each difference.
fn differences(report: &Value) -> BTreeSet<(String, String, String)> {
    let text = |found: &Value, name: &str| found[name].as_str().unwrap_or_default().to_owned();
    let found = report["differences"].as_array().cloned().unwrap_or_default();
    found.iter().map(|d| (text(d, "view"), text(d, "claim_id"), text(d, "what"))).collect()
}

/// A record behind the claim's newest state, as a process that was stopped for long may leave one.
fn append_tombstone(pipeline: &Pipeline, key: &str) -> Result<()> {
    let namespace = &pipeline.namespace;
    let topic = namespace.state_topic();
    let mut partition = None;
    each_record(namespace, &topic, |record| {
        if record.key() == Some(key.as_bytes()) {
            partition = Some(record.partition());
        }
        Ok(())
    })?;
    let partition = partition.context("the claim has no state in the topic")?;
    let producer: BaseProducer = namespace.kafka_client().create()?;
    producer
        .send(BaseRecord::<str, [u8]>::to(&topic).key(key).partition(partition))
        .map_err(|(error, _)| error)?;
    Ok(producer.flush(LIMIT)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_changed_and_removed_by_hand_are_found() -> Result<()> {
    let pipeline = fresh("verify", 3)?;
    let file = generate(&pipeline, EVENTS, 21)?;
    ingest(&pipeline, &file)?;
    process(&pipeline).await?;

    let (report, code) = verify(&pipeline, &["--full"])?;
    assert_eq!((code, report["differences_total"].as_u64()), (Some(0), Some(0)), "{report}");
    assert_eq!((report["records"].as_u64(), report["refused_records"].as_u64()), (Some(EVENTS), Some(0)));
    let claims = report["claims"].as_u64().context("claims")?;
    let (sample, _) = verify(&pipeline, &["--sample", "30", "--seed", "4"])?;
    assert!((30..33).contains(&sample["claims"].as_u64().context("claims")?), "{sample}");

    let name = &pipeline.namespace.name;
    let sql = async |sql: String| pipeline.namespace.clickhouse_sql(&sql).await;
    // Claims of one tenant, with events to spare.
    let chosen = format!(
        "SELECT claim_id, tenant_id, version FROM {name}.latest \
         WHERE revision >= 3 AND status != 'CREATED' AND tenant_id = (SELECT min(tenant_id) FROM {name}.latest) \
         ORDER BY claim_id LIMIT 8 FORMAT TSV"
    );
    let ids = sql(chosen).await?;
    let ids: Vec<Vec<&str>> = ids.lines().map(|line| line.split('\t').collect()).collect();
    let [changed, removed, fewer, gone, unlisted, listed_twice, untold, tombstone] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|i| ids[i][0]);
    let (tenant, last) = (ids[2][1], ids[2][2]);
    let session = pipeline.namespace.cql_session().await?;
    let of = |claim: &str| format!("tenant_id = '{tenant}' AND claim_id = '{claim}'");
    let table = format!("{name}.claim_by_id");
    session
        .query_unpaged(
            format!("UPDATE {table} SET title = 'another', note_count = 77 WHERE {}", of(changed)),
            (),
        )
        .await?;
    session.query_unpaged(format!("DELETE FROM {table} WHERE {}", of(removed)), ()).await?;
    let lists = format!("{name}.claims_by_status");
    let stands = async |claim: &str| -> Result<(String, i32, i16, CqlTimestamp)> {
        let select = format!(
            "SELECT status, bucket, shard, created_at FROM {lists} WHERE {} ALLOW FILTERING",
            of(claim)
        );
        Ok(session.query_unpaged(select, ()).await?.into_rows_result()?.single_row()?)
    };
    let (status, bucket, shard, created_at) = stands(unlisted).await?;
    session
        .query_unpaged(
            format!(
                "DELETE FROM {lists} WHERE {} AND status = ? AND bucket = ? AND shard = ? AND created_at = ?",
                of(unlisted)
            ),
            (status, bucket, shard, created_at),
        )
        .await?;
    let (_, bucket, shard, created_at) = stands(listed_twice).await?;
    session
        .query_unpaged(
            format!(
                "INSERT INTO {lists} (tenant_id, claim_id, status, bucket, shard, created_at, revision) \
                 VALUES ('{tenant}', '{listed_twice}', 'CREATED', ?, ?, ?, 1)"
            ),
            (bucket, shard, created_at),
        )
        .await?;
    let version = ids[6][2];
    let timeline = format!("{name}.claim_timeline");
    session
        .query_unpaged(format!("DELETE FROM {timeline} WHERE {} AND version = {version}", of(untold)), ())
        .await?;
    append_tombstone(&pipeline, &format!("{tenant}:{tombstone}"))?;
    let delete = async |condition: String| {
        sql(format!("ALTER TABLE {name}.event_log DELETE WHERE {condition} SETTINGS mutations_sync = 2"))
            .await
    };
    delete(format!("{} AND version = {last}", of(fewer))).await?;
    delete(of(gone)).await?;

    let (report, code) = verify(&pipeline, &["--full"])?;
    assert_eq!(code, Some(1), "{report}");
    let found = differences(&report);
    let told = |view: &str, claim: &str, what: &str| {
        assert!(
            found.iter().any(|(v, c, w)| v == view && c == claim && w.contains(what)),
            "{view} {claim} {what}: {found:?}"
        );
    };
    told("claim_by_id", changed, "title, note_count");
    told("claim_by_id", removed, "missing");
    told("latest", fewer, "revision");
    told("events", fewer, "events are as in the log");
    told("latest", gone, "missing");
    told("events", gone, "0 of");
    told("claims_by_status", unlisted, "missing");
    told("claims_by_status", listed_twice, "where it stood before");
    told("claim_timeline", untold, "entries are as in the log");
    told("state topic", tombstone, "erased");
    assert_eq!(found.len(), 10, "nothing else: {found:?}");
    assert!(!report.to_string().contains("another"), "values may be personal data");
    assert_eq!(report["claims"].as_u64(), Some(claims));
    let (report, _) = verify(&pipeline, &["--full", "--view", "current-state"])?;
    assert_eq!(differences(&report).len(), 6);
    remove(pipeline).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_system_is_not_reported_falsely() -> Result<()> {
    let pipeline = fresh("verify_live", 3)?;
    let files = [generate(&pipeline, EVENTS, 31)?, generate(&pipeline, 40_000, 32)?];
    ingest(&pipeline, &files[0])?;
    let mut running = PROCESSORS.iter().map(|name| pipeline.start(name)).collect::<Result<Vec<_>>>()?;
    pipeline.wait_until_caught_up(&mut running, LIMIT, |_, _| {}).await?;
    // Events of known claims once more and of new ones, while the views are looked at.
    let mut importing = Vec::new();
    for (name, file) in ["again", "more"].iter().zip(&files) {
        let file = file.display().to_string();
        importing.push(pipeline.spawn(name, &["ingest", "--json", "--format", "ndjson", &file])?);
    }
    for _ in 0..3 {
        let (report, code) = verify(&pipeline, &["--full", "--patience", "120s"])?;
        assert_eq!((code, report["differences_total"].as_u64()), (Some(0), Some(0)), "{report}");
        assert_eq!(report["not_judged"].as_array().map(Vec::len), Some(0), "{report}");
    }
    for import in &mut importing {
        until("the import is through", || match import.look()? {
            Some(status) if !status.success() => bail!("the import ended with {status}"),
            ended => Ok(ended.is_some()),
        })
        .await?;
    }
    pipeline.wait_until_caught_up(&mut running, LIMIT, |_, _| {}).await?;
    stop(running).await?;
    remove(pipeline).await
}
