//! The demo: events in, three processors on, and a report that says whether every view agrees with an independent
//! model of the same input. Exit 0 only if everything agrees. `cargo xtask demo` starts the services and runs it.

mod demo;

use anyhow::Result;
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Runs the pipeline on generated events or a file of your own, and checks every view against an independent model.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
pub struct Args {
    /// How many events to generate
    #[arg(long, default_value_t = 200_000, conflicts_with = "input")]
    events: u64,
    /// Seed of the generated events
    #[arg(long, default_value_t = 1, conflicts_with = "input")]
    seed: u64,
    /// A CSV file (also .gz) to import instead
    #[arg(long, requires = "mapping")]
    input: Option<PathBuf>,
    /// The mapping that turns its rows into events
    #[arg(long, requires = "input")]
    mapping: Option<PathBuf>,
    /// Partitions of the events topic
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Folder for the run's files
    #[arg(long, default_value = ".claims/demo")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome: Result<bool> = demo::run(&Args::parse()).await;
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
