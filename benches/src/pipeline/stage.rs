//! Every stage that is measured: what runs, what it is held against, and how near it must come.

use super::room::PerEvent;

/// What a stage is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// The client library alone, with everything prepared beforehand.
    Client(ClientFloor),
    /// Another stage of ours, in the same run.
    Stage(&'static str),
    /// The stage itself with fewer events, or in fewer partitions: it must not get slower as they grow.
    Smaller {
        /// A so manieth part of the events.
        divisor: u64,
        /// Partitions of the topic.
        partitions: i32,
    },
}

/// What can't be avoided: the same client libraries with rows prepared beforehand, on the same cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientFloor {
    /// Encoded records into a topic.
    Produce,
    /// Consume, and decode into typed structs.
    Decode,
    /// Consume, and insert ready rows into ClickHouse.
    Clickhouse,
    /// Consume, and write ready rows as Parquet files.
    Parquet,
    /// Consume, and write one ready row per event and view into the CQL tables.
    Cql,
}

/// What is ours in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// `claims ingest` of a file.
    Ingest,
    /// `claims run ingress`, which is sent the file over HTTP.
    Http,
    /// The current-state processor with a sink that writes nothing.
    Fold,
    /// Processors, each a process of its own.
    Run(&'static [&'static str]),
}

/// What is in the file and in the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Events as they happened: a claim's lie close together.
    AsHappened,
    /// Events as live traffic: between two of a claim lie those of thousands of others.
    Live,
    /// A table of cases, each of which becomes two events.
    Cases,
    /// Very many events of whole claims, in the topic alone.
    Bulk,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Its name on the command line and in the results.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// What is ours.
    pub ours: Ours,
    /// What it is held against.
    pub floor: Floor,
    /// What it reads.
    pub content: Content,
    /// Events per second, as a share of the floor's, that it must reach.
    pub goal: f64,
    /// CPU that it may take beyond the floor's, in microseconds a record.
    pub cpu_goal_us: Option<f64>,
    /// Events, unless the command line says otherwise.
    pub events: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Rounds, unless the command line says otherwise.
    pub rounds: u32,
    /// Settings of our processors in this stage.
    pub settings: Settings,
    /// Its CPU for each record may be so many times the floor's.
    pub max_cpu_ratio: Option<f64>,
    /// Its memory may be so many times the floor's.
    pub max_memory_ratio: Option<f64>,
}

/// Variables of `claims` and their values.
pub type Settings = &'static [(&'static str, &'static str)];

/// A claim's next event must not come within the batch of the one before, as it wouldn't in live traffic.
const LIVE_BATCHES: Settings = &[("CLAIMS_CURRENT_STATE__RUNTIME__MAX_BATCH_RECORDS", "5000")];
/// The same as a number.
pub const LIVE_BATCH_RECORDS: u64 = 5_000;

/// Of the fast stages: a quarter of these are through in two seconds, whose figures differ by more than 15 % from run to
/// run.
const LONG_EVENTS: u64 = 2_000_000;

/// Of those stages, and of the replay into CQL: runs of seconds meet a shared machine's good and bad moments, whose ratios
/// differ by a third; of more rounds fewer than half are bad.
const LONG_ROUNDS: u32 = 9;

/// Of stages with whole claims into CQL, which is the slowest of the services: some six of the batches in which a claim's
/// events are folded together. Rate and CPU are taken from the first one's end on.
const CQL_EVENTS: u64 = 150_000;

const ALL_PROCESSORS: &[&str] = &["current-state", "analytics", "audit"];

const fn stage(name: &'static str, what: &'static str, ours: Ours, floor: Floor, goal: f64) -> Stage {
    Stage {
        name,
        what,
        ours,
        floor,
        content: Content::AsHappened,
        goal,
        cpu_goal_us: None,
        events: 500_000,
        partitions: 6,
        rounds: 5,
        settings: &[],
        max_cpu_ratio: None,
        max_memory_ratio: None,
    }
}

/// All of them, in the order in which they are run.
pub const STAGES: &[Stage] = &[
    Stage {
        cpu_goal_us: Some(3.0),
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "ingest-ndjson",
            "file of events → validated → Avro → acknowledged",
            Ours::Ingest,
            Floor::Client(ClientFloor::Produce),
            0.8,
        )
    },
    Stage {
        content: Content::Cases,
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "ingest-csv",
            "file of cases, mapped → validated → Avro → acknowledged",
            Ours::Ingest,
            Floor::Client(ClientFloor::Produce),
            0.5,
        )
    },
    Stage {
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage("ingest-http", "the same events over HTTP", Ours::Http, Floor::Stage("ingest-ndjson"), 0.5)
    },
    Stage {
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "fold",
            "consume → decode → durable fold, no sink",
            Ours::Fold,
            Floor::Client(ClientFloor::Decode),
            0.7,
        )
    },
    Stage {
        content: Content::Live,
        // Of 5 events each: 5,000 claims and more in each partition.
        events: 52_000,
        partitions: 2,
        settings: LIVE_BATCHES,
        ..stage(
            "current-state-live",
            "current-state → CQL and state topic, each event another claim's",
            Ours::Run(&["current-state"]),
            Floor::Client(ClientFloor::Cql),
            0.85,
        )
    },
    Stage {
        events: CQL_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "current-state-replay",
            "current-state → CQL and state topic, a claim's events together",
            Ours::Run(&["current-state"]),
            Floor::Client(ClientFloor::Cql),
            2.0,
        )
    },
    Stage {
        cpu_goal_us: Some(2.0),
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "analytics",
            "analytics → ClickHouse",
            Ours::Run(&["analytics"]),
            Floor::Client(ClientFloor::Clickhouse),
            0.75,
        )
    },
    Stage {
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        ..stage(
            "audit",
            "audit → hash-chained Parquet",
            Ours::Run(&["audit"]),
            Floor::Client(ClientFloor::Parquet),
            0.75,
        )
    },
    Stage {
        events: CQL_EVENTS,
        ..stage(
            "all-processors",
            "all processors at once",
            Ours::Run(ALL_PROCESSORS),
            Floor::Stage("current-state-replay"),
            0.6,
        )
    },
    Stage {
        content: Content::Bulk,
        events: 10_000_000,
        // Of minutes each: more would be an hour.
        rounds: 7,
        max_memory_ratio: Some(1.15),
        ..stage(
            "replay-growth",
            "analytics over ten times as many events, from zero",
            Ours::Run(&["analytics"]),
            Floor::Smaller { divisor: 10, partitions: 6 },
            0.85,
        )
    },
    Stage {
        content: Content::Bulk,
        events: LONG_EVENTS,
        rounds: LONG_ROUNDS,
        partitions: 64,
        max_cpu_ratio: Some(1.2),
        ..stage(
            "partitions",
            "analytics over 64 partitions instead of one",
            Ours::Run(&["analytics"]),
            Floor::Smaller { divisor: 1, partitions: 1 },
            0.8,
        )
    },
];

impl Content {
    /// Of bulk there is no file and no model. Otherwise the model of an input takes some 1,200 bytes of memory for an event,
    /// and a floor's rows as much while it runs.
    pub fn room(self) -> PerEvent {
        match self {
            Self::Bulk => PerEvent { disk: 1_200, memory: 50 },
            Self::AsHappened | Self::Live | Self::Cases => PerEvent { disk: 4_000, memory: 2_500 },
        }
    }
}

impl Stage {
    /// By its name.
    pub fn named(name: &str) -> Option<&'static Self> {
        STAGES.iter().find(|stage| stage.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::are_kept_apart;

    #[test]
    fn live_traffic_has_one_event_of_a_claim_in_a_batch() {
        let live: Vec<_> = STAGES.iter().filter(|stage| stage.content == Content::Live).collect();
        assert!(!live.is_empty());
        for stage in live {
            // Partitions differ by a few claims.
            assert!(are_kept_apart(stage.events * 97 / 100, stage.partitions), "{}", stage.name);
            assert!(stage.settings.iter().any(|&(_, value)| value == LIVE_BATCH_RECORDS.to_string()));
        }
    }

    #[test]
    fn stages_are_held_against_stages_before_them() {
        for (i, stage) in STAGES.iter().enumerate() {
            assert!(STAGES.iter().skip(i + 1).all(|other| other.name != stage.name), "{}", stage.name);
            if let Floor::Stage(name) = stage.floor {
                assert!(STAGES.iter().take(i).any(|other| other.name == name), "{name}");
            }
        }
    }
}
