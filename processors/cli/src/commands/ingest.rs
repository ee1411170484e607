//! `claims ingest`: a file or standard input into Kafka, or a look at what would go in.

use crate::{exit::Usage, output, progress::Progress};
use anyhow::Context;
use claims_ingress::{
    import::{Counts, ImportError, NdjsonTarget, import, import_into_kafka},
    mapping::Mapping,
    publisher::Publisher,
    rejects::Reject,
    source::{self, Format, Input, RowSource},
};
use claims_topology::Config;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Of the refused rows, this many are shown as they come.
const REJECTS_SHOWN: u64 = 10;

/// Bring events in from a file or standard input; gzip is recognised by its content.
///
/// Refused rows never stop an import: each becomes a dead letter with its line and reason. Repeating an import is
/// safe, also one that was broken off: the same row gives the same event, with the same id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  claims ingest events.ndjson
  claims generate --events 1000 --output - | claims ingest
  claims ingest --mapping mappings/tsa_claims.toml --dry-run tsa_claims.csv.gz
  claims ingest --mapping mappings/tsa_claims.toml tsa_claims.csv.gz")]
pub struct IngestArgs {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// How it is written (default: csv with --mapping, else ndjson)
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// How the columns of a CSV become events (docs/mappings.md)
    #[arg(long, value_name = "FILE", required_if_eq("format", "csv"))]
    mapping: Option<String>,
    /// Stop at the first refused row
    #[arg(long)]
    strict: bool,
    /// Only show the first events and the counts; nothing touches Kafka
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: how many events to show
    #[arg(long, value_name = "N", default_value_t = 5, requires = "dry_run")]
    show: u64,
    /// With --dry-run: write all events as canonical NDJSON into this file (`-`: standard output)
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    output: Option<String>,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What `--format` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FormatName {
    /// Our own JSON, one event per line
    Ndjson,
    /// The older system's JSON, one event per line. A file must hold the whole history of its claims, in order;
    /// newer events are appended to it, not sent as a second file
    Legacy,
    /// CSV, by a mapping
    Csv,
}

/// Runs the command.
pub async fn run(args: IngestArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let format = format(&args)?;
    let input = Input::open(&args.file).with_context(|| format!("opening {}", args.file))?;
    let name = input.name.clone();
    let progress = Progress::bytes(input.total_bytes);
    let mut show = shower(progress.clone(), input.bytes_read());
    let mut source = source::open(input, &format, &config.ingress)?;

    let (counts, end) = if args.dry_run {
        let mut counts = Counts::default();
        let end = dry_run(&args, &mut *source, &mut counts, &mut show);
        (counts, end)
    } else {
        let publisher = Arc::new(Publisher::connect(config).await?);
        import_into_kafka(&publisher, &name, source, args.strict, show).await
    };
    let seconds = progress.finish().as_secs_f64();
    summarise(&args, &counts, seconds, end.is_ok())?;
    end.map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
}

fn format(args: &IngestArgs) -> anyhow::Result<Format> {
    let Some(path) = &args.mapping else {
        return Ok(match args.format {
            Some(FormatName::Legacy) => Format::Legacy,
            _ => Format::Canonical,
        });
    };
    if !matches!(args.format, None | Some(FormatName::Csv)) {
        return Err(Usage("--mapping is for CSV: leave --format away, or say --format csv").into());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the mapping {path}"))?;
    let mapping = Mapping::parse(path, &text).with_context(|| format!("mapping {path}"))?;
    Ok(Format::Csv(Box::new(mapping)))
}

/// Moves the bar by the bytes read (of the compressed file) and shows the first refused rows.
fn shower(progress: Progress, bytes_read: Arc<AtomicU64>) -> impl FnMut(&Counts, &[Reject]) + Send + 'static {
    let mut shown = 0;
    move |counts, rejects| {
        for reject in rejects.iter().take((REJECTS_SHOWN - shown) as usize) {
            progress.println(&format!("refused: {}", output::short(&reject.to_string(), 300)));
            shown += 1;
            if shown == REJECTS_SHOWN {
                progress
                    .println("refused: (further ones are not shown; `claims dead-letters list` shows all)");
            }
        }
        progress.set_position(bytes_read.load(Ordering::Relaxed));
        let per_second = counts.events_emitted as f64 / progress.elapsed().as_secs_f64().max(0.001);
        progress.set_message(format!("{} events, {per_second:.0} events/s", counts.events_emitted));
    }
}

fn dry_run(
    args: &IngestArgs,
    source: &mut dyn RowSource,
    counts: &mut Counts,
    show: &mut dyn FnMut(&Counts, &[Reject]),
) -> Result<(), ImportError> {
    let (out, max_events): (Box<dyn Write>, u64) = match args.output.as_deref() {
        Some("-") => (Box::new(io::stdout()), u64::MAX),
        Some(path) => (Box::new(File::create(path)?), u64::MAX),
        None if args.json => (Box::new(io::sink()), 0),
        None => (Box::new(io::stdout()), args.show),
    };
    let mut target = NdjsonTarget::new(BufWriter::with_capacity(256 * 1024, out), max_events);
    import(source, &mut target, args.strict, counts, show)?;
    target.finish()?;
    Ok(())
}

/// The counts, on standard output unless events go there.
fn summarise(args: &IngestArgs, counts: &Counts, seconds: f64, complete: bool) -> anyhow::Result<()> {
    let text = if args.json {
        let mut summary = serde_json::to_value(counts)?;
        summary["rows_imported"] = counts.rows_imported().into();
        summary["seconds"] = seconds.into();
        summary["complete"] = complete.into();
        summary["dry_run"] = args.dry_run.into();
        serde_json::to_string_pretty(&summary)?
    } else {
        table(args, counts, seconds)
    };
    if args.output.as_deref() == Some("-") {
        eprintln!("{text}");
        return Ok(());
    }
    Ok(output::line(text)?)
}

fn table(args: &IngestArgs, counts: &Counts, seconds: f64) -> String {
    let mut rows = vec![
        ("rows read", counts.rows_read.to_string()),
        ("  with events", counts.rows_imported().to_string()),
        ("  without a change", counts.rows_without_change.to_string()),
        ("  rejected", counts.rows_rejected.to_string()),
    ];
    let reasons: Vec<_> =
        counts.rejected_by_reason.iter().map(|(reason, count)| (format!("    {reason}"), count)).collect();
    rows.extend(reasons.iter().map(|(reason, count)| (reason.as_str(), count.to_string())));
    let emitted = if args.dry_run { "events (dry run: none sent)" } else { "events emitted" };
    rows.push((emitted, counts.events_emitted.to_string()));
    let per_second = counts.events_emitted as f64 / seconds.max(0.001);
    let mut lines: Vec<String> = rows.iter().map(|(name, count)| format!("{name:28}{count:>12}")).collect();
    lines.push(format!("{:28}{:>12}", "seconds", format!("{seconds:.1} ({per_second:.0} events/s)")));
    lines.join("\n")
}
