//! Asking a broker for its topics, and making them as specified.

use super::{
    plan::{Change, ObservedTopic, PARTITIONS_REFUSED, Plan, plan},
    spec::{TopicSpec, specs},
};
use crate::{config::Config, kafka::client_config};
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Why topics could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The brokers can't be reached.
    #[error("Kafka at {servers} does not answer: {detail}")]
    Unavailable {
        /// The bootstrap servers asked.
        servers: String,
        /// What the client says.
        detail: String,
    },
    /// The broker refused an operation.
    #[error("Kafka refused to {action}: {detail}")]
    Refused {
        /// What was tried.
        action: String,
        /// What the broker says.
        detail: String,
    },
    /// A topic has another partition count than configured.
    #[error("topic {topic} has {actual} partitions, the configuration says {wanted}: {PARTITIONS_REFUSED}")]
    PartitionCount {
        /// The topic.
        topic: String,
        /// What the configuration says.
        wanted: i32,
        /// What the broker says.
        actual: i32,
    },
}

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Applied {
    /// Topics that were made.
    pub created: Vec<String>,
    /// Topics whose settings were changed, with the changed keys.
    pub altered: Vec<(String, Vec<String>)>,
    /// Topics whose settings differ and were left as they are.
    pub left_drifted: Vec<String>,
}

struct Admin {
    client: Arc<AdminClient<DefaultClientContext>>,
    servers: String,
    timeout: Duration,
}

impl Admin {
    fn new(config: &Config) -> Result<Self, TopicsError> {
        let servers = config.kafka.bootstrap_servers.clone();
        let client = client_config(&config.kafka).create().map_err(|error: KafkaError| {
            TopicsError::Refused { action: "make a client".into(), detail: error.to_string() }
        })?;
        let timeout = Duration::from_millis(config.kafka.request_timeout_ms);
        Ok(Self { client: Arc::new(client), servers, timeout })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    fn failed(&self, action: &str, error: &KafkaError) -> TopicsError {
        if is_away(error) {
            TopicsError::Unavailable { servers: self.servers.clone(), detail: error.to_string() }
        } else {
            TopicsError::Refused { action: action.to_owned(), detail: error.to_string() }
        }
    }

    /// All topics of the cluster with partitions and copies. Asked for as a whole, because asking for one that is
    /// missing would make it where the broker creates topics by itself.
    async fn layout(&self) -> Result<BTreeMap<String, (i32, i32)>, TopicsError> {
        let (client, timeout) = (Arc::clone(&self.client), self.timeout);
        let metadata = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, timeout))
            .await
            .map_err(|error| TopicsError::Refused {
                action: "list topics".into(),
                detail: error.to_string(),
            })?
            .map_err(|error| self.failed("list topics", &error))?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| !topic.partitions().is_empty())
            .map(|topic| {
                let copies = topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                (topic.name().to_owned(), (topic.partitions().len() as i32, copies as i32))
            })
            .collect())
    }

    async fn settings(&self, topics: &[&str]) -> Result<BTreeMap<String, Vec<ConfigEntry>>, TopicsError> {
        let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answers = self
            .client
            .describe_configs(&resources, &self.options())
            .await
            .map_err(|error| self.failed("describe topics", &error))?;
        let mut settings = BTreeMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| TopicsError::Refused {
                action: "describe topics".into(),
                detail: code.to_string(),
            })?;
            if let OwnedResourceSpecifier::Topic(name) = resource.specifier {
                settings.insert(name, resource.entries);
            }
        }
        Ok(settings)
    }

    async fn create(&self, missing: &[&TopicSpec]) -> Result<Vec<String>, TopicsError> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let topics: Vec<_> = missing
            .iter()
            .map(|spec| {
                let topic = NewTopic::new(
                    &spec.name,
                    spec.partitions,
                    TopicReplication::Fixed(spec.replication_factor),
                );
                spec.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let answers = self
            .client
            .create_topics(&topics, &self.options())
            .await
            .map_err(|error| self.failed("create topics", &error))?;
        let mut created = Vec::new();
        for answer in answers {
            match answer {
                Ok(name) => created.push(name),
                // Another process was quicker: as good as ours, the next comparison looks at it.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(TopicsError::Refused {
                        action: format!("create topic {name}"),
                        detail: code.to_string(),
                    });
                }
            }
        }
        Ok(created)
    }

    /// Changes settings of one topic. The request replaces all settings made on the topic, so those that are not
    /// ours are read first and sent along.
    async fn alter(&self, spec: &TopicSpec, changes: &[&Change]) -> Result<Vec<String>, TopicsError> {
        let current = self.settings(&[&spec.name]).await?;
        let mut settings: BTreeMap<&str, &str> = current
            .get(&spec.name)
            .into_iter()
            .flatten()
            .filter(|entry| entry.source == ConfigSource::DynamicTopic)
            .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
            .collect();
        let mut changed = Vec::new();
        for change in changes {
            if let Change::Setting { key, wanted, .. } = change {
                settings.insert(key, wanted);
                changed.push(key.clone());
            }
        }
        let request = settings
            .into_iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(&spec.name)), |request, (key, value)| {
                request.set(key, value)
            });
        let action = format!("change settings of topic {}", spec.name);
        let answers = self
            .client
            .alter_configs(&[request], &self.options())
            .await
            .map_err(|error| self.failed(&action, &error))?;
        for answer in answers {
            answer.map_err(|(_, code)| TopicsError::Refused {
                action: action.clone(),
                detail: code.to_string(),
            })?;
        }
        Ok(changed)
    }
}

/// Whether nobody answered, as against an answer that says no.
fn is_away(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::TimedOutQueue
        )
    )
}

/// Reads the configured topics from the broker; missing ones are missing from the answer.
pub async fn observe(config: &Config) -> Result<BTreeMap<String, ObservedTopic>, TopicsError> {
    observe_with(&Admin::new(config)?, &specs(&config.topics)).await
}

async fn observe_with(
    admin: &Admin,
    specs: &[TopicSpec],
) -> Result<BTreeMap<String, ObservedTopic>, TopicsError> {
    let layout = admin.layout().await?;
    let present: Vec<_> =
        specs.iter().map(|spec| spec.name.as_str()).filter(|name| layout.contains_key(*name)).collect();
    if present.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut observed = BTreeMap::new();
    for (name, entries) in admin.settings(&present).await? {
        let (partitions, replication_factor) = layout.get(&name).copied().unwrap_or_default();
        let mut topic = ObservedTopic { partitions, replication_factor, ..ObservedTopic::default() };
        for entry in entries {
            if entry.source == ConfigSource::DynamicTopic {
                topic.set_on_topic.push(entry.name.clone());
            }
            if let Some(value) = entry.value {
                topic.settings.insert(entry.name, value);
            }
        }
        topic.set_on_topic.sort();
        observed.insert(name, topic);
    }
    Ok(observed)
}

/// Compares the configured topics with the broker's.
pub async fn plan_for(config: &Config) -> Result<Plan, TopicsError> {
    let specs = specs(&config.topics);
    let observed = observe_with(&Admin::new(config)?, &specs).await?;
    Ok(plan(&specs, &observed))
}

/// Creates missing topics and, if `change_settings`, sets drifted settings as specified. A partition count that
/// differs is refused before anything is touched.
pub async fn apply(config: &Config, change_settings: bool) -> Result<Applied, TopicsError> {
    let admin = Admin::new(config)?;
    let specs = specs(&config.topics);
    let plan = plan(&specs, &observe_with(&admin, &specs).await?);
    if let Some((spec, wanted, actual)) = plan.refused().next() {
        return Err(TopicsError::PartitionCount { topic: spec.name.clone(), wanted, actual });
    }
    let missing: Vec<_> = plan.missing().collect();
    let mut applied = Applied { created: admin.create(&missing).await?, ..Applied::default() };
    for (spec, changes) in plan.drifted() {
        if change_settings {
            applied.altered.push((spec.name.clone(), admin.alter(spec, &changes).await?));
        } else {
            applied.left_drifted.push(spec.name.clone());
        }
    }
    Ok(applied)
}

/// Creates what is missing and changes nothing else: what a process does at its start. Drift is only logged.
pub async fn ensure(config: &Config) -> Result<(), TopicsError> {
    let applied = apply(config, false).await?;
    for topic in &applied.created {
        tracing::info!(topic, "topic created");
    }
    for topic in &applied.left_drifted {
        tracing::warn!(topic, "topic settings differ from the spec; see `claims topics plan`");
    }
    Ok(())
}
