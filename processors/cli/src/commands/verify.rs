//! `claims verify`: whether the views show what the log holds, while everything runs.

use crate::{
    decoder::Decoder,
    output,
    reader::Reader,
    verify::{
        log::{Folded, Seen, Whose, fold},
        sample::Sample,
        views::{Difference, Views},
    },
};
use claims_topology::{Config, kafka::group_id};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Compare views with the log, on a running system
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the events up to what the processors have committed, folds them, and compares claims: CQL claim_by_id, the lists \
(that a claim stands where it must, and nowhere else that it has ever stood) and the timeline; the last record of the \
claim in the state topic, which is the one that compaction keeps; ClickHouse latest and events. A claim that changes meanwhile is looked at again once the processors have caught up with it; one \
that they don't get to in time is told as not judged. Columns that differ are named, without their values.

The whole log is read, one partition after the other; in memory are the claims of one partition. Not checked: rows of \
claims that the log doesn't know, and the audit trail (`claims audit verify`).

Examples:
  claims verify
  claims verify --sample 10000 --view analytics
  claims verify --full --json

Exit codes: 0 no difference, 1 differences, or claims not judged, or failed, 2 wrong usage.")]
pub struct VerifyArgs {
    /// So many claims, chosen by chance
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Every claim
    #[arg(long, conflicts_with = "sample")]
    full: bool,
    /// Chooses the sample: the same number chooses the same claims (default: by chance)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only the views of this processor
    #[arg(long, value_name = "PROCESSOR", value_parser = [claims_current_state::NAME, claims_analytics::NAME])]
    view: Option<String>,
    /// How long a processor may take to reach a claim that has changed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A claim that changes all the time is looked at so many times.
const MAX_ROUNDS: usize = 5;
/// Differences that are named; the rest is counted.
const MAX_NAMED: usize = 100;
const COMMITTED_POLL: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    claims: usize,
    records: u64,
    refused_records: u64,
    seed: u64,
    differences_total: usize,
    differences: Vec<Difference>,
    /// Claims that the views had not caught up with in time.
    not_judged: Vec<String>,
}

/// Runs the command.
pub async fn run(args: VerifyArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let processors: Vec<&str> = [claims_current_state::NAME, claims_analytics::NAME]
        .into_iter()
        .filter(|name| args.view.as_deref().is_none_or(|view| view == *name))
        .collect();
    let verifier = Verifier::connect(config, &processors, args.patience).await?;
    let partitions = verifier.log.partitions(&config.topics.events)?;
    // Noted before anything is read: what the views hold up to here, they hold for good.
    let noted = verifier.committed(&partitions)?;
    let seed = args.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1);
    let size = match args.full {
        true => usize::MAX,
        false => usize::try_from(args.sample)?.div_ceil(partitions.len()),
    };
    let mut report = Report { seed, ..Report::default() };
    let bounds = verifier.log.bounds(&config.topics.events, &partitions)?;
    for &partition in &partitions {
        let until = noted.get(&partition).copied().unwrap_or(0);
        if bounds.get(&partition).is_some_and(|log| until <= log.start && log.start < log.end) {
            report
                .not_judged
                .push(format!("every claim of partition {partition}: nothing is committed there"));
        }
        let sample = Sample::new(size, seed);
        verifier.partition(partition, until, sample, &mut report).await?;
    }
    print(&report, args.json)?;
    let is_proved = report.differences_total == 0 && report.not_judged.is_empty();
    Ok(if is_proved { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Verifier<'a> {
    topic: &'a str,
    log: Reader,
    decoder: Decoder,
    views: Views,
    groups: Vec<Reader>,
    patience: Duration,
}

impl<'a> Verifier<'a> {
    async fn connect(config: &'a Config, processors: &[&str], patience: Duration) -> anyhow::Result<Self> {
        let group = |name: &&str| Reader::new(&config.kafka, &group_id(&config.kafka, name));
        Ok(Self {
            topic: &config.topics.events,
            log: Reader::new(&config.kafka, &format!("{}.verify", config.kafka.group_prefix))?,
            decoder: Decoder::new(config)?,
            groups: processors.iter().map(group).collect::<anyhow::Result<_>>()?,
            views: Views::connect(config, processors).await?,
            patience,
        })
    }

    /// Up to where every one of the processors has committed.
    fn committed(&self, partitions: &[i32]) -> anyhow::Result<BTreeMap<i32, i64>> {
        let mut lowest: BTreeMap<i32, i64> = BTreeMap::new();
        for group in &self.groups {
            for (partition, offset) in group.committed(self.topic, partitions)? {
                let offset = offset.unwrap_or(0);
                lowest.entry(partition).and_modify(|lowest| *lowest = offset.min(*lowest)).or_insert(offset);
            }
        }
        Ok(lowest)
    }

    async fn partition(
        &self,
        partition: i32,
        mut until: i64,
        mut sample: Sample<Folded>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let start = self.log.bounds(self.topic, &[partition])?[&partition].start;
        let range = (partition, start, until);
        let seen = fold(&self.log, &self.decoder, self.topic, range, &mut sample, Whose::Sampled).await?;
        let Seen { records, refused } = seen;
        report.records += records;
        report.refused_records += refused;
        report.claims += sample.len();
        let all: Vec<&Folded> = sample.iter().map(|(_, claim)| claim).collect();
        let mut suspects = self.views.compare(partition, &all).await?;
        for _ in 0..MAX_ROUNDS {
            if suspects.is_empty() {
                return Ok(());
            }
            // A view can't hold more than the log does now: what isn't touched up to here really differs.
            let end = self.log.bounds(self.topic, &[partition])?[&partition].end;
            let keys: BTreeSet<Vec<u8>> = suspects.iter().map(key).collect();
            let mut touched = BTreeSet::new();
            let whose = Whose::Only(&keys, &mut touched);
            fold(&self.log, &self.decoder, self.topic, (partition, until, end), &mut sample, whose).await?;
            until = end;
            let (moved, certain): (Vec<_>, Vec<_>) =
                suspects.into_iter().partition(|suspect| touched.contains(&key(suspect)));
            report.note(certain);
            if touched.is_empty() {
                return Ok(());
            }
            suspects = moved;
            if !self.wait_for(partition, end).await? {
                break;
            }
            let again: Vec<&Folded> =
                sample.iter().filter(|(key, _)| touched.contains(*key)).map(|(_, claim)| claim).collect();
            suspects = self.views.compare(partition, &again).await?;
        }
        let names: BTreeSet<String> =
            suspects.iter().map(|suspect| format!("{}:{}", suspect.tenant_id, suspect.claim_id)).collect();
        report.not_judged.extend(names);
        Ok(())
    }

    /// Waits until all processors have committed up to `end`; false if that takes too long.
    async fn wait_for(&self, partition: i32, end: i64) -> anyhow::Result<bool> {
        let deadline = Instant::now() + self.patience;
        loop {
            if self.committed(&[partition])?.get(&partition).is_some_and(|&committed| committed >= end) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(COMMITTED_POLL).await;
        }
    }
}

fn key(difference: &Difference) -> Vec<u8> {
    format!("{}:{}", difference.tenant_id, difference.claim_id).into_bytes()
}

impl Report {
    fn note(&mut self, differences: Vec<Difference>) {
        self.differences_total += differences.len();
        let room = MAX_NAMED.saturating_sub(self.differences.len());
        self.differences.extend(differences.into_iter().take(room));
    }
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(report);
    }
    if !report.differences.is_empty() {
        let rows = report.differences.iter().map(|found| {
            let claim = format!("{}:{}", found.tenant_id, found.claim_id);
            vec![found.view.to_owned(), output::short(&claim, usize::MAX), found.what.clone()]
        });
        output::line(output::table(&["view", "claim", "what differs"], rows))?;
    }
    if report.differences_total > report.differences.len() {
        output::line(format_args!("… and {} more", report.differences_total - report.differences.len()))?;
    }
    for claim in report.not_judged.iter().take(MAX_NAMED) {
        output::line(format_args!(
            "not judged, the views had not caught up: {}",
            output::short(claim, usize::MAX)
        ))?;
    }
    output::line(format_args!(
        "{} claims compared ({} records read, {} of them refused; seed {}): {} differences, {} not judged",
        report.claims,
        report.records,
        report.refused_records,
        report.seed,
        report.differences_total,
        report.not_judged.len()
    ))?;
    if report.differences_total > 0 {
        output::line(
            "see `claims dead-letters list` for what was refused; a replay from the beginning mends a view",
        )?;
    }
    Ok(())
}
