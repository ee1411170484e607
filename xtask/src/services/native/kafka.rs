//! Apache Kafka: one node that is broker and controller.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Context as Native, java};
use crate::services::logs;

/// The id of the development cluster; any fixed one will do, data folders of two checkouts never meet.
const CLUSTER_ID: &str = "Q2xhaW1zRGV2Q2x1c3Rlcg";

/// The command that starts the broker; formats the data folder when it is new.
pub fn command(native: &Native) -> Result<Command> {
    let data = native.layout.data("kafka");
    let conf = data.join("conf");
    fs::create_dir_all(&conf)?;
    let properties = conf.join("server.properties");
    let logging = conf.join("log4j2.properties");
    let log_dir = data.join("log");
    fs::write(
        &properties,
        server_properties(native.ports.kafka, native.ports.kafka_controller, &log_dir.display().to_string()),
    )?;
    fs::write(&logging, LOG4J2)?;
    let class_path = native.class_path("kafka")?;
    if !log_dir.join("meta.properties").exists() {
        let log = native.layout.log("kafka");
        let out = logs::open_for_append(&log)?;
        let status = java(&native.layout, "kafka")?
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
    let mut command = java(&native.layout, "kafka")?;
    command
        .args(["-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=50"])
        .arg("-XX:+ExitOnOutOfMemoryError")
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
        .arg("-cp")
        .arg(class_path)
        .arg("kafka.Kafka")
        .arg(properties);
    Ok(command)
}

fn server_properties(port: u16, controller_port: u16, log_dir: &str) -> String {
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dir}

# Topics are made by `claims topics apply`, never by a misspelt name.
auto.create.topics.enable=false

# One node.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1

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
