//! Kafka's own `kafka-consumer-groups`, as whoever operates the cluster would use it.

use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The class behind `kafka-consumer-groups.sh`.
const CONSUMER_GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// Resets the offsets of groups on the namespace's events topic; `target` as the tool takes it, such as
/// `["--to-earliest"]`. Gives what it printed.
pub fn reset_offsets(namespace: &Namespace, processors: &[&str], target: &[&str]) -> Result<String> {
    let mut args: Vec<String> = Vec::new();
    for processor in processors {
        args.extend(["--group".to_owned(), namespace.group(processor)]);
    }
    args.extend(["--topic".to_owned(), namespace.events_topic.clone(), "--reset-offsets".to_owned()]);
    args.extend(target.iter().map(|&arg| arg.to_owned()));
    args.push("--execute".to_owned());
    run(namespace, &args)
}

fn run(namespace: &Namespace, args: &[String]) -> Result<String> {
    let output =
        command(namespace)?.args(args).stdin(Stdio::null()).output().context("Kafka's tool can't be run")?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // It ends with 0 whatever happened, and prints errors among its lines.
    if !output.status.success() || text.contains("Error:") {
        bail!("kafka-consumer-groups {}: {}\n{text}", args.join(" "), output.status);
    }
    Ok(text)
}

/// The tool from the jars that `cargo xtask up` has fetched, or else from the container that `cargo xtask --docker up`
/// has started.
fn command(namespace: &Namespace) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let jars = jars(&root.join(".claims/cache/maven"));
    if jars.iter().any(|jar| file_name(jar).starts_with("kafka-tools-")) {
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(std::env::join_paths(jars)?)
            .args([CONSUMER_GROUPS, "--bootstrap-server", &namespace.kafka()]);
        return Ok(command);
    }
    let mut command = Command::new("docker");
    command.arg("compose").arg("-f").arg(root.join("docker-compose.kafka.yml")).args([
        "exec",
        "-T",
        "kafka",
        "/opt/kafka/bin/kafka-consumer-groups.sh",
        "--bootstrap-server",
        "kafka:19092",
    ]);
    Ok(command)
}

/// Everything of Kafka's and what it needs. Other services keep their jars in the same place, and some would clash.
fn jars(folder: &Path) -> Vec<PathBuf> {
    const NEEDED: [&str; 5] =
        ["org/apache/kafka", "net/sf/jopt-simple", "org/slf4j", "com/fasterxml/jackson", "com/google/re2j"];
    let mut jars = Vec::new();
    for needed in NEEDED {
        collect(&folder.join(needed), &mut jars);
    }
    jars
}

fn collect(folder: &Path, jars: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, jars);
        } else if path.extension().is_some_and(|extension| extension == "jar") {
            jars.push(path);
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
