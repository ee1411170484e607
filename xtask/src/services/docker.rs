//! The services as containers, where a Docker engine answers.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Service;
use super::layout::{Layout, port_offset, shifted_port};

const FILE: &str = "docker-compose.kafka.yml";
/// The project's name, and the first part of it where the ports are shifted.
const PROJECT: &str = "claimstream";
/// The processors' services in the compose file.
const PROCESSORS: [&str; 4] = ["ingress", "current-state", "analytics", "audit"];
/// The variables of the compose file that hold the published ports, and the usual ports.
const PUBLISHED_PORTS: [(&str, u16); 8] = [
    ("CLAIMSTREAM_PORT_KAFKA", 9092),
    ("CLAIMSTREAM_PORT_REGISTRY", 8081),
    ("CLAIMSTREAM_PORT_CQL", 9042),
    ("CLAIMSTREAM_PORT_CLICKHOUSE", 8123),
    ("CLAIMSTREAM_PORT_INGRESS", 8080),
    ("CLAIMSTREAM_PORT_CURRENT_STATE", 9101),
    ("CLAIMSTREAM_PORT_ANALYTICS", 9102),
    ("CLAIMSTREAM_PORT_AUDIT", 9103),
];

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

/// `docker compose` on the compose file, for the ports the environment asks for.
fn command(layout: &Layout) -> Result<Command> {
    command_for(layout, port_offset()?)
}

fn command_for(layout: &Layout, offset: u16) -> Result<Command> {
    // A project of its own per offset: else the containers of another checkout would be taken over.
    let project = if offset == 0 { PROJECT.to_owned() } else { format!("{PROJECT}-{offset}") };
    let mut command = Command::new("docker");
    command.current_dir(&layout.root).args(["compose", "-p", &project, "-f", FILE]);
    for (variable, port) in PUBLISHED_PORTS {
        command.env(variable, shifted_port(port, offset)?.to_string());
    }
    Ok(command)
}

fn compose(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let status = command(layout)?.args(arguments).status().context("cannot run docker")?;
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
    arguments.extend(PROCESSORS);
    arguments.extend(services.iter().map(|service| container(*service)));
    compose(layout, &arguments)
}

/// Removes the containers and their volumes.
pub fn wipe(layout: &Layout) -> Result<()> {
    compose(layout, &["--profile", "pipeline", "down", "--volumes"])
}

/// The services whose containers run.
fn running(layout: &Layout) -> Result<Vec<Service>> {
    let output = command(layout)?
        .args(["ps", "--services", "--status", "running"])
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../../docker-compose.kafka.yml");

    #[test]
    fn every_published_port_can_be_shifted() {
        for (variable, port) in PUBLISHED_PORTS {
            let published = format!("- 127.0.0.1:${{{variable}:-{port}}}:");
            assert_eq!(TEXT.matches(&published).count(), 1, "{published}");
        }
        assert_eq!(
            TEXT.matches("- 127.0.0.1:").count(),
            PUBLISHED_PORTS.len(),
            "a port that cannot be shifted"
        );
        assert!(TEXT.contains("HOST://127.0.0.1:${CLAIMSTREAM_PORT_KAFKA:-9092},"), "the advertised port");
    }

    #[test]
    fn what_is_stopped_is_in_the_file() {
        for name in PROCESSORS.into_iter().chain(Service::ALL.map(container)) {
            assert!(TEXT.contains(&format!("\n  {name}:\n")), "{name}");
        }
    }

    #[test]
    fn an_offset_moves_the_ports_and_the_project() {
        let layout = Layout::at("/nowhere".into());
        let command = command_for(&layout, 1000).unwrap();
        assert!(command.get_args().any(|argument| argument == "claimstream-1000"));
        let kafka = command.get_envs().find(|(name, _)| *name == "CLAIMSTREAM_PORT_KAFKA");
        assert_eq!(kafka.and_then(|(_, value)| value), Some("10092".as_ref()));
        assert!(command_for(&layout, 60_000).is_err());
    }
}
