//! Every scenario: what is broken, who may suffer, and where the code is that breaks it. `docs/faults.md` says the same
//! in more words.

use super::{
    bench::Bench,
    crew::Role,
    families::{clock, databases, disk, kills, members, network, services, zombie},
};
use anyhow::Result;
use xtask::services::Service;

/// How the fault is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, once or twice.
    Kill,
    /// `kill -9` with everything written and nothing committed.
    KillBeforeCommit,
    /// `kill -9` while it stops.
    KillInDrain,
    /// Stopped beyond the session timeout, and continued.
    Zombie,
    /// Consumers come and go.
    Members,
    /// A broker is killed and started again.
    Broker,
    /// Another service is killed and started again.
    Service(Service),
    /// The CQL server forgets acknowledged writes, and an offset reset writes them again.
    PeriodicCommitLog,
    /// ClickHouse is killed while inserts are under way.
    ClickHouseMidInsert,
    /// ClickHouse's answers are replaced.
    ClickHouseAnswers(&'static str),
    /// ClickHouse works and doesn't answer.
    ClickHouseMute,
    /// Connections to ClickHouse break within inserts.
    ClickHouseCutInserts,
    /// Both databases answer late.
    SlowSinks,
    /// Neither database can be reached.
    CutSinks,
    /// No broker can be reached.
    KafkaCut,
    /// Connections to the brokers stand still.
    KafkaStall,
    /// Brokers answer late.
    KafkaDelay,
    /// No room left for the local store.
    DiskFull,
    /// The wall clock of one process jumps.
    ClockJump,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is broken, in a line.
    pub what: &'static str,
    /// How.
    pub fault: Fault,
    /// One of them, chosen by the seed, is hit.
    pub victims: &'static [Role],
    /// Processors that may stand still besides the victim: all others must go on.
    pub affects: &'static [Role],
    /// Roles whose processes may end by themselves, to be started again by their supervisor.
    pub may_end: &'static [Role],
}

const NONE: &[Role] = &[];
const EVERY: &[Role] = &Role::PROCESSORS;
const CS: &[Role] = &[Role::CurrentState];
const AN: &[Role] = &[Role::Analytics];
const AU: &[Role] = &[Role::Audit];
const DATABASES: &[Role] = &[Role::CurrentState, Role::Analytics];

const fn scenario(name: &'static str, what: &'static str, fault: Fault) -> Scenario {
    Scenario { name, what, fault, victims: NONE, affects: NONE, may_end: NONE }
}

const ANSWER_500: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 23\r\n\r\n\
    upstream does not work\n";
const ANSWER_TOO_MANY_PARTS: &str = "HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: 252\r\n\
    Content-Type: text/plain\r\nContent-Length: 113\r\n\r\n\
    Code: 252. DB::Exception: Too many parts (3000) in all partitions. Merges are processing slower. (TOO_MANY_PARTS)";

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        victims: &[Role::Ingress],
        affects: EVERY,
        ..scenario("kill-ingress", "kill -9 of ingress", Fault::Kill)
    },
    Scenario { victims: CS, ..scenario("kill-current-state", "kill -9 of current-state", Fault::Kill) },
    Scenario { victims: AN, ..scenario("kill-analytics", "kill -9 of analytics", Fault::Kill) },
    Scenario { victims: AU, ..scenario("kill-audit", "kill -9 of audit", Fault::Kill) },
    Scenario {
        victims: EVERY,
        ..scenario(
            "kill-before-commit",
            "kill -9 of a processor after the sink's acknowledgement and before the commit",
            Fault::KillBeforeCommit,
        )
    },
    Scenario {
        victims: EVERY,
        ..scenario("kill-in-drain", "kill -9 of a processor while it drains to stop", Fault::KillInDrain)
    },
    Scenario {
        victims: EVERY,
        ..scenario(
            "zombie",
            "SIGSTOP of a processor beyond its session, and SIGCONT once another has its partitions",
            Fault::Zombie,
        )
    },
    Scenario {
        affects: EVERY,
        ..scenario("members", "consumers of every group join, leave and die continuously", Fault::Members)
    },
    Scenario {
        affects: EVERY,
        ..scenario("broker", "kill -9 of one of three brokers, and its restart", Fault::Broker)
    },
    Scenario {
        victims: CS,
        ..scenario(
            "cql-kill",
            "kill -9 of the CQL server, and its restart",
            Fault::Service(Service::Cassandra),
        )
    },
    Scenario {
        victims: CS,
        ..scenario(
            "cql-forgets",
            "kill -9 of the CQL server with a periodic commit log, and a reset of offsets",
            Fault::PeriodicCommitLog,
        )
    },
    Scenario {
        victims: AN,
        ..scenario(
            "clickhouse-kill",
            "kill -9 of ClickHouse while inserts are under way, and its restart",
            Fault::ClickHouseMidInsert,
        )
    },
    Scenario {
        victims: EVERY,
        ..scenario(
            "registry",
            "kill -9 of the schema registry and of a processor that needs it, and its restart",
            Fault::Service(Service::Registry),
        )
    },
    Scenario {
        victims: AN,
        ..scenario("clickhouse-500", "ClickHouse answers 500", Fault::ClickHouseAnswers(ANSWER_500))
    },
    Scenario {
        victims: AN,
        ..scenario(
            "clickhouse-too-many-parts",
            "ClickHouse refuses inserts: TOO_MANY_PARTS (252)",
            Fault::ClickHouseAnswers(ANSWER_TOO_MANY_PARTS),
        )
    },
    Scenario {
        victims: AN,
        ..scenario(
            "clickhouse-timeout",
            "ClickHouse applies inserts and its answers are lost",
            Fault::ClickHouseMute,
        )
    },
    Scenario {
        victims: AN,
        ..scenario(
            "clickhouse-cut",
            "connections to ClickHouse break in the middle of inserts",
            Fault::ClickHouseCutInserts,
        )
    },
    Scenario { affects: DATABASES, ..scenario("slow-sinks", "both databases answer late", Fault::SlowSinks) },
    Scenario {
        affects: DATABASES,
        ..scenario("cut-sinks", "neither database can be reached", Fault::CutSinks)
    },
    Scenario {
        affects: EVERY,
        ..scenario("kafka-cut", "connections to every broker are cut and refused", Fault::KafkaCut)
    },
    Scenario {
        affects: EVERY,
        ..scenario(
            "kafka-stall",
            "connections to every broker stand still, beyond the session",
            Fault::KafkaStall,
        )
    },
    Scenario { affects: EVERY, ..scenario("kafka-delay", "every broker answers late", Fault::KafkaDelay) },
    Scenario {
        victims: &Role::ALL,
        ..scenario(
            "clock-jump",
            "a process's wall clock jumps, by up to three days, forwards and back",
            Fault::ClockJump,
        )
    },
    Scenario {
        victims: CS,
        may_end: CS,
        ..scenario("disk-full", "no room for the local store (a small tmpfs; needs root)", Fault::DiskFull)
    },
];

/// The scenarios of the short form, chosen to reach every processor and every kind of fault.
pub const SHORT: &[&str] = &["kill-before-commit", "zombie", "members", "clickhouse-timeout", "kafka-cut"];

impl Scenario {
    /// By its name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Settings of the victim's first start.
    pub fn victim_settings(&self, victim: Role) -> Vec<(String, String)> {
        match self.fault {
            // Longer than a round: nothing is committed before the kill.
            Fault::KillBeforeCommit => {
                vec![(victim.runtime_variable("COMMIT_INTERVAL_MS"), "60000".to_owned())]
            }
            _ => Vec::new(),
        }
    }

    /// Whether the victim commits before the fault.
    pub fn victim_commits(&self) -> bool {
        self.fault != Fault::KillBeforeCommit
    }

    /// Whether the fault lies between the product and something it asks, so that one that met no question was none.
    pub fn must_meet_something(&self) -> bool {
        matches!(
            self.fault,
            Fault::ClickHouseAnswers(_)
                | Fault::ClickHouseMute
                | Fault::ClickHouseCutInserts
                | Fault::SlowSinks
                | Fault::CutSinks
                | Fault::KafkaCut
                | Fault::KafkaStall
                | Fault::KafkaDelay
                | Fault::ClockJump
        )
    }

    /// Breaks it, and mends the surroundings again; the product is left to itself.
    pub async fn run(&self, bench: &mut Bench) -> Result<()> {
        match self.fault {
            Fault::Kill => kills::at_once(bench).await,
            Fault::KillBeforeCommit => kills::before_commit(bench).await,
            Fault::KillInDrain => kills::in_drain(bench).await,
            Fault::Zombie => zombie::zombie(bench).await,
            Fault::Members => members::come_and_go(bench).await,
            Fault::Broker => services::broker(bench).await,
            Fault::Service(Service::Registry) => services::registry(bench).await,
            Fault::Service(service) => services::restart(bench, service).await,
            Fault::PeriodicCommitLog => services::forgetful_cql(bench).await,
            Fault::ClickHouseMidInsert => services::clickhouse_mid_insert(bench).await,
            Fault::ClickHouseAnswers(answer) => databases::answers(bench, answer).await,
            Fault::ClickHouseMute => databases::mute(bench).await,
            Fault::ClickHouseCutInserts => databases::cut_inserts(bench).await,
            Fault::SlowSinks => databases::slow(bench).await,
            Fault::CutSinks => databases::cut(bench).await,
            Fault::KafkaCut => network::cut(bench).await,
            Fault::KafkaStall => network::stall(bench).await,
            Fault::KafkaDelay => network::delay(bench).await,
            Fault::DiskFull => disk::full(bench).await,
            Fault::ClockJump => clock::jump(bench).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_differ_and_the_short_form_knows_them() {
        let names: HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(SHORT.iter().all(|name| names.contains(name)));
    }

    #[test]
    fn canned_answers_are_as_long_as_they_say() {
        for answer in [ANSWER_500, ANSWER_TOO_MANY_PARTS] {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{} {head}", body.len());
        }
    }

    #[test]
    fn every_scenario_is_explained() {
        let text = include_str!("../../../../docs/faults.md");
        for scenario in SCENARIOS {
            assert!(text.contains(&format!("| `{}` |", scenario.name)), "{}", scenario.name);
        }
    }
}
