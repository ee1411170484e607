//! A rolling upgrade: an older and a newer build of `claims` side by side in the same consumer groups, while both write
//! events, the newer one with a field that the older one doesn't know. Exit 0 only if every view agrees with the model
//! afterwards.
//! `cargo xtask upgrade` builds the older one from a commit and runs this.

mod grown;

use anyhow::{Context, Result, ensure};
use claims_verifier::{
    checks,
    model::Model,
    namespace::{Namespace, REQUEST_TIMEOUT},
    pipeline::{PROCESSORS, Pipeline, Running},
    views::{audit, cql, topics},
};
use clap::Parser;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    ops::Range,
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
    let older = Pipeline::of_build(namespace.clone(), args.older.canonicalize().context("the older build")?);
    let newer = Pipeline::of_build(namespace, args.newer.canonicalize().context("the newer build")?);
    older.prepare()?;
    let parts = Parts::new(&older, args)?;
    let begun = Instant::now();
    roll(&older, &newer, &parts).await?;
    let took = begun.elapsed();
    let (records, said) = compare(&older, &newer, &parts).await?;
    println!(
        "{records} events through older and newer members in {} s: every view agrees, and the timelines of {said} claims \
         say what the older build didn't know.",
        took.as_secs()
    );
    newer.namespace.reset().await
}

/// From older members alone to newer ones alone, while events come in.
async fn roll(older: &Pipeline, newer: &Pipeline, parts: &Parts) -> Result<()> {
    println!("» older build: a member of each group, and the first third of the events");
    let mut former = start(older, "older")?;
    ingest(older, &parts.former)?;
    println!(
        "» newer ingress writes by the grown schema, every new claim with the field; newer members join"
    );
    newer.prepare()?;
    ingest(newer, &parts.grown[0])?;
    let mut current = start(newer, "newer")?;
    groups_have(newer, 2).await?;
    ingest(newer, &parts.grown[1])?;
    wait("the older members wait for the upgrade", || {
        check(&mut former, &mut current)?;
        former.iter().try_fold(true, |all, member| Ok(all && waits_for_upgrade(member)?))
    })
    .await?;
    println!(
        "» the older members are started anew beside the newer ones, and older ingress writes once more"
    );
    stop(former).await?;
    let mut former = start(older, "older-again")?;
    groups_have(newer, 2).await?;
    ingest(older, &parts.late)?;
    wait("the older members have done or hold what is theirs", || {
        check(&mut former, &mut current)?;
        former.iter().try_fold(true, |all, member| {
            Ok(all && (waits_for_upgrade(member)? || newer.lag(&member.processor)?.0 == 0))
        })
    })
    .await?;
    println!("» newer members take their places, under load");
    let (last, part) = (newer.clone(), parts.grown[2].clone());
    let ingesting = tokio::task::spawn_blocking(move || ingest(&last, &part));
    stop(former).await?;
    let mut second = start(newer, "newer-second")?;
    groups_have(newer, 2).await?;
    ingesting.await??;
    newer.wait_until_caught_up(&mut current, LIMIT, |_, _| {}).await?;
    check(&mut second, &mut current)?;
    stop(second).await?;
    stop(current).await
}

/// Every view must agree with the model. How many records and how many claims with the new field there are.
async fn compare(older: &Pipeline, newer: &Pipeline, parts: &Parts) -> Result<(u64, usize)> {
    println!("» comparing every view with the model");
    let mut model = Model::default();
    parts.in_order().try_for_each(|part| model.add_ndjson(part))?;
    let mut records = 0;
    topics::each_record(&newer.namespace, &newer.namespace.events_topic, |_| {
        records += 1;
        Ok(())
    })?;
    ensure!(records == model.events_in, "{records} records in the log, {} were sent", model.events_in);
    checks::assert_agree(newer, &model, records).await?;
    let trail = audit::check(older, records)?;
    ensure!(trail.problems.is_empty(), "the older build on the audit trail: {}", trail.problems.join("; "));
    Ok((records, check_words(newer, parts).await?))
}

/// What the new field says is in the timeline of every claim that has it, whoever read the event first. How many there are.
async fn check_words(pipeline: &Pipeline, parts: &Parts) -> Result<usize> {
    let mut wanted = BTreeSet::new();
    for part in &parts.grown {
        wanted.append(&mut created(part)?);
    }
    for part in [&parts.former, &parts.late] {
        // A copy by the former schema has the same id.
        wanted = &wanted - &created(part)?;
    }
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

/// The events in files.
struct Parts {
    /// Written by the older build.
    former: PathBuf,
    /// Have the new field and are written by the newer build: before its members join, after that, and at the end.
    grown: [PathBuf; 3],
    /// Written by the older build when the newer one already writes: between the second of those and the third.
    late: PathBuf,
}

impl Parts {
    fn new(pipeline: &Pipeline, args: &Args) -> Result<Self> {
        let dir = &pipeline.namespace.dir;
        let file = dir.join("events.ndjson");
        let (events, seed, output) =
            (args.events.to_string(), args.seed.to_string(), file.display().to_string());
        pipeline.run(&["generate", "--events", &events, "--seed", &seed, "--output", &output])?;
        let text = std::fs::read_to_string(&file)?;
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let sixth = (lines.len() / 6).max(1);
        let part = |name: &str, sixths: Range<usize>| -> Result<PathBuf> {
            let end = if sixths.end == 6 { lines.len() } else { sixths.end * sixth };
            let lines =
                lines.get(sixths.start * sixth..end).context("--events is too small for six parts")?;
            let path = dir.join(format!("{name}.ndjson"));
            std::fs::write(&path, lines.concat())?;
            Ok(path)
        };
        Ok(Self {
            former: part("former", 0..2)?,
            grown: [
                grown::file(&part("first", 2..3)?)?,
                grown::file(&part("second", 3..4)?)?,
                grown::file(&part("third", 5..6)?)?,
            ],
            late: part("late", 4..5)?,
        })
    }

    fn in_order(&self) -> impl Iterator<Item = &PathBuf> {
        let [first, second, third] = &self.grown;
        [&self.former, first, second, &self.late, third].into_iter()
    }
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

/// No member has ended.
fn check(some: &mut [Running], others: &mut [Running]) -> Result<()> {
    some.iter_mut().chain(others).try_for_each(Running::check)
}

async fn groups_have(pipeline: &Pipeline, wanted: usize) -> Result<()> {
    for processor in PROCESSORS {
        let what = format!("{wanted} members in the group of {processor}");
        wait(&what, || members(pipeline, processor, wanted)).await?;
    }
    Ok(())
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
