//! What a scenario has in its hands.

use super::{
    clock::Clock,
    crew::{Crew, Role},
    disk_space::Disk,
    links::{Links, Ways},
    random::Random,
};
use anyhow::{Context, Result};
use claims_verifier::namespace::Namespace;
use std::sync::Arc;
use xtask::services::native::cluster::{Cluster, Member};

/// The services, the network, the processes, and the choices of one round.
pub struct Bench {
    /// The services.
    pub cluster: Arc<Cluster>,
    /// The ways to them.
    pub links: Arc<Links>,
    /// The product's processes.
    pub crew: Arc<Crew>,
    /// Where the round takes place.
    pub namespace: Namespace,
    /// The choices.
    pub random: Random,
    /// The role that is hit, if the scenario hits one.
    pub victim: Option<Role>,
    /// The file system of the local store, where the scenario has one.
    pub disk: Option<Disk>,
    /// The victim's clock, where the scenario shifts it.
    pub clock: Option<Clock>,
    /// Services killed.
    pub service_kills: u64,
}

impl Bench {
    /// The role that is hit.
    pub fn victim(&self) -> Result<Role> {
        self.victim.context("the scenario names no victim")
    }

    /// The proxies of every role's first process.
    pub fn first_ways(&self) -> Result<&Ways> {
        self.links.ways.first().context("no proxies")
    }

    /// `kill -9` of a service.
    pub async fn kill_service(&mut self, member: Member) -> Result<()> {
        self.service_kills += 1;
        let cluster = Arc::clone(&self.cluster);
        tokio::task::spawn_blocking(move || cluster.kill(member)).await?
    }

    /// Starts a service again, and waits until it answers.
    pub async fn start_service(&self, member: Member) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        tokio::task::spawn_blocking(move || cluster.start(member)).await?
    }

    /// Lets a chosen time pass.
    pub async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        tokio::time::sleep(self.random.millis(low_ms, high_ms)).await;
    }
}
