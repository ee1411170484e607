//! `claims verify` on views that are right, on views changed by hand, and while events come in.

use crate::support::{LIMIT, fresh, generate, ingest, process, remove, stop, until};
use anyhow::{Context, Result, bail};
use claims_verifier::pipeline::{PROCESSORS, Pipeline};
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
         WHERE revision >= 3 AND tenant_id = (SELECT min(tenant_id) FROM {name}.latest) \
         ORDER BY claim_id LIMIT 4 FORMAT TSV"
    );
    let ids = sql(chosen).await?;
    let ids: Vec<Vec<&str>> = ids.lines().map(|line| line.split('\t').collect()).collect();
    let [changed, removed, fewer, gone] = [0, 1, 2, 3].map(|i| ids[i][0]);
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
    assert_eq!(found.len(), 6, "nothing else: {found:?}");
    assert!(!report.to_string().contains("another"), "values may be personal data");
    assert_eq!(report["claims"].as_u64(), Some(claims));
    let (report, _) = verify(&pipeline, &["--full", "--view", "current-state"])?;
    assert_eq!(differences(&report).len(), 2);
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
