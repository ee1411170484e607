//! The audit trail: every record of the events topic in hash-chained Parquet segments, one chain per partition.
//!
//! - [`processor`]: records → entries of the trail ([`packed`] until they are written). Pure.
//! - [`chain`]: which bytes are hashed. Pure; written down for auditors in `docs/audit.md`.
//! - [`segment`]: the Parquet files.
//! - [`store`]: the folder or bucket that they are in.
//! - [`mod@refused`]: what is rightly missing at the end of a trail, by the dead letters.
//! - [`sink`]: appends to the chains, once each, and compares what comes again.
//! - [`mod@restore`]: seeding the topic anew from the trail.
//! - [`mod@verify`] and [`mod@show`]: what an auditor asks.

pub mod chain;
mod check;
mod encoders;
pub mod metrics;
pub mod packed;
pub mod processor;
pub mod record;
pub mod refused;
pub mod restore;
pub mod segment;
pub mod show;
pub mod sink;
pub mod store;
pub mod verify;

pub use restore::{RestoreOptions, Restored, restore};
pub use show::{ClaimTrail, ShowOptions, show};
pub use store::SegmentStore;
pub use verify::{Report, VerifyOptions, verify};

use claims_runtime::{Shutdown, Sink, SinkError, StageError, run_stage};
use claims_schemas::SchemaCache;
use claims_topology::{Config, kafka, registry};
use processor::{AuditProcessor, TrailEnds};
use sink::AuditSink;
use std::{collections::BTreeMap, sync::Arc};

/// Why the audit ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The schema registry's configuration can't be used.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The trail can't be read.
    #[error("audit trail: {0}")]
    Trail(SinkError),
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Runs the audit until `shutdown`.
pub async fn run(config: &Config, shutdown: Shutdown) -> Result<(), AuditError> {
    let store = SegmentStore::open(&config.audit)?;
    tracing::info!(store = store.name(), topic = config.topics.events, "audit trail opened");
    let schemas = SchemaCache::default();
    let ends = TrailEnds::default();
    let resolver = registry::RegistryResolver::new(config, schemas.clone())?;
    let processor = AuditProcessor::new(schemas, ends.clone());
    let refused = refused::RefusedLookup::new(config);
    let sink = AuditSink::new(store, config.topics.events.clone(), ends).with_refused(refused);
    let stage = kafka::stage_config(config, processor::NAME, &config.audit.runtime);
    run_stage(stage, processor, Arc::new(sink), Arc::new(resolver), shutdown).await?;
    Ok(())
}

/// The offset after the last one in the trail of each partition; 0 where the trail is empty.
pub async fn next_offsets(config: &Config, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, AuditError> {
    let store = SegmentStore::open(&config.audit)?;
    let ends = TrailEnds::default();
    AuditSink::new(store, config.topics.events.clone(), ends.clone())
        .assigned(partitions)
        .await
        .map_err(AuditError::Trail)?;
    let next = |&partition: &i32| Some((partition, ends.next_offset(partition)?));
    Ok(partitions.iter().filter_map(next).collect())
}
