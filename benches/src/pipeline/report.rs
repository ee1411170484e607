//! What was measured, for people and for programs.

use super::{
    freshness::{Ages, Freshness},
    measure::Round,
    offsets::Run,
    peer::{self, Peer},
    stage::{Floor, Stage},
};
use anyhow::{Context, Result};
use claims_verifier::numbers::thousands;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

/// A table of `benches/RESULTS.md`, between two marks.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The line before it.
    pub begin: &'static str,
    /// The line after it.
    pub end: &'static str,
}

/// Stages against their floors.
pub const STAGES: Table = Table { begin: "<!-- stages: begin -->", end: "<!-- stages: end -->" };
/// Stages against peers.
pub const PEERS: Table = Table { begin: "<!-- peers: begin -->", end: "<!-- peers: end -->" };
/// Freshness.
pub const FRESHNESS: Table = Table { begin: "<!-- freshness: begin -->", end: "<!-- freshness: end -->" };
/// What CQL must be within, in milliseconds: 95 of 100 events, 99 of 100 …
const CQL_GOALS_MS: (f64, f64) = (100.0, 250.0);
/// … and 99 of 100 in ClickHouse.
const CLICKHOUSE_GOAL_MS: f64 = 1_500.0;
/// A host that takes more than this share of the machine is told of.
const STOLEN_TOLD: f64 = 0.02;

/// What ours may take, against what the floor takes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Limits {
    /// CPU beyond the floor's, in microseconds a record.
    pub cpu_us: Option<f64>,
    /// CPU, as a multiple of the floor's.
    pub cpu_ratio: Option<f64>,
    /// Memory, as a multiple of the floor's.
    pub memory_ratio: Option<f64>,
}

/// A stage's line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The stage.
    pub stage: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// What it is held against.
    pub against: String,
    /// Records of a run.
    pub records: u64,
    /// The day, as `2026-01-02`, in UTC.
    pub measured_on: String,
    /// Ours, median of all rounds, records per second.
    pub ours_per_s: f64,
    /// The floor's.
    pub floor_per_s: f64,
    /// Median of the rounds' ratios.
    pub ratio: f64,
    /// The lowest and the highest of them.
    pub ratio_range: (f64, f64),
    /// What the ratio must reach, if anything.
    pub goal: Option<f64>,
    /// Whether it does, and ours takes no more than it may.
    pub is_met: bool,
    /// Our CPU, in seconds per million records, median.
    pub ours_cpu_s_per_million: f64,
    /// The floor's.
    pub floor_cpu_s_per_million: f64,
    /// What ours may take.
    pub limits: Limits,
    /// The most memory of any process of ours, in MiB.
    pub ours_peak_mib: u64,
    /// The floor's, prepared rows included.
    pub floor_peak_mib: u64,
    /// CPU of the services in our runs, in seconds per million records, medians.
    pub ours_services_cpu_s_per_million: BTreeMap<&'static str, f64>,
    /// The same in the floor's.
    pub floor_services_cpu_s_per_million: BTreeMap<&'static str, f64>,
    /// Bytes on the network in our runs, everybody's, per record, median.
    pub ours_network_bytes_per_record: f64,
    /// Bytes that our runs have left, by where, per record, medians.
    pub ours_stored_bytes_per_record: BTreeMap<&'static str, f64>,
    /// The share of the machine that its host gave to others in our runs, median.
    pub ours_stolen_share: f64,
    /// The same in the floor's, which are shorter: a host that limits what lasts takes less of them.
    pub floor_stolen_share: f64,
    /// Every round.
    pub rounds: Vec<Round>,
}

/// As `2026-01-02`, in UTC.
pub fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

impl Line {
    /// Of a stage's rounds.
    pub fn of(stage: &Stage, records: u64, rounds: Vec<Round>) -> Result<Self> {
        let against = match stage.floor {
            Floor::Client(kind) => format!("{kind:?}").to_lowercase(),
            Floor::Stage(name) => name.to_owned(),
            Floor::Smaller { divisor: 1, partitions } => format!("{partitions}-partition"),
            Floor::Smaller { divisor, .. } => format!("one-in-{divisor}"),
        };
        let limits = Limits {
            cpu_us: stage.cpu_goal_us,
            cpu_ratio: stage.max_cpu_ratio,
            memory_ratio: stage.max_memory_ratio,
        };
        Self::against(stage, against, Some(stage.goal), limits, records, rounds)
    }

    /// Of a peer's rounds.
    pub fn of_peer(stage: &Stage, peer: &Peer, records: u64, rounds: Vec<Round>) -> Result<Self> {
        let limits = Limits { cpu_ratio: peer.max_cpu_ratio, ..Limits::default() };
        Self::against(stage, peer.name.to_owned(), peer.goal, limits, records, rounds)
    }

    fn against(
        stage: &Stage,
        against: String,
        goal: Option<f64>,
        limits: Limits,
        records: u64,
        rounds: Vec<Round>,
    ) -> Result<Self> {
        let per_s =
            |run: &Run| run.per_s.context("all records came at once: too few to measure, give more --events");
        let ours_per_s: Vec<f64> = rounds.iter().map(|round| per_s(&round.ours)).collect::<Result<_>>()?;
        let floor_per_s: Vec<f64> = rounds.iter().map(|round| per_s(&round.floor)).collect::<Result<_>>()?;
        let ours: Vec<&Run> = rounds.iter().map(|round| &round.ours).collect();
        let floor: Vec<&Run> = rounds.iter().map(|round| &round.floor).collect();
        let ratios: Vec<f64> =
            ours_per_s.iter().zip(&floor_per_s).map(|(ours, floor)| ours / floor).collect();
        let of = |runs: &[&Run], what: fn(&Run) -> f64| median(runs.iter().map(|run| what(run)));
        let peak = |runs: &[&Run]| runs.iter().map(|run| run.peak_mib).max().unwrap_or(0);
        let ratio = median(ratios.iter().copied());
        let ours_cpu = of(&ours, |run| run.cpu_s_per_million);
        let floor_cpu = of(&floor, |run| run.cpu_s_per_million);
        let (ours_peak_mib, floor_peak_mib) = (peak(&ours), peak(&floor));
        let mut line = Self {
            stage: stage.name,
            what: stage.what,
            against,
            records,
            measured_on: today(),
            ours_per_s: median(ours_per_s.into_iter()),
            floor_per_s: median(floor_per_s.into_iter()),
            ratio,
            ratio_range: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ),
            goal,
            is_met: false,
            ours_cpu_s_per_million: ours_cpu,
            floor_cpu_s_per_million: floor_cpu,
            limits,
            ours_peak_mib,
            floor_peak_mib,
            ours_services_cpu_s_per_million: medians(&ours, |run| &run.services_cpu_s_per_million),
            floor_services_cpu_s_per_million: medians(&floor, |run| &run.services_cpu_s_per_million),
            ours_network_bytes_per_record: of(&ours, |run| run.network_bytes_per_record),
            ours_stored_bytes_per_record: medians(&ours, |run| &run.stored_bytes_per_record),
            ours_stolen_share: of(&ours, |run| run.stolen_share),
            floor_stolen_share: of(&floor, |run| run.stolen_share),
            rounds,
        };
        line.is_met = line.goals().iter().all(|(_, is_met)| *is_met);
        Ok(line)
    }

    /// Whether ours is held against a peer.
    pub fn is_of_peer(&self) -> bool {
        peer::PEERS.iter().any(|peer| peer.name == self.against)
    }

    /// Each goal, and whether it is met.
    fn goals(&self) -> Vec<(String, bool)> {
        let Limits { cpu_us, cpu_ratio, memory_ratio } = self.limits;
        let (cpu, floor_cpu) = (self.ours_cpu_s_per_million, self.floor_cpu_s_per_million);
        let (memory, floor_memory) = (self.ours_peak_mib as f64, self.floor_peak_mib as f64);
        let goals = [
            self.goal.map(|goal| (format!("{goal:.2}"), self.ratio >= goal)),
            cpu_us.map(|limit| (format!("CPU +{limit:.0} µs"), cpu <= floor_cpu + limit)),
            cpu_ratio.map(|limit| (format!("CPU {limit:.1} ×"), cpu <= floor_cpu * limit)),
            memory_ratio.map(|limit| (format!("memory {limit:.2} ×"), memory <= floor_memory * limit)),
        ];
        goals.into_iter().flatten().collect()
    }

    /// The goals in words, and whether each is met.
    pub fn verdict(&self) -> String {
        let goals = self.goals();
        if goals.is_empty() {
            return "no goal".to_owned();
        }
        let verdicts = goals.into_iter().map(|(goal, is_met)| goal + if is_met { " met" } else { " MISSED" });
        verdicts.collect::<Vec<_>>().join(", ")
    }

    /// In a line of the terminal.
    pub fn print(&self) {
        let (ours, floor) = (self.ours_stolen_share * 100.0, self.floor_stolen_share * 100.0);
        let stolen = if ours.max(floor) >= STOLEN_TOLD * 100.0 {
            format!("; the host took {ours:.1} and {floor:.1} % of the machine")
        } else {
            String::new()
        };
        println!(
            "{:<22} ours {:>9.0}/s, {} {:>9.0}/s, ratio {:.2} ({:.2} to {:.2}), goal {}; CPU {:.1} against {:.1} s per \
             million, {} MiB{}",
            self.stage,
            self.ours_per_s,
            self.against,
            self.floor_per_s,
            self.ratio,
            self.ratio_range.0,
            self.ratio_range.1,
            self.verdict(),
            self.ours_cpu_s_per_million,
            self.floor_cpu_s_per_million,
            self.ours_peak_mib,
            stolen,
        );
    }
}

/// Of an even number the mean of the two in the middle; 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => f64::midpoint(*below, *above),
        (_, Some(middle)) => *middle,
        _ => 0.0,
    }
}

/// Of each name the median of what the runs have under it.
fn medians(runs: &[&Run], figures: fn(&Run) -> &BTreeMap<&'static str, f64>) -> BTreeMap<&'static str, f64> {
    let names = runs.first().into_iter().flat_map(|run| figures(run).keys().copied());
    let of = |name| median(runs.iter().filter_map(|run| figures(run).get(name).copied()));
    names.map(|name| (name, of(name))).collect()
}

/// For programs.
pub fn write_json(path: &Path, what: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, serde_json::to_string_pretty(what)? + "\n")
        .with_context(|| format!("write {}", path.display()))
}

/// For people: a table of a file, in the place of the last one.
pub fn write_table(path: &Path, marks: Table, heading: &str, table: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let Table { begin, end } = marks;
    let (before, rest) = text.split_once(begin).with_context(|| format!("{}: no {begin}", path.display()))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("{}: no {end}", path.display()))?;
    fs::write(path, format!("{before}{begin}\n{heading}\n\n{table}{end}{after}"))?;
    Ok(())
}

/// A figure rounded to a whole number, with commas.
pub fn grouped(number: f64) -> String {
    thousands(number.round() as u64)
}

/// How old events are, as a table.
pub fn freshness_table(freshness: &Freshness) -> String {
    let Freshness { rate_per_s, cql, clickhouse } = freshness;
    let (p95, p99) = CQL_GOALS_MS;
    let verdict = |is_met: bool| if is_met { "met" } else { "MISSED" };
    let row = |view: &str, ages: &Ages, goal: String, is_met: bool| {
        format!(
            "| {view} | {rate_per_s} | {:.0} | {:.0} | {:.0} | {} | {goal} {} |\n",
            ages.p50_ms,
            ages.p95_ms,
            ages.p99_ms,
            ages.probes,
            verdict(is_met)
        )
    };
    let cql_is_met = cql.p95_ms <= p95 && cql.p99_ms <= p99;
    let clickhouse_is_met = clickhouse.p99_ms <= CLICKHOUSE_GOAL_MS;
    String::from("| view | events/s | p50 ms | p95 ms | p99 ms | events looked for | goal |\n")
        + "| --- | ---: | ---: | ---: | ---: | ---: | --- |\n"
        + &row("CQL", cql, format!("p95 {p95}, p99 {p99}"), cql_is_met)
        + &row("ClickHouse", clickhouse, format!("p99 {CLICKHOUSE_GOAL_MS}"), clickhouse_is_met)
}

/// Stages and peers, as a table.
pub fn stages_table(lines: &[&Line]) -> Result<String> {
    let mut text = String::from(
        "| stage | against | records | ours/s | theirs/s | ratio (lowest to highest) | goal | CPU s per million, ours \
         and theirs | services, ours and theirs | peak MiB, ours and theirs |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let sum = |services: &BTreeMap<&str, f64>| services.values().sum::<f64>();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.2} ({:.2} to {:.2}) | {} | {:.1}, {:.1} | {:.1}, {:.1} | {}, {} |",
            line.stage,
            line.against,
            grouped(line.records as f64),
            grouped(line.ours_per_s),
            grouped(line.floor_per_s),
            line.ratio,
            line.ratio_range.0,
            line.ratio_range.1,
            line.verdict(),
            line.ours_cpu_s_per_million,
            line.floor_cpu_s_per_million,
            sum(&line.ours_services_cpu_s_per_million),
            sum(&line.floor_services_cpu_s_per_million),
            line.ours_peak_mib,
            line.floor_peak_mib,
        )?;
    }
    Ok(text)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn run(per_s: f64, cpu: f64) -> Run {
        Run {
            per_s: Some(per_s),
            wall_s: 1.0,
            cpu_s_per_million: cpu,
            peak_mib: per_s as u64,
            services_cpu_s_per_million: BTreeMap::from([("kafka", cpu * 2.0)]),
            network_bytes_per_record: 900.0,
            idle_share: 0.1,
            disk_wait_share: 0.0,
            stolen_share: per_s / 10_000.0,
            stored_bytes_per_record: BTreeMap::from([("clickhouse", 60.0)]),
        }
    }

    /// A line of analytics against its floor: 120 records per second, at 0.8 of the floor's rate.
    pub fn line(cpu: f64) -> Line {
        let stage = Stage::named("analytics").unwrap();
        let rounds = [(100.0, 80.0), (200.0, 150.0), (120.0, 120.0)]
            .map(|(floor, ours)| Round { floor: run(floor, 1.0), ours: run(ours, cpu) });
        Line::of(stage, 1_000, rounds.to_vec()).unwrap()
    }

    #[test]
    fn medians_decide_and_cpu_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
        let cheap = line(2.9);
        assert_eq!((cheap.ours_per_s, cheap.floor_per_s, cheap.ratio), (120.0, 120.0, 0.8));
        assert_eq!((cheap.ratio_range, cheap.ours_peak_mib), ((0.75, 1.0), 150));
        assert_eq!(cheap.ours_services_cpu_s_per_million["kafka"], 5.8);
        assert!(cheap.is_met);
        assert_eq!(cheap.verdict(), "0.75 met, CPU +2 µs met");
        let dear = line(3.1);
        assert!(!dear.is_met);
        assert_eq!(dear.verdict(), "0.75 met, CPU +2 µs MISSED");
    }

    /// Other programs read these.
    #[test]
    fn results_have_their_names() {
        let lines = serde_json::to_value([line(2.9)]).unwrap();
        let line = &lines[0];
        assert_eq!(line["stage"], "analytics");
        assert_eq!(line["goal"], 0.75);
        for name in
            ["ours_per_s", "floor_per_s", "ratio", "ours_cpu_s_per_million", "floor_cpu_s_per_million"]
        {
            assert!(line[name].is_f64(), "{name}: {line}");
        }
        assert!(line["ours_peak_mib"].is_u64() && line["floor_peak_mib"].is_u64(), "{line}");
        assert!(line["ours_services_cpu_s_per_million"]["kafka"].is_f64(), "{line}");
        assert!(line["ours_network_bytes_per_record"].is_f64(), "{line}");
        assert!(line["ours_stored_bytes_per_record"]["clickhouse"].is_f64(), "{line}");
        assert_eq!(line["rounds"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_table_takes_the_place_of_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RESULTS.md");
        let Table { begin, end } = STAGES;
        fs::write(&path, format!("before\n{begin}\nold\n{end}\nafter\n")).unwrap();
        for _ in 0..2 {
            write_table(&path, STAGES, "heading", &stages_table(&[&line(2.0)]).unwrap()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("before\n{begin}\nheading\n\n| stage |")), "{text}");
        assert!(text.ends_with(&format!("|\n{end}\nafter\n")), "{text}");
        assert_eq!(text.matches("| analytics |").count(), 1);
        fs::write(&path, "no marks").unwrap();
        assert!(write_table(&path, STAGES, "heading", "").is_err());
    }

    #[test]
    fn freshness_has_its_goals() {
        let ages = |p95_ms, p99_ms| Ages { p50_ms: 1.0, p95_ms, p99_ms, probes: 5 };
        let table = |cql, clickhouse| freshness_table(&Freshness { rate_per_s: 7, cql, clickhouse });
        assert_eq!(table(ages(100.0, 250.0), ages(1.0, 1_500.0)).matches(" met |").count(), 2);
        assert_eq!(table(ages(101.0, 102.0), ages(1.0, 1_501.0)).matches(" MISSED |").count(), 2);
    }
}
