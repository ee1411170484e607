//! `claims audit`: what an auditor asks of the trail.

use crate::{
    exit::FOUND,
    output::{self, line, short},
    progress::Progress,
};
use anyhow::Context;
use claims_audit::{
    Report, RestoreOptions, SegmentStore, ShowOptions, VerifyOptions,
    restore::RestoreError,
    show::{ClaimTrail, ShownRecord},
    verify::{Anchor, ChainReport, Finding},
};
use claims_topology::Config;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Digits of a hash in the table; `--json` has all of them.
const SHOWN_HASH_CHARS: usize = 16;
const MAX_SHOWN_CHARS: usize = 60;

/// Check the audit trail, or look a claim up in it.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// Recompute every chain; exit code 3 if anything doesn't hold
    #[command(after_help = "Examples:
  claims audit verify
  claims audit verify --json > today.json      # note where the chains stand, and keep the file elsewhere
  claims audit verify --since yesterday.json   # also finds segments cut off at the end, and a chain made anew

Exit codes: 0 the trail holds, 1 it could not be read, 2 wrong usage, 3 it doesn't hold.")]
    Verify(VerifyArgs),
    /// Every record of a claim: where it stands, when it came, whether it holds
    #[command(after_help = "Examples:
  claims audit show --claim claim_67890
  claims audit show --claim claim_67890 --tenant acme --json

Exit codes: 0 found and holds, 1 the trail could not be read or has no such claim, 2 wrong usage, 3 it doesn't hold.")]
    Show(ShowArgs),
    /// Write the trail back into an empty events topic, after the topic was lost
    #[command(
        after_help = "The trail is verified first. Each record goes into its partition in the order of the chain. Offsets are new
ones, so the restored topic needs a trail of its own: give the audit another store, and keep the old one.

Example, after the events topic was deleted (processors stopped):
  claims topics apply
  claims audit restore --from ./audit --dry-run
  claims audit restore --from ./audit
  claims --set audit.store=./audit-2 replay all --to-beginning     # and run them with this setting from now on

Exit codes: 0 restored, 1 not (all) restored, 2 wrong usage, 3 the trail doesn't hold."
    )]
    Restore(RestoreArgs),
}

#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The store with the trail: a folder, or s3://…; without it the configured one (`audit.store`)
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// Write although the topic holds records: events that it holds become copies, which change nothing
    #[arg(long)]
    append: bool,
    /// Verify and count, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// An earlier report (`--json`): the chains must still pass through where they stood then
    #[arg(long, value_name = "REPORT")]
    since: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The claim's id
    #[arg(long, value_name = "ID")]
    claim: String,
    /// Its tenant; without it the tenant of events that name none (`ingress.default_tenant`)
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: AuditArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut audit = config.audit.clone();
    if let AuditCommand::Restore(RestoreArgs { from: Some(from), .. }) = &args.command {
        audit.store.clone_from(from);
    }
    let store = SegmentStore::open_to_read(&audit)?;
    match args.command {
        AuditCommand::Restore(args) => restore(args, &store, config).await,
        AuditCommand::Verify(args) => verify(args, &store).await,
        AuditCommand::Show(args) => show(args, &store, config).await,
    }
}

async fn verify(args: VerifyArgs, store: &SegmentStore) -> anyhow::Result<ExitCode> {
    let anchors = args.since.as_deref().map(read_anchors).transpose()?.unwrap_or_default();
    let wanted = |anchor: &Anchor| args.partition.is_none_or(|partition| partition == anchor.partition);
    let options = VerifyOptions {
        topic: None,
        partition: args.partition,
        anchors: anchors.into_iter().filter(wanted).collect(),
    };
    let report = claims_audit::verify(store, &options).await?;
    if args.json { output::json(&report) } else { print_report(&report) }?;
    Ok(if report.holds { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

async fn restore(args: RestoreArgs, store: &SegmentStore, config: &Config) -> anyhow::Result<ExitCode> {
    let topic = config.topics.events.clone();
    let options = RestoreOptions { topic, append: args.append, dry_run: args.dry_run };
    let progress = Progress::events(0);
    let show = |done, total| {
        progress.set_length(total);
        progress.set_position(done);
    };
    let restored = claims_audit::restore(config, store, &options, &show).await;
    progress.finish();
    let restored = match restored {
        Err(broken @ RestoreError::Broken { .. }) => {
            eprintln!("error: {broken}");
            return Ok(ExitCode::from(FOUND));
        }
        restored => restored?,
    };
    if args.json {
        output::json(&restored)?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would be written to" } else { "written to" };
    line(format_args!(
        "{} events and {} tombstones {verb} topic {}, in {} partitions; {} erased records left out.",
        restored.events, restored.tombstones, options.topic, restored.partitions, restored.erased
    ))?;
    let ids: Vec<String> = restored.schema_ids.keys().map(u32::to_string).collect();
    line(format_args!("The registry must know these schema ids: {}.", ids.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: ShowArgs, store: &SegmentStore, config: &Config) -> anyhow::Result<ExitCode> {
    let tenant_id = args.tenant.unwrap_or_else(|| config.ingress.default_tenant.clone());
    let options = ShowOptions {
        topic: config.topics.events.clone(),
        tenant_id: Some(tenant_id.clone()),
        claim_id: args.claim,
    };
    let trail = claims_audit::show(store, &options).await?;
    if args.json {
        output::json(&trail)?;
    } else if !trail.records.is_empty() || !trail.holds {
        print_trail(&trail)?;
    }
    if !trail.holds {
        return Ok(ExitCode::from(FOUND));
    }
    anyhow::ensure!(
        !trail.records.is_empty(),
        "the trail in {} has no claim {:?} of tenant {tenant_id:?}; another tenant is given by --tenant",
        store.name(),
        trail.claim_id,
    );
    Ok(ExitCode::SUCCESS)
}

/// Where the chains stood when a report was written.
fn read_anchors(path: &Path) -> anyhow::Result<Vec<Anchor>> {
    #[derive(serde::Deserialize)]
    struct OldReport {
        chains: Vec<OldChain>,
    }
    #[derive(serde::Deserialize)]
    struct OldChain {
        end: Anchor,
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let report: OldReport = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `claims audit verify --json`", path.display()))?;
    Ok(report.chains.into_iter().map(|chain| chain.end).collect())
}

fn print_report(report: &Report) -> anyhow::Result<()> {
    if report.chains.is_empty() {
        line(format_args!("The trail in {} has no such chain.", report.store))?;
    } else {
        let header = ["TOPIC", "PARTITION", "SEGMENTS", "RECORDS", "ERASED", "OFFSETS", "HASH", ""];
        line(output::table(&header, report.chains.iter().map(row_of_chain)))?;
    }
    for chain in &report.chains {
        print_findings(&chain.findings, chain.findings_total)?;
    }
    for stranger in &report.strangers {
        line(format_args!("{}: it has no place in the trail", short(stranger, usize::MAX)))?;
    }
    let verdict = if report.holds { "The trail holds" } else { "THE TRAIL DOES NOT HOLD" };
    Ok(line(format_args!("{verdict}: {} records in {} segments.", report.records, report.segments))?)
}

fn row_of_chain(chain: &ChainReport) -> Vec<String> {
    let offsets = match (chain.first_offset, chain.last_offset) {
        (Some(first), Some(last)) => format!("{first}–{last}"),
        _ => "–".to_owned(),
    };
    let state = match chain.findings_total {
        0 => "holds".to_owned(),
        count => format!("{count} findings"),
    };
    vec![
        chain.topic.clone(),
        chain.partition.to_string(),
        chain.segments.to_string(),
        chain.records.to_string(),
        chain.erased.to_string(),
        offsets,
        chain.end.hash.to_string().chars().take(SHOWN_HASH_CHARS).collect(),
        state,
    ]
}

fn print_findings(findings: &[Finding], total: u64) -> anyhow::Result<()> {
    for finding in findings {
        let parts = [
            finding.segment.clone(),
            finding.position.map(|position| format!("position {position}")),
            finding.offset.map(|offset| format!("offset {offset}")),
        ];
        let place = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        line(short(&format!("{place}: {}", finding.detail), usize::MAX))?;
    }
    match total.saturating_sub(findings.len() as u64) {
        0 => Ok(()),
        more => Ok(line(format_args!("… and {more} more findings"))?),
    }
}

fn print_trail(trail: &ClaimTrail) -> anyhow::Result<()> {
    if !trail.records.is_empty() {
        let header = [
            "VERSION",
            "EVENT",
            "OCCURRED AT",
            "PARTITION/OFFSET",
            "POSITION",
            "APPENDED AT",
            "LATENCY",
            "HOLDS",
            "",
        ];
        line(output::table(&header, trail.records.iter().map(row_of_record)))?;
    }
    print_findings(&trail.findings, trail.findings.len() as u64)?;
    let verdict = if trail.holds { "The chain holds" } else { "THE CHAIN DOES NOT HOLD" };
    Ok(line(format_args!(
        "{verdict}: {} records of claim {}; {} of {} segments read whole.",
        trail.records.len(),
        short(&trail.claim_id, MAX_SHOWN_CHARS),
        trail.segments_read,
        trail.segments
    ))?)
}

fn row_of_record(record: &ShownRecord) -> Vec<String> {
    let dash = || "–".to_owned();
    let event = record.event_type.as_deref().unwrap_or(record.kind.as_str());
    let mut marks = Vec::new();
    if let Some(offset) = record.copy_of_offset {
        marks.push(format!("copy of offset {offset}"));
    }
    if let Some(offset) = record.superseded_by_offset {
        marks.push(format!("superseded by offset {offset}"));
    }
    if record.erased {
        marks.push("erased".to_owned());
    }
    vec![
        record.version.map_or_else(dash, |version| version.to_string()),
        short(event, MAX_SHOWN_CHARS),
        record.occurred_at.map_or_else(dash, |at| at.to_string()),
        format!("{}/{}", record.partition, record.offset),
        record.position.to_string(),
        record.appended_at.to_string(),
        format!("{} ms", record.latency_ms),
        if record.holds { "yes".to_owned() } else { "NO".to_owned() },
        marks.join(", "),
    ]
}
