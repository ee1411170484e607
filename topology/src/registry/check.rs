//! Comparing this build's schemas with what the registry has.

use super::{COMPATIBILITY, OurSchema, RegistryClient, RegistryError, our_schemas};
use crate::config::Config;
use serde::Serialize;

/// How a schema of this build stands to its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Compatibility {
    /// It is registered.
    Registered {
        /// The registry's id.
        id: u32,
        /// The version within the subject.
        version: u32,
    },
    /// It isn't registered, and could be.
    Registrable,
    /// It isn't registered, and the subject's earlier versions are in the way.
    Incompatible {
        /// What the registry says, in its words.
        differences: Vec<String>,
    },
}

/// What was found out about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectCheck {
    /// `<topic>-value`.
    pub subject: String,
    /// How this build's schema stands to it.
    #[serde(flatten)]
    pub compatibility: Compatibility,
    /// The subject's own compatibility level.
    pub compatibility_level: Option<String>,
    /// Latest registered version, if there is one.
    pub latest_version: Option<u32>,
}

impl SubjectCheck {
    /// Whether this build can write right away.
    pub fn is_in_order(&self) -> bool {
        matches!(self.compatibility, Compatibility::Registered { .. })
            && self.compatibility_level.as_deref() == Some(COMPATIBILITY)
    }
}

/// Compares all schemas of this build with the registry; changes nothing.
pub async fn check(config: &Config) -> Result<Vec<SubjectCheck>, RegistryError> {
    let client = RegistryClient::new(&config.registry)?;
    let mut checks = Vec::new();
    for ours in our_schemas(config) {
        checks.push(check_one(&client, &ours).await?);
    }
    Ok(checks)
}

async fn check_one(client: &RegistryClient, ours: &OurSchema) -> Result<SubjectCheck, RegistryError> {
    let latest = client.latest(&ours.subject).await?;
    let compatibility_level = match latest {
        Some(_) => client.compatibility_level(&ours.subject).await?,
        None => None,
    };
    let compatibility = match client.find(&ours.subject, ours.schema).await? {
        Some(found) => Compatibility::Registered { id: found.id, version: found.version },
        None if latest.is_none() => Compatibility::Registrable,
        None => match client.incompatibilities(&ours.subject, ours.schema).await? {
            None => Compatibility::Registrable,
            Some(differences) => Compatibility::Incompatible { differences },
        },
    };
    Ok(SubjectCheck {
        subject: ours.subject.clone(),
        compatibility,
        compatibility_level,
        latest_version: latest.and_then(|schema| schema.version),
    })
}

/// The latest registered schema of each of our subjects, as JSON text; `None` where there is none.
pub async fn describe(config: &Config) -> Result<Vec<(String, Option<String>)>, RegistryError> {
    let client = RegistryClient::new(&config.registry)?;
    let mut schemas = Vec::new();
    for ours in our_schemas(config) {
        let latest = client.latest(&ours.subject).await?;
        schemas.push((ours.subject, latest.map(|schema| schema.schema)));
    }
    Ok(schemas)
}
