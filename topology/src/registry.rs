//! The schema registry: registering our schemas, and fetching writers' schemas into the cache.
//!
//! - [`ensure_registered`], [`check`]: this build's schemas, one subject per topic (`<topic>-value`).
//! - [`RegistryResolver`]: schemas of records that others wrote, by id.

mod check;
mod client;
mod resolver;

pub use check::{Compatibility, SubjectCheck, check, describe};
pub use client::RegistryClient;
pub use resolver::RegistryResolver;

use crate::config::Config;
use std::time::Duration;

/// The rule that every subject is held to: a new schema must be able to read everything written before it.
pub const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";

/// Why the registry could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It can't be reached, or what answers is no registry.
    #[error("the schema registry at {url} does not answer as one: {detail}")]
    Unavailable {
        /// The configured URL.
        url: String,
        /// What happened instead.
        detail: String,
    },
    /// It has nothing under this name or id.
    #[error("the schema registry has no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It refused a request.
    #[error("the schema registry refused to {action}: {detail}")]
    Refused {
        /// What was tried.
        action: String,
        /// What the registry says.
        detail: String,
    },
    /// The configuration can't be used.
    #[error("registry settings: {0}")]
    Settings(String),
}

/// One of this build's schemas, and the subject it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurSchema {
    /// `<topic>-value`.
    pub subject: String,
    /// The schema as JSON.
    pub schema: &'static str,
}

/// The ids that writers of this build put in front of their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaIds {
    /// Of the schema of the events topic.
    pub event: u32,
    /// Of the schema of the state topic.
    pub state: u32,
}

/// The subject of a topic's values (TopicNameStrategy).
pub fn value_subject(topic: &str) -> String {
    format!("{topic}-value")
}

fn event_schema(config: &Config) -> OurSchema {
    OurSchema {
        subject: value_subject(&config.topics.events),
        schema: claims_schemas::codec::CLAIM_EVENT_SCHEMA,
    }
}

fn state_schema(config: &Config) -> OurSchema {
    OurSchema {
        subject: value_subject(&config.topics.state),
        schema: claims_schemas::codec::CLAIM_STATE_SCHEMA,
    }
}

/// The schemas that this build writes with.
pub fn our_schemas(config: &Config) -> Vec<OurSchema> {
    vec![event_schema(config), state_schema(config)]
}

/// Registers this build's schemas where they aren't yet, under [`COMPATIBILITY`], and gives their ids. A schema
/// that can't read what was written before is refused.
pub async fn ensure_registered(config: &Config) -> Result<SchemaIds, RegistryError> {
    let client = RegistryClient::new(&config.registry)?;
    Ok(SchemaIds {
        event: ensure_one(&client, &event_schema(config)).await?,
        state: ensure_one(&client, &state_schema(config)).await?,
    })
}

async fn ensure_one(client: &RegistryClient, ours: &OurSchema) -> Result<u32, RegistryError> {
    // Before a version is offered the rule must be in force. Afterwards it is looked at again: a registry may not
    // keep rules of a subject without any version.
    ensure_compatibility(client, &ours.subject).await?;
    let id = client.register(&ours.subject, ours.schema).await?;
    ensure_compatibility(client, &ours.subject).await?;
    Ok(id)
}

async fn ensure_compatibility(client: &RegistryClient, subject: &str) -> Result<(), RegistryError> {
    if client.compatibility_level(subject).await?.as_deref() == Some(COMPATIBILITY) {
        return Ok(());
    }
    client.set_compatibility_level(subject, COMPATIBILITY).await
}

fn request_timeout(config: &crate::config::RegistryConfig) -> Duration {
    Duration::from_millis(config.request_timeout_ms)
}
