//! Values that are well-formed and make no sense.

use super::Config;
use crate::topics::spec::FIXED_SETTINGS;
use claims_runtime::RuntimeSettings;
use std::collections::BTreeMap;

/// One value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

const SECURITY_PROTOCOLS: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const TOPIC_ROLES: &[&str] = &["events", "state", "dead_letters"];
const MAX_TOPIC_NAME_CHARS: usize = 249;
const MAX_IDENTIFIER_CHARS: usize = 48;

impl Config {
    /// Everything that can't be used; empty if all is well.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        self.kafka_problems(&mut found);
        self.topic_problems(&mut found);
        self.ingress_problems(&mut found);
        self.store_problems(&mut found);
        runtime_problems("current_state.runtime", &self.current_state.runtime, &mut found);
        runtime_problems("analytics.runtime", &self.analytics.runtime, &mut found);
        runtime_problems("audit.runtime", &self.audit.runtime, &mut found);
        self.listen_problems(&mut found);
        self.control_host_problems(&mut found);
        found.0
    }

    fn kafka_problems(&self, found: &mut Problems) {
        let kafka = &self.kafka;
        for server in kafka.bootstrap_servers.split(',') {
            if found.no_credentials(
                "kafka.bootstrap_servers",
                server,
                "kafka.sasl_username and kafka.sasl_password",
            ) {
                found.address("kafka.bootstrap_servers", server.trim());
            }
        }
        let protocol = kafka.security_protocol.to_lowercase();
        found.unless(SECURITY_PROTOCOLS.contains(&protocol.as_str()), "kafka.security_protocol", || {
            format!("{protocol:?} is none of {}", SECURITY_PROTOCOLS.join(", "))
        });
        found.unless(
            !protocol.starts_with("sasl") || kafka.sasl_mechanism.is_some(),
            "kafka.sasl_mechanism",
            || format!("is needed with security_protocol = {protocol:?}"),
        );
        found.unless(!kafka.group_prefix.is_empty(), "kafka.group_prefix", || "must not be empty".into());
        found.positive("kafka.request_timeout_ms", kafka.request_timeout_ms);
        found.url("registry.url", &self.registry.url, "registry.username and registry.password");
        found.unless(
            self.registry.password.is_none() || self.registry.username.is_some(),
            "registry.username",
            || "is needed with registry.password".into(),
        );
        found.positive("registry.request_timeout_ms", self.registry.request_timeout_ms);
    }

    fn topic_problems(&self, found: &mut Problems) {
        let topics = &self.topics;
        let names = [
            ("topics.events", &topics.events),
            ("topics.state", &topics.state),
            ("topics.dead_letters", &topics.dead_letters),
        ];
        let mut seen = BTreeMap::new();
        for (key, name) in names {
            found.unless(is_topic_name(name), key, || {
                format!(
                    "{name:?} is no topic name: 1 to {MAX_TOPIC_NAME_CHARS} letters, digits, dots, dashes, underscores"
                )
            });
            if let Some(other) = seen.insert(name, key) {
                found.add(key, format!("{name:?} is the name of {other} already"));
            }
        }
        let counts = [
            ("topics.partitions", topics.partitions),
            ("topics.dead_letter_partitions", topics.dead_letter_partitions),
            ("topics.replication_factor", topics.replication_factor),
        ];
        for (key, count) in counts {
            found.unless(count >= 1, key, || format!("is {count}, must be 1 or more"));
        }
        for (role, settings) in &topics.settings {
            let key = format!("topics.settings.{role}");
            found.unless(TOPIC_ROLES.contains(&role.as_str()), &key, || {
                format!("no such topic; known are {}", TOPIC_ROLES.join(", "))
            });
            for fixed in FIXED_SETTINGS.iter().filter(|fixed| settings.contains_key(**fixed)) {
                found.add(&format!("{key}.{fixed}"), "can't be changed: the processors rely on it".into());
            }
        }
    }

    fn ingress_problems(&self, found: &mut Problems) {
        let ingress = &self.ingress;
        found.unless(
            !ingress.default_tenant.is_empty() && !ingress.default_tenant.contains(':'),
            "ingress.default_tenant",
            || "must not be empty or hold a colon".into(),
        );
        found.positive("ingress.max_request_bytes", ingress.max_request_bytes as u64);
        found.positive("ingress.max_line_bytes", ingress.max_line_bytes as u64);
        found.unless(ingress.max_line_bytes <= ingress.max_request_bytes, "ingress.max_line_bytes", || {
            format!("is more than ingress.max_request_bytes ({})", ingress.max_request_bytes)
        });
        found.positive("ingress.max_in_flight_events", ingress.max_in_flight_events as u64);
        found.positive("ingress.queue_full_timeout_ms", ingress.queue_full_timeout_ms);
        found.positive("ingress.delivery_timeout_ms", ingress.delivery_timeout_ms);
    }

    fn store_problems(&self, found: &mut Problems) {
        let cql = &self.current_state.cql;
        found.unless(!cql.nodes.is_empty(), "current_state.cql.nodes", || "names no node".into());
        for node in &cql.nodes {
            let keys = "current_state.cql.username and current_state.cql.password";
            if found.no_credentials("current_state.cql.nodes", node, keys) {
                found.address("current_state.cql.nodes", node);
            }
        }
        found.keyspace("current_state.cql.keyspace", &cql.keyspace);
        found.positive("current_state.cql.replication_factor", cql.replication_factor.into());
        found.positive("current_state.cql.max_in_flight_statements", cql.max_in_flight_statements as u64);
        found.positive("current_state.cql.request_timeout_ms", cql.request_timeout_ms);
        found.unless(!self.current_state.state_dir.is_empty(), "current_state.state_dir", || {
            "must not be empty".into()
        });
        found.positive("current_state.claims_memory_bytes", self.current_state.claims_memory_bytes as u64);
        let clickhouse = &self.analytics.clickhouse;
        found.url(
            "analytics.clickhouse.url",
            &clickhouse.url,
            "analytics.clickhouse.username and analytics.clickhouse.password",
        );
        found.identifier("analytics.clickhouse.database", &clickhouse.database);
        found.positive("analytics.clickhouse.send_timeout_ms", clickhouse.send_timeout_ms);
        found.positive("analytics.clickhouse.end_timeout_ms", clickhouse.end_timeout_ms);
        found.unless(!self.audit.store.is_empty(), "audit.store", || {
            "must be a folder or s3://bucket/prefix".into()
        });
        // A folder may well be called so.
        if self.audit.store.contains("://") {
            found.no_credentials("audit.store", &self.audit.store, "audit.store_options");
        }
    }

    fn listen_problems(&self, found: &mut Problems) {
        let addresses = [
            ("ingress.listen", &self.ingress.listen),
            ("current_state.listen", &self.current_state.listen),
            ("analytics.listen", &self.analytics.listen),
            ("audit.listen", &self.audit.listen),
        ];
        let mut seen = BTreeMap::new();
        for (key, address) in addresses {
            found.address(key, address);
            // Port 0 lets the system choose.
            if !address.ends_with(":0")
                && let Some(other) = seen.insert(address, key)
            {
                found.add(key, format!("{address} is taken by {other}"));
            }
        }
    }

    fn control_host_problems(&self, found: &mut Problems) {
        let key = "telemetry.control_hosts";
        for name in &self.telemetry.control_hosts {
            let is_named = !name.trim_matches('.').is_empty();
            found.unless(is_named, key, || format!("{name:?} is no host name"));
            found.unless(!name.contains([':', '/']), key, || {
                format!(
                    "{name:?} must be a host name alone, without port or scheme; addresses need not be listed"
                )
            });
        }
    }
}

fn runtime_problems(section: &str, settings: &RuntimeSettings, found: &mut Problems) {
    let key = |name: &str| format!("{section}.{name}");
    let positive = [
        ("max_batch_records", settings.max_batch_records as u64),
        ("max_batch_bytes", settings.max_batch_bytes as u64),
        ("max_batch_age_ms", settings.max_batch_age_ms),
        ("sink_retry_deadline_ms", settings.sink_retry_deadline_ms),
        ("sink_retry_min_backoff_ms", settings.sink_retry_min_backoff_ms),
        ("drain_timeout_ms", settings.drain_timeout_ms),
        ("commit_interval_ms", settings.commit_interval_ms),
        ("stall_timeout_ms", settings.stall_timeout_ms),
        ("max_dead_letter_payload_bytes", settings.max_dead_letter_payload_bytes as u64),
    ];
    for (name, value) in positive {
        found.positive(&key(name), value);
    }
    found.unless(
        settings.resume_below_bytes < settings.pause_above_bytes,
        &key("resume_below_bytes"),
        || {
            format!(
                "is {}, must be less than pause_above_bytes ({})",
                settings.resume_below_bytes, settings.pause_above_bytes
            )
        },
    );
    found.unless(settings.max_batch_bytes <= settings.pause_above_bytes, &key("max_batch_bytes"), || {
        format!(
            "is {}, more than pause_above_bytes ({}): no batch would ever be full",
            settings.max_batch_bytes, settings.pause_above_bytes
        )
    });
    found.unless(
        settings.sink_retry_min_backoff_ms <= settings.sink_retry_max_backoff_ms,
        &key("sink_retry_min_backoff_ms"),
        || format!("is more than sink_retry_max_backoff_ms ({})", settings.sink_retry_max_backoff_ms),
    );
    if let Some(instance) = &settings.instance_id {
        found.unless(is_topic_name(instance), &key("instance_id"), || {
            format!("{instance:?} may hold letters, digits, dots, dashes, underscores only")
        });
    }
}

fn is_topic_name(name: &str) -> bool {
    (1..=MAX_TOPIC_NAME_CHARS).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: &str, message: String) {
        self.0.push(Problem { key: key.to_owned(), message });
    }

    fn unless(&mut self, fine: bool, key: &str, message: impl FnOnce() -> String) {
        if !fine {
            self.add(key, message());
        }
    }

    fn positive(&mut self, key: &str, value: u64) {
        self.unless(value > 0, key, || "must be more than 0".into());
    }

    fn address(&mut self, key: &str, address: &str) {
        let fine = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        self.unless(fine, key, || format!("{address:?} is not host:port"));
    }

    /// Refuses `user:password@` without showing it: these values are printed and named in errors. Any `@` will do, as a
    /// password that isn't escaped may hold what looks like the end of the host.
    fn no_credentials(&mut self, key: &str, value: &str, keys: &str) -> bool {
        let fine = !value.contains('@');
        self.unless(fine, key, || {
            format!("must hold no user name or password, and no @: those belong in {keys}")
        });
        fine
    }

    fn url(&mut self, key: &str, url: &str, credential_keys: &str) {
        if !self.no_credentials(key, url, credential_keys) {
            return;
        }
        let fine = ["http://", "https://"].iter().any(|scheme| {
            url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        });
        self.unless(fine, key, || "must begin with http:// or https:// and a host".into());
    }

    /// The database takes names without quotes, and would turn capitals into small letters.
    fn keyspace(&mut self, key: &str, name: &str) {
        let fine = name.len() <= MAX_IDENTIFIER_CHARS
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        self.unless(fine, key, || {
            format!("{name:?} must be 1 to {MAX_IDENTIFIER_CHARS} of a-z, 0-9 and _, with a letter first")
        });
    }

    fn identifier(&mut self, key: &str, name: &str) {
        let fine = name.len() <= MAX_IDENTIFIER_CHARS
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        self.unless(fine, key, || {
            format!(
                "{name:?} must be a letter and then letters, digits, underscores, {MAX_IDENTIFIER_CHARS} at most"
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_are_fine() {
        assert_eq!(Config::default().problems(), []);
    }

    #[test]
    fn each_rule_finds_its_key() {
        type Change = fn(&mut Config);
        let cases: &[(&str, Change)] = &[
            ("kafka.bootstrap_servers", |c| c.kafka.bootstrap_servers = "broker".into()),
            ("kafka.bootstrap_servers", |c| c.kafka.bootstrap_servers = "a:1,:2".into()),
            ("kafka.security_protocol", |c| c.kafka.security_protocol = "tls".into()),
            ("kafka.sasl_mechanism", |c| c.kafka.security_protocol = "SASL_SSL".into()),
            ("registry.url", |c| c.registry.url = "localhost:8081".into()),
            ("registry.username", |c| c.registry.password = Some("x".to_owned().into())),
            ("topics.events", |c| c.topics.events = "claims events".into()),
            ("topics.state", |c| c.topics.state = c.topics.events.clone()),
            ("topics.partitions", |c| c.topics.partitions = 0),
            ("topics.replication_factor", |c| c.topics.replication_factor = -1),
            ("topics.settings.audit", |c| {
                c.topics.settings.insert("audit".into(), BTreeMap::new());
            }),
            ("topics.settings.events.cleanup.policy", |c| {
                let setting = BTreeMap::from([("cleanup.policy".into(), "delete".into())]);
                c.topics.settings.insert("events".into(), setting);
            }),
            ("ingress.default_tenant", |c| c.ingress.default_tenant = "a:b".into()),
            ("ingress.max_line_bytes", |c| c.ingress.max_request_bytes = 10),
            ("current_state.cql.keyspace", |c| c.current_state.cql.keyspace = "a-b".into()),
            ("current_state.cql.keyspace", |c| c.current_state.cql.keyspace = "Claims".into()),
            ("current_state.cql.keyspace", |c| c.current_state.cql.keyspace = "1claims".into()),
            ("current_state.cql.keyspace", |c| c.current_state.cql.keyspace = "a".repeat(49)),
            ("analytics.clickhouse.database", |c| c.analytics.clickhouse.database = "1a".into()),
            ("audit.store", |c| c.audit.store = String::new()),
            ("telemetry.control_hosts", |c| c.telemetry.control_hosts = vec!["host-a:9102".into()]),
            ("telemetry.control_hosts", |c| c.telemetry.control_hosts = vec![".".into()]),
            ("audit.runtime.resume_below_bytes", |c| {
                c.audit.runtime.resume_below_bytes = c.audit.runtime.pause_above_bytes;
            }),
            ("audit.runtime.max_batch_bytes", |c| {
                c.audit.runtime.max_batch_bytes = c.audit.runtime.pause_above_bytes + 1;
            }),
            ("audit.runtime.instance_id", |c| c.audit.runtime.instance_id = Some("a/b".into())),
            ("analytics.runtime.sink_retry_min_backoff_ms", |c| {
                c.analytics.runtime.sink_retry_max_backoff_ms = 1;
            }),
            ("audit.listen", |c| c.audit.listen = c.ingress.listen.clone()),
        ];
        for (key, change) in cases {
            assert_eq!(keys(*change), [*key]);
        }
    }

    #[test]
    fn credentials_within_an_address_are_refused_and_never_shown() {
        type Change = fn(&mut Config, String);
        let cases: &[(&str, &str, Change)] = &[
            ("http://u:hunter2@host:8081", "registry.password", |c, url| c.registry.url = url),
            ("http://u:hun/hunter2@host", "registry.password", |c, url| c.registry.url = url),
            ("hunter2@host", "registry.password", |c, url| c.registry.url = url),
            ("https://u:hunter2@host", "analytics.clickhouse.password", |c, url| {
                c.analytics.clickhouse.url = url
            }),
            ("a:1,u:hunter2@host", "kafka.sasl_password", |c, servers| c.kafka.bootstrap_servers = servers),
            ("u:hunter2@host:9042", "current_state.cql.password", |c, n| c.current_state.cql.nodes = vec![n]),
            ("s3://k:hunter2@bucket/p", "audit.store_options", |c, store| c.audit.store = store),
        ];
        for (value, advice, change) in cases {
            let mut config = Config::default();
            change(&mut config, (*value).to_owned());
            let problems = config.problems();
            let [problem] = problems.as_slice() else { panic!("{value}: {problems:?}") };
            assert!(problem.message.contains(advice), "{problem}");
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
        }
        let mut config = Config::default();
        config.audit.store = "/backup/me@home".into();
        assert_eq!(config.problems(), []);
    }

    #[test]
    fn port_zero_may_be_given_more_than_once() {
        let found = keys(|c| {
            c.audit.listen = "127.0.0.1:0".into();
            c.ingress.listen = "127.0.0.1:0".into();
        });
        assert_eq!(found, Vec::<String>::new());
    }
}
