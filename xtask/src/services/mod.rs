//! The services the pipeline stands on: Kafka, a schema registry, a CQL server, ClickHouse.

pub mod docker;
mod download;
pub mod layout;
mod lock;
mod logs;
pub mod native;
mod probe;
mod process;
mod tools;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use layout::{Layout, Ports};

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Apache Kafka.
    Kafka,
    /// The schema registry.
    Registry,
    /// The CQL server.
    Cassandra,
    /// ClickHouse.
    Clickhouse,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Registry, Self::Cassandra, Self::Clickhouse];

    /// The name used for folders, logs and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::Cassandra => "cassandra",
            Self::Clickhouse => "clickhouse",
        }
    }
}

/// How the services run.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ModeArgs {
    /// Run the services as plain processes even when Docker is there
    #[arg(long, global = true, conflicts_with = "docker")]
    native: bool,
    /// Run the services in Docker, and fail when it is not there
    #[arg(long, global = true)]
    docker: bool,
}

impl ModeArgs {
    /// Whether the services run in Docker.
    pub fn use_docker(self) -> Result<bool> {
        if self.native {
            return Ok(false);
        }
        match docker::engine() {
            Ok(()) => Ok(true),
            Err(reason) if self.docker => bail!("Docker cannot be used: {reason}"),
            Err(_) => Ok(false),
        }
    }
}

/// How long the services are going to work, which decides how the CQL server's code is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLength {
    /// Minutes, of tests or of the demo: good code at once.
    Short,
    /// Long enough for the best code, as in production.
    Long,
}

/// Held while services are started, stopped or wiped: two such commands at once wait for each other.
fn exclusive(layout: &Layout) -> Result<fs::File> {
    let path = layout.lock_file();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("another `cargo xtask` is starting or stopping the services; waiting for it");
        file.lock()?;
    }
    Ok(file)
}

/// Starts the services and waits until they answer. Returns what was started here.
pub fn up(mode: ModeArgs, run_length: RunLength) -> Result<Vec<Service>> {
    let layout = Layout::discover()?;
    let _lock = exclusive(&layout)?;
    if mode.use_docker()? {
        return docker::up(&layout);
    }
    native::up(&layout, Ports::from_env()?, run_length)
}

/// Stops the services; data stays.
pub fn down(mode: ModeArgs, services: &[Service]) -> Result<()> {
    let layout = Layout::discover()?;
    let _lock = exclusive(&layout)?;
    if mode.use_docker()? {
        // They may have been started with --native, or before Docker was there.
        native::down_started(&layout, services)?;
        return docker::stop(&layout, services);
    }
    native::down(&layout, services)
}

/// Stops the services and removes their data and what the pipeline keeps locally beside it; with `all` also the
/// downloads.
pub fn wipe(mode: ModeArgs, all: bool) -> Result<()> {
    let layout = Layout::discover()?;
    let _lock = exclusive(&layout)?;
    if mode.use_docker()? {
        // Nothing may write into the folders that are removed below.
        native::down_started(&layout, &Service::ALL)?;
        docker::wipe(&layout)?;
    } else {
        native::down(&layout, &Service::ALL)?;
    }
    for entry in fs::read_dir(&layout.home)?.flatten() {
        let path = entry.path();
        let kept = path == layout.run_folder() || (path == layout.cache() && !all);
        if kept || !path.is_dir() {
            continue;
        }
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        println!("removed {}", path.display());
    }
    Ok(())
}

/// Prints the state of every service. Returns whether all are ready.
pub fn status(mode: ModeArgs, json: bool) -> Result<bool> {
    let layout = Layout::discover()?;
    if mode.use_docker()? {
        return docker::status(&layout, json);
    }
    let statuses = native::status(&layout);
    if json {
        println!("{}", serde_json::to_string_pretty(&statuses)?);
    } else {
        println!(
            "{:<11} {:<9} {:>8} {:>6} {:>8} {:>9}",
            "service", "state", "pid", "port", "memory", "uptime"
        );
        for status in &statuses {
            println!(
                "{:<11} {:<9} {:>8} {:>6} {:>8} {:>9}",
                status.service,
                status.state,
                status.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
                status.port.map_or_else(|| "-".into(), |port| port.to_string()),
                status.resident_bytes.map_or_else(|| "-".into(), |bytes| format!("{} MB", bytes / 1_000_000)),
                status.uptime_s.map_or_else(|| "-".into(), |seconds| format!("{seconds} s")),
            );
        }
    }
    Ok(statuses.iter().all(|status| status.state == "ready"))
}

/// Prints the services' logs.
pub fn logs(mode: ModeArgs, service: Option<Service>, lines: usize, follow: bool) -> Result<()> {
    let layout = Layout::discover()?;
    if mode.use_docker()? {
        return docker::logs(&layout, service, lines, follow);
    }
    let wanted: Vec<_> = Service::ALL
        .into_iter()
        .filter(|one| service.is_none_or(|service| service == *one))
        .map(|one| (one.name().to_owned(), layout.log(one.name())))
        .collect();
    logs::show(&wanted, lines, follow)
}

/// Pins the downloads anew.
pub fn lock_downloads() -> Result<()> {
    let layout = Layout::discover()?;
    let _lock = exclusive(&layout)?;
    download::relock(&layout)
}
