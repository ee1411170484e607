//! The floors: programs that do only what can't be avoided, with everything prepared beforehand. Each is a process of
//! its own, started by the benchmark, that says [`READY`] once it is prepared and goes on until it is stopped.

mod clickhouse;
mod cql;
mod decode;
pub mod parquet;
mod produce;
mod pump;
pub mod records;

use super::stage::ClientFloor;
use anyhow::Result;
use claims_verifier::namespace::Namespace;
use clap::Args;
use std::path::PathBuf;

/// What a floor prints when everything is prepared, just before that which is measured.
pub const READY: &str = "ready";
/// What it prints when it is done, with the number of rows behind it.
pub const DONE: &str = "done";

/// Where a contestant of this program reads and writes.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Where its rows go, and its consumer group
    #[arg(long)]
    namespace: String,
    /// Folder of its files
    #[arg(long)]
    folder: PathBuf,
    /// The topic that it reads
    #[arg(long)]
    topic: String,
    /// Partitions of the topic
    #[arg(long)]
    partitions: i32,
}

impl PlaceArgs {
    /// The arguments that mean a namespace.
    pub fn command_line(namespace: &Namespace) -> Vec<String> {
        let options = [
            ("--namespace", namespace.name.clone()),
            ("--folder", namespace.dir.display().to_string()),
            ("--topic", namespace.events_topic.clone()),
            ("--partitions", namespace.partitions.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The namespace that is meant.
    pub fn namespace(&self) -> Result<Namespace> {
        let mut namespace = Namespace::new(&self.namespace, &self.folder, self.partitions)?;
        namespace.events_topic.clone_from(&self.topic);
        Ok(namespace)
    }
}

/// What a floor is told.
#[derive(Debug, Args)]
pub struct FloorArgs {
    /// Which
    kind: ClientFloor,
    #[command(flatten)]
    place: PlaceArgs,
}

impl FloorArgs {
    /// The arguments that make a floor of a namespace.
    pub fn command_line(kind: ClientFloor, namespace: &Namespace) -> Vec<String> {
        let kind = clap::ValueEnum::to_possible_value(&kind).map(|value| value.get_name().to_owned());
        let line = std::iter::once("run-floor".to_owned()).chain(kind);
        line.chain(PlaceArgs::command_line(namespace)).collect()
    }
}

/// The consumer group of a floor.
pub fn group(namespace: &Namespace) -> String {
    namespace.group("floor")
}

/// Runs a floor.
pub async fn run(args: &FloorArgs) -> Result<()> {
    let namespace = args.place.namespace()?;
    match args.kind {
        ClientFloor::Produce => produce::run(&namespace).await,
        ClientFloor::Decode => decode::run(&namespace).await,
        ClientFloor::Clickhouse => clickhouse::run(&namespace).await,
        ClientFloor::Parquet => parquet::run(&namespace).await,
        ClientFloor::Cql => cql::run(&namespace).await,
    }
}

fn say_ready() {
    println!("{READY}");
}

fn say_done(rows: u64) {
    println!("{DONE} {rows}");
}
