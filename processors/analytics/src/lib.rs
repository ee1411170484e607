//! Analytics: every claim event becomes a row in ClickHouse, from which views answer BI's questions.
//!
//! `processor` (record → row, pure) → `sink` (one insert per batch) → table `event_log` → views `events`, `latest`, …
//!
//! - [`row`]: an event with its coordinates, its columns, and their bytes (`row_binary`).
//! - [`processor`]: decoding and validating records.
//! - [`sink`]: writing batches; [`classify`]: what a refused one means.
//! - [`read`]: looking at some claims, for checks.
//! - [`source`]: which topic the rows are of.
//! - [`schema`]: the tables and views (`schema/*.sql`), applied at start.

pub mod classify;
pub mod metrics;
pub mod processor;
pub mod read;
pub mod row;
mod row_binary;
pub mod schema;
pub mod sink;
pub mod source;

pub use processor::AnalyticsProcessor;
pub use row::EventRow;
pub use sink::ClickHouseSink;

use backon::Retryable;
use claims_runtime::{Shutdown, StageError, TopicIdError, run_stage};
use claims_schemas::SchemaCache;
use claims_topology::{
    Config,
    kafka::stage_config,
    registry::{RegistryError, RegistryResolver},
    source::source_topic,
};
use std::sync::Arc;
use std::time::Duration;

/// The processor's name: its consumer group, metric labels, dead letters.
pub const NAME: &str = "analytics";

/// Why analytics ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// The tables could not be made or are not the ones that this build writes to.
    #[error(transparent)]
    Schema(#[from] schema::SchemaError),
    /// The registry client could not be set up.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The events topic can't be described.
    #[error(transparent)]
    Topic(#[from] TopicIdError),
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Runs analytics until `shutdown`: brings the tables up to date, then writes every event of the topic.
///
/// A ClickHouse that is away at the start is waited for, as long as a batch would be
/// (`analytics.runtime.sink_retry_deadline_ms`).
pub async fn run(config: &Config, mut shutdown: Shutdown) -> Result<(), AnalyticsError> {
    let settings = &config.analytics.runtime;
    let clickhouse = &config.analytics.clickhouse;
    let cache = SchemaCache::default();
    let resolver = RegistryResolver::new(config, cache.clone())?;
    let patience = schema::Patience {
        min_backoff: Duration::from_millis(settings.sink_retry_min_backoff_ms),
        max_backoff: Duration::from_millis(settings.sink_retry_max_backoff_ms),
        deadline: Duration::from_millis(settings.sink_retry_deadline_ms),
    };
    tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        ready = prepare(config, &patience) => ready?,
    }
    let sink = ClickHouseSink::new(clickhouse);
    let stage = stage_config(config, NAME, settings);
    run_stage(stage, AnalyticsProcessor::new(cache), Arc::new(sink), Arc::new(resolver), shutdown).await?;
    Ok(())
}

/// Tables, and that they are of the topic that will be read.
async fn prepare(config: &Config, patience: &schema::Patience) -> Result<(), AnalyticsError> {
    let clickhouse = &config.analytics.clickhouse;
    schema::apply_patiently(clickhouse, patience).await?;
    let found = (|| source_topic(config, NAME))
        .retry(patience.backoff())
        .when(|error| matches!(error, TopicIdError::Unavailable { .. }))
        .notify(|error, wait| {
            tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "waiting for Kafka");
        })
        .await?;
    (|| source::note(clickhouse, &config.topics.events, &found))
        .retry(patience.backoff())
        .when(schema::SchemaError::is_transient)
        .await?;
    Ok(())
}
