//! Real files: every row accounted for, figures computed elsewhere, and imports that overlap or break off.

use crate::support::{assert_views, emitted, fresh, mapping, process, remove, shared_data, until};
use anyhow::{Context, Result};
use claims_verifier::{checks, model::Model, pipeline::Pipeline};
use std::{io::Write, path::Path, process::Command, sync::mpsc, thread};

struct Import {
    model: Model,
    summary: serde_json::Value,
    args: Vec<String>,
}

/// Imports a file by a mapping, and makes the model of it.
fn import(pipeline: &Pipeline, file: &Path, mapping: &str) -> Result<Import> {
    let (file, output) =
        (file.canonicalize()?.display().to_string(), pipeline.namespace.dir.join("accepted.ndjson"));
    let accepted = output.display().to_string();
    let dry = [
        "ingest",
        "--dry-run",
        "--json",
        "--format",
        "csv",
        "--mapping",
        mapping,
        "--output",
        &accepted,
        &file,
    ];
    pipeline.run_json(&dry)?;
    let args =
        ["ingest", "--json", "--format", "csv", "--mapping", mapping, &file].map(str::to_owned).to_vec();
    let refused_before = checks::refused_rows(pipeline)?;
    let summary = run(pipeline, &args)?;
    for check in checks::rows(pipeline, &summary, refused_before)? {
        assert!(check.problems.is_empty(), "{}: {:?}; {summary}", check.name, check.problems);
    }
    Ok(Import { model: Model::from_ndjson(&output)?, summary, args })
}

fn run(pipeline: &Pipeline, args: &[String]) -> Result<serde_json::Value> {
    pipeline.run_json(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn count(summary: &serde_json::Value, name: &str) -> Result<u64> {
    summary.get(name).and_then(serde_json::Value::as_u64).with_context(|| format!("no {name} in {summary}"))
}

async fn sql(pipeline: &Pipeline, sql: &str) -> Result<String> {
    let sql = sql.replace(" FROM latest", &format!(" FROM {}.latest", pipeline.namespace.name));
    Ok(pipeline.namespace.clickhouse_sql(&sql).await?.trim().to_owned())
}

/// A named pipe through which the first half of a file comes, and no end as long as the answer is held: whoever reads it is
/// killed half-way, however fast it is.
fn half_of(file: &Path, pipe: &Path) -> Result<mpsc::Sender<()>> {
    let made = Command::new("mkfifo").arg(pipe).status().context("mkfifo")?;
    anyhow::ensure!(made.success(), "mkfifo {}", pipe.display());
    let (bytes, pipe) = (std::fs::read(file)?, pipe.to_owned());
    let (held, end) = mpsc::channel();
    thread::spawn(move || {
        let mut writer = std::fs::File::options().write(true).open(pipe)?;
        // The reader may be killed before it has read all of it.
        let _ = writer.write_all(&bytes[..bytes.len() / 2]);
        let _ = end.recv();
        std::io::Result::Ok(())
    });
    Ok(held)
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_imported_twice_and_once_broken_off() -> Result<()> {
    let Some(file) = shared_data("incident_event_log.csv.gz") else { return Ok(()) };
    let pipeline = fresh("incidents", 6)?;
    let mapping = mapping("incident_event_log.toml");

    // An import that dies half-way …
    let pipe = pipeline.namespace.dir.join("incident_event_log.csv.gz");
    let writer = half_of(&file, &pipe)?;
    let path = pipe.display().to_string();
    let dying =
        pipeline.spawn("dying-import", &["ingest", "--format", "csv", "--mapping", &mapping, &path])?;
    until("some events of the dying import have arrived", || Ok(pipeline.lag("none")?.0 > 10_000)).await?;
    dying.kill()?;
    drop(writer);
    let broken_off = pipeline.lag("none")?.0;

    // … and is repeated.
    let import = import(&pipeline, &file, &mapping)?;
    let events = emitted(&import.summary)?;
    assert!(broken_off < events, "the import was whole: {broken_off} of {events}");
    assert_eq!(count(&import.summary, "rows_read")?, 141_712);
    process(&pipeline).await?;
    assert_views(&pipeline, &import.model).await?;
    assert_eq!(
        sql(&pipeline, "SELECT count(), countIf(status = 'CLOSED') FROM latest").await?,
        "24918\t24918"
    );
    assert_eq!(sql(&pipeline, "SELECT count() FROM latest WHERE agent_id = 'Resolver 13'").await?, "2982");
    assert_eq!(sql(&pipeline, "SELECT count() FROM latest WHERE agent_id IS NULL").await?, "658");

    // The same file again, after a restart on a machine that has lost its local stores.
    std::fs::remove_dir_all(pipeline.namespace.state_dir())?;
    assert_eq!(emitted(&run(&pipeline, &import.args)?)?, events);
    process(&pipeline).await?;
    assert_views(&pipeline, &import.model).await?;
    remove(pipeline).await
}

#[tokio::test(flavor = "multi_thread")]
async fn passenger_claims_with_their_amounts() -> Result<()> {
    let Some(file) = shared_data("tsa_claims_2010_2013.csv.gz") else { return Ok(()) };
    let pipeline = fresh("tsa", 3)?;
    let import = import(&pipeline, &file, &mapping("tsa_claims.toml"))?;
    assert_eq!((count(&import.summary, "rows_read")?, count(&import.summary, "rows_rejected")?), (41_598, 1));
    process(&pipeline).await?;
    assert_views(&pipeline, &import.model).await?;
    assert_eq!(sql(&pipeline, "SELECT count(), sum(settled_amount) FROM latest").await?, "41597\t2802894.52");
    assert_eq!(sql(&pipeline, "SELECT countIf(resolution_type IS NULL) FROM latest").await?, "6949");
    remove(pipeline).await
}

#[tokio::test(flavor = "multi_thread")]
async fn complaints_and_a_record_cut_off() -> Result<()> {
    let Some(file) = shared_data("cfpb_complaints_2023.csv.gz") else { return Ok(()) };
    let pipeline = fresh("cfpb", 3)?;
    let import = import(&pipeline, &file, &mapping("cfpb_complaints.toml"))?;
    assert_eq!((count(&import.summary, "rows_read")?, count(&import.summary, "rows_rejected")?), (2_068, 1));
    process(&pipeline).await?;
    assert_views(&pipeline, &import.model).await?;
    assert_eq!(sql(&pipeline, "SELECT count() FROM latest").await?, "2067");
    remove(pipeline).await
}
