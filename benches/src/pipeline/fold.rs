//! The current-state processor in the product's runtime, with a sink that writes nothing: what decoding, folding and the
//! durable local store cost by themselves.

use super::{
    floor::{DONE, PlaceArgs, READY},
    ours::{COMMIT_INTERVAL_MS, MAX_BATCH_AGE_MS},
};
use anyhow::Result;
use claims_current_state::{
    ClaimWrite, CurrentState, NAME,
    store::{StateStore, StoreIdentity},
};
use claims_runtime::{Batch, Shutdown, Sink, SinkError, run_stage};
use claims_schemas::SchemaCache;
use claims_topology::{Config, kafka, registry::RegistryResolver};
use claims_verifier::namespace::Namespace;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The arguments that fold into a namespace.
pub fn command_line(namespace: &Namespace) -> Vec<String> {
    std::iter::once("run-fold".to_owned()).chain(PlaceArgs::command_line(namespace)).collect()
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
pub async fn run(args: &PlaceArgs) -> Result<()> {
    let namespace = args.namespace()?;
    let mut config = Config::default();
    config.kafka.bootstrap_servers = namespace.kafka();
    config.kafka.group_prefix.clone_from(&namespace.name);
    config.registry.url = namespace.registry();
    config.topics.events.clone_from(&namespace.events_topic);
    config.topics.dead_letters = namespace.dead_letters_topic();
    let mut settings = config.current_state.runtime.clone();
    settings.commit_interval_ms = COMMIT_INTERVAL_MS;
    settings.max_batch_age_ms = MAX_BATCH_AGE_MS;
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
    let processor =
        CurrentState::new(schemas, store).with_claims_memory_bytes(config.current_state.claims_memory_bytes);
    run_stage(stage, processor, Arc::new(Nowhere::default()), Arc::new(resolver), shutdown).await?;
    Ok(())
}
