//! Which processor reads and writes what: the picture of the whole.

use crate::{config::Config, kafka::group_id};
use serde::Serialize;

/// One processor and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessorNode {
    /// Its name, as in `claims run <name>`.
    pub name: &'static str,
    /// Its consumer group; `None`: it reads no topic.
    pub group: Option<String>,
    /// What it reads that is no topic.
    pub takes: Vec<&'static str>,
    /// Topics that it reads.
    pub reads: Vec<String>,
    /// Topics that it writes.
    pub writes: Vec<String>,
    /// What it writes that is no topic.
    pub stores: Vec<Store>,
}

/// A store that a processor writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Store {
    /// What kind of store.
    pub kind: &'static str,
    /// Keyspace, database or folder.
    pub name: String,
    /// What it holds.
    pub holds: &'static str,
}

/// Names of all processors, in the order in which data reaches them.
pub const PROCESSORS: &[&str] = &["ingress", "current-state", "analytics", "audit"];
/// Those that read the events topic, each as a consumer group of its own.
pub const CONSUMERS: &[&str] = &["current-state", "analytics", "audit"];

/// All processors as configured.
pub fn processors(config: &Config) -> Vec<ProcessorNode> {
    let topics = &config.topics;
    let consumer = |name: &'static str, also_writes: &[&String], store: Store| ProcessorNode {
        name,
        group: Some(group_id(&config.kafka, name)),
        takes: Vec::new(),
        reads: vec![topics.events.clone()],
        writes: also_writes.iter().copied().chain([&topics.dead_letters]).cloned().collect(),
        stores: vec![store],
    };
    vec![
        ProcessorNode {
            name: "ingress",
            group: None,
            takes: vec!["files", "HTTP"],
            reads: Vec::new(),
            writes: vec![topics.events.clone(), topics.dead_letters.clone()],
            stores: Vec::new(),
        },
        consumer(
            "current-state",
            &[&topics.state],
            Store {
                kind: "CQL",
                name: config.current_state.cql.keyspace.clone(),
                holds: "claims by id, status, assignee, customer, creation; timelines",
            },
        ),
        consumer(
            "analytics",
            &[],
            Store {
                kind: "ClickHouse",
                name: config.analytics.clickhouse.database.clone(),
                holds: "events, latest, statistics",
            },
        ),
        consumer(
            "audit",
            &[],
            Store { kind: "Parquet", name: config.audit.store.clone(), holds: "hash-chained segments" },
        ),
    ]
}

/// The graph as a Mermaid flowchart.
pub fn mermaid(config: &Config) -> String {
    let mut lines = vec!["flowchart LR".to_owned()];
    let topics = &config.topics;
    for (id, name) in [("events", &topics.events), ("state", &topics.state), ("dead", &topics.dead_letters)] {
        lines.push(format!("    topic_{id}[[\"{}\"]]", escaped(name)));
    }
    let topic_id = |name: &String| match name {
        name if *name == topics.events => "topic_events",
        name if *name == topics.state => "topic_state",
        _ => "topic_dead",
    };
    for node in processors(config) {
        let id = node.name.replace('-', "_");
        let label = match &node.group {
            Some(group) => format!("{}<br/>group {}", node.name, escaped(group)),
            None => node.name.to_owned(),
        };
        lines.push(format!("    {id}([\"{label}\"])"));
        for source in &node.takes {
            let source_id = source.to_lowercase();
            lines.push(format!("    source_{source_id}>\"{source}\"] --> {id}"));
        }
        for topic in &node.reads {
            lines.push(format!("    {} --> {id}", topic_id(topic)));
        }
        for topic in &node.writes {
            let arrow = if *topic == topics.dead_letters { "-. refused .->" } else { "-->" };
            lines.push(format!("    {id} {arrow} {}", topic_id(topic)));
        }
        for store in &node.stores {
            let label = format!("{} {}<br/>{}", store.kind, escaped(&store.name), store.holds);
            lines.push(format!("    {id} --> store_{id}[(\"{label}\")]"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Mermaid's labels are in double quotes; one inside is written as an entity.
fn escaped(text: &str) -> String {
    text.replace('"', "#quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_of_the_defaults() {
        insta::assert_snapshot!(mermaid(&Config::default()));
    }

    #[test]
    fn every_processor_is_in_the_graph_and_every_consumer_reads_the_events() {
        let config = Config::default();
        let nodes = processors(&config);
        assert_eq!(nodes.iter().map(|node| node.name).collect::<Vec<_>>(), PROCESSORS);
        let consumers: Vec<_> = nodes.iter().filter(|node| node.group.is_some()).collect();
        assert_eq!(consumers.iter().map(|node| node.name).collect::<Vec<_>>(), CONSUMERS);
        assert!(consumers.iter().all(|node| node.reads == [config.topics.events.clone()]));
    }
}
