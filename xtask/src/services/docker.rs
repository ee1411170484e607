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

/// Starts the services and waits for their health checks. Returns what did not run before.
pub fn up(layout: &Layout) -> Result<Vec<Service>> {
    let before = running(layout)?;
    compose(layout, &["up", "-d", "--wait"])?;
    Ok(Service::ALL.into_iter().filter(|service| !before.contains(service)).collect())
}

/// Stops some services; their data stays.
pub fn stop(layout: &Layout, services: &[Service]) -> Result<()> {
    let mut arguments = vec!["--profile", "pipeline", "stop"];
    // The pipeline cannot do without any of them.
    arguments.push("pipeline");
    arguments.extend(services.iter().map(|service| container(*service)));
    compose(layout, &arguments)
}

/// Removes the containers and their volumes.
pub fn wipe(layout: &Layout) -> Result<()> {
    compose(layout, &["--profile", "pipeline", "down", "--volumes"])
}

/// The services whose containers run.
fn running(layout: &Layout) -> Result<Vec<Service>> {
    let output = Command::new("docker")
        .current_dir(&layout.root)
        .args(["compose", "-f", FILE, "ps", "--services", "--status", "running"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run docker")?;
    if !output.status.success() {
        bail!("`docker compose ps` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Service::ALL
        .into_iter()
        .filter(|service| names.lines().any(|name| name.trim() == container(*service)))
        .collect())
}

/// Shows the containers. Returns whether all services run.
pub fn status(layout: &Layout, json: bool) -> Result<bool> {
    let arguments: &[&str] = if json { &["ps", "--format", "json"] } else { &["ps"] };
    compose(layout, arguments)?;
    Ok(running(layout)?.len() == Service::ALL.len())
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
