//! Hours at a steady rate: whether anything grows that should not.

use super::{
    appended,
    child::Program,
    interrupt,
    offsets::{Group, records_in},
    ours, plot,
    room::{self, Needs, PerEvent},
};
use anyhow::{Context, Result, ensure};
use claims_verifier::{namespace::Namespace, pipeline::Pipeline, views::clickhouse};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use xtask::services::layout::Layout;

const PROCESSORS: [&str; 3] = ["current-state", "analytics", "audit"];
const RESULTS: &str = "target/bench/soak.json";
const PLOT: &str = "target/bench/soak.svg";
const PARTITIONS: i32 = 6;
const SAMPLES: u32 = 120;
/// What is left when the load ends is through within this time.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);
/// Memory may differ by so much between the second quarter of the time and the last.
const MEMORY_GROWTH: f64 = 1.15;
/// A processor may be so many seconds of the rate behind at the end.
const LAG_LIMIT_S: u64 = 10;
/// So much of the rate must come in.
const LEAST_RATE: f64 = 0.95;
/// Data files of a table that the CQL server has not compacted away, all tables together.
const MAX_CQL_FILES: u64 = 150;
/// ClickHouse merges: more parts than this at any time means that it can't follow.
const MAX_PARTS: u64 = 300;

/// In Kafka, in all views and in the trail; and in memory what is known of the topic to compare them.
const PER_EVENT: PerEvent = PerEvent { disk: 3_000, memory: 500 };

/// How long, and how fast.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Events per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

impl SoakArgs {
    fn events(&self) -> u64 {
        self.minutes.saturating_mul(60).saturating_mul(self.rate)
    }
}

/// One look at everything.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Sample {
    /// Since the start.
    pub at_s: f64,
    /// Resident memory of each process, in MiB.
    pub rss_mib: Vec<u64>,
    /// Events in the topic.
    pub appended: u64,
    /// Records that each has not committed yet.
    pub lag: Vec<u64>,
    /// Active parts of ClickHouse's table.
    pub clickhouse_parts: u64,
    /// Data files of the keyspace; with Docker they can't be seen.
    pub cql_files: Option<u64>,
}

/// Runs all processors under load, and tells whether anything grew.
pub async fn run(args: &SoakArgs, folder: &Path) -> Result<()> {
    let root = Layout::discover()?.root;
    room::check(folder, Needs::of(args.events(), PER_EVENT))?;
    let namespace = Namespace::new("bench_soak", &folder.join("bench_soak"), PARTITIONS)?;
    namespace.reset().await?;
    Pipeline::new(namespace.clone())?.prepare()?;
    let inserted = clickhouse::rows_inserted(&namespace).await?;
    let mut programs = Vec::new();
    let mut groups = Vec::new();
    for processor in PROCESSORS {
        let command = ours::claims(&namespace, &["run", processor])?;
        programs.push(Program::start(processor, command, &namespace.dir)?);
        groups.push(Group::of(&namespace, &namespace.group(processor))?);
    }
    let (events, rate) = (args.events().to_string(), args.rate.to_string());
    let load = ours::claims(&namespace, &["generate", "--events", &events, "--rate", &rate])?;
    let mut load = Program::start("load", load, &namespace.dir)?.finishing();
    let samples = watch(args, &namespace, &mut programs, &groups, &mut load).await?;
    load.wait(SETTLE_LIMIT)?;
    fs::create_dir_all(root.join("target/bench"))?;
    fs::write(root.join(RESULTS), serde_json::to_string_pretty(&samples)?)?;
    plot::write_soak(&root.join(PLOT), &PROCESSORS, &samples)?;
    println!("{}\n{}", root.join(RESULTS).display(), root.join(PLOT).display());
    settle(&namespace, &mut programs, &groups)?;
    programs.into_iter().try_for_each(Program::stop)?;
    let inserted = clickhouse::events_inserted(&namespace, inserted).await?;
    let lost = appended::verify(&namespace, inserted).await.err().map(|error| format!("{error:#}"));
    let grown = judge(&samples, args.rate).err().map(|error| format!("{error:#}"));
    let wrong: Vec<String> = lost.into_iter().chain(grown).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    namespace.reset().await?;
    Ok(fs::remove_dir_all(&namespace.dir)?)
}

/// Waits until everything that came in is committed.
fn settle(namespace: &Namespace, programs: &mut [Program], groups: &[Group]) -> Result<()> {
    let (begun, events) = (Instant::now(), records_in(namespace, &namespace.events_topic)?);
    while groups.iter().any(|group| group.committed() < events) {
        interrupt::check()?;
        programs.iter_mut().try_for_each(Program::check)?;
        ensure!(
            begun.elapsed() < SETTLE_LIMIT,
            "there is lag left {} s after the load",
            SETTLE_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

async fn watch(
    args: &SoakArgs,
    namespace: &Namespace,
    programs: &mut [Program],
    groups: &[Group],
    load: &mut Program,
) -> Result<Vec<Sample>> {
    let span = Duration::from_secs(args.minutes * 60);
    let bar = ProgressBar::new(u64::from(SAMPLES));
    bar.set_style(ProgressStyle::with_template("soak {bar:40} {elapsed}, {eta} left; {msg}")?);
    let (begun, mut samples) = (Instant::now(), Vec::new());
    for number in 1..=SAMPLES {
        tokio::time::sleep((span * number / SAMPLES).saturating_sub(begun.elapsed())).await;
        interrupt::check()?;
        programs.iter_mut().try_for_each(Program::check)?;
        load.check_unfinished()?;
        let appended = records_in(namespace, &namespace.events_topic)?;
        let sample = Sample {
            at_s: begun.elapsed().as_secs_f64(),
            rss_mib: programs.iter().map(Program::rss_mib).collect(),
            appended,
            lag: groups.iter().map(|group| appended.saturating_sub(group.committed())).collect(),
            clickhouse_parts: clickhouse_parts(namespace).await?,
            cql_files: cql_files(namespace)?,
        };
        bar.set_message(format!("memory {:?} MiB, lag {:?}", sample.rss_mib, sample.lag));
        samples.push(sample);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(samples)
}

async fn clickhouse_parts(namespace: &Namespace) -> Result<u64> {
    let sql = format!("SELECT count() FROM system.parts WHERE active AND database = '{}'", namespace.name);
    namespace.clickhouse_sql(&sql).await?.trim().parse().context("a number of parts")
}

/// Data files of the keyspace's tables below the native server's folder.
fn cql_files(namespace: &Namespace) -> Result<Option<u64>> {
    let keyspace = Layout::discover()?.data("cassandra").join("data").join(&namespace.name);
    let Ok(tables) = fs::read_dir(keyspace) else { return Ok(None) };
    let files = tables.flatten().filter_map(|table| fs::read_dir(table.path()).ok()).flatten().flatten();
    let is_data = |file: &fs::DirEntry| file.file_name().to_string_lossy().ends_with("-Data.db");
    Ok(Some(files.filter(is_data).count() as u64))
}

/// An error that names what grew.
fn judge(samples: &[Sample], rate: u64) -> Result<()> {
    let quarter = samples.len() / 4;
    ensure!(quarter > 0, "too few samples");
    let mean = |samples: &[Sample], of: usize| {
        let sum: u64 = samples.iter().filter_map(|sample| sample.rss_mib.get(of)).sum();
        sum as f64 / samples.len().max(1) as f64
    };
    let mut grown = Vec::new();
    for (number, processor) in PROCESSORS.iter().enumerate() {
        let early = mean(samples.get(quarter..2 * quarter).unwrap_or_default(), number);
        let late = mean(samples.get(3 * quarter..).unwrap_or_default(), number);
        println!("{processor}: {early:.0} MiB in the second quarter, {late:.0} MiB in the last");
        if late > early * MEMORY_GROWTH {
            grown.push(format!("memory of {processor}: {early:.0} to {late:.0} MiB"));
        }
        let lag = samples.last().and_then(|sample| sample.lag.get(number)).copied().unwrap_or(0);
        if lag > rate * LAG_LIMIT_S {
            grown.push(format!("lag of {processor}: {lag} records at the end"));
        }
    }
    if let Some(last) = samples.last() {
        let came = last.appended as f64 / last.at_s;
        println!("{came:.0} events per second came in");
        ensure!(came >= rate as f64 * LEAST_RATE, "{came:.0} events per second came in, {rate} should have");
    }
    match samples.iter().filter_map(|sample| sample.cql_files).max() {
        None => println!("CQL: the data files are not seen"),
        Some(files) => {
            println!("CQL: at most {files} data files");
            if files > MAX_CQL_FILES {
                grown.push(format!("data files in CQL: {files}"));
            }
        }
    }
    let parts = samples.iter().map(|sample| sample.clickhouse_parts).max().unwrap_or(0);
    println!("ClickHouse: at most {parts} parts");
    if parts > MAX_PARTS {
        grown.push(format!("parts in ClickHouse: {parts}"));
    }
    ensure!(grown.is_empty(), "grown: {}", grown.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss: impl Fn(u64) -> u64, lag: u64) -> Vec<Sample> {
        let sample = |number| Sample {
            at_s: number as f64,
            appended: number * 500,
            rss_mib: vec![100, rss(number), 100],
            lag: vec![0, lag, 0],
            clickhouse_parts: 12,
            cql_files: Some(3),
        };
        (0..40).map(sample).collect()
    }

    #[test]
    fn what_grows_is_named() {
        assert!(judge(&samples(|_| 200, 40), 500).is_ok());
        // Growth at the beginning is warming up.
        assert!(judge(&samples(|n| 200.min(20 * n), 0), 500).is_ok());
        let error = judge(&samples(|n| 200 + 3 * n, 0), 500).unwrap_err().to_string();
        assert_eq!(error, "grown: memory of analytics: 244 to 304 MiB");
        let error = judge(&samples(|_| 200, 5_001), 500).unwrap_err().to_string();
        assert_eq!(error, "grown: lag of analytics: 5001 records at the end");
    }
}
