//! `claims generate`: synthetic claims, into Kafka or into a file.

use crate::progress::Progress;
use anyhow::Context;
use claims_ingress::{
    generate::{Generator, GeneratorSettings, generate_into_kafka},
    import::write_ndjson,
    publisher::Publisher,
};
use claims_topology::Config;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::Arc,
};

/// Make synthetic claims: overlapping lifecycles, skewed customers and agents, reopenings, exact copies, late events.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  claims generate --events 200000 --seed 1
  claims generate --events 100000 --seed 1 --rate 5000
  claims generate --events 1000 --seed 1 --output - | head -3")]
pub struct GenerateArgs {
    /// How many events, copies included
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    events: u64,
    /// The same seed gives the same events
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Events per second at most; without it as fast as Kafka takes them
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Write canonical NDJSON into this file (`-`: standard output) instead of sending to Kafka
    #[arg(long, value_name = "FILE", conflicts_with = "rate")]
    output: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: GenerateArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let settings = GeneratorSettings { events: args.events, seed: args.seed };
    if let Some(output) = &args.output {
        write_file(settings, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let publisher = Arc::new(Publisher::connect(config).await?);
    let progress = Progress::events(args.events);
    let bar = progress.clone();
    let acknowledged =
        generate_into_kafka(&publisher, settings, args.rate, move |events| bar.set_position(events)).await?;
    let elapsed = progress.finish();
    let per_second = acknowledged as f64 / elapsed.as_secs_f64().max(0.001);
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "events": acknowledged,
                "seconds": elapsed.as_secs_f64(),
                "events_per_second": per_second.round(),
            })
        );
    } else {
        println!(
            "{acknowledged} events acknowledged by Kafka in {:.1} s ({per_second:.0} events/s)",
            elapsed.as_secs_f64()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn write_file(settings: GeneratorSettings, output: &str) -> anyhow::Result<()> {
    let out: Box<dyn Write> = if output == "-" {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(output).with_context(|| format!("creating {output}"))?)
    };
    let mut out = BufWriter::with_capacity(256 * 1024, out);
    let written = Generator::new(settings)
        .try_for_each(|event| write_ndjson(&mut out, &event))
        .and_then(|()| out.flush());
    match written {
        // Whoever read the pipe has enough: `claims generate --output - | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.with_context(|| format!("writing {output}")),
    }
}
