//! Development tasks: `cargo xtask up`, `cargo xtask test`, …

mod bench;
mod demo;
mod faults;
mod test;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use xtask::services::{self, ModeArgs, RunLength, Service};

/// Services, the demo and the tests of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(flatten)]
    mode: ModeArgs,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start Kafka, the schema registry, the CQL server and ClickHouse, and wait until they answer
    Up,
    /// Show the services: state, pid, port, memory, uptime. Exit code 1 unless all are ready
    Status {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Show the services' logs
    Logs {
        /// Only this one
        service: Option<Service>,
        /// Keep showing what is added
        #[arg(long, short)]
        follow: bool,
        /// How many lines of each
        #[arg(long, default_value_t = 50)]
        lines: usize,
    },
    /// Stop the services; their data stays
    Down {
        /// Only these (default: all)
        services: Vec<Service>,
    },
    /// Stop the services and remove all data below .claims: theirs, and the pipeline's local state and audit trail
    Wipe {
        /// Also remove the downloads
        #[arg(long)]
        all: bool,
    },
    /// Start the services, run the whole pipeline on generated events or a file, and check every view
    #[command(disable_help_flag = true)]
    Demo {
        /// See `cargo xtask demo --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Break processes, services and the network under load on services of its own, and check every view
    #[command(disable_help_flag = true)]
    Faults {
        /// See `cargo xtask faults --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run an older build, made from a commit, and this one side by side in the same groups, and check every view
    Upgrade {
        /// The commit or tag of the older build
        #[arg(long, value_name = "REV")]
        from: String,
        /// For the check itself, such as `--events 100000`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure the pipeline's stages against the client libraries alone
    #[command(disable_help_flag = true)]
    Bench {
        /// See `cargo xtask bench --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run all processors at a steady rate for a long time, and see whether anything grows
    #[command(disable_help_flag = true)]
    Soak {
        /// See `cargo xtask soak --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Start the services, then check the format, run clippy and every test
    Test,
    /// Resolve dev/downloads.toml anew and pin the files in dev/downloads.lock
    LockDownloads,
}

fn run(cli: Cli) -> Result<bool> {
    match cli.task {
        Task::Up => services::up(cli.mode, RunLength::Short).map(|_| true),
        Task::Status { json } => services::status(cli.mode, json),
        Task::Logs { service, follow, lines } => {
            services::logs(cli.mode, service, lines, follow).map(|()| true)
        }
        Task::Down { services } => {
            let services = if services.is_empty() { Service::ALL.to_vec() } else { services };
            services::down(cli.mode, &services).map(|()| true)
        }
        Task::Wipe { all } => services::wipe(cli.mode, all).map(|()| true),
        Task::Demo { arguments } => demo::run(cli.mode, &arguments),
        Task::Faults { arguments } => faults::run(&arguments),
        Task::Upgrade { from, arguments } => upgrade::run(cli.mode, &from, &arguments),
        Task::Bench { arguments } => bench::run(cli.mode, &arguments),
        Task::Soak { arguments } => bench::soak(cli.mode, &arguments),
        Task::Test => test::run(cli.mode),
        Task::LockDownloads => services::lock_downloads().map(|()| true),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
