//! What every test here does: a namespace of its own, events in, processors on, views compared.

use anyhow::{Context, Result};
use claims_verifier::{
    checks,
    model::Model,
    namespace::Namespace,
    pipeline::{PROCESSORS, Pipeline, Running},
    views::topics,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// No step of a test may take longer.
pub const LIMIT: Duration = Duration::from_secs(240);

/// A pipeline in a namespace of its own, topics and schemas in place.
pub fn fresh(name: &str, partitions: i32) -> Result<Pipeline> {
    let unique = format!("e2e_{name}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&unique);
    let pipeline = Pipeline::new(Namespace::new(&unique, &dir, partitions)?)?;
    pipeline.prepare()?;
    Ok(pipeline)
}

/// Removes what a test has made; after a failure it stays, to be looked at.
pub async fn remove(pipeline: Pipeline) -> Result<()> {
    pipeline.namespace.reset().await?;
    std::fs::remove_dir_all(&pipeline.namespace.dir)?;
    Ok(())
}

/// A file of generated events.
pub fn generate(pipeline: &Pipeline, events: u64, seed: u64) -> Result<PathBuf> {
    let path = pipeline.namespace.dir.join(format!("events-{seed}.ndjson"));
    let (events, seed, output) = (events.to_string(), seed.to_string(), path.display().to_string());
    pipeline.run(&["generate", "--events", &events, "--seed", &seed, "--output", &output])?;
    Ok(path)
}

/// Imports a file of canonical events; how many were emitted.
pub fn ingest(pipeline: &Pipeline, file: &Path) -> Result<u64> {
    let file = file.display().to_string();
    emitted(&pipeline.run_json(&["ingest", "--json", "--format", "ndjson", &file])?)
}

/// The count of emitted events in an import's summary.
pub fn emitted(summary: &serde_json::Value) -> Result<u64> {
    summary.get("events_emitted").and_then(serde_json::Value::as_u64).context("no events_emitted")
}

/// The first lines of a file, as a file beside it.
pub fn head(file: &Path, lines: usize) -> Result<PathBuf> {
    let text = std::fs::read_to_string(file)?;
    let path = file.with_extension(format!("head-{lines}"));
    let head: String = text.split_inclusive('\n').take(lines).collect();
    std::fs::write(&path, head)?;
    Ok(path)
}

/// All three processors from where they stand to the end of the log, and a graceful stop.
pub async fn process(pipeline: &Pipeline) -> Result<()> {
    let mut running = PROCESSORS.iter().map(|name| pipeline.start(name)).collect::<Result<Vec<_>>>()?;
    pipeline.wait_until_caught_up(&mut running, LIMIT, |_, _| {}).await?;
    stop(running).await
}

/// SIGTERM for all; each must end with exit code 0 in time.
pub async fn stop(running: Vec<Running>) -> Result<()> {
    for process in running {
        let name = process.processor.clone();
        let status = process.stop().await?;
        anyhow::ensure!(status.success(), "{name} ended with {status}");
    }
    Ok(())
}

/// Every view agrees with the model; the audit holds every record that the log holds.
pub async fn assert_views(pipeline: &Pipeline, model: &Model) -> Result<()> {
    checks::assert_agree(pipeline, model, records(pipeline)?).await
}

/// Records in the events topic, counted by reading them (a compacted log has fewer than its offsets say).
pub fn records(pipeline: &Pipeline) -> Result<u64> {
    let mut records = 0;
    topics::each_record(&pipeline.namespace, &pipeline.namespace.events_topic, |_| {
        records += 1;
        Ok(())
    })?;
    Ok(records)
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        anyhow::ensure!(start.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A file of the shared test data; `None`, said aloud, where it isn't there.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir =
        std::env::var_os("CLAIMS_SHARED_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let path = dir.join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there; set CLAIMS_SHARED_DATA to its folder", path.display());
    None
}

/// A mapping that ships with the project.
pub fn mapping(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mappings").join(name).display().to_string()
}

/// As [`assert_views`], where the audit must hold another number of records than the log has.
pub async fn assert_views_besides(pipeline: &Pipeline, model: &Model, audited: u64) -> Result<()> {
    checks::assert_agree(pipeline, model, audited).await
}
