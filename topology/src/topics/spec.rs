//! What each topic must look like.

use crate::config::TopicsConfig;
use std::collections::BTreeMap;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const MIB: u64 = 1024 * 1024;

/// The wanted form of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// What it is for, as in the configuration: `events`, `state`, `dead_letters`.
    pub role: &'static str,
    /// The topic's name on the broker.
    pub name: String,
    /// What it holds, in a sentence.
    pub purpose: &'static str,
    /// Number of partitions; can't be changed later.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
    /// Topic settings, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// Settings that carry the design: with another value events would be lost or times be wrong, so the configuration
/// can't override them.
pub const FIXED_SETTINGS: &[&str] = &["cleanup.policy", "message.timestamp.type"];

/// The specs of all topics, with names, sizes and overrides from the configuration.
pub fn specs(config: &TopicsConfig) -> Vec<TopicSpec> {
    let mut specs = vec![events(config), state(config), dead_letters(config)];
    for spec in &mut specs {
        if let Some(overrides) = config.settings.get(spec.role) {
            spec.settings.extend(overrides.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    specs
}

fn events(config: &TopicsConfig) -> TopicSpec {
    let mut settings = common(config);
    // The key is unique per event: compaction removes repeated copies and erased events, nothing else.
    settings.set("cleanup.policy", "compact");
    // A copy is removed only once a later copy of its key is this old. So the first of two conflicting events outlives
    // the time it takes to settle the conflict at its source: until then a run from zero chooses it too (ADR 2).
    settings.set("min.compaction.lag.ms", 7 * DAY_MS);
    // Erasures must have left the log after two weeks at most, however little there is to clean (a segment is closed
    // by the first record after `segment.ms`). Never less than the least lag: the broker refuses that.
    settings.set("max.compaction.lag.ms", 14 * DAY_MS);
    // A reader that was away for less than this still sees every tombstone.
    settings.set("delete.retention.ms", 7 * DAY_MS);
    settings.set("min.cleanable.dirty.ratio", 0.5);
    settings.set("segment.bytes", 256 * MIB);
    settings.set("segment.ms", DAY_MS);
    // Foreign producers may send large records; they are dead-lettered with their coordinates, not refused unseen.
    settings.set("max.message.bytes", 16 * MIB);
    TopicSpec {
        role: "events",
        name: config.events.clone(),
        purpose: "claim events, keyed per event, partitioned by claim",
        partitions: config.partitions,
        replication_factor: config.replication_factor,
        settings: settings.0,
    }
}

fn state(config: &TopicsConfig) -> TopicSpec {
    let mut settings = common(config);
    settings.set("cleanup.policy", "compact");
    settings.set("max.compaction.lag.ms", DAY_MS);
    settings.set("delete.retention.ms", 7 * DAY_MS);
    settings.set("min.compaction.lag.ms", 0);
    settings.set("min.cleanable.dirty.ratio", 0.2);
    settings.set("segment.bytes", 128 * MIB);
    settings.set("segment.ms", HOUR_MS);
    settings.set("max.message.bytes", 2 * MIB);
    TopicSpec {
        role: "state",
        name: config.state.clone(),
        purpose: "current state of every claim, keyed by claim; readers keep the highest revision",
        partitions: config.partitions,
        replication_factor: config.replication_factor,
        settings: settings.0,
    }
}

fn dead_letters(config: &TopicsConfig) -> TopicSpec {
    let mut settings = common(config);
    settings.set("cleanup.policy", "delete");
    settings.set("retention.ms", 90 * DAY_MS);
    settings.set("segment.bytes", 128 * MIB);
    settings.set("segment.ms", 7 * DAY_MS);
    // Payloads are cut to `max_dead_letter_payload_bytes`; keys and headers come on top.
    settings.set("max.message.bytes", 2 * MIB);
    TopicSpec {
        role: "dead_letters",
        name: config.dead_letters.clone(),
        purpose: "refused records, with the place they came from and the reason",
        partitions: config.dead_letter_partitions,
        replication_factor: config.replication_factor,
        settings: settings.0,
    }
}

/// What every topic has: the broker's clock (event time is in the envelope), the producer's compression kept, and
/// with three copies two of them written before a record counts as accepted.
fn common(config: &TopicsConfig) -> Settings {
    let mut settings = Settings::default();
    settings.set("message.timestamp.type", "LogAppendTime");
    settings.set("compression.type", "producer");
    settings.set("min.insync.replicas", if config.replication_factor >= 3 { 2 } else { 1 });
    settings
}

#[derive(Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn set(&mut self, key: &str, value: impl ToString) {
        self.0.insert(key.to_owned(), value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_compacted_by_the_brokers_clock_and_never_deleted_by_age() {
        let specs = specs(&TopicsConfig::default());
        let events = &specs[0];
        assert_eq!(events.settings["cleanup.policy"], "compact");
        assert_eq!(events.settings["message.timestamp.type"], "LogAppendTime");
        assert!(!events.settings.contains_key("retention.ms"));
        assert_eq!(events.partitions, specs[1].partitions, "state is partitioned like the events");
    }

    #[test]
    fn the_first_of_two_conflicting_events_outlives_the_time_to_settle_it() {
        let specs = specs(&TopicsConfig::default());
        assert_eq!(specs[0].settings["min.compaction.lag.ms"], "604800000");
        for spec in &specs[..2] {
            let ms = |key: &str| spec.settings[key].parse::<u64>().unwrap();
            let (min, max) = (ms("min.compaction.lag.ms"), ms("max.compaction.lag.ms"));
            assert!(min <= max, "{}: the broker refuses {min} with {max}", spec.role);
        }
    }

    #[test]
    fn three_copies_need_two_in_sync() {
        let config = TopicsConfig { replication_factor: 3, ..TopicsConfig::default() };
        assert!(specs(&config).iter().all(|spec| spec.settings["min.insync.replicas"] == "2"));
    }

    #[test]
    fn the_configuration_overrides_settings_of_one_topic() {
        let mut config = TopicsConfig::default();
        config.settings.insert("events".into(), BTreeMap::from([("segment.ms".into(), "1000".into())]));
        let specs = specs(&config);
        assert_eq!(specs[0].settings["segment.ms"], "1000");
        assert_ne!(specs[1].settings["segment.ms"], "1000");
    }
}
