//! Where things lie on disk, and which ports the services use.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Environment variable that shifts every port, so that two checkouts can run side by side.
pub const PORT_OFFSET_ENV: &str = "CLAIMS_DEV_PORT_OFFSET";

/// The folders of this checkout.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The workspace root.
    pub root: PathBuf,
    /// `.claims`, git-ignored: everything the services store and log.
    pub home: PathBuf,
    cache: PathBuf,
}

impl Layout {
    /// The layout of the checkout `cargo xtask` was called in.
    pub fn discover() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask has no parent folder")?.to_path_buf();
        Ok(Self::at(root))
    }

    /// The layout under a given workspace root.
    pub fn at(root: PathBuf) -> Self {
        let home = root.join(".claims");
        let cache = home.join("cache");
        Self { root, home, cache }
    }

    /// The same downloads with everything else below `.claims/<name>`: for services beside the usual ones.
    pub fn apart(&self, name: &str) -> Self {
        Self { home: self.home.join(name), ..self.clone() }
    }

    /// Downloads: verified archives and jars, and what was unpacked from them.
    pub fn cache(&self) -> PathBuf {
        self.cache.clone()
    }

    /// Maven's local repository, used in place as the class path.
    pub fn maven_repository(&self) -> PathBuf {
        self.cache().join("maven")
    }

    /// Packed npm packages.
    pub fn npm_archives(&self) -> PathBuf {
        self.cache().join("npm")
    }

    /// Where an archive of a service is unpacked.
    pub fn unpacked(&self, service: &str) -> PathBuf {
        self.cache().join("unpacked").join(service)
    }

    /// A service's data, kept across `down` and `up`.
    pub fn data(&self, service: &str) -> PathBuf {
        self.home.join("data").join(service)
    }

    /// A service's standard output and error.
    pub fn log(&self, service: &str) -> PathBuf {
        self.home.join("logs").join(format!("{service}.log"))
    }

    /// What is known of running services.
    pub fn run_folder(&self) -> PathBuf {
        self.home.join("run")
    }

    /// The record of a running service.
    pub fn run_file(&self, service: &str) -> PathBuf {
        self.run_folder().join(format!("{service}.json"))
    }

    /// Held by the one command that starts, stops or wipes.
    pub fn lock_file(&self) -> PathBuf {
        self.run_folder().join("lock")
    }
}

/// The ports of all services, all on the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Kafka clients.
    pub kafka: u16,
    /// Kafka's own controller quorum.
    pub kafka_controller: u16,
    /// The schema registry's HTTP interface.
    pub registry: u16,
    /// CQL clients.
    pub cql: u16,
    /// Cassandra's own port between nodes.
    pub cql_storage: u16,
    /// ClickHouse over HTTP.
    pub clickhouse: u16,
}

impl Ports {
    /// The usual ports, shifted by `offset`.
    pub fn shifted(offset: u16) -> Result<Self> {
        let at = |port| shifted_port(port, offset);
        Ok(Self {
            kafka: at(9092)?,
            kafka_controller: at(9093)?,
            registry: at(8081)?,
            cql: at(9042)?,
            cql_storage: at(7000)?,
            clickhouse: at(8123)?,
        })
    }

    /// The ports for the offset in the environment (none: the usual ones).
    pub fn from_env() -> Result<Self> {
        Self::shifted(port_offset()?)
    }
}

/// The offset in the environment (none: 0).
pub fn port_offset() -> Result<u16> {
    match std::env::var(PORT_OFFSET_ENV) {
        Err(_) => Ok(0),
        Ok(text) if text.trim().is_empty() => Ok(0),
        Ok(text) => match text.trim().parse::<u16>() {
            Ok(offset) => Ok(offset),
            Err(_) => bail!("{PORT_OFFSET_ENV}={text} is not a number from 0 to 50000"),
        },
    }
}

/// A port moved by `offset`.
pub fn shifted_port(port: u16, offset: u16) -> Result<u16> {
    port.checked_add(offset)
        .with_context(|| format!("{PORT_OFFSET_ENV}={offset} moves port {port} past 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_shift_together_and_refuse_to_wrap() {
        let ports = Ports::shifted(1000).unwrap();
        assert_eq!((ports.kafka, ports.clickhouse), (10092, 9123));
        let error = Ports::shifted(60_000).unwrap_err().to_string();
        assert!(error.contains("past 65535"), "{error}");
    }
}
