//! Scale on paper: what 10,000, 100,000 and a million events per second need, by the measured cost of one.

use super::{
    peer::PEERS,
    report::{self, Table, grouped},
    session,
    stage::Stage,
    stored,
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const DOCUMENT: &str = "docs/scaling.md";
const TABLE: Table = Table { begin: "<!-- scaling: begin -->", end: "<!-- scaling: end -->" };

/// Events per second.
const RATES: [f64; 3] = [10_000.0, 100_000.0, 1_000_000.0];
/// So much of a core, or of a process's one thread, is planned with: the rest is for replays, merges and bad days.
const USED: f64 = 0.6;
/// Cores of a broker, CQL node or ClickHouse server.
const NODE_CORES: f64 = 8.0;
/// Copies in Kafka and CQL, and least number of nodes of each.
const COPIES: f64 = 3.0;
/// Records that a live event becomes in Kafka: itself, and its claim's state after it.
const KAFKA_RECORDS: f64 = 2.0;
/// Consumer groups that read every event.
const READING_GROUPS: f64 = 3.0;
/// Servers of a ClickHouse shard.
const REPLICAS: f64 = 2.0;
/// Partitions come in multiples of this, which many numbers of processes divide.
const PARTITION_STEP: f64 = 12.0;
/// Twice as many partitions as processes: later growth doesn't need another topic.
const PARTITIONS_PER_PROCESS: f64 = 2.0;
/// Rows written and deleted of a live event: claim, timeline entry, lists, places left.
const CQL_ROWS: f64 = 8.0;
/// What ScyllaDB's makers publish of one physical core.
const SCYLLA_ROWS_PER_S_AND_CORE: f64 = 12_500.0;
/// Of a stage's usual number of events there may be so many less: generated claims are whole ones.
const LEAST_RECORDS: f64 = 0.95;
const DAY_S: f64 = 86_400.0;

/// Where the figures are, and where the table goes.
#[derive(Debug, Args)]
pub struct ScalingArgs {
    /// Results of a run, instead of the last whole one's
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Also put the table into docs/scaling.md
    #[arg(long)]
    write: bool,
}

/// What is needed of a line of results.
#[derive(Debug, Clone, Deserialize)]
struct Measured {
    stage: String,
    against: String,
    records: u64,
    measured_on: String,
    #[serde(rename = "ours_cpu_s_per_million")]
    cpu_us: f64,
    #[serde(rename = "ours_services_cpu_s_per_million")]
    services_cpu_us: BTreeMap<String, f64>,
    #[serde(rename = "ours_network_bytes_per_record")]
    network_bytes: f64,
    #[serde(rename = "ours_stored_bytes_per_record")]
    stored_bytes: BTreeMap<String, f64>,
}

impl Measured {
    fn service_us(&self, service: &str) -> f64 {
        self.services_cpu_us.get(service).copied().unwrap_or(0.0)
    }

    fn stored(&self, at: &str) -> f64 {
        self.stored_bytes.get(at).copied().unwrap_or(0.0)
    }
}

/// The stages that the cost of an event is the sum of.
struct Costs {
    ingress: Measured,
    current_state: Measured,
    analytics: Measured,
    audit: Measured,
}

impl Costs {
    fn of(lines: &[Measured]) -> Result<Self> {
        let of = |stage: &str| {
            let is_of_peer = |line: &&Measured| PEERS.iter().any(|peer| peer.name == line.against);
            let line = lines.iter().find(|line| line.stage == stage && !is_of_peer(line));
            let line = line.with_context(|| format!("the results lack {stage}: measure it first"))?;
            let usual = Stage::named(stage).map_or(0, |stage| stage.events);
            ensure!(
                line.records as f64 >= usual as f64 * LEAST_RECORDS,
                "{stage} was measured with {} events, which is too few: measure it without --events",
                line.records
            );
            Ok(line.clone())
        };
        Ok(Self {
            ingress: of("ingest-ndjson")?,
            current_state: of("current-state-live")?,
            analytics: of("analytics")?,
            audit: of("audit")?,
        })
    }

    fn all(&self) -> [(&'static str, &Measured); 4] {
        [
            ("ingress", &self.ingress),
            ("current-state", &self.current_state),
            ("analytics", &self.analytics),
            ("audit", &self.audit),
        ]
    }

    /// Every copy of a record costs a broker about what taking the first one does. What Kafka takes beside `current-state` is
    /// left out: at that stage's rate it is that of a broker at rest, and would count as a cost of each event.
    fn kafka_us(&self) -> f64 {
        let fetching = READING_GROUPS * self.analytics.service_us("kafka");
        self.ingress.service_us("kafka") * KAFKA_RECORDS * COPIES + fetching
    }
}

/// What one rate needs.
struct Need {
    /// By [`Costs::all`].
    processes: Vec<f64>,
    partitions: f64,
    kafka_cores: f64,
    cql_cores: f64,
    scylla_cores: f64,
    clickhouse_cores: f64,
    /// Disk, bytes per second.
    kafka_bytes: f64,
    cql_bytes: f64,
    clickhouse_bytes: f64,
    audit_bytes: f64,
    network_bytes: f64,
}

impl Need {
    fn of(costs: &Costs, per_s: f64) -> Self {
        let cores = |us: f64| per_s * us / 1e6 / USED;
        let processes: Vec<f64> = costs.all().iter().map(|(_, stage)| cores(stage.cpu_us).ceil()).collect();
        let largest = processes.iter().skip(1).copied().fold(1.0, f64::max);
        let Costs { ingress, current_state, analytics, audit } = costs;
        Self {
            partitions: (largest * PARTITIONS_PER_PROCESS / PARTITION_STEP).ceil() * PARTITION_STEP,
            processes,
            kafka_cores: cores(costs.kafka_us()),
            cql_cores: cores(current_state.service_us("cassandra") * COPIES),
            scylla_cores: per_s * CQL_ROWS * COPIES / SCYLLA_ROWS_PER_S_AND_CORE / USED,
            clickhouse_cores: cores(analytics.service_us("clickhouse")),
            kafka_bytes: per_s * COPIES * ingress.stored(stored::EVENTS_TOPIC),
            cql_bytes: per_s * COPIES * current_state.stored(stored::CQL),
            clickhouse_bytes: per_s * REPLICAS * analytics.stored(stored::CLICKHOUSE),
            audit_bytes: per_s * audit.stored(stored::AUDIT),
            network_bytes: per_s * costs.all().iter().map(|(_, stage)| stage.network_bytes).sum::<f64>(),
        }
    }

    /// Who needs the most cores, every copy counted.
    fn bottleneck(&self) -> String {
        let of_process = |at: usize| self.processes.get(at).copied().unwrap_or(0.0);
        let all = [
            ("ingress", of_process(0)),
            ("current-state", of_process(1)),
            ("analytics", of_process(2)),
            ("audit", of_process(3)),
            ("Kafka", self.kafka_cores),
            ("the CQL nodes", self.cql_cores),
            ("ClickHouse", self.clickhouse_cores * REPLICAS),
        ];
        let sum: f64 = all.iter().map(|(_, cores)| cores).sum();
        let most = all.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map_or_else(String::new, |(name, cores)| {
            format!("{name}: {:.0} % of {} cores", cores / sum.max(1.0) * 100.0, grouped(sum.ceil()))
        })
    }
}

/// Prints the tables, and puts them into the document if that is asked for.
pub fn run(args: &ScalingArgs, root: &Path) -> Result<()> {
    let results = args.results.clone().unwrap_or_else(|| root.join(session::KEPT_RESULTS));
    let text = fs::read_to_string(&results).with_context(|| format!("read {}", results.display()))?;
    let lines: Vec<Measured> =
        serde_json::from_str(&text).with_context(|| format!("{} holds no results", results.display()))?;
    let costs = Costs::of(&lines)?;
    let tables = tables(&costs)?;
    println!("{tables}");
    if args.write {
        let heading = format!("Measured on {}:", costs.current_state.measured_on);
        report::write_table(&root.join(DOCUMENT), TABLE, &heading, &tables)?;
    }
    Ok(())
}

fn tables(costs: &Costs) -> Result<String> {
    let mut text = String::from(
        "| one event in | CPU µs of the process | of Kafka | of the CQL server | of ClickHouse | network bytes | \
         bytes left on disk |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for (name, stage) in costs.all() {
        let service = |service| format!("{:.1}", stage.service_us(service));
        let stored: Vec<String> =
            stage.stored_bytes.iter().map(|(at, bytes)| format!("{at} {bytes:.0}")).collect();
        writeln!(
            text,
            "| {name} | {:.1} | {} | {} | {} | {:.0} | {} |",
            stage.cpu_us,
            service("kafka"),
            service("cassandra"),
            service("clickhouse"),
            stage.network_bytes,
            stored.join(", ")
        )?;
    }
    let needs = RATES.map(|rate| Need::of(costs, rate));
    writeln!(text, "\n| events per second | {} |", RATES.map(grouped).join(" | "))?;
    text += "| --- | ---: | ---: | ---: |\n";
    let mut row = |name: &str, of: &dyn Fn(&Need) -> String| {
        writeln!(text, "| {name} | {} |", needs.each_ref().map(of).join(" | "))
    };
    row("partitions", &|need| grouped(need.partitions))?;
    for (at, (name, _)) in costs.all().iter().enumerate() {
        let of = |need: &Need| need.processes.get(at).copied().map_or_else(String::new, grouped);
        row(&format!("{name}, processes of a core each"), &of)?;
    }
    row("Kafka brokers (cores)", &|need| nodes(need.kafka_cores, COPIES))?;
    row("CQL nodes (cores), by what Cassandra takes here", &|need| nodes(need.cql_cores, COPIES))?;
    row("CQL nodes (cores), by what ScyllaDB publishes", &|need| nodes(need.scylla_cores, COPIES))?;
    row("ClickHouse shards (cores of one replica)", &|need| nodes(need.clickhouse_cores, 1.0))?;
    row("Kafka, disk a day", &|need| per_day(need.kafka_bytes))?;
    row("CQL, disk a day", &|need| per_day(need.cql_bytes))?;
    row("ClickHouse, disk a day", &|need| per_day(need.clickhouse_bytes))?;
    row("trail, disk a day", &|need| per_day(need.audit_bytes))?;
    row("network, without copies", &|need| format!("{:.0} Mbit/s", need.network_bytes * 8.0 / 1e6))?;
    row("needs most", &Need::bottleneck)?;
    Ok(text)
}

fn nodes(cores: f64, least: f64) -> String {
    format!("{} ({})", grouped((cores / NODE_CORES).ceil().max(least)), grouped(cores.ceil()))
}

fn per_day(bytes_per_s: f64) -> String {
    match bytes_per_s * DAY_S / 1e9 {
        0.0 => "not measured".to_owned(),
        gb if gb < 1_000.0 => format!("{gb:.0} GB"),
        gb => format!("{:.1} TB", gb / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(stage: &str, cpu_us: f64, services: &[(&str, f64)], stored: &[(&str, f64)]) -> Measured {
        let map =
            |pairs: &[(&str, f64)]| pairs.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Measured {
            stage: stage.to_owned(),
            against: "floor".to_owned(),
            records: Stage::named(stage).unwrap().events,
            measured_on: "2026-01-02".to_owned(),
            cpu_us,
            services_cpu_us: map(services),
            network_bytes: 500.0,
            stored_bytes: map(stored),
        }
    }

    fn lines() -> Vec<Measured> {
        vec![
            measured("ingest-ndjson", 6.0, &[("kafka", 2.0)], &[("events-topic", 100.0)]),
            measured("current-state-live", 48.0, &[("kafka", 3.0), ("cassandra", 400.0)], &[("cql", 900.0)]),
            measured("analytics", 3.0, &[("kafka", 1.0), ("clickhouse", 12.0)], &[("clickhouse", 50.0)]),
            measured("audit", 9.0, &[("kafka", 2.0)], &[("audit", 70.0)]),
        ]
    }

    #[test]
    fn needs_are_costs_times_the_rate() {
        let need = Need::of(&Costs::of(&lines()).unwrap(), 100_000.0);
        // 4.8 cores' worth at 60 % of a core each, and so on.
        assert_eq!(need.processes, [1.0, 8.0, 1.0, 2.0]);
        assert_eq!(need.partitions, 24.0);
        // 2 µs for each of three copies of two records, and 1 for each of three groups.
        assert!((need.kafka_cores - 2.5).abs() < 1e-9);
        assert_eq!(need.cql_cores.round(), 200.0);
        assert_eq!((need.clickhouse_cores.round(), need.scylla_cores.round()), (2.0, 320.0));
        assert_eq!(need.bottleneck(), "the CQL nodes: 92 % of 219 cores");
    }

    #[test]
    fn tables_have_every_rate() {
        let text = tables(&Costs::of(&lines()).unwrap()).unwrap();
        for line in [
            "| current-state | 48.0 | 3.0 | 400.0 | 0.0 | 500 | cql 900 |",
            "| events per second | 10,000 | 100,000 | 1,000,000 |",
            "| partitions | 12 | 24 | 168 |",
            "| Kafka brokers (cores) | 3 (1) | 3 (3) | 4 (25) |",
            "| CQL nodes (cores), by what Cassandra takes here | 3 (20) | 25 (200) | 250 (2,000) |",
            "| ClickHouse shards (cores of one replica) | 1 (1) | 1 (2) | 3 (20) |",
            "| CQL, disk a day | 2.3 TB | 23.3 TB | 233.3 TB |",
            "| network, without copies | 160 Mbit/s | 1600 Mbit/s | 16000 Mbit/s |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_was_measured_beside_a_peer_does_not_count() {
        let of_peer =
            Measured { against: "naive-clickhouse".to_owned(), ..measured("analytics", 99.0, &[], &[]) };
        let all: Vec<Measured> = std::iter::once(of_peer).chain(lines()).collect();
        assert_eq!(Costs::of(&all).unwrap().analytics.cpu_us, 3.0);
    }

    #[test]
    fn short_runs_are_refused() {
        let mut all = lines();
        all[1].records = 6_000;
        let error = Costs::of(&all).err().unwrap().to_string();
        assert!(error.starts_with("current-state-live was measured with 6000 events"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Costs::of(&lines()[..1]).err().unwrap().to_string();
        assert_eq!(error, "the results lack current-state-live: measure it first");
    }

    #[test]
    fn results_are_what_a_run_writes() {
        let text = serde_json::to_string(&[crate::report::tests::line(2.0)]).unwrap();
        let lines: Vec<Measured> = serde_json::from_str(&text).unwrap();
        assert_eq!((lines[0].cpu_us, lines[0].service_us("kafka")), (2.0, 4.0));
        assert_eq!((lines[0].network_bytes, lines[0].stored(stored::CLICKHOUSE)), (900.0, 60.0));
    }
}
