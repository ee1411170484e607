//! What became of the rounds: a line each while they run, JSON lines in a file, and a table at the end.

use super::scenario::Scenario;
use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

/// What became of a round.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// From 0.
    pub round: u64,
    /// `--seed` of it repeats the round.
    pub seed: u64,
    /// The role that was hit.
    pub victim: Option<&'static str>,
    /// Everything that was wrong; empty: passed.
    pub problems: Vec<String>,
    /// Whether the views were compared.
    pub is_verified: bool,
    /// Events acknowledged.
    pub events: u64,
    /// How many of them when the fault began.
    pub fault_after_events: u64,
    /// Records in the log, copies included.
    pub records: u64,
    /// Events per second over the whole load, outages included.
    pub events_per_s: u64,
    /// Requests that had to be sent again.
    pub repeated_requests: u64,
    /// `kill -9` of processes and services.
    pub kills: u64,
    /// Processes that ended by themselves.
    pub ended: u64,
    /// How often proxies stepped in during the fault.
    pub interventions: u64,
    /// How long the fault lasted.
    pub fault_ms: u64,
    /// From the end of fault and load until everything was committed.
    pub recovery_ms: u64,
    /// The longest that a processor not concerned committed nothing.
    pub standstill_ms: u64,
    /// Claims whose last state in the state topic is not their newest.
    pub stale_last_states: u64,
    /// Claims of which the CQL server had forgotten timeline entries before offsets were reset.
    pub forgotten_claims: u64,
    /// The most memory by role.
    pub peaks_mib: BTreeMap<&'static str, u64>,
    /// How long each part of the round took.
    pub parts_ms: BTreeMap<&'static str, u64>,
    /// The whole round.
    pub seconds: f64,
    /// Logs and files; removed after a round that passed.
    pub folder: String,
}

impl Outcome {
    /// Nothing yet.
    pub fn new(scenario: &Scenario, round: u64, seed: u64) -> Self {
        Self {
            scenario: scenario.name,
            round,
            seed,
            victim: None,
            problems: Vec::new(),
            is_verified: false,
            events: 0,
            fault_after_events: 0,
            records: 0,
            events_per_s: 0,
            repeated_requests: 0,
            kills: 0,
            ended: 0,
            interventions: 0,
            fault_ms: 0,
            recovery_ms: 0,
            standstill_ms: 0,
            stale_last_states: 0,
            forgotten_claims: 0,
            peaks_mib: BTreeMap::new(),
            parts_ms: BTreeMap::new(),
            seconds: 0.0,
            folder: String::new(),
        }
    }

    /// A part of the round is over that has begun then; now the next one begins.
    pub fn end_part(&mut self, part: &'static str, begun: &mut Instant) {
        let now = Instant::now();
        *self.parts_ms.entry(part).or_default() += now.duration_since(*begun).as_millis() as u64;
        *begun = now;
    }

    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && self.is_verified
    }
}

/// All rounds of a run.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    file: File,
    outcomes: Vec<Outcome>,
}

impl Report {
    /// A report that adds its lines to a file.
    pub fn new(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, outcomes: Vec::new() })
    }

    /// Adds a round, and tells of it.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&outcome)?)?;
        let victim = outcome.victim.map_or_else(String::new, |victim| format!(" ({victim})"));
        println!(
            "{} {:>3} {}{victim}, seed {}: {} events at {}/s, fault after {} for {} ms, recovered in {} ms, {} kills, {:.0} s",
            if outcome.passed() { "pass" } else { "FAIL" },
            outcome.round,
            outcome.scenario,
            outcome.seed,
            outcome.events,
            outcome.events_per_s,
            outcome.fault_after_events,
            outcome.fault_ms,
            outcome.recovery_ms,
            outcome.kills,
            outcome.seconds,
        );
        if outcome.forgotten_claims > 0 {
            println!(
                "       before the reset the CQL server had forgotten timeline entries of {} claims",
                outcome.forgotten_claims
            );
        }
        for problem in &outcome.problems {
            println!("       {}", problem.replace('\n', "\n       "));
        }
        if !outcome.passed() {
            println!(
                "       its files: {}\n       again: cargo xtask faults --scenario {} --rounds 1 --seed {}",
                outcome.folder, outcome.scenario, outcome.seed
            );
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Whether every round passed, and there was one.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(Outcome::passed)
    }

    /// The table at the end.
    pub fn print(&self, seed: u64) {
        let mut by_scenario: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            by_scenario.entry(outcome.scenario).or_default().push(outcome);
        }
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header([
            "scenario",
            "rounds",
            "passed",
            "kills",
            "events",
            "slowest recovery",
            "most memory",
        ]);
        for (scenario, outcomes) in &by_scenario {
            let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
            let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|o| of(o)).sum::<u64>();
            let slowest = outcomes.iter().map(|outcome| outcome.recovery_ms).max().unwrap_or(0);
            let memory = outcomes.iter().flat_map(|outcome| outcome.peaks_mib.values()).max().unwrap_or(&0);
            table.add_row([
                (*scenario).to_owned(),
                outcomes.len().to_string(),
                passed.to_string(),
                sum(|outcome| outcome.kills).to_string(),
                sum(|outcome| outcome.events).to_string(),
                format!("{:.1} s", slowest as f64 / 1_000.0),
                format!("{memory} MiB"),
            ]);
        }
        println!("{table}");
        let passed = self.outcomes.iter().filter(|outcome| outcome.passed()).count();
        let kills: u64 = self.outcomes.iter().map(|outcome| outcome.kills).sum();
        let events: u64 = self.outcomes.iter().map(|outcome| outcome.events).sum();
        println!(
            "seed {seed}: {passed} of {} rounds passed, {kills} kills, {events} events acknowledged; {}",
            self.outcomes.len(),
            self.path.display()
        );
    }
}
