//! One run: reset, import, process, verify, report.

mod report;

use crate::Args;
use anyhow::{Context, Result};
use claims_verifier::{
    checks::{self, Check},
    claim::Claims,
    model::Model,
    namespace::Namespace,
    pipeline::{PROCESSORS, Pipeline},
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The demo's topics, keyspace and database; each run begins by removing the last one's.
const NAMESPACE: &str = "claims_demo";

/// Lag must be gone within this long.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(1_800);

/// What a run has found.
pub struct Outcome {
    /// Rows and events in, by name.
    pub counts: Vec<(String, u64)>,
    /// Time, rate and memory of each stage.
    pub stages: Vec<Stage>,
    /// What every view should hold.
    pub model: Claims,
    /// Every comparison.
    pub checks: Vec<Check>,
}

/// One stage's figures.
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Events it has handled.
    pub events: u64,
    /// Most resident memory, where it is a process of ours.
    pub peak_rss_mib: Option<u64>,
}

/// Runs the demo; whether everything agreed.
pub async fn run(args: &Args) -> Result<bool> {
    let namespace = Namespace::new(NAMESPACE, &args.dir, args.partitions)?;
    let pipeline = Pipeline::new(namespace.clone())?;
    step("removing the last run's topics, keyspace and database");
    namespace.reset().await?;
    pipeline.prepare()?;

    let (accepted, import) = input(args, &pipeline)?;
    step("importing into Kafka");
    let start = Instant::now();
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    let summary = pipeline.run_json(&import)?;
    let seconds = start.elapsed().as_secs_f64();
    let count = |name: &str| {
        summary
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("`claims ingest --json` gave no {name}: {summary}"))
    };
    let emitted = count("events_emitted")?;
    let mut stages =
        vec![Stage { name: "ingest → Kafka".into(), seconds, events: emitted, peak_rss_mib: None }];

    step("processing until no lag is left");
    stages.extend(process(&pipeline, emitted).await?);

    step("comparing every view with the model");
    let model = Model::from_ndjson(&accepted)?;
    let mut counts = vec![
        ("rows read".to_owned(), count("rows_read")?),
        ("rows imported".to_owned(), count("rows_imported")?),
        ("rows without a change".to_owned(), count("rows_without_change")?),
        ("rows rejected".to_owned(), count("rows_rejected")?),
        ("events into Kafka".to_owned(), emitted),
        ("copies among them".to_owned(), model.copies),
        ("superseded among them".to_owned(), model.superseded),
        ("distinct events".to_owned(), model.distinct_events()),
    ];
    let reasons = summary.get("rejected_by_reason").and_then(serde_json::Value::as_object);
    for (reason, rows) in reasons.into_iter().flatten() {
        counts.insert(4, (format!("  {reason}"), rows.as_u64().unwrap_or(0)));
    }
    let mut checks = checks::all(&pipeline, &model, emitted).await?;
    checks.extend(checks::rows(&pipeline, &summary, 0)?);
    let outcome = Outcome { counts, stages, model: model.claims()?, checks };
    report::print(&outcome, &namespace).await?;

    let agreed = outcome.checks.iter().all(|check| check.problems.is_empty());
    let verdict = if agreed { "Every view agrees with the model." } else { "Views and model DISAGREE." };
    println!(
        "\n{verdict}\nLeft to look at: ClickHouse database and CQL keyspace `{NAMESPACE}`; logs and audit"
    );
    println!("segments in {}. The next demo removes them.", namespace.dir.display());
    Ok(agreed)
}

/// The accepted events as canonical NDJSON (for the model), and the arguments that import the input.
fn input(args: &Args, pipeline: &Pipeline) -> Result<(PathBuf, Vec<String>)> {
    let accepted = pipeline.namespace.dir.join("events.ndjson");
    let text = |path: &Path| path.display().to_string();
    if let (Some(input), Some(mapping)) = (&args.input, &args.mapping) {
        let input = input.canonicalize().with_context(|| format!("input {}", input.display()))?;
        let mapping = mapping.canonicalize().with_context(|| format!("mapping {}", mapping.display()))?;
        step("mapping the file's rows to events (for the model)");
        let (input, mapping, output) = (text(&input), text(&mapping), text(&accepted));
        pipeline.run_json(&[
            "ingest",
            "--dry-run",
            "--json",
            "--format",
            "csv",
            "--mapping",
            &mapping,
            "--output",
            &output,
            &input,
        ])?;
        let import =
            ["ingest", "--json", "--format", "csv", "--mapping", &mapping, &input].map(str::to_owned);
        return Ok((accepted, import.to_vec()));
    }
    step(&format!("generating {} events", claims_verifier::numbers::thousands(args.events)));
    let (events, seed, output) = (args.events.to_string(), args.seed.to_string(), text(&accepted));
    pipeline.run(&["generate", "--events", &events, "--seed", &seed, "--output", &output])?;
    Ok((accepted, ["ingest", "--json", "--format", "ndjson", &output].map(str::to_owned).to_vec()))
}

/// All processors at once, each a process of its own, from an empty state to lag zero, then a graceful stop.
async fn process(pipeline: &Pipeline, events: u64) -> Result<Vec<Stage>> {
    let mut running = PROCESSORS.iter().map(|name| pipeline.start(name)).collect::<Result<Vec<_>>>()?;
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:14} {bar:40} {pos}/{len} {per_sec} {eta}")?;
    let by_name: HashMap<&str, ProgressBar> = PROCESSORS
        .iter()
        .map(|name| (*name, bars.add(ProgressBar::new(events).with_style(style.clone()).with_prefix(*name))))
        .collect();
    let took = pipeline
        .wait_until_caught_up(&mut running, CATCH_UP_LIMIT, |name, lag| {
            if let Some(bar) = by_name.get(name) {
                bar.set_position(events.saturating_sub(lag));
            }
        })
        .await?;
    for bar in by_name.values() {
        bar.abandon();
    }
    let mut stages = Vec::new();
    for process in running {
        let (name, peak) = (process.processor.clone(), process.peak_rss_mib());
        let log = process.log.clone();
        let status = process.stop().await?;
        anyhow::ensure!(status.success(), "{name} ended with {status} after SIGTERM; see {}", log.display());
        let seconds = took.iter().find(|(n, _)| *n == name).map_or(0.0, |(_, took)| took.as_secs_f64());
        stages.push(Stage { name, seconds, events, peak_rss_mib: Some(peak) });
    }
    Ok(stages)
}

fn step(what: &str) {
    eprintln!("» {what}");
}
