//! The current-state processor in the product's runtime, with a sink that writes nothing: what decoding, folding and the
//! durable local store cost by themselves.

use super::floor::{DONE, READY};
use anyhow::Result;
use claims_current_state::{
    ClaimWrite, CurrentState, NAME,
    store::{StateStore, StoreIdentity},
};
use claims_runtime::{Batch, Shutdown, Sink, SinkError, run_stage};
use claims_schemas::SchemaCache;
use claims_topology::{Config, kafka, registry::RegistryResolver};
use claims_verifier::namespace::Namespace;
use clap::Args;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where the fold takes place.
#[derive(Debug, Args)]
pub struct FoldArgs {
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
}

impl FoldArgs {
    /// The arguments that fold into a namespace.
    pub fn command_line(namespace: &Namespace) -> Vec<String> {
        let options = [
            ("--namespace", namespace.name.clone()),
            ("--folder", namespace.dir.display().to_string()),
            ("--topic", namespace.events_topic.clone()),
            ("--partitions", namespace.partitions.to_string()),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("run-fold".to_owned()).chain(options).collect()
    }
}

/// Counts what it would write: every event has one entry in a timeline, a copy has none.
#[derive(Default)]
struct Nowhere {
    entries: AtomicU64,
}

impl Sink for Nowhere {
    type Row = Arc<ClaimWrite>;

    async fn write(&self, batch: &Batch<Self::Row>) -> Result<(), SinkError> {
        let entries: usize = batch.rows.iter().map(|write| write.timeline.len()).sum();
        let before = self.entries.fetch_add(entries as u64, Ordering::Relaxed);
        println!("{DONE} {}", before + entries as u64);
        Ok(())
    }
}

/// Runs until it is ended.
pub async fn run(args: &FoldArgs) -> Result<()> {
    let mut namespace = Namespace::new(&args.namespace, &args.folder, args.partitions)?;
    namespace.events_topic.clone_from(&args.topic);
    let mut config = Config::default();
    config.kafka.bootstrap_servers = namespace.kafka();
    config.kafka.group_prefix.clone_from(&namespace.name);
    config.registry.url = namespace.registry();
    config.topics.events.clone_from(&namespace.events_topic);
    config.topics.dead_letters = namespace.dead_letters_topic();
    let mut settings = config.current_state.runtime.clone();
    settings.commit_interval_ms = super::ours::COMMIT_INTERVAL_MS;
    let identity = StoreIdentity {
        topic: config.topics.events.clone(),
        topic_id: String::new(),
        partitions: namespace.partitions,
    };
    let store = StateStore::open(&namespace.state_dir(), None, &identity)?;
    let schemas = SchemaCache::default();
    let resolver = RegistryResolver::new(&config, schemas.clone())?;
    let stage = kafka::stage_config(&config, NAME, &settings);
    let (_trigger, shutdown) = Shutdown::new();
    println!("{READY}");
    let processor = CurrentState::new(schemas, store);
    run_stage(stage, processor, Arc::new(Nowhere::default()), Arc::new(resolver), shutdown).await?;
    Ok(())
}
