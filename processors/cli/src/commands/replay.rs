//! `claims replay`: a group's offsets go back, or forward, and its processor reads from there.

use crate::{
    exit::Usage,
    output,
    replay::{control, group::Group, plan, progress, selection::PartitionSet},
};
use anyhow::{Context, bail};
use claims_runtime::replay::ReplayTarget;
use claims_topology::{Config, graph};
use plan::Planned;
use std::process::ExitCode;

/// Read events again: set where processors read on, back or forward
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The plan, partition by partition, is shown before anything changes. After a replay from anywhere the views are what \
they were: records that come again change nothing, and rows that were lost are written again. To make a view whole \
that has lost rows, replay from the beginning. A jump forward leaves records out; the plan says what that does. --to-end and \
a positive --shift ask for one; any other target that is ahead of unread records, as --to-time is where a processor lags, \
is refused unless --allow-skip is given.

Offsets can be set only while no process reads for the processor. --restart stops it in the running processes by their \
control (`listen` of the processor, or --control) and starts it again; the processes stay. Without it, stop them first.

Kafka's own kafka-consumer-groups --reset-offsets does as well, without rate and progress.

Examples:
  claims replay analytics --to-beginning --dry-run
  claims replay analytics --to-beginning --restart --rate-limit 5000
  claims replay all --by-duration 2h --restart
  claims replay current-state --to-time 2025-07-08T14:30:00Z --partitions 0,3-5

Exit codes: 0 done, 1 not done; the message says whether anything was changed, 2 wrong usage.")]
pub struct ReplayArgs {
    /// Which of them
    #[arg(required = true, value_name = "PROCESSOR", value_parser = parser())]
    processor: String,
    #[command(flatten)]
    target: TargetArgs,
    /// Only these partitions, such as 0,3-5
    #[arg(long, value_name = "LIST")]
    partitions: Option<PartitionSet>,
    /// Records per second, at most, over all partitions of a processor, until it is where it was
    #[arg(long, value_name = "RECORDS_PER_S", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,
    /// Leave out unread records where the target is ahead of them
    #[arg(long)]
    allow_skip: bool,
    /// Do without the records that were removed before each log's start, whatever the target
    #[arg(long)]
    accept_log_start: bool,
    /// Only show the plan
    #[arg(long, conflicts_with_all = ["restart", "wait"])]
    dry_run: bool,
    /// Stop the processor in the running processes first, and start it again afterwards
    #[arg(long)]
    restart: bool,
    /// Base URL of a process's status server (default: the processor's `listen`); may be given more than once
    #[arg(long, value_name = "URL", requires = "restart")]
    control: Vec<String>,
    /// Wait until the processor is where it was (with --restart that is the default)
    #[arg(long)]
    wait: bool,
    /// With --restart: don't wait
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Print JSON at the end; the plan goes to standard error
    #[arg(long)]
    json: bool,
}

/// Where to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// To the oldest record there is
    #[arg(long)]
    to_beginning: bool,
    /// After the newest record
    #[arg(long)]
    to_end: bool,
    /// To this offset in each partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record appended at this time or later (RFC 3339, such as 2025-07-08T14:30:00Z)
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_time: Option<i64>,
    /// To the first record appended in this last span of time, such as 2h or 7days
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    by_duration: Option<std::time::Duration>,
    /// So many offsets forward, or back if negative
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift: Option<i64>,
}

const ALL: &str = "all";

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(graph::CONSUMERS.iter().copied().chain([ALL]))
}

fn time(text: &str) -> Result<i64, String> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|at| at.timestamp_millis().max(0))
        .map_err(|error| format!("{error}; write it as 2025-07-08T14:30:00Z"))
}

impl TargetArgs {
    fn target(&self, now_ms: i64) -> Result<ReplayTarget, Usage> {
        let span_ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Ok(match *self {
            Self { to_beginning: true, .. } => ReplayTarget::Beginning,
            Self { to_end: true, .. } => ReplayTarget::End,
            Self { to_offset: Some(offset), .. } => ReplayTarget::Offset(offset),
            Self { to_time: Some(at_ms), .. } => ReplayTarget::Time { at_ms },
            Self { by_duration: Some(span), .. } => {
                ReplayTarget::Time { at_ms: now_ms.saturating_sub(span_ms(span)).max(0) }
            }
            Self { shift: Some(by), .. } => ReplayTarget::Shift(by),
            _ => return Err(Usage("say where to, such as --to-beginning")),
        })
    }
}

/// Runs the command.
pub async fn run(args: ReplayArgs, config: Config) -> anyhow::Result<ExitCode> {
    let target = args.target.target(chrono::Utc::now().timestamp_millis())?;
    let processors: Vec<&str> = match args.processor.as_str() {
        ALL => graph::CONSUMERS.to_vec(),
        one => vec![one],
    };
    let replay = Replay { args: &args, config: &config, target, id: uuid::Uuid::new_v4().to_string() };
    // All of them first: what can't be done shall be known before anything is.
    let mut plans = Vec::new();
    for processor in processors {
        plans.push(replay.plan(processor).await?);
    }
    show(&args, &plan::text(&plans))?;
    for planned in &plans {
        replay.refuse(planned).await?;
    }
    if !args.dry_run {
        if !args.restart {
            for planned in &plans {
                Group::new(&config, planned.processor)?.refuse_members()?;
            }
        }
        for index in 0..plans.len() {
            let done: Vec<_> = plans[..index].iter().map(|planned| planned.processor).collect();
            replay.carry_out(&mut plans[index]).await.with_context(|| match done.is_empty() {
                true => "nothing else was changed".to_owned(),
                false => format!("the offsets of {} are set already", done.join(", ")),
            })?;
        }
        if args.wait || (args.restart && !args.no_wait) {
            for planned in &mut plans {
                planned.seconds = Some(progress::wait(&config, planned).await?);
            }
        }
    }
    if args.json {
        output::json(&plans)?;
    } else {
        show(&args, &plan::outcome(&plans))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ReplayArgs, text: &str) -> std::io::Result<()> {
    if args.json {
        eprintln!("{text}");
        return Ok(());
    }
    output::line(text)
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    config: &'a Config,
    target: ReplayTarget,
    id: String,
}

impl Replay<'_> {
    async fn plan(&self, processor: &str) -> anyhow::Result<Planned> {
        let (id, target, rate) = (self.id.clone(), self.target, self.args.rate_limit);
        let (config, partitions) = (self.config.clone(), self.args.partitions.clone());
        let accept_log_start = self.args.accept_log_start;
        let name = plan::known(processor)?;
        tokio::task::spawn_blocking(move || {
            plan::make(&config, name, id, target, rate, partitions.as_ref(), accept_log_start)
        })
        .await?
        .with_context(|| format!("planning the replay of {processor}"))
    }

    /// Whatever can't be done soundly, or was not asked for.
    async fn refuse(&self, planned: &Planned) -> anyhow::Result<()> {
        if !self.args.allow_skip {
            plan::refuse_a_jump(self.target, planned)?;
        }
        plan::refuse_what_is_unsound(self.config, planned).await
    }

    /// Commits the plan, between a stop and a start of the processor if that was asked for.
    async fn carry_out(&self, planned: &mut Planned) -> anyhow::Result<()> {
        let processor = planned.processor;
        let mut stopped = control::Stopped::none(processor);
        if self.args.restart {
            let urls = control::urls(self.config, processor, &self.args.control)?;
            stopped = control::stop(&urls, processor).await?;
        }
        let committed = self.commit(planned, !stopped.is_empty()).await;
        let started = stopped.start().await;
        committed.with_context(|| match stopped.is_empty() {
            true => format!("{processor}: its offsets were not set, or not confirmed (`claims lag` shows them)"),
            false => format!(
                "{processor}: its offsets were not set, or not confirmed (`claims lag` shows them), and it was started again"
            ),
        })?;
        started.with_context(|| {
            format!(
                "{processor}: its offsets are set, but it is not running again everywhere; start it where it is named, \
                 or wait: the stop ends by itself"
            )
        })?;
        planned.restarted = stopped.into_urls();
        Ok(())
    }

    async fn commit(&self, planned: &mut Planned, is_stopped: bool) -> anyhow::Result<()> {
        let group = Group::new(self.config, planned.processor)?;
        if self.args.restart {
            group.wait_until_empty(is_stopped).await?;
            // It has read on since the plan was shown.
            let at_rest = self.plan(planned.processor).await?;
            self.refuse(&at_rest).await?;
            *planned = at_rest;
        }
        let topic = planned.topic.clone();
        let plan = planned.plan.clone();
        let committed = tokio::task::spawn_blocking(move || group.commit(&topic, &plan)).await?;
        if let Err(error) = committed {
            bail!("{error:#}");
        }
        planned.applied = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn target(args: &[&str]) -> Result<ReplayTarget, String> {
        let line = Line::try_parse_from([&["replay", "all"], args].concat()).map_err(|e| e.to_string())?;
        line.args.target.target(10_000_000).map_err(|e| e.to_string())
    }

    #[test]
    fn each_way_to_say_where_to() {
        assert_eq!(target(&["--to-beginning"]), Ok(ReplayTarget::Beginning));
        assert_eq!(target(&["--to-end"]), Ok(ReplayTarget::End));
        assert_eq!(target(&["--to-offset", "7"]), Ok(ReplayTarget::Offset(7)));
        assert_eq!(
            target(&["--to-time", "1970-01-01T01:00:01+01:00"]),
            Ok(ReplayTarget::Time { at_ms: 1_000 })
        );
        assert_eq!(target(&["--by-duration", "2h"]), Ok(ReplayTarget::Time { at_ms: 2_800_000 }));
        assert_eq!(target(&["--by-duration", "9years"]), Ok(ReplayTarget::Time { at_ms: 0 }));
        assert_eq!(target(&["--shift", "-40"]), Ok(ReplayTarget::Shift(-40)));
        assert!(target(&[]).unwrap_err().contains("--to-beginning"));
        assert!(target(&["--to-end", "--shift", "1"]).unwrap_err().contains("cannot be used with"));
        assert!(target(&["--to-time", "yesterday"]).unwrap_err().contains("write it as 2025"));
        assert!(target(&["--to-offset", "-1"]).is_err());
    }
}
