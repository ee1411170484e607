//! Other systems on the same topic: recipes below `benches/peers`, each beside the stage of ours that does the same work.

use super::{
    child::Program,
    input::Input,
    measure::{Round, of_ours},
    offsets::{Group, Run, follow},
    stage::Stage,
};
use anyhow::{Context, Result, ensure};
use claims_verifier::namespace::Namespace;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use xtask::services::layout::Layout;

const RECIPES: &str = "benches/peers";
/// Downloads and builds of the peers, kept between runs.
const CACHE: &str = ".claims/cache/peers";

/// The first build downloads.
const BUILD_LIMIT: Duration = Duration::from_secs(1_200);
/// Counting and cleaning end within this time.
const VERB_LIMIT: Duration = Duration::from_secs(300);

/// What a peer's `count` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// A row for every record.
    Records,
    /// A row for every claim.
    Claims,
}

/// A peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its name in the results.
    pub name: &'static str,
    /// The folder of its recipe.
    pub recipe: &'static str,
    /// Further environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// The stage of ours beside it.
    pub stage: &'static str,
    /// What it counts.
    pub counts: Counts,
    /// How many times as fast as it ours must be.
    pub goal: Option<f64>,
    /// Our CPU for each record may be this part of its.
    pub max_cpu_ratio: Option<f64>,
}

const fn peer(name: &'static str, stage: &'static str, counts: Counts, goal: Option<f64>) -> Peer {
    Peer { name, recipe: name, environment: &[], stage, counts, goal, max_cpu_ratio: None }
}

/// All of them.
pub const PEERS: &[Peer] = &[
    Peer {
        environment: &[("PEER_MODE", "at_least_once")],
        max_cpu_ratio: Some(0.2),
        ..peer("kafka-streams", "fold", Counts::Claims, Some(5.0))
    },
    Peer {
        recipe: "kafka-streams",
        environment: &[("PEER_MODE", "exactly_once_v2")],
        max_cpu_ratio: Some(0.2),
        ..peer("kafka-streams-eos", "fold", Counts::Claims, Some(5.0))
    },
    peer("clickhouse-kafka-engine", "analytics", Counts::Records, Some(2.0)),
    peer("kafka-connect-clickhouse", "analytics", Counts::Records, None),
    peer("bytewax", "analytics", Counts::Records, None),
    peer("quixstreams", "analytics", Counts::Records, None),
    peer("kafka-connect-cql", "current-state-replay", Counts::Records, Some(5.0)),
];

impl Peer {
    fn script(&self) -> Result<PathBuf> {
        let script = Layout::discover()?.root.join(RECIPES).join(self.recipe).join("run");
        ensure!(script.is_file(), "no recipe {}", script.display());
        Ok(script)
    }

    fn command(&self, verb: &str, namespace: &Namespace) -> Result<Command> {
        let cache = Layout::discover()?.root.join(CACHE);
        let folder = namespace.dir.join(self.name);
        std::fs::create_dir_all(&cache)?;
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(self.script()?);
        command
            .arg(verb)
            .env("PEER_KAFKA", namespace.kafka())
            .env("PEER_REGISTRY", namespace.registry())
            .env("PEER_CLICKHOUSE", namespace.clickhouse())
            .env("PEER_CQL", namespace.cql())
            .env("PEER_TOPIC", &namespace.events_topic)
            .env("PEER_GROUP", self.group(namespace))
            .env("PEER_NAME", format!("{}_{}", namespace.name, self.name.replace('-', "_")))
            .env("PEER_DIR", folder)
            .env("PEER_CACHE", cache)
            .envs(self.environment.iter().copied());
        Ok(command)
    }

    fn group(&self, namespace: &Namespace) -> String {
        namespace.group(self.name)
    }

    /// Downloads and compiles it, unless that was done.
    pub fn build(&self, folder: &Path) -> Result<()> {
        let namespace = Namespace::new("bench_peer_build", &folder.join("peer-build"), 1)?;
        self.do_it("build", &namespace, BUILD_LIMIT).map(drop)
    }

    /// Runs a verb to its end; what it printed.
    fn do_it(&self, verb: &str, namespace: &Namespace, limit: Duration) -> Result<String> {
        let name = format!("{}-{verb}", self.name);
        let program = Program::start(&name, self.command(verb, namespace)?, &namespace.dir)?.finishing();
        let log = namespace.dir.join(format!("{name}.log"));
        program.wait(limit)?;
        Ok(std::fs::read_to_string(log)?)
    }

    /// A round: the peer in the floor's place, then ours.
    pub async fn round(&self, input: &Input, number: u32) -> Result<Round> {
        let namespace = input.round(&format!("bench_peer_{number}"))?;
        // Of a run that broke off.
        self.do_it("clean", &namespace, VERB_LIMIT)?;
        let run = self.run(&namespace, input);
        let cleaned = self.do_it("clean", &namespace, VERB_LIMIT);
        let floor = run.with_context(|| self.name.to_owned())?;
        cleaned?;
        namespace.reset().await?;
        std::fs::remove_dir_all(&namespace.dir)?;
        let stage = Stage::named(self.stage).with_context(|| format!("no stage {}", self.stage))?;
        let ours = of_ours(stage.ours, stage.settings, input, number, "ours").await.context("ours")?;
        Ok(Round { floor, ours })
    }

    fn run(&self, namespace: &Namespace, input: &Input) -> Result<Run> {
        let begun = Instant::now();
        let mut program = Program::start(self.name, self.command("start", namespace)?, &namespace.dir)?;
        let group = Group::of(namespace, &self.group(namespace))?;
        let run = follow(std::slice::from_mut(&mut program), begun, input.records, || Ok(group.committed()))?;
        // A JVM says 143 for the signal, which is no failure of it.
        program.terminate()?;
        let said = self.do_it("count", namespace, VERB_LIMIT)?;
        let counted = said.lines().rev().find_map(|line| line.trim().parse::<u64>().ok());
        let wanted = match self.counts {
            Counts::Records => input.records,
            Counts::Claims => input.model.claims()?.len() as u64,
        };
        ensure!(
            counted == Some(wanted),
            "{counted:?} rows, should be {wanted}: nothing was measured\n{said}"
        );
        Ok(run)
    }
}
