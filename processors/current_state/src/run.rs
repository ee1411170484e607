//! Putting the stage together and running it.

use crate::{
    cql::CqlSink,
    processor::{CurrentState, NAME},
    retried::{Retried, RetriedLookup},
    sink::CurrentStateSink,
    state_topic::StatePublisher,
    store::{Anew, StateStore, StoreError, StoreIdentity},
};
use backon::{ExponentialBuilder, Retryable};
use claims_runtime::{Shutdown, SinkError, StageError, TopicIdError, run_stage};
use claims_schemas::SchemaCache;
use claims_topology::{
    Config, kafka,
    registry::{RegistryError, RegistryResolver, ensure_registered},
    source::{SourceTopic, describe, source_topic},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Why the processor ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum CurrentStateError {
    /// The local store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The events topic can't be described.
    #[error(transparent)]
    Topic(#[from] TopicIdError),
    /// The registry refuses this build's schemas.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The database or the state topic can't be used.
    #[error("{0}")]
    Sink(SinkError),
    /// The state topic doesn't fit the events topic.
    #[error(
        "topic {state} has {state_partitions} partitions and {events} has {events_partitions}: a claim's state goes to the partition of its events, so they must be as many"
    )]
    Partitions {
        /// The state topic.
        state: String,
        /// Its number of partitions.
        state_partitions: i32,
        /// The events topic.
        events: String,
        /// Its number of partitions.
        events_partitions: i32,
    },
    /// The stage ended.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Runs the processor until `shutdown`. What it needs at the start (Kafka, registry, database) is waited for, up to
/// `sink_retry_deadline_ms` each.
pub async fn run(config: &Config, shutdown: Shutdown) -> Result<(), CurrentStateError> {
    let mut stop = shutdown.clone();
    let stage = kafka::stage_config(config, NAME, &config.current_state.runtime);
    let ready = tokio::select! {
        biased;
        () = stop.requested() => None,
        ready = prepare(config, stage.session_timeout()) => Some(ready?),
    };
    let Some((processor, sink, resolver)) = ready else { return Ok(()) };
    run_stage(stage, processor, Arc::new(sink), Arc::new(resolver), shutdown).await?;
    Ok(())
}

async fn prepare(
    config: &Config,
    session_timeout: Duration,
) -> Result<(CurrentState, CurrentStateSink, RegistryResolver), CurrentStateError> {
    let settings = &config.current_state;
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(settings.runtime.sink_retry_min_backoff_ms))
        .with_max_delay(Duration::from_millis(settings.runtime.sink_retry_max_backoff_ms))
        .with_total_delay(Some(Duration::from_millis(settings.runtime.sink_retry_deadline_ms)))
        .without_max_times();

    let events = (|| source_topic(config, NAME))
        .retry(backoff)
        .when(|e| matches!(e, TopicIdError::Unavailable { .. }))
        .notify(waiting)
        .await?;
    let states = (|| describe(config, &config.topics.state))
        .retry(backoff)
        .when(|e| matches!(e, TopicIdError::Unavailable { .. }))
        .notify(waiting)
        .await?;
    if states.partitions != events.partitions {
        return Err(CurrentStateError::Partitions {
            state: config.topics.state.clone(),
            state_partitions: states.partitions,
            events: config.topics.events.clone(),
            events_partitions: events.partitions,
        });
    }
    let schemas = (|| ensure_registered(config))
        .retry(backoff)
        .when(|e| matches!(e, RegistryError::Unavailable { .. }))
        .notify(waiting)
        .await?;
    let tables = (|| CqlSink::open(&settings.cql))
        .retry(backoff)
        .when(|e| matches!(e, SinkError::Transient(_)))
        .notify(waiting)
        .await
        .map_err(CurrentStateError::Sink)?;

    let cache = SchemaCache::default();
    let resolver = RegistryResolver::new(config, cache.clone())?;
    let store = open_store(config, &events, backoff).await?;
    // The store's own word on the topic comes first: it is the more precise one.
    (|| tables.note_topic(&config.topics.events, &events))
        .retry(backoff)
        .when(|e| matches!(e, SinkError::Transient(_)))
        .notify(waiting)
        .await
        .map_err(CurrentStateError::Sink)?;
    tracing::info!(folder = %store.folder().display(), keyspace = settings.cql.keyspace, "current-state is ready");
    let publisher =
        StatePublisher::new(config, schemas.state, session_timeout).map_err(CurrentStateError::Sink)?;
    let (store, retried) = (Arc::new(store), Retried::default());
    let lookup = RetriedLookup::new(config, Arc::clone(&store), retried.clone());
    let processor = CurrentState::new(cache, store)
        .with_retried(retried)
        .with_claims_memory_bytes(settings.claims_memory_bytes);
    Ok((processor, CurrentStateSink::new(tables, publisher).with_retried(lookup), resolver))
}

/// Opens the local store for the topic as it is now.
async fn open_store(
    config: &Config,
    events: &SourceTopic,
    backoff: ExponentialBuilder,
) -> Result<StateStore, StoreError> {
    let settings = &config.current_state;
    let identity = StoreIdentity {
        topic: config.topics.events.clone(),
        topic_id: events.topic_id.clone().unwrap_or_default(),
        partitions: events.partitions,
    };
    let instance_id = settings.runtime.instance_id.as_deref();
    let anew = if events.is_taken() { Anew::Taken } else { Anew::Refused };
    let state_dir = Path::new(&settings.state_dir).join(NAME);
    // After a stop and a start what was under way for the former run may have the store for a moment longer.
    (|| async { StateStore::open_again(&state_dir, instance_id, &identity, anew) })
        .retry(backoff)
        .when(|e| matches!(e, StoreError::StillOpen(_)))
        .notify(waiting)
        .await
}

fn waiting<E: std::fmt::Display>(error: &E, pause: Duration) {
    tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "current-state waits to start");
}
