//! Apache Cassandra: speaks CQL to the same driver as ScyllaDB.

use std::fs;
use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::{Context as Native, java};
use crate::services::RunLength;

/// Packages that Cassandra 5 needs opened on Java 17 (its `jvm17-server.options`).
const OPENED: &[&str] = &[
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

/// Packages that Cassandra 5 needs exported on Java 17.
const EXPORTED: &[&str] = &[
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
];

/// A write is acknowledged only once it is on disk. Writers waiting together share one fsync, so a client with many writes
/// in flight hardly notices.
const BATCH: &str = "commitlog_sync: batch";
/// Cassandra's default: what was acknowledged since the last sync isn't on disk, and tests could not tell its loss from
/// one of ours. Compressed, since a plain log is a mapped file: the kernel keeps that when the process alone is killed,
/// while the buffers of a compressed one go with the process, as everything does when a machine loses its power.
const PERIODIC: &str = "\
commitlog_sync: periodic
commitlog_sync_period: 10s
commitlog_compression:
  - class_name: LZ4Compressor";

/// The second compiler takes a core for the first minutes, just while a test or the demo is at work, and what it gains
/// comes after.
pub const FIRST_COMPILER_ALONE: &str = "-XX:TieredStopAtLevel=1";

/// The command that starts the node.
pub fn command(native: &Native) -> Result<Command> {
    let data = native.layout.data("cassandra");
    let conf = data.join("conf");
    fs::create_dir_all(&conf)?;
    let yaml = conf.join("cassandra.yaml");
    fs::write(
        &yaml,
        cassandra_yaml(
            native.ports.cql,
            native.ports.cql_storage,
            &data.display().to_string(),
            if native.has_periodic_commit_log.load(Ordering::Relaxed) { PERIODIC } else { BATCH },
        ),
    )?;
    let logging = conf.join("logback.xml");
    fs::write(&logging, LOGBACK)?;
    let agent = native
        .jars("cassandra")
        .find(|path| path.to_string_lossy().contains("/jamm-"))
        .context("dev/downloads.lock names no jamm jar for Cassandra")?;
    let mut command = java(&native.layout, "cassandra")?;
    command
        .current_dir(&data)
        .args((native.run_length == RunLength::Short).then_some(FIRST_COMPILER_ALONE))
        .args(["-Xms768m", "-Xmx768m", "-Xss512k", "-XX:+UseSerialGC", "-Xmn224m"])
        .args(["-XX:MaxDirectMemorySize=192m", "-XX:+ExitOnOutOfMemoryError"])
        .arg(format!("-javaagent:{}", agent.display()))
        .arg("-Djdk.attach.allowAttachSelf=true")
        .args(EXPORTED.iter().map(|package| format!("--add-exports={package}=ALL-UNNAMED")))
        .args(OPENED.iter().map(|package| format!("--add-opens={package}=ALL-UNNAMED")))
        .arg(format!("-Dcassandra.config=file://{}", yaml.display()))
        .arg(format!("-Dcassandra.storagedir={}", data.display()))
        .arg(format!("-Dlogback.configurationFile={}", logging.display()))
        .arg("-Dcassandra-foreground=yes")
        // A single node has nobody to wait for.
        .arg("-Dcassandra.skip_wait_for_gossip_to_settle=0")
        .arg("-Dcassandra.ring_delay_ms=100")
        .arg("-cp")
        .arg(native.class_path("cassandra")?)
        .arg("org.apache.cassandra.service.CassandraDaemon");
    Ok(command)
}

fn cassandra_yaml(port: u16, storage_port: u16, data: &str, commit_log: &str) -> String {
    let ssl_storage_port = storage_port.saturating_add(1);
    format!(
        "\
cluster_name: claims-dev
num_tokens: 1
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
dynamic_snitch: false
hinted_handoff_enabled: false
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {port}
storage_port: {storage_port}
ssl_storage_port: {ssl_storage_port}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"127.0.0.1:{storage_port}\"

data_file_directories: [\"{data}/data\"]
commitlog_directory: \"{data}/commitlog\"
hints_directory: \"{data}/hints\"
saved_caches_directory: \"{data}/saved_caches\"
cdc_raw_directory: \"{data}/cdc_raw\"

{commit_log}
commitlog_segment_size: 32MiB
commitlog_total_space: 512MiB

# A small heap. More threads than this only wait for each other and for the log on a few cores.
memtable_heap_space: 256MiB
memtable_offheap_space: 64MiB
key_cache_size: 16MiB
counter_cache_size: 0MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
concurrent_compactors: 1
concurrent_writes: 16
native_transport_max_threads: 32

# Dropped test keyspaces leave nothing behind.
auto_snapshot: false
snapshot_before_compaction: false

# The machine compiles at the same time: a slow answer is not a failure.
read_request_timeout: 10s
range_request_timeout: 20s
write_request_timeout: 10s
request_timeout: 20s
slow_query_log_timeout: 5s
"
    )
}

const LOGBACK: &str = "\
<configuration>
  <appender name=\"STDOUT\" class=\"ch.qos.logback.core.ConsoleAppender\">
    <encoder><pattern>%d{ISO8601} %-5level %logger{36} - %msg%n</pattern></encoder>
  </appender>
  <root level=\"WARN\"><appender-ref ref=\"STDOUT\"/></root>
  <logger name=\"org.apache.cassandra.service.CassandraDaemon\" level=\"INFO\"/>
</configuration>
";
