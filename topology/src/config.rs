//! The one typed configuration: defaults, then `claims.toml`, then `CLAIMS_*`, then flags. Unknown keys are refused.
//!
//! Here is the struct with its defaults; [`load`] puts it together, [`keys`] knows every key, [`validate`] looks at
//! ranges, [`ports`] shifts the default ports for a second checkout on one machine.

pub mod keys;
pub mod load;
pub mod ports;
pub mod validate;

pub use load::{ConfigError, Loaded, Sources, load};
pub use validate::Problem;

use claims_runtime::RuntimeSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that can be configured. The defaults fit the services that `cargo xtask up` starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// Names, partitions and replication of the topics.
    pub topics: TopicsConfig,
    /// Events into Kafka.
    pub ingress: IngressConfig,
    /// The processor `current-state`.
    pub current_state: CurrentStateConfig,
    /// The processor `analytics`.
    pub analytics: AnalyticsConfig,
    /// The processor `audit`.
    pub audit: AuditConfig,
    /// Metrics and health endpoints, logs.
    pub telemetry: TelemetryConfig,
}

/// A value that must not be shown: passwords, keys. `Debug` and the printed configuration show `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the client that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// By hand, because serde's own message for a value of another type would show the value.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret).map_err(|_| {
            serde::de::Error::custom("expected text in quotes (the value is secret and not shown)")
        })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// How to reach Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// librdkafka's `security.protocol`: `plaintext`, `ssl`, `sasl_plaintext`, `sasl_ssl`.
    pub security_protocol: String,
    /// Path of the CA certificate (PEM).
    pub ssl_ca_location: Option<String>,
    /// Path of the client certificate (PEM).
    pub ssl_certificate_location: Option<String>,
    /// Path of the client key (PEM).
    pub ssl_key_location: Option<String>,
    /// Password of the client key.
    pub ssl_key_password: Option<Secret>,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// SASL user.
    pub sasl_username: Option<String>,
    /// SASL password.
    pub sasl_password: Option<Secret>,
    /// Prefix of the consumer groups: `<prefix>.<processor>`.
    pub group_prefix: String,
    /// A question to the cluster (metadata, topic settings, offsets) is given up after this long.
    pub request_timeout_ms: u64,
    /// Further librdkafka properties, passed through as they stand; they win over the ones above.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            security_protocol: "plaintext".into(),
            ssl_ca_location: None,
            ssl_certificate_location: None,
            ssl_key_location: None,
            ssl_key_password: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            group_prefix: "claims".into(),
            request_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        }
    }
}

/// How to reach the schema registry (Confluent API).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Base URL, with the path of the Confluent API where the registry has one.
    pub url: String,
    /// Basic authentication: user.
    pub username: Option<String>,
    /// Basic authentication: password.
    pub password: Option<Secret>,
    /// One request is given up after this long.
    pub request_timeout_ms: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081/apis/ccompat/v7".into(),
            username: None,
            password: None,
            request_timeout_ms: 5_000,
        }
    }
}

/// Names and sizes of the topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Claim events.
    pub events: String,
    /// Current state of every claim.
    pub state: String,
    /// Refused records.
    pub dead_letters: String,
    /// Partitions of the events and state topics; can't be changed later.
    pub partitions: i32,
    /// Partitions of the dead-letter topic; can't be changed later.
    pub dead_letter_partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
    /// Topic settings that win over the specs, by topic (`events`, `state`, `dead_letters`) and Kafka's name of
    /// the setting. `cleanup.policy` and `message.timestamp.type` can't be changed.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            events: crate::topics::EVENTS.into(),
            state: crate::topics::STATE.into(),
            dead_letters: crate::topics::DEAD_LETTERS.into(),
            partitions: 6,
            dead_letter_partitions: 1,
            replication_factor: 1,
            settings: BTreeMap::new(),
        }
    }
}

/// Events into Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressConfig {
    /// Where the HTTP server listens.
    pub listen: String,
    /// Tenant of events that name none.
    pub default_tenant: String,
    /// The largest request body.
    pub max_request_bytes: usize,
    /// The largest line or CSV record.
    pub max_line_bytes: usize,
    /// Events handed to the Kafka client and not yet acknowledged, at most.
    pub max_in_flight_events: usize,
    /// A request that can't hand over its next event for this long is answered 429.
    pub queue_full_timeout_ms: u64,
    /// An event not acknowledged by Kafka within this long failed.
    pub delivery_timeout_ms: u64,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            default_tenant: "default".into(),
            max_request_bytes: 64 * 1024 * 1024,
            max_line_bytes: 1024 * 1024,
            max_in_flight_events: 100_000,
            queue_full_timeout_ms: 1_000,
            delivery_timeout_ms: 120_000,
        }
    }
}

/// [`CurrentStateConfig::claims_memory_bytes`] unless the configuration says otherwise.
pub const CLAIMS_MEMORY_BYTES: usize = 96 * 1024 * 1024;

/// The processor `current-state`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CurrentStateConfig {
    /// Limits of its runtime.
    pub runtime: RuntimeSettings,
    /// Folder of the local stores.
    pub state_dir: String,
    /// Claims kept in memory for their next events, in bytes, over all partitions of a process; when the changed ones
    /// hold as much, the local store is given them. What is on its way to the sink and to the store comes on top.
    pub claims_memory_bytes: usize,
    /// The CQL database.
    pub cql: CqlConfig,
    /// Where `/metrics` and `/health/*` are served.
    pub listen: String,
}

impl Default for CurrentStateConfig {
    fn default() -> Self {
        Self {
            // A batch is held as claims, as rows and as statements at once, beside the claims in memory: with these a
            // process that catches up took 282 MiB writing to Cassandra, and 517 MiB with a sink that writes nothing and
            // so never holds it up. Views are to be fresh: while the sink is busy a batch goes on growing anyway.
            runtime: RuntimeSettings {
                max_batch_age_ms: 25,
                max_batch_bytes: 24 * 1024 * 1024,
                pause_above_bytes: 64 * 1024 * 1024,
                resume_below_bytes: 32 * 1024 * 1024,
                ..RuntimeSettings::default()
            },
            state_dir: ".claims/state".into(),
            claims_memory_bytes: CLAIMS_MEMORY_BYTES,
            cql: CqlConfig::default(),
            listen: "127.0.0.1:9101".into(),
        }
    }
}

/// How to reach ScyllaDB (or Cassandra).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CqlConfig {
    /// `host:port` of some nodes.
    pub nodes: Vec<String>,
    /// The keyspace; made if it is missing.
    pub keyspace: String,
    /// Replication factor of a keyspace made by us.
    pub replication_factor: u32,
    /// User.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// CA certificate (PEM) for TLS; without it the connection is plain.
    pub tls_ca_location: Option<String>,
    /// Statements in flight at most.
    pub max_in_flight_statements: usize,
    /// One statement is given up after this long.
    pub request_timeout_ms: u64,
}

impl Default for CqlConfig {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:9042".into()],
            keyspace: "claims".into(),
            replication_factor: 1,
            username: None,
            password: None,
            tls_ca_location: None,
            max_in_flight_statements: 256,
            request_timeout_ms: 10_000,
        }
    }
}

/// The processor `analytics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnalyticsConfig {
    /// Limits of its runtime.
    pub runtime: RuntimeSettings,
    /// The ClickHouse database.
    pub clickhouse: ClickHouseConfig,
    /// Where `/metrics` and `/health/*` are served.
    pub listen: String,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self {
            runtime: RuntimeSettings { max_batch_age_ms: 1_000, ..RuntimeSettings::default() },
            clickhouse: ClickHouseConfig::default(),
            listen: "127.0.0.1:9102".into(),
        }
    }
}

/// How to reach ClickHouse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// HTTP(S) URL.
    pub url: String,
    /// The database; made if it is missing.
    pub database: String,
    /// User.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Sending a batch may stand still for this long.
    pub send_timeout_ms: u64,
    /// The server's answer to a sent batch may take this long.
    pub end_timeout_ms: u64,
}

impl Default for ClickHouseConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".into(),
            database: "claims".into(),
            username: None,
            password: None,
            send_timeout_ms: 10_000,
            end_timeout_ms: 60_000,
        }
    }
}

/// The processor `audit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Limits of its runtime; a segment is a batch's part of one partition.
    pub runtime: RuntimeSettings,
    /// Where segments are kept: a folder, or `s3://bucket/prefix`.
    pub store: String,
    /// Settings of the object store, such as `aws_region`, `aws_endpoint`, `aws_access_key_id`.
    pub store_options: BTreeMap<String, Secret>,
    /// Where `/metrics` and `/health/*` are served.
    pub listen: String,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            // A segment is hashed and encoded whole, on top of what the batches hold: with these a process that catches
            // up at full speed took 450 to 550 MiB.
            runtime: RuntimeSettings {
                max_batch_age_ms: 5_000,
                max_batch_bytes: 16 * 1024 * 1024,
                pause_above_bytes: 48 * 1024 * 1024,
                resume_below_bytes: 24 * 1024 * 1024,
                ..RuntimeSettings::default()
            },
            store: ".claims/audit".into(),
            store_options: BTreeMap::new(),
            listen: "127.0.0.1:9103".into(),
        }
    }
}

/// Logs, and what is offered beside a running processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `json` or `text`.
    pub log_format: LogFormat,
    /// A filter as in `RUST_LOG`, such as `info,claims_runtime=debug`.
    pub log_filter: String,
    /// Lets status servers that listen beyond loopback stop and start processors, too (`/control`).
    pub control_enabled: bool,
    /// Host names by which `/control` may be called; `.name` stands for every name below it.
    pub control_hosts: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "info,scylla=error".into(),
            control_enabled: false,
            control_hosts: Vec::new(),
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    Json,
    Text,
}
