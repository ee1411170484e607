//! `claims topology`: which processor reads and writes what.

use crate::output;
use claims_topology::{Config, graph};
use std::process::ExitCode;

/// Print the graph of processors, topics and stores as a Mermaid flowchart
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  claims topology > pipeline.mmd
  claims topology --json | jq '.[].name'")]
pub struct TopologyArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &TopologyArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if args.json {
        output::json(&graph::processors(config))?;
    } else {
        output::line(graph::mermaid(config).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
