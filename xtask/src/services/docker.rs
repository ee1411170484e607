//! The services as containers, where a Docker engine answers.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Service;
use super::layout::Layout;

const FILE: &str = "docker-compose.kafka.yml";

/// Whether a Docker engine with the compose plugin answers; the error says why not.
pub fn engine() -> Result<(), String> {
    for arguments in [&["info"][..], &["compose", "version"][..]] {
        let output = Command::new("docker")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("`docker` cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "`docker {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
    }
    Ok(())
}

fn compose(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let status = Command::new("docker")
        .current_dir(&layout.root)
        .args(["compose", "-f", FILE])
        .args(arguments)
        .status()
        .context("cannot run docker")?;
    if !status.success() {
        bail!("`docker compose {}` failed", arguments.join(" "));
    }
    Ok(())
}

/// Starts the services and waits for their health checks.
pub fn up(layout: &Layout) -> Result<()> {
    compose(layout, &["up", "-d", "--wait"])
}

/// Stops the services; with `volumes` their data goes too.
pub fn down(layout: &Layout, volumes: bool) -> Result<()> {
    let mut arguments = vec!["--profile", "pipeline", "down"];
    if volumes {
        arguments.push("--volumes");
    }
    compose(layout, &arguments)
}

/// Shows the containers.
pub fn status(layout: &Layout, json: bool) -> Result<()> {
    let arguments: &[&str] = if json { &["ps", "--format", "json"] } else { &["ps"] };
    compose(layout, arguments)
}

/// Shows the containers' logs.
pub fn logs(layout: &Layout, service: Option<Service>, lines: usize, follow: bool) -> Result<()> {
    let lines = lines.to_string();
    let mut arguments = vec!["logs", "--tail", &lines];
    if follow {
        arguments.push("--follow");
    }
    if let Some(service) = service {
        arguments.push(container(service));
    }
    compose(layout, &arguments)
}

/// A service's name in the compose file.
fn container(service: Service) -> &'static str {
    match service {
        Service::Cassandra => "scylla",
        other => other.name(),
    }
}
