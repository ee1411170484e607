//! Apicurio: a schema registry that speaks Confluent's protocol.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{Context as Native, java};

/// The runner jar inside the unpacked archive.
const JAR: &str = "apicurio-registry-app-2.6.13.Final-runner.jar";

/// The command that starts the registry.
pub fn command(native: &Native) -> Result<Command> {
    let data = native.layout.data("registry");
    fs::create_dir_all(&data)?;
    let mut command = java(&native.layout, "registry")?;
    command
        .current_dir(&data)
        // This build of the registry keeps its schemas in memory unless told otherwise; records in Kafka name
        // schemas by id, so the ids must survive a restart. WRITE_DELAY=0: also a `kill -9`.
        .env(
            "REGISTRY_DATASOURCE_URL",
            format!("jdbc:h2:file:{};WRITE_DELAY=0", data.join("schemas").display()),
        )
        .env("HTTP_PORT", native.ports.registry.to_string())
        .env("LOG_LEVEL", "WARN")
        .env("REGISTRY_LOG_LEVEL", "WARN")
        .args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-XX:+ExitOnOutOfMemoryError")
        .arg("-Dquarkus.http.host=127.0.0.1")
        .arg("-Dquarkus.datasource.jdbc.min-size=2")
        .arg("-Dquarkus.datasource.jdbc.initial-size=2")
        // The first connection takes longer than the default of 5 s while the machine is busy with builds.
        .arg("-Dquarkus.datasource.jdbc.acquisition-timeout=60")
        .arg("-jar")
        .arg(native.layout.unpacked("registry").join(JAR));
    Ok(command)
}
