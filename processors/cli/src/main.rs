//! The command `claims`: runs the processors, brings events in, and shows how things stand.

mod args;
mod commands;
mod dead_letters;
mod decoder;
mod exit;
mod output;
mod progress;
mod reader;
mod replay;
mod telemetry;
mod verify;

use args::{Args, Command};
use claims_topology::config::{self, Config, Sources};
use clap::Parser;
use std::process::ExitCode;

/// A third less CPU per record than with the C library's allocator, which batches made on one thread and dropped on another
/// wear out.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    // These need no configuration, and must work where there is a broken one.
    if let Command::Completions(completions) = &args.command {
        return exit::code_of(commands::completions::run(completions));
    }
    let loaded = match config::load(&Sources::of_process(args.config, args.set)) {
        Ok(loaded) => loaded,
        Err(error) => return exit::unusable_configuration(&error),
    };
    if let Err(error) = telemetry::init(&loaded.config.telemetry, args.command.is_service()) {
        return exit::unusable_configuration(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::code_of(Err(error.into())),
    };
    let result = runtime.block_on(dispatch(args.command, loaded.config, loaded.file));
    // Clients' threads that are still waiting for a broker must not keep the process.
    runtime.shutdown_background();
    exit::code_of(result)
}

async fn dispatch(
    command: Command,
    config: Config,
    file: Option<std::path::PathBuf>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(args, config).await,
        Command::Ingest(args) => commands::ingest::run(args, &config).await,
        Command::Generate(args) => commands::generate::run(args, &config).await,
        Command::Topics(args) => commands::topics::run(args, &config).await,
        Command::Schemas(args) => commands::schemas::run(args, &config).await,
        Command::Topology(args) => commands::topology::run(&args, &config),
        Command::Replay(args) => commands::replay::run(args, config).await,
        Command::Lag(args) => commands::lag::run(args, config).await,
        Command::Tail(args) => commands::tail::run(args, &config).await,
        Command::Audit(args) => commands::audit::run(args, &config).await,
        Command::Verify(args) => commands::verify::run(args, &config).await,
        Command::DeadLetters(args) => commands::dead_letters::run(args, config).await,
        Command::Config(args) => commands::config::run(&args, &config, file.as_deref()),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
