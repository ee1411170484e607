//! Running one stage: a processor, its sink, and everything of Kafka in between.

use crate::{Processor, RuntimeSettings, SchemaResolver, Sink};
use std::sync::Arc;
use tokio::sync::watch;

/// What a stage reads, and as whom.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// librdkafka client properties (bootstrap servers, security, …); the runtime adds its own.
    pub client_properties: Vec<(String, String)>,
    /// The consumer group.
    pub group_id: String,
    /// The topic to read.
    pub topic: String,
    /// Where refused records go.
    pub dead_letter_topic: String,
    /// Limits.
    pub settings: RuntimeSettings,
}

/// Asks running stages to stop: drain, commit, leave the group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The other end of a [`Shutdown`].
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A trigger and what it triggers.
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Shutdown(receiver))
    }

    /// Whether the stop was asked for (or the trigger is gone).
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the stop is asked for.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

impl ShutdownTrigger {
    /// Asks for the stop.
    pub fn stop(&self) {
        let _ = self.0.send(true);
    }
}

/// Why a stage ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Kafka refused or broke in a way that waiting doesn't mend.
    #[error("kafka: {0}")]
    Kafka(String),
    /// The processor can't go on.
    #[error("processor {processor}: {detail}")]
    Processor {
        /// Its name.
        processor: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// The sink can't go on, or kept failing beyond its deadline.
    #[error("sink of {processor}: {detail}")]
    Sink {
        /// The processor's name.
        processor: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// No progress for longer than the stall timeout.
    #[error("{processor} is stalled: {detail}")]
    Stalled {
        /// The processor's name.
        processor: &'static str,
        /// Since when, and on which partitions.
        detail: String,
    },
}

/// Runs the stage until `shutdown`, then drains and commits. Errors are final: the process should end non-zero.
pub async fn run_stage<P, S>(
    _config: StageConfig,
    _processor: P,
    _sink: Arc<S>,
    _resolver: Arc<dyn SchemaResolver>,
    _shutdown: Shutdown,
) -> Result<(), StageError>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    unimplemented!()
}
