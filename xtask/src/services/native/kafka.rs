//! Apache Kafka: nodes that are broker and controller at once; one by default, three for the fault suite.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Context as Native, java};
use crate::services::layout::Ports;
use crate::services::logs;

/// The id of the development cluster; any fixed one will do, data folders of two checkouts never meet.
const CLUSTER_ID: &str = "Q2xhaW1zRGV2Q2x1c3Rlcg";

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name of its folder and its log.
    pub name: String,
    /// From 1.
    pub id: u8,
    /// Clients, and the other nodes.
    pub port: u16,
    /// The controller quorum.
    pub controller_port: u16,
    /// A second listener for clients, and the address that it tells them instead of its own: a proxy's.
    pub behind_proxy: Option<BehindProxy>,
    /// `id@host:port` of every controller, comma-separated.
    pub voters: String,
    /// Nodes in the cluster.
    pub nodes: u8,
    /// The most heap, in MB.
    pub heap_mb: u16,
}

/// A listener that clients reach through a proxy only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BehindProxy {
    /// Where the broker listens.
    pub port: u16,
    /// Where it tells clients to connect.
    pub advertised: u16,
}

impl Node {
    /// The one node of `cargo xtask up`.
    pub fn single(ports: &Ports) -> Self {
        Self {
            name: "kafka".to_owned(),
            id: 1,
            port: ports.kafka,
            controller_port: ports.kafka_controller,
            behind_proxy: None,
            voters: format!("1@127.0.0.1:{}", ports.kafka_controller),
            nodes: 1,
            heap_mb: 512,
        }
    }

    /// Every port that it listens on, the clients' one first.
    pub fn ports(&self) -> Vec<u16> {
        let proxied = self.behind_proxy.map(|behind| behind.port);
        [self.port, self.controller_port].into_iter().chain(proxied).collect()
    }
}

/// The command that starts the node; formats the data folder when it is new.
pub fn command(native: &Native, node: &Node) -> Result<Command> {
    let data = native.layout.data(&node.name);
    let conf = data.join("conf");
    fs::create_dir_all(&conf)?;
    let properties = conf.join("server.properties");
    let logging = conf.join("log4j2.properties");
    let log_dir = data.join("log");
    fs::write(&properties, server_properties(node, &log_dir.display().to_string()))?;
    fs::write(&logging, LOG4J2)?;
    let class_path = native.class_path("kafka")?;
    if !log_dir.join("meta.properties").exists() {
        let log = native.layout.log(&node.name);
        let out = logs::open_for_append(&log)?;
        let status = java(&native.layout, &node.name)?
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(&class_path)
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t"])
            .arg(CLUSTER_ID)
            .arg("-c")
            .arg(&properties)
            .stderr(out.try_clone()?)
            .stdout(out)
            .status()
            .context("cannot run java")?;
        if !status.success() {
            bail!("Kafka could not format its data folder:\n{}", logs::tail(&log, 20));
        }
    }
    let mut command = java(&native.layout, &node.name)?;
    command
        .arg("-Xms256m")
        .arg(format!("-Xmx{}m", node.heap_mb))
        .args(java_flags(node))
        .arg("-XX:+ExitOnOutOfMemoryError")
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
        .arg("-cp")
        .arg(class_path)
        .arg("kafka.Kafka")
        .arg(properties);
    Ok(command)
}

/// One node is tuned for throughput; several share a small machine with much else, and are started again and again.
fn java_flags(node: &Node) -> [&'static str; 2] {
    if node.nodes == 1 {
        ["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=50"]
    } else {
        ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    }
}

fn server_properties(node: &Node, log_dir: &str) -> String {
    let Node { id, port, controller_port, voters, .. } = node;
    let (mut listener, mut advertised) = (String::new(), String::new());
    if let Some(behind) = node.behind_proxy {
        listener = format!(",PROXIED://127.0.0.1:{}", behind.port);
        advertised = format!(",PROXIED://127.0.0.1:{}", behind.advertised);
    }
    let copies = node.nodes.min(3);
    let min_in_sync = copies.saturating_sub(1).max(1);
    let noticing = if node.nodes > 1 { NOTICE_DEAD_NODES_SOON } else { "" };
    format!(
        "\
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listener}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dir}

# Topics are made by `claims topics apply`, never by a misspelt name.
auto.create.topics.enable=false

# As many copies as there are nodes, and a write is acknowledged with one node away.
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={min_in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={min_in_sync}
default.replication.factor={copies}
min.insync.replicas={min_in_sync}
{noticing}
# Consumer groups form at once, and tests may use short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# Large enough for a 10 MB record.
message.max.bytes=16777216
replica.fetch.max.bytes=16777216

# Compaction and retention can be watched in seconds; topics set their own segment.ms and ratios.
log.initial.task.delay.ms=1000
log.cleaner.backoff.ms=1000
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
log.retention.check.interval.ms=5000
log.segment.bytes=67108864
log.segment.delete.delay.ms=1000
log.index.size.max.bytes=1048576

# A small machine.
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
broker.heartbeat.interval.ms=500
metadata.log.segment.bytes=8388608
"
    )
}

/// A node that was killed is out of the way within seconds.
const NOTICE_DEAD_NODES_SOON: &str = "\
broker.session.timeout.ms=5000
replica.lag.time.max.ms=5000
";

const LOG4J2: &str = "\
status = error
appender.console.type = Console
appender.console.name = STDOUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = STDOUT
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_outlive_one_and_tell_clients_of_the_proxy() {
        let mut node = Node::single(&Ports::shifted(0).unwrap());
        let alone = server_properties(&node, "/log");
        assert!(alone.contains("\nmin.insync.replicas=1\n") && !alone.contains("PROXIED://"), "{alone}");
        node.nodes = 3;
        node.behind_proxy = Some(BehindProxy { port: 7, advertised: 8 });
        let three = server_properties(&node, "/log");
        assert!(three.contains("\ndefault.replication.factor=3\nmin.insync.replicas=2\n"), "{three}");
        assert!(three.contains(",PROXIED://127.0.0.1:7\n"), "{three}");
        assert!(three.contains("advertised.listeners=PLAINTEXT://127.0.0.1:9092,PROXIED://127.0.0.1:8\n"));
        assert_eq!(node.ports(), [9092, 9093, 7]);
    }
}
