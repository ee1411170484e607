//! The pipeline as it is written in an afternoon, without any guarantee: the price tag of ours.
//!
//! The same client libraries, decoder, columns and tables as ours, in batches of 50,000 records. What is missing: nothing
//! is validated, retried or dead-lettered; copies and replays count twice or write over what is newer; what is known of
//! claims is gone with the process; a rebalance or a crash loses or doubles batches.

mod clickhouse;
mod consume;
mod cql;

use super::floor::PlaceArgs;
use anyhow::Result;
use claims_schemas::SchemaCache;
use claims_verifier::{namespace::Namespace, views::topics};
use clap::Args;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Naive {
    /// A row per record into ClickHouse.
    Clickhouse,
    /// Claims folded in memory, the changed ones of each batch into the CQL tables.
    Cql,
}

/// What it is told.
#[derive(Debug, Args)]
pub struct NaiveArgs {
    /// Which
    kind: Naive,
    #[command(flatten)]
    place: PlaceArgs,
}

impl NaiveArgs {
    /// The arguments that make one of a namespace.
    pub fn command_line(kind: Naive, namespace: &Namespace) -> Vec<String> {
        let kind = clap::ValueEnum::to_possible_value(&kind).map(|value| value.get_name().to_owned());
        let line = std::iter::once("run-naive".to_owned()).chain(kind);
        line.chain(PlaceArgs::command_line(namespace)).collect()
    }
}

/// Its consumer group.
pub fn group(namespace: &Namespace) -> String {
    namespace.group("naive")
}

/// Runs one until it is ended.
pub async fn run(args: &NaiveArgs) -> Result<()> {
    let namespace = args.place.namespace()?;
    match args.kind {
        Naive::Clickhouse => clickhouse::run(&namespace).await,
        Naive::Cql => cql::run(&namespace).await,
    }
}

/// The newest schema of the events, and no other.
async fn schemas(namespace: &Namespace) -> Result<SchemaCache> {
    let subject = format!("{}-value", namespace.events_topic);
    let id = topics::latest_schema_id(namespace, &subject).await?;
    let cache = SchemaCache::default();
    cache.insert(id, &topics::schema_text(namespace, id).await?)?;
    Ok(cache)
}
