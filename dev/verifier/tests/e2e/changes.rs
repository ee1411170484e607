//! What changes behind the pipeline's back: a row of a file since its last import, and a claim that must be forgotten.

use crate::support::{assert_views, fresh, generate, ingest, process, remove};
use anyhow::{Context, Result};
use claims_verifier::{model::Model, pipeline::Pipeline};
use serde_json::{Value, json};
use std::path::Path;

const MAPPING: &str = r#"
kind = "case-per-row"
source = "shop"
[csv]
dates = ["%Y-%m-%d"]
[case]
id = { column = "no" }
[[event]]
type = "ClaimCreated"
version = 1
at = { column = "received" }
[event.data]
customer_id = { column = "customer" }
claim_type = "delivery"
description = { column = "text" }
urgency = "low"
[[event]]
type = "ClaimClosed"
version = 2
at = { column = "closed" }
when = { column = "closed", present = true }
[event.data]
closed_by = "shop"
"#;

/// Imports a CSV file; the events that the mapping makes of it are added to the model.
fn import(pipeline: &Pipeline, model: &mut Model, name: &str, text: &str) -> Result<()> {
    let dir = &pipeline.namespace.dir;
    let path = |file: String| dir.join(file).display().to_string();
    let (file, mapping) = (path(format!("{name}.csv")), path("mapping.toml".into()));
    let accepted = path(format!("{name}.ndjson"));
    std::fs::write(&file, text)?;
    std::fs::write(&mapping, MAPPING)?;
    let args = ["ingest", "--format", "csv", "--mapping", &mapping, "--json"];
    pipeline.run_json(&[&args[..], &["--dry-run", "--output", &accepted, &file]].concat())?;
    pipeline.run_json(&[&args[..], &[file.as_str()]].concat())?;
    model.add_ndjson(Path::new(&accepted))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_since_the_last_import_is_a_reported_conflict() -> Result<()> {
    let pipeline = fresh("changed", 2)?;
    let mut model = Model::default();
    let monday = "no,received,customer,text,closed\n\
        A,2025-03-03,k1,torn,\nB,2025-03-03,k2,late,2025-03-04\nC,2025-03-03,k3,wet,\n";
    // B says something else than on Monday, C has been closed, D is new.
    let tuesday = "no,received,customer,text,closed\n\
        A,2025-03-03,k1,torn,\nB,2025-03-03,k2,never came,2025-03-04\nC,2025-03-03,k3,wet,2025-03-04\n\
        D,2025-03-04,k4,broken,\n";
    import(&pipeline, &mut model, "monday", monday)?;
    process(&pipeline).await?;
    import(&pipeline, &mut model, "tuesday", tuesday)?;
    process(&pipeline).await?;
    assert_eq!((model.superseded, model.distinct_events()), (1, 6), "what this test is about");
    assert_views(&pipeline, &model).await?;

    let list = pipeline.run_json(&["dead-letters", "list", "--json"])?;
    let letters = list.as_array().context("a list of dead letters")?;
    let [letter] = letters.as_slice() else { anyhow::bail!("one conflict, but {list}") };
    let header = |name: &str| letter["headers"][name].as_str().map(str::to_owned);
    assert_eq!(header("processor").as_deref(), Some("current-state"));
    assert_eq!(header("reason").as_deref(), Some("superseded"));
    assert_eq!(header("original-topic"), Some(pipeline.namespace.events_topic.clone()));
    assert!(letter["key"].as_str().is_some_and(|key| key.starts_with("default:B:")), "{letter}");

    let description = "SELECT description FROM DB.latest WHERE claim_id = 'B'";
    let sql = description.replace("DB", &pipeline.namespace.name);
    assert_eq!(pipeline.namespace.clickhouse_sql(&sql).await?.trim(), "late", "the first import stands");
    remove(pipeline).await
}

fn event(claim: &str, version: u64, event_type: &str, data: Value) -> Value {
    json!({
        "event_id": uuid::Uuid::new_v4(), "event_type": event_type, "tenant_id": "default", "claim_id": claim,
        "version": version, "occurred_at": format!("2025-03-0{version}T00:00:00.000Z"), "data": data,
    })
}

fn write_lines(path: &Path, events: &[Value]) -> Result<()> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    Ok(std::fs::write(path, lines)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_claim_is_found_in_no_view() -> Result<()> {
    let pipeline = fresh("erased", 2)?;
    let others = generate(&pipeline, 2_000, 4)?;
    let created = json!({
        "customer_id": "SECRET-id", "customer_name": "SECRET-name", "customer_email": "SECRET@example.org",
        "claim_type": "delivery", "title": "SECRET-title", "description": "SECRET-description",
        "order_id": "SECRET-order", "urgency": "high",
    });
    let life = [
        event("forget-me", 1, "ClaimCreated", created),
        event("forget-me", 2, "ClaimAssigned", json!({"agent_id": "a1", "agent_name": "Agent One"})),
        event("forget-me", 3, "ClaimNoteAdded", json!({"note": "SECRET-note"})),
        event(
            "forget-me",
            4,
            "ClaimResolved",
            json!({"resolution": "SECRET-resolution", "resolution_type": "refund", "replacement_tracking": "SECRET-parcel"}),
        ),
    ];
    let (before, after) = (pipeline.namespace.dir.join("life"), pipeline.namespace.dir.join("erasure"));
    write_lines(&before, &life)?;
    // The erasure, and a straggler that was on its way when it came.
    let straggler = event("forget-me", 6, "ClaimNoteAdded", json!({"note": "SECRET-straggler"}));
    write_lines(&after, &[event("forget-me", 5, "ClaimErased", json!({})), straggler])?;

    ingest(&pipeline, &others)?;
    ingest(&pipeline, &before)?;
    process(&pipeline).await?;
    assert!(shown(&pipeline).await?.contains("SECRET-name"), "what is to be erased was there");
    ingest(&pipeline, &after)?;
    // A repeated import brings the whole life once more, behind the erasure.
    ingest(&pipeline, &before)?;
    process(&pipeline).await?;

    let mut model = Model::from_ndjson(&others)?;
    for file in [&before, &after, &before] {
        model.add_ndjson(file)?;
    }
    assert_views(&pipeline, &model).await?;
    let shown = shown(&pipeline).await?;
    assert!(shown.contains("forget-me"), "that the claim was erased is shown");
    if let Some(at) = shown.find("SECRET") {
        anyhow::bail!("personal data of an erased claim: {}", shown.get(at..at + 60).unwrap_or_default());
    }
    remove(pipeline).await
}

/// All that the views show, as text.
async fn shown(pipeline: &Pipeline) -> Result<String> {
    let namespace = &pipeline.namespace;
    let mut shown = String::new();
    for view in ["latest", "events"] {
        let sql = format!("SELECT * FROM {}.{view} FORMAT JSONEachRow", namespace.name);
        shown += &namespace.clickhouse_sql(&sql).await?;
    }
    let session = namespace.cql_session().await?;
    for table in [
        "claim_by_id",
        "claim_timeline",
        "claims_by_status",
        "claims_by_assignee",
        "claims_by_customer",
        "claims_by_created",
    ] {
        let sql = format!("SELECT JSON * FROM {}.{table}", namespace.name);
        let rows = session.query_unpaged(sql, ()).await?.into_rows_result()?;
        for row in rows.rows::<(String,)>()? {
            shown += &row?.0;
        }
    }
    Ok(shown)
}
