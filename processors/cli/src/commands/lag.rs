//! `claims lag`: how far each processor is behind, in records and in time.

use crate::{
    exit::FOUND,
    output,
    reader::{Bounds, Polled, Reader},
};
use claims_topology::{Config, graph, kafka::group_id};
use rdkafka::Message;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Show how far each processor is behind: per partition, in records and in time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lag in records is the distance from the committed offset to the end of the partition (an upper bound: compaction \
leaves gaps). Lag in time is how long ago the first record not yet committed was appended.

Examples:
  claims lag
  claims lag analytics --watch
  claims lag --json | jq '.[].lag_records'
  claims lag --fail-above 100000")]
pub struct LagArgs {
    /// Only these processors
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(graph::CONSUMERS))]
    processors: Vec<String>,
    /// Show it again and again until interrupted
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks with --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Exit with code 3 if a processor is behind by more records than this
    #[arg(long, value_name = "RECORDS")]
    fail_above: Option<i64>,
    /// Print JSON (with --watch: one line for each look)
    #[arg(long)]
    json: bool,
}

/// One processor's lag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProcessorLag {
    processor: String,
    group: String,
    topic: String,
    /// Over all partitions.
    lag_records: i64,
    /// Of the partition that is furthest behind.
    lag_ms: i64,
    partitions: Vec<PartitionLag>,
}

/// One partition's lag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PartitionLag {
    partition: i32,
    /// `None`: nothing was committed yet.
    committed_offset: Option<i64>,
    start_offset: i64,
    end_offset: i64,
    lag_records: i64,
    /// `None`: the first record not committed could not be read in time.
    lag_ms: Option<i64>,
}

/// Runs the command.
pub async fn run(args: LagArgs, config: Config) -> anyhow::Result<ExitCode> {
    let processors = if args.processors.is_empty() {
        graph::CONSUMERS.iter().map(|&name| name.to_owned()).collect()
    } else {
        args.processors.clone()
    };
    loop {
        let (config, processors) = (config.clone(), processors.clone());
        let lags = tokio::task::spawn_blocking(move || measure(&config, &processors)).await??;
        show(&args, &lags)?;
        if !args.watch {
            let above = args.fail_above.is_some_and(|limit| lags.iter().any(|lag| lag.lag_records > limit));
            return Ok(ExitCode::from(if above { FOUND } else { 0 }));
        }
        tokio::time::sleep(Duration::from_secs(args.interval)).await;
    }
}

fn show(args: &LagArgs, lags: &[ProcessorLag]) -> anyhow::Result<()> {
    if args.json && args.watch {
        return output::json_line(&lags);
    }
    if args.json {
        return output::json(&lags);
    }
    if args.watch && std::io::stdout().is_terminal() {
        // Clear the screen, go to its upper left corner.
        output::line("\x1b[2J\x1b[H")?;
    }
    if args.watch {
        output::line(chrono::Local::now().format("%Y-%m-%d %H:%M:%S"))?;
    }
    Ok(output::line(lag_text(lags))?)
}

fn measure(config: &Config, processors: &[String]) -> anyhow::Result<Vec<ProcessorLag>> {
    let topic = &config.topics.events;
    let mut lags = Vec::new();
    for processor in processors {
        let group = group_id(&config.kafka, processor);
        let reader = Reader::new(&config.kafka, &group)?;
        let partitions = reader.partitions(topic)?;
        // Committed offsets first: an offset committed in between must not look like a negative lag.
        let committed = reader.committed(topic, &partitions)?;
        let bounds = reader.bounds(topic, &partitions)?;
        let mut lags_of_partitions = partition_lags(&committed, &bounds);
        let waiting: BTreeMap<i32, i64> = lags_of_partitions
            .iter()
            .filter(|lag| lag.lag_records > 0)
            .map(|lag| (lag.partition, lag.end_offset - lag.lag_records))
            .collect();
        let ages = first_record_ages(&reader, topic, &waiting)?;
        for lag in &mut lags_of_partitions {
            lag.lag_ms = if lag.lag_records == 0 { Some(0) } else { ages.get(&lag.partition).copied() };
        }
        lags.push(ProcessorLag {
            processor: processor.clone(),
            group,
            topic: topic.clone(),
            lag_records: lags_of_partitions.iter().map(|lag| lag.lag_records).sum(),
            lag_ms: lags_of_partitions.iter().filter_map(|lag| lag.lag_ms).max().unwrap_or(0),
            partitions: lags_of_partitions,
        });
    }
    Ok(lags)
}

/// Pure: offsets to lags. Where nothing was committed, or what was committed has left the log, all that is there waits.
fn partition_lags(
    committed: &BTreeMap<i32, Option<i64>>,
    bounds: &BTreeMap<i32, Bounds>,
) -> Vec<PartitionLag> {
    bounds
        .iter()
        .map(|(&partition, &Bounds { start, end })| {
            let committed_offset = committed.get(&partition).copied().flatten();
            let next = committed_offset.map_or(start, |offset| offset.max(start));
            PartitionLag {
                partition,
                committed_offset,
                start_offset: start,
                end_offset: end,
                lag_records: (end - next).max(0),
                lag_ms: None,
            }
        })
        .collect()
}

/// How long ago the first record at or after each offset was appended, milliseconds.
fn first_record_ages(
    reader: &Reader,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let mut ages = BTreeMap::new();
    if offsets.is_empty() {
        return Ok(ages);
    }
    reader.start(topic, offsets)?;
    let deadline = Instant::now() + reader.timeout();
    while ages.len() < offsets.len() && Instant::now() < deadline {
        let partition = match reader.poll(Duration::from_millis(100))? {
            Polled::Record(message) => {
                if let Some(appended) = message.timestamp().to_millis() {
                    let age = chrono::Utc::now().timestamp_millis() - appended;
                    ages.entry(message.partition()).or_insert(age.max(0));
                }
                message.partition()
            }
            // The distance was a gap only.
            Polled::End(partition) => {
                ages.entry(partition).or_insert(0);
                partition
            }
            Polled::Nothing => continue,
        };
        reader.pause(topic, partition)?;
    }
    Ok(ages)
}

fn lag_text(lags: &[ProcessorLag]) -> String {
    let rows = lags.iter().flat_map(|lag| {
        let all = vec![
            lag.processor.clone(),
            "all".to_owned(),
            String::new(),
            String::new(),
            lag.lag_records.to_string(),
            time_text(Some(lag.lag_ms)),
        ];
        let each = lag.partitions.iter().map(|partition| {
            vec![
                lag.processor.clone(),
                partition.partition.to_string(),
                partition.committed_offset.map_or_else(|| "none".to_owned(), |offset| offset.to_string()),
                partition.end_offset.to_string(),
                partition.lag_records.to_string(),
                time_text(partition.lag_ms),
            ]
        });
        std::iter::once(all).chain(each).collect::<Vec<_>>()
    });
    output::table(&["processor", "partition", "committed", "end", "lag", "time"], rows)
}

/// Milliseconds in two units at most.
fn time_text(ms: Option<i64>) -> String {
    let Some(ms) = ms else { return "?".to_owned() };
    let seconds = ms / 1_000;
    match seconds {
        0 if ms == 0 => "0".to_owned(),
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_distance_to_the_end() {
        let committed = BTreeMap::from([(0, Some(40)), (1, None), (2, Some(5)), (3, Some(90))]);
        let bounds = BTreeMap::from([
            (0, Bounds { start: 0, end: 100 }),
            (1, Bounds { start: 10, end: 30 }),
            (2, Bounds { start: 20, end: 30 }),
            (3, Bounds { start: 0, end: 90 }),
        ]);
        let lags: Vec<_> = partition_lags(&committed, &bounds).iter().map(|lag| lag.lag_records).collect();
        assert_eq!(lags, [60, 20, 10, 0]);
    }

    #[test]
    fn an_offset_committed_beyond_the_end_is_no_lag() {
        let bounds = BTreeMap::from([(0, Bounds { start: 0, end: 10 })]);
        let lags = partition_lags(&BTreeMap::from([(0, Some(12))]), &bounds);
        assert_eq!(lags[0].lag_records, 0);
    }

    #[test]
    fn times_in_two_units() {
        let texts = [0, 12, 1_250, 61_000, 3_725_000, 90_000_000].map(|ms| time_text(Some(ms)));
        assert_eq!(texts, ["0", "12 ms", "1.2 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(time_text(None), "?");
    }

    #[test]
    fn lag_as_a_table() {
        let partition = |partition, committed_offset, lag_records, lag_ms| PartitionLag {
            partition,
            committed_offset,
            start_offset: 0,
            end_offset: 150_000,
            lag_records,
            lag_ms,
        };
        let lag = ProcessorLag {
            processor: "analytics".into(),
            group: "claims.analytics".into(),
            topic: "claims.events.v1".into(),
            lag_records: 150_010,
            lag_ms: 61_000,
            partitions: vec![
                partition(0, Some(149_990), 10, Some(61_000)),
                partition(1, None, 150_000, None),
                partition(2, Some(150_000), 0, Some(0)),
            ],
        };
        insta::assert_snapshot!(lag_text(&[lag]));
    }
}
