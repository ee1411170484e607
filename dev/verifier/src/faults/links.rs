//! Every way from the product to a service, each through a proxy: one per broker, and one per process and service, so
//! that one process can be cut off while its successor is not.

use super::{
    crew::Role,
    proxy::{Mode, Proxy},
};
use anyhow::{Context, Result};
use xtask::services::native::cluster::{BROKERS, Cluster};

/// Processes of one role that can run at the same time.
pub const INSTANCES: usize = 3;

/// The ways of one process.
#[derive(Debug)]
pub struct Ways {
    /// To the CQL server.
    pub cql: Proxy,
    /// To ClickHouse.
    pub clickhouse: Proxy,
    /// To the schema registry.
    pub registry: Proxy,
}

impl Ways {
    /// The database of a role; the audit's sink is a folder, to which no way leads.
    pub fn set_sink_of(&self, role: Role, mode: &Mode) {
        match role {
            Role::CurrentState => self.cql.set(mode.clone()),
            Role::Analytics => self.clickhouse.set(mode.clone()),
            Role::Audit | Role::Ingress => {}
        }
    }

    /// Both databases.
    pub fn set_sinks(&self, mode: &Mode) {
        self.cql.set(mode.clone());
        self.clickhouse.set(mode.clone());
    }
}

/// All proxies of the suite.
#[derive(Debug)]
pub struct Links {
    /// One per broker; the brokers tell clients these addresses.
    pub kafka: Vec<Proxy>,
    /// One per process of a role.
    pub ways: Vec<Ways>,
}

impl Links {
    /// Starts every proxy.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let ports = cluster.ports();
        let mut kafka = Vec::new();
        for number in 0..BROKERS {
            let behind = cluster.node(number)?.behind_proxy.context("a broker without a proxied listener")?;
            kafka.push(Proxy::start(behind.advertised, behind.port).await?);
        }
        let mut ways = Vec::new();
        for _ in 0..INSTANCES {
            ways.push(Ways {
                cql: Proxy::start(0, ports.cql).await?,
                clickhouse: Proxy::start(0, ports.clickhouse).await?,
                registry: Proxy::start(0, ports.registry).await?,
            });
        }
        Ok(Self { kafka, ways })
    }

    /// The bootstrap servers, through the proxies.
    pub fn bootstrap_servers(&self) -> String {
        let addresses: Vec<String> = self.kafka.iter().map(|proxy| proxy.address().to_string()).collect();
        addresses.join(",")
    }

    /// The settings that lead one process of a role through its proxies.
    pub fn settings(&self, instance: usize) -> Result<Vec<(String, String)>> {
        let ways = self.ways.get(instance).with_context(|| format!("no proxies for process {instance}"))?;
        let pairs = [
            ("CLAIMS_KAFKA__BOOTSTRAP_SERVERS", self.bootstrap_servers()),
            ("CLAIMS_REGISTRY__URL", format!("http://{}/apis/ccompat/v7", ways.registry.address())),
            ("CLAIMS_CURRENT_STATE__CQL__NODES", ways.cql.address().to_string()),
            ("CLAIMS_ANALYTICS__CLICKHOUSE__URL", format!("http://{}", ways.clickhouse.address())),
        ];
        Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// To every broker.
    pub fn set_kafka(&self, mode: &Mode) {
        self.kafka.iter().for_each(|proxy| proxy.set(mode.clone()));
    }

    /// Everything goes through again.
    pub fn pass(&self) {
        self.set_kafka(&Mode::Pass);
        for ways in &self.ways {
            ways.set_sinks(&Mode::Pass);
            ways.registry.set(Mode::Pass);
        }
    }

    /// How many times any proxy did anything but pass bytes on.
    pub fn interventions(&self) -> u64 {
        let of_ways = self.ways.iter().flat_map(|ways| [&ways.cql, &ways.clickhouse, &ways.registry]);
        self.kafka.iter().chain(of_ways).map(Proxy::interventions).sum()
    }
}
