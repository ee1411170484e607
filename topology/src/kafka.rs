//! From the configuration to what a Kafka client needs.

use crate::config::{Config, KafkaConfig};
use claims_runtime::{RuntimeSettings, StageConfig};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;

/// The librdkafka properties of every client: where the cluster is, and how to be let in. Settings under
/// `[kafka.properties]` win. The values hold secrets: never log them.
pub fn client_properties(kafka: &KafkaConfig) -> Vec<(String, String)> {
    let mut properties = BTreeMap::new();
    properties.insert("bootstrap.servers".to_owned(), kafka.bootstrap_servers.clone());
    properties.insert("security.protocol".to_owned(), kafka.security_protocol.clone());
    properties.insert("client.id".to_owned(), "claimstream".to_owned());
    let optional = [
        ("ssl.ca.location", kafka.ssl_ca_location.as_deref()),
        ("ssl.certificate.location", kafka.ssl_certificate_location.as_deref()),
        ("ssl.key.location", kafka.ssl_key_location.as_deref()),
        ("ssl.key.password", kafka.ssl_key_password.as_ref().map(|s| s.expose())),
        ("sasl.mechanism", kafka.sasl_mechanism.as_deref()),
        ("sasl.username", kafka.sasl_username.as_deref()),
        ("sasl.password", kafka.sasl_password.as_ref().map(|s| s.expose())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            properties.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in &kafka.properties {
        properties.insert(name.clone(), value.expose().to_owned());
    }
    properties.into_iter().collect()
}

/// The same as a client configuration, to which the caller adds what it needs.
pub fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    client_properties(kafka).into_iter().collect()
}

/// The consumer group of a processor: `<prefix>.<processor>`.
pub fn group_id(kafka: &KafkaConfig, processor: &str) -> String {
    format!("{}.{processor}", kafka.group_prefix)
}

/// What the runtime needs to run a processor over the events topic.
pub fn stage_config(config: &Config, processor: &str, settings: &RuntimeSettings) -> StageConfig {
    StageConfig {
        client_properties: client_properties(&config.kafka),
        group_id: group_id(&config.kafka, processor),
        topic: config.topics.events.clone(),
        dead_letter_topic: config.topics.dead_letters.clone(),
        settings: settings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_settings_become_client_properties() {
        let kafka = KafkaConfig {
            bootstrap_servers: "broker:9093".into(),
            security_protocol: "sasl_ssl".into(),
            sasl_mechanism: Some("SCRAM-SHA-512".into()),
            sasl_username: Some("claims".into()),
            sasl_password: Some("s3cret".to_owned().into()),
            ..KafkaConfig::default()
        };
        let properties: BTreeMap<_, _> = client_properties(&kafka).into_iter().collect();
        assert_eq!(properties["bootstrap.servers"], "broker:9093");
        assert_eq!(properties["security.protocol"], "sasl_ssl");
        assert_eq!(properties["sasl.mechanism"], "SCRAM-SHA-512");
        assert_eq!(properties["sasl.password"], "s3cret");
        assert!(!properties.contains_key("ssl.ca.location"));
    }

    #[test]
    fn further_properties_win() {
        let mut kafka = KafkaConfig::default();
        kafka.properties.insert("client.id".into(), "mine".to_owned().into());
        kafka.properties.insert("socket.timeout.ms".into(), "5000".to_owned().into());
        let properties: BTreeMap<_, _> = client_properties(&kafka).into_iter().collect();
        assert_eq!(properties["client.id"], "mine");
        assert_eq!(properties["socket.timeout.ms"], "5000");
    }

    #[test]
    fn a_stage_reads_the_events_as_its_own_group() {
        let mut config = Config::default();
        config.topics.events = "t.events".into();
        config.kafka.group_prefix = "blue".into();
        let stage = stage_config(&config, "audit", &config.audit.runtime);
        assert_eq!(stage.group_id, "blue.audit");
        assert_eq!(stage.topic, "t.events");
        assert_eq!(stage.dead_letter_topic, "claims.dead-letters.v1");
        assert_eq!(stage.settings, config.audit.runtime);
    }
}
