//! Running one stage: a processor, its sink, and everything of Kafka in between.

use crate::{
    Processor, RuntimeSettings, SchemaResolver, Sink,
    event_loop::{Letter, StageLoop},
    health::StageHealth,
    kafka::{SESSION_TIMEOUT_MS, SESSION_TIMEOUT_PROPERTY, STATIC_SESSION_TIMEOUT_MS},
    mailbox::Mailbox,
    retry::Retrier,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{oneshot, watch};

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

impl StageConfig {
    /// A member that the group hasn't heard from for this long loses its partitions to others.
    pub fn session_timeout(&self) -> Duration {
        let set = self.client_properties.iter().rev().find(|(name, _)| name == SESSION_TIMEOUT_PROPERTY);
        let set = set.and_then(|(_, value)| value.parse().ok());
        let usual = match self.settings.instance_id {
            None => SESSION_TIMEOUT_MS,
            Some(_) => STATIC_SESSION_TIMEOUT_MS,
        };
        Duration::from_millis(set.unwrap_or(usual))
    }
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
///
/// The consumer loop runs on a thread of its own; the sink's futures run on the calling runtime. How the stage fares is
/// in [`crate::health`]. Dropping the future stops the stage as `shutdown` does, without waiting for it.
pub async fn run_stage<P, S>(
    config: StageConfig,
    processor: P,
    sink: Arc<S>,
    resolver: Arc<dyn SchemaResolver>,
    mut shutdown: Shutdown,
) -> Result<(), StageError>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    let name = processor.name();
    let mailbox = Arc::new(Mailbox::default());
    let health = StageHealth::register(name);
    let _retries = Retrier::register(name, config.clone(), Arc::clone(&resolver), Arc::clone(&mailbox));
    let stage = StageLoop::new(config, processor, sink, resolver, Arc::clone(&mailbox), Arc::clone(&health));
    let outcome = match stage {
        Err(error) => Err(error),
        Ok(stage) => {
            let stop = StopOnDrop { mailbox, health: Arc::clone(&health) };
            let (ended, mut outcome) = oneshot::channel();
            let thread = std::thread::Builder::new().name(format!("stage-{name}")).spawn(move || {
                let _ = ended.send(stage.run());
            });
            if let Err(error) = thread {
                Err(StageError::Kafka(format!("no thread for the consumer: {error}")))
            } else {
                let outcome = tokio::select! {
                    outcome = &mut outcome => outcome,
                    () = shutdown.requested() => {
                        stop.mailbox.post(Letter::Stop);
                        outcome.await
                    }
                };
                let panicked = || StageError::Processor { processor: name, detail: "it panicked".into() };
                outcome.unwrap_or_else(|_| Err(panicked()))
            }
        }
    };
    if let Err(error) = &outcome {
        tracing::error!(processor = name, "{error}");
        health.fail(error.to_string());
    }
    outcome
}

/// Stops the loop when the stage's future goes, and takes the stage off the list.
struct StopOnDrop {
    mailbox: Arc<Mailbox<Letter>>,
    health: Arc<StageHealth>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.mailbox.post(Letter::Stop);
        self.health.deregister();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_what_the_user_set_or_depends_on_membership() {
        let mut config = StageConfig {
            client_properties: Vec::new(),
            group_id: "g".into(),
            topic: "t".into(),
            dead_letter_topic: "d".into(),
            settings: RuntimeSettings::default(),
        };
        assert_eq!(config.session_timeout(), Duration::from_secs(10));
        config.settings.instance_id = Some("a".into());
        assert_eq!(config.session_timeout(), Duration::from_secs(45));
        config.client_properties.push((SESSION_TIMEOUT_PROPERTY.into(), "6000".into()));
        assert_eq!(config.session_timeout(), Duration::from_secs(6));
    }
}
