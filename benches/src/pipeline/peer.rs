//! Others on the same topic, each beside the stage of ours that does the same work: other systems, by the recipes below
//! `benches/peers`, and the naive pipeline of this program.

use super::{
    child::Program,
    input::Input,
    measure::{self, Job, Round},
    naive::{self, Naive, NaiveArgs},
    offsets::{Group, Run, Topic, follow},
    ours,
    recipe::{Does, Recipe},
    stage::Stage,
};
use anyhow::{Context, Result, bail, ensure};
use claims_verifier::{
    namespace::{Namespace, REQUEST_TIMEOUT},
    views::clickhouse,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A program whose work is done ends within this time.
const END_LIMIT: Duration = Duration::from_secs(60);

/// How it is run.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Another system.
    Recipe(Recipe),
    /// A contestant of this program.
    Naive(Naive),
}

/// A peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its name in the results.
    pub name: &'static str,
    /// How it is run.
    pub way: Way,
    /// The stage of ours beside it.
    pub stage: &'static str,
    /// Events, unless the command line says otherwise: as many as it needs to run at its pace, and no more.
    pub events: u64,
    /// Rounds, unless the command line says otherwise.
    pub rounds: u32,
    /// How many times as fast as it ours must be.
    pub goal: Option<f64>,
    /// Our CPU for each record may be this part of its.
    pub max_cpu_ratio: Option<f64>,
}

const fn peer(name: &'static str, stage: &'static str, events: u64, way: Way, goal: Option<f64>) -> Peer {
    Peer { name, way, stage, events, rounds: 3, goal, max_cpu_ratio: None }
}

const fn recipe(folder: &'static str, does: Does) -> Way {
    mode(folder, &[], does)
}

/// Kafka's own tools and Kafka Streams have several modes each.
const fn mode(folder: &'static str, environment: &'static [(&'static str, &'static str)], does: Does) -> Way {
    Way::Recipe(Recipe { folder, environment, does })
}

/// All of them.
pub const PEERS: &[Peer] = &[
    peer(
        "producer-perf-test",
        "ingest-ndjson",
        500_000,
        mode("kafka-perf", &[("PEER_MODE", "produce")], Does::Produce),
        None,
    ),
    Peer {
        max_cpu_ratio: Some(0.2),
        ..peer(
            "kafka-streams",
            "fold",
            1_000_000,
            mode("kafka-streams", &[("PEER_MODE", "at_least_once")], Does::FoldClaims),
            Some(5.0),
        )
    },
    Peer {
        max_cpu_ratio: Some(0.2),
        ..peer(
            "kafka-streams-eos",
            "fold",
            1_000_000,
            mode("kafka-streams", &[("PEER_MODE", "exactly_once_v2")], Does::FoldClaims),
            Some(5.0),
        )
    },
    peer(
        "consumer-perf-test",
        "fold",
        1_000_000,
        mode("kafka-perf", &[("PEER_MODE", "consume")], Does::ReadOnce),
        None,
    ),
    peer("naive-clickhouse", "analytics", 2_000_000, Way::Naive(Naive::Clickhouse), Some(0.85)),
    peer(
        "clickhouse-kafka-engine",
        "analytics",
        500_000,
        recipe("clickhouse-kafka-engine", Does::WriteRecords),
        Some(2.0),
    ),
    peer(
        "kafka-connect-clickhouse",
        "analytics",
        500_000,
        recipe("kafka-connect-clickhouse", Does::WriteRecords),
        None,
    ),
    peer("bytewax", "analytics", 500_000, recipe("bytewax", Does::WriteRecords), None),
    peer("quixstreams", "analytics", 500_000, recipe("quixstreams", Does::WriteRecords), None),
    peer("naive-cql", "current-state-replay", 100_000, Way::Naive(Naive::Cql), None),
    peer(
        "kafka-connect-cql",
        "current-state-replay",
        100_000,
        recipe("kafka-connect-cql", Does::WriteRecords),
        Some(5.0),
    ),
];

impl Peer {
    /// Downloads and compiles it, unless that was done.
    pub fn build(&self, folder: &Path) -> Result<()> {
        let Way::Recipe(recipe) = self.way else { return Ok(()) };
        let namespace = Namespace::new("bench_peer_build", &folder.join("peer-build"), 1)?;
        recipe.build(self.name, &namespace)
    }

    /// A round: the peer in the floor's place, then ours.
    pub async fn round(&self, input: &Input, number: u32) -> Result<Round> {
        let floor = match self.way {
            Way::Recipe(recipe) => self.of_recipe(recipe, input, number).await,
            Way::Naive(kind) => of_naive(kind, input, number).await,
        };
        let floor = floor.with_context(|| self.name.to_owned())?;
        let stage = Stage::named(self.stage).with_context(|| format!("no stage {}", self.stage))?;
        let ours = measure::of_ours(&Job::of(stage, input, number, "ours")).await.context("ours")?;
        Ok(Round { floor, ours })
    }

    async fn of_recipe(&self, recipe: Recipe, input: &Input, number: u32) -> Result<Run> {
        let name = format!("bench_peer_{number}");
        let produces = recipe.does == Does::Produce;
        let namespace = if produces { input.apart(&name)? } else { input.round(&name)? };
        // Of a run that broke off.
        recipe.clean(self.name, &namespace)?;
        if produces {
            namespace.reset().await?;
            make_plain_topic(&namespace).await?;
            recipe.write_payloads(self.name, &namespace, input)?;
        }
        let run = self.run_recipe(recipe, &namespace, input);
        let cleaned = recipe.clean(self.name, &namespace);
        let run = run?;
        cleaned?;
        measure::remove(&namespace).await?;
        Ok(run)
    }

    fn run_recipe(&self, recipe: Recipe, namespace: &Namespace, input: &Input) -> Result<Run> {
        let begun = Instant::now();
        let mut program = recipe.start(self.name, namespace, input.records)?;
        let programs = std::slice::from_mut(&mut program);
        let run = if recipe.does == Does::Produce {
            let topic = Topic::of(namespace, &namespace.events_topic)?;
            follow(programs, begun, input.records, None, || topic.records())?
        } else {
            let group = Group::of(namespace, &Recipe::group(self.name, namespace))?;
            follow(programs, begun, input.records, None, || Ok(group.committed()))?
        };
        if recipe.does.ends() {
            program.wait(END_LIMIT)?;
        } else {
            // A JVM says 143 for the signal, which is no failure of it.
            program.terminate()?;
        }
        let wanted = match recipe.does {
            Does::FoldClaims => input.model.claims()?.len() as u64,
            Does::Produce | Does::ReadOnce | Does::WriteRecords => input.records,
        };
        let (counted, said) = recipe.count(self.name, namespace)?;
        ensure!(
            counted == Some(wanted),
            "{counted:?} rows, should be {wanted}: nothing was measured\n{said}"
        );
        Ok(run)
    }
}

/// An events topic that isn't compacted: Kafka's tool sends no keys, which a compacted one refuses.
async fn make_plain_topic(namespace: &Namespace) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = namespace.kafka_client().create()?;
    let topic = NewTopic::new(&namespace.events_topic, namespace.partitions, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime");
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
    for made in admin.create_topics(&[topic], &options).await? {
        if let Err((name, code)) = made {
            bail!("topic {name} can't be made: {code}");
        }
    }
    Ok(())
}

async fn of_naive(kind: Naive, input: &Input, number: u32) -> Result<Run> {
    let namespace = input.round(&format!("bench_naive_{number}"))?;
    measure::remove(&namespace).await?;
    let inserted = clickhouse::rows_inserted(&namespace).await?;
    let begun = Instant::now();
    let mut program: Program =
        measure::this(&NaiveArgs::command_line(kind, &namespace), "naive", &namespace)?;
    let group = Group::of(&namespace, &naive::group(&namespace))?;
    let run =
        follow(std::slice::from_mut(&mut program), begun, input.records, None, || Ok(group.committed()))?;
    drop(program);
    match kind {
        Naive::Clickhouse => {
            let inserted = clickhouse::events_inserted(&namespace, inserted).await?;
            ours::same("rows given to ClickHouse", inserted, input.records)?;
            ours::verify_clickhouse(&namespace, input).await?;
        }
        Naive::Cql => ours::verify_cql(&namespace, input).await?,
    }
    measure::remove(&namespace).await?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn peers_stand_beside_stages_that_are_there() {
        let names: HashSet<&str> = PEERS.iter().map(|peer| peer.name).collect();
        assert_eq!(names.len(), PEERS.len());
        for peer in PEERS {
            assert!(Stage::named(peer.stage).is_some(), "{}", peer.name);
            if let Way::Recipe(recipe) = peer.way {
                assert!(recipe.script().is_ok(), "{}", peer.name);
            }
        }
    }
}
