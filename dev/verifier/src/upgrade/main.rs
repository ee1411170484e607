//! A rolling upgrade: an older and a newer build of `claims` side by side in the same consumer groups, while events come
//! in and their schema grows by a field. Exit 0 only if every view agrees with the model afterwards.
//! `cargo xtask upgrade` builds the older one from a commit and runs this.

mod grown;

use anyhow::{Context, Result, ensure};
use claims_verifier::{
    checks,
    model::Model,
    namespace::{Namespace, REQUEST_TIMEOUT},
    pipeline::{PROCESSORS, Pipeline, Running},
    views::{cql, topics},
};
use clap::Parser;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// No step may take longer.
const LIMIT: Duration = Duration::from_secs(300);
/// What a build logs of a record that has what it doesn't know.
const NEEDS_UPGRADE: &str = "upgrade this processor";
/// Between two looks at a group or its lag.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs an older and a newer build of `claims` in one group and checks every view.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask upgrade")]
struct Args {
    /// The older build of `claims`
    #[arg(long)]
    older: PathBuf,
    /// The newer one, whose schema of events has one field more
    #[arg(long)]
    newer: PathBuf,
    /// How many events to generate
    #[arg(long, default_value_t = 30_000)]
    events: u64,
    /// Seed of the generated events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the run's files
    #[arg(long, default_value = ".claims/upgrade")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match upgrade(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn upgrade(args: &Args) -> Result<()> {
    let namespace = Namespace::new("claims_upgrade", &args.dir, 4)?;
    namespace.reset().await?;
    // What an earlier run's processes said must not be taken for this one's.
    let logs = namespace.dir.join("logs");
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    let this = Pipeline::new(namespace)?;
    let older = this.clone().with_binary(&args.older.canonicalize().context("the older build")?);
    let newer = this.clone().with_binary(&args.newer.canonicalize().context("the newer build")?);
    older.prepare()?;
    let parts = parts(&this, args)?;

    println!("» older build: a member of each group, and the first third of the events");
    let mut former = start(&older, "older")?;
    ingest(&older, &parts[0])?;
    println!("» newer members join, and the schema grows by a field, which every new claim has");
    newer.prepare()?;
    let grown = grown::records(&older, &parts[1]).await?;
    let half = grown.records.len() / 2;
    grown.produce(&newer, ..half)?;
    let mut current = start(&newer, "newer")?;
    for processor in PROCESSORS {
        wait(&format!("two members in the group of {processor}"), || members(&newer, processor, 2)).await?;
    }
    grown.produce(&newer, half..)?;
    wait("the older members wait for the upgrade", || {
        former.iter_mut().chain(&mut current).try_for_each(Running::check)?;
        former.iter().try_fold(true, |all, member| Ok(all && waits_for_upgrade(member)?))
    })
    .await?;
    println!("» they hold what they don't know; one after the other they leave, under load");
    let (last, part) = (newer.clone(), parts[2].clone());
    let ingesting = tokio::task::spawn_blocking(move || ingest(&last, &part));
    stop(former).await?;
    ingesting.await??;
    newer.wait_until_caught_up(&mut current, LIMIT, |_, _| {}).await?;
    stop(current).await?;

    println!("» comparing every view with the model");
    let mut model = Model::default();
    parts.iter().try_for_each(|part| model.add_ndjson(part))?;
    let mut records = 0;
    topics::each_record(&newer.namespace, &newer.namespace.events_topic, |_| {
        records += 1;
        Ok(())
    })?;
    ensure!(records == model.events_in, "{records} records in the log, {} were sent", model.events_in);
    checks::assert_agree(&newer, &model, records).await?;
    let said = check_words(&newer, &parts).await?;
    println!(
        "{records} events, {} of them by the grown schema, through older and newer members: every view agrees, and the \
         timelines of {said} claims say what the older build didn't know.",
        grown.records.len()
    );
    newer.namespace.reset().await
}

/// What the new field says is in the timeline of every claim that has it, whoever read the event first. How many there are.
async fn check_words(pipeline: &Pipeline, parts: &[PathBuf; 3]) -> Result<usize> {
    let [former, grown, later] = parts.each_ref().map(|part| created(part));
    // A copy by the former schema has the same id.
    let wanted: BTreeSet<Uuid> = &(&grown? - &former?) - &later?;
    ensure!(!wanted.is_empty(), "no new claim has the field");
    let mut missing = wanted.clone();
    let session = pipeline.namespace.cql_session().await?;
    cql::timeline_words(&session, &pipeline.namespace.name, |event_id, words| {
        if words.ends_with(&format!(", by way of {}", grown::CHANNEL)) {
            missing.remove(event_id);
        }
    })
    .await?;
    ensure!(
        missing.is_empty(),
        "{} of {} claims have lost the new field on the way to their timelines, that of event {:?} among them",
        missing.len(),
        wanted.len(),
        missing.first()
    );
    Ok(wanted.len())
}

/// Ids of the events of a file that create a claim.
fn created(file: &Path) -> Result<BTreeSet<Uuid>> {
    #[derive(Deserialize)]
    struct Line {
        event_id: Uuid,
        event_type: String,
    }
    let text = std::fs::read_to_string(file)?;
    let mut ids = BTreeSet::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line)?;
        if line.event_type == grown::GROWING {
            ids.insert(line.event_id);
        }
    }
    Ok(ids)
}

/// The events in three files.
fn parts(pipeline: &Pipeline, args: &Args) -> Result<[PathBuf; 3]> {
    let dir = &pipeline.namespace.dir;
    let file = dir.join("events.ndjson");
    let (events, seed, output) = (args.events.to_string(), args.seed.to_string(), file.display().to_string());
    pipeline.run(&["generate", "--events", &events, "--seed", &seed, "--output", &output])?;
    let text = std::fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let third = lines.len().div_ceil(3).max(1);
    let mut parts = Vec::new();
    for (number, lines) in lines.chunks(third).enumerate() {
        let path = dir.join(format!("part-{number}.ndjson"));
        std::fs::write(&path, lines.concat())?;
        parts.push(path);
    }
    parts.try_into().map_err(|_| anyhow::anyhow!("--events is too small for three parts"))
}

fn ingest(pipeline: &Pipeline, file: &Path) -> Result<()> {
    pipeline.run(&["ingest", "--format", "ndjson", &file.display().to_string()]).map(drop)
}

fn start(pipeline: &Pipeline, build: &str) -> Result<Vec<Running>> {
    PROCESSORS
        .iter()
        .map(|processor| {
            let mut running = pipeline.spawn(&format!("{processor}-{build}"), &["run", processor])?;
            running.processor = (*processor).to_owned();
            Ok(running)
        })
        .collect()
}

async fn stop(running: Vec<Running>) -> Result<()> {
    for process in running {
        let (name, log) = (process.processor.clone(), process.log.clone());
        let status = process.stop().await?;
        ensure!(status.success(), "{name} ended with {status}; see {}", log.display());
    }
    Ok(())
}

/// Whether a member has said that a record needs a newer build.
fn waits_for_upgrade(member: &Running) -> Result<bool> {
    Ok(std::fs::read_to_string(&member.log)?.contains(NEEDS_UPGRADE))
}

fn members(pipeline: &Pipeline, processor: &str, wanted: usize) -> Result<bool> {
    let consumer: BaseConsumer = pipeline.namespace.kafka_client().create()?;
    let group = pipeline.namespace.group(processor);
    let list = consumer.fetch_group_list(Some(&group), REQUEST_TIMEOUT)?;
    Ok(list.groups().iter().any(|g| g.state() == "Stable" && g.members().len() == wanted))
}

async fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !condition()? {
        ensure!(begun.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
