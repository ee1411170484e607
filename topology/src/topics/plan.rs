//! Comparing the specs with what a broker has. Pure: no client here.

use super::spec::TopicSpec;
use serde::Serialize;
use std::collections::BTreeMap;

/// A topic as the broker describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ObservedTopic {
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each partition (the fewest, where partitions differ).
    pub replication_factor: i32,
    /// Every setting in force, by Kafka's names.
    pub settings: BTreeMap<String, String>,
    /// Those of them that were set on the topic itself.
    pub set_on_topic: Vec<String>,
}

/// One difference between a topic and its spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A setting in force is not the wanted one.
    Setting {
        /// Kafka's name of the setting.
        key: String,
        /// What the spec says.
        wanted: String,
        /// What the broker says; `None`: it knows no such setting.
        actual: Option<String>,
    },
    /// The partition count is not the wanted one: refused, never changed.
    Partitions {
        /// What the spec says.
        wanted: i32,
        /// What the broker says.
        actual: i32,
    },
    /// The number of copies is not the wanted one: shown, changed only with Kafka's own tools.
    ReplicationFactor {
        /// What the spec says.
        wanted: i32,
        /// What the broker says.
        actual: i32,
    },
}

/// Why a partition count is never changed.
pub const PARTITIONS_REFUSED: &str = "a changed partition count would send the next events of a claim to another \
    partition than its earlier ones, which breaks their order and the pairing of topics; make a new topic (v2) \
    with the new count and move the processors to it";

/// What is to be done about one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum TopicPlan {
    /// It is missing.
    Create,
    /// It is there, with these differences (none: in order).
    Compare {
        /// The differences.
        changes: Vec<Change>,
    },
}

/// What is to be done about all topics, in the order of the specs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Each spec and what is to be done about it.
    pub topics: Vec<(TopicSpec, TopicPlan)>,
}

impl Plan {
    /// Whether the broker has everything as it should be.
    pub fn is_in_order(&self) -> bool {
        self.topics.iter().all(|(_, plan)| plan.changes().is_empty() && *plan != TopicPlan::Create)
    }

    /// The specs of missing topics.
    pub fn missing(&self) -> impl Iterator<Item = &TopicSpec> {
        self.topics.iter().filter(|(_, plan)| *plan == TopicPlan::Create).map(|(spec, _)| spec)
    }

    /// Topics whose partition count differs, with the wanted and the actual one.
    pub fn refused(&self) -> impl Iterator<Item = (&TopicSpec, i32, i32)> {
        self.topics.iter().flat_map(|(spec, plan)| {
            plan.changes().iter().filter_map(move |change| match *change {
                Change::Partitions { wanted, actual } => Some((spec, wanted, actual)),
                _ => None,
            })
        })
    }

    /// Topics with settings that differ, and those settings.
    pub fn drifted(&self) -> impl Iterator<Item = (&TopicSpec, Vec<&Change>)> {
        self.topics.iter().filter_map(|(spec, plan)| {
            let changes: Vec<_> =
                plan.changes().iter().filter(|change| matches!(change, Change::Setting { .. })).collect();
            (!changes.is_empty()).then_some((spec, changes))
        })
    }
}

impl TopicPlan {
    /// The differences; none for a missing topic.
    pub fn changes(&self) -> &[Change] {
        match self {
            TopicPlan::Create => &[],
            TopicPlan::Compare { changes } => changes,
        }
    }
}

/// Compares the specs with the topics that the broker has.
pub fn plan(specs: &[TopicSpec], observed: &BTreeMap<String, ObservedTopic>) -> Plan {
    let topics = specs
        .iter()
        .map(|spec| {
            let plan = match observed.get(&spec.name) {
                None => TopicPlan::Create,
                Some(topic) => TopicPlan::Compare { changes: compare(spec, topic) },
            };
            (spec.clone(), plan)
        })
        .collect();
    Plan { topics }
}

fn compare(spec: &TopicSpec, observed: &ObservedTopic) -> Vec<Change> {
    let mut changes = Vec::new();
    if spec.partitions != observed.partitions {
        changes.push(Change::Partitions { wanted: spec.partitions, actual: observed.partitions });
    }
    if spec.replication_factor != observed.replication_factor {
        changes.push(Change::ReplicationFactor {
            wanted: spec.replication_factor,
            actual: observed.replication_factor,
        });
    }
    for (key, wanted) in &spec.settings {
        let actual = observed.settings.get(key);
        if actual.is_none_or(|actual| !same_value(wanted, actual)) {
            changes.push(Change::Setting {
                key: key.clone(),
                wanted: wanted.clone(),
                actual: actual.cloned(),
            });
        }
    }
    changes
}

/// Brokers spell numbers and lists in their own way: `0.50` is `0.5`, and `delete, compact` is `compact,delete`.
fn same_value(wanted: &str, actual: &str) -> bool {
    if wanted == actual {
        return true;
    }
    if let (Ok(wanted), Ok(actual)) = (wanted.parse::<i64>(), actual.parse::<i64>()) {
        return wanted == actual;
    }
    if let (Ok(wanted), Ok(actual)) = (wanted.parse::<f64>(), actual.parse::<f64>()) {
        return wanted == actual;
    }
    sorted_items(wanted) == sorted_items(actual)
}

fn sorted_items(list: &str) -> Vec<&str> {
    let mut items: Vec<_> = list.split(',').map(str::trim).collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::TopicsConfig, topics::specs};

    fn as_specified(spec: &TopicSpec) -> ObservedTopic {
        ObservedTopic {
            partitions: spec.partitions,
            replication_factor: spec.replication_factor,
            settings: spec.settings.clone(),
            set_on_topic: spec.settings.keys().cloned().collect(),
        }
    }

    fn all_as_specified(specs: &[TopicSpec]) -> BTreeMap<String, ObservedTopic> {
        specs.iter().map(|spec| (spec.name.clone(), as_specified(spec))).collect()
    }

    #[test]
    fn missing_topics_are_to_be_created() {
        let specs = specs(&TopicsConfig::default());
        let plan = plan(&specs, &BTreeMap::new());
        assert_eq!(plan.missing().count(), specs.len());
        assert!(!plan.is_in_order());
    }

    #[test]
    fn topics_as_specified_need_nothing() {
        let specs = specs(&TopicsConfig::default());
        let plan = plan(&specs, &all_as_specified(&specs));
        assert!(plan.is_in_order(), "{plan:?}");
    }

    #[test]
    fn each_drifted_setting_is_shown_with_both_values() {
        let specs = specs(&TopicsConfig::default());
        let mut observed = all_as_specified(&specs);
        let events = observed.get_mut(&specs[0].name).unwrap();
        events.settings.insert("cleanup.policy".into(), "delete".into());
        events.settings.remove("segment.ms");
        let plan = plan(&specs, &observed);
        assert!(!plan.is_in_order());
        assert_eq!(
            plan.topics[0].1.changes(),
            [
                Change::Setting {
                    key: "cleanup.policy".into(),
                    wanted: "compact".into(),
                    actual: Some("delete".into())
                },
                Change::Setting {
                    key: "segment.ms".into(),
                    wanted: specs[0].settings["segment.ms"].clone(),
                    actual: None
                },
            ]
        );
        assert_eq!(plan.drifted().count(), 1);
    }

    #[test]
    fn another_partition_count_is_refused_and_is_not_a_setting() {
        let specs = specs(&TopicsConfig::default());
        let mut observed = all_as_specified(&specs);
        observed.get_mut(&specs[0].name).unwrap().partitions += 1;
        let plan = plan(&specs, &observed);
        let refused: Vec<_> =
            plan.refused().map(|(spec, wanted, actual)| (spec.role, wanted, actual)).collect();
        assert_eq!(refused, [("events", 6, 7)]);
        assert_eq!(plan.drifted().count(), 0);
        assert!(!plan.is_in_order());
    }

    #[test]
    fn another_spelling_is_the_same_value() {
        assert!(same_value("0.5", "0.50"));
        assert!(same_value("compact,delete", "delete, compact"));
        assert!(same_value("1000", "1000"));
        assert!(!same_value("1000", "1001"));
        assert!(!same_value("compact", "compact,delete"));
        // Beyond 2^53 a comparison as floating point would see no difference.
        assert!(!same_value("9223372036854775807", "9223372036854775806"));
    }
}
