//! Services apart from those of `cargo xtask up`, to be broken: three brokers, a registry, a CQL node and ClickHouse,
//! their files below `.claims/<name>` and thrown away at every start.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kafka::{self, BehindProxy, Node};
use super::{Context, command_of, ports_of, probe_of, refuse_taken_ports, wait_until_ready};
use crate::services::layout::{Layout, Ports};
use crate::services::lock::Lock;
use crate::services::probe::Probe;
use crate::services::process::{Record, start, stop};
use crate::services::{RunLength, Service, download, tools};

/// Brokers in the cluster.
pub const BROKERS: u8 = 3;
/// The brokers' ports are this far apart.
const BROKER_STEP: u16 = 10;
/// The most heap of one broker, in MB.
const BROKER_HEAP_MB: u16 = 384;
/// A killed process is gone within this time.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take to end by itself.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// One process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A broker, by its number from 0.
    Broker(u8),
    /// Another service than Kafka.
    Other(Service),
}

impl Member {
    /// Every member.
    pub fn all() -> Vec<Self> {
        let others = [Service::Registry, Service::Cassandra, Service::Clickhouse];
        (0..BROKERS).map(Self::Broker).chain(others.map(Self::Other)).collect()
    }

    /// Its name in folders, logs and reports.
    pub fn name(self) -> String {
        match self {
            Self::Broker(number) => format!("kafka-{}", number + 1),
            Self::Other(service) => service.name().to_owned(),
        }
    }
}

/// The services of one run of the fault suite.
pub struct Cluster {
    context: Context,
}

impl Cluster {
    /// Ends what an earlier run under this name has left running, removes its files, and sees to the downloads.
    /// `offset` shifts every port.
    pub fn prepare(name: &str, offset: u16) -> Result<Self> {
        tools::require_platform()?;
        tools::require_java()?;
        let usual = Layout::discover()?;
        download::ensure(&usual)?;
        let lock = Lock::load(&usual)?;
        let layout = usual.apart(name);
        for member in Member::all() {
            if let Some(record) = Record::load(&layout.run_file(&member.name())) {
                stop(&record, STOP_GRACE)?;
            }
        }
        if layout.home.exists() {
            fs::remove_dir_all(&layout.home)
                .with_context(|| format!("cannot remove {}", layout.home.display()))?;
        }
        let cluster = Self {
            context: Context {
                layout,
                ports: Ports::shifted(offset)?,
                lock,
                has_periodic_commit_log: AtomicBool::default(),
                run_length: RunLength::Short,
            },
        };
        // The last of all ports, so that none wraps.
        cluster.node(BROKERS - 1)?;
        Ok(cluster)
    }

    /// Where everything of the run lies.
    pub fn layout(&self) -> &Layout {
        &self.context.layout
    }

    /// The ports; Kafka's are those of the first broker.
    pub fn ports(&self) -> &Ports {
        &self.context.ports
    }

    /// A broker, by its number from 0.
    pub fn node(&self, number: u8) -> Result<Node> {
        let at = |number: u8, port: u16| {
            port.checked_add(u16::from(number) * BROKER_STEP).context("the ports are shifted past 65535")
        };
        let ports = &self.context.ports;
        let voters: Vec<String> = (0..BROKERS)
            .map(|n| Ok(format!("{}@127.0.0.1:{}", n + 1, at(n, ports.kafka_controller)?)))
            .collect::<Result<_>>()?;
        Ok(Node {
            name: Member::Broker(number).name(),
            id: number + 1,
            port: at(number, ports.kafka)?,
            controller_port: at(number, ports.kafka_controller)?,
            behind_proxy: Some(BehindProxy {
                port: at(number, ports.kafka + 2)?,
                advertised: at(number, ports.kafka + 3)?,
            }),
            voters: voters.join(","),
            nodes: BROKERS,
            heap_mb: BROKER_HEAP_MB,
        })
    }

    /// Starts every member, and waits until all answer.
    pub fn start_all(&self) -> Result<()> {
        // The brokers side by side, since none is ready before most of them are there; the others in turn: all of them at
        // once are more than a small machine can start within their own timeouts.
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..BROKERS).map(|number| scope.spawn(move || self.start(Member::Broker(number)))).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the starting thread panicked")))
                })
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        let others = Member::all().into_iter().filter(|member| matches!(member, Member::Other(_)));
        others.into_iter().try_for_each(|member| self.start(member).with_context(|| member.name()))
    }

    /// Whether the CQL server, from its next start on, acknowledges writes before they are on disk.
    pub fn set_periodic_commit_log(&self, periodic: bool) {
        self.context.has_periodic_commit_log.store(periodic, Ordering::Relaxed);
    }

    /// Starts a member, and waits until it answers.
    pub fn start(&self, member: Member) -> Result<()> {
        let name = member.name();
        let (command, ports, probe) = match member {
            Member::Broker(number) => {
                let node = self.node(number)?;
                (kafka::command(&self.context, &node)?, node.ports(), Probe::Kafka)
            }
            Member::Other(service) => {
                (command_of(&self.context, service)?, ports_of(service, self.ports()), probe_of(service))
            }
        };
        refuse_taken_ports(&ports)?;
        let log = self.context.layout.log(&name);
        let record = start(command, &log, &self.context.layout.run_file(&name), ports)?;
        wait_until_ready(&record, probe, &log)
    }

    /// Starts the members that don't run, such as one that a round which failed has left killed.
    pub fn start_missing(&self) -> Result<()> {
        let missing = Member::all().into_iter().filter(|&member| self.record(member).is_none());
        missing.into_iter().try_for_each(|member| self.start(member).with_context(|| member.name()))
    }

    /// The process id of a member that runs.
    pub fn pid(&self, member: Member) -> Option<i32> {
        self.record(member).map(|record| record.pid)
    }

    fn record(&self, member: Member) -> Option<Record> {
        Record::load(&self.context.layout.run_file(&member.name())).filter(Record::is_alive)
    }

    /// `kill -9`; returns once the process is gone.
    pub fn kill(&self, member: Member) -> Result<()> {
        let Some(record) = self.record(member) else { bail!("{} does not run", member.name()) };
        kill(Pid::from_raw(record.pid), Signal::SIGKILL)?;
        let begun = Instant::now();
        while record.is_alive() {
            if begun.elapsed() > KILL_TIMEOUT {
                bail!("{} is still there after kill -9", member.name());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends every member, without waiting for anything to be put away: the data is thrown away.
    pub fn kill_all(&self) {
        for member in Member::all() {
            let _ = self.kill(member);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}
