//! One run of the benchmark: stage after stage, round after round, and what is written down of it.

use super::{
    Against, Args, FRESHNESS, compare,
    estimate::{self, Plan},
    freshness::{self, Freshness, Load},
    inputs::{Inputs, Key, most_needed},
    measure::{self, Job, Round},
    peer::{PEERS, Peer},
    plot,
    profile::{Profile, Profiler},
    report::{self, Line},
    room,
    stage::{Content, Floor, Stage},
};
use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};
use xtask::alone;

/// Stages, and peers if both were measured in one run, for programs.
pub const RESULTS: &str = "target/bench/results.json";
/// Peers that were measured without the floors.
const PEER_RESULTS: &str = "target/bench/peers.json";
const FRESHNESS_RESULTS: &str = "target/bench/freshness.json";
const TABLE: &str = "benches/RESULTS.md";
/// What the table of the stages was made from, every round of it: for `--compare` in other checkouts.
pub const KEPT_RESULTS: &str = "benches/results.json";
const PLOTS: &str = "benches/plots";
const PROFILES: &str = "target/bench/profiles";
/// Preparing and settling of freshness, beside its span.
const FRESHNESS_AROUND: Duration = Duration::from_secs(40);
/// Of freshness; at half the rate of [`FRESHNESS_STAGE`] where that was measured in the same run …
const FRESHNESS_LOAD: Load =
    Load { rate_per_s: 1_000, warm_up: Duration::from_secs(5), span: Duration::from_secs(60) };
/// … and for whether it works at all.
const TINY_FRESHNESS_LOAD: Load =
    Load { rate_per_s: 100, warm_up: Duration::from_secs(1), span: Duration::from_secs(3) };
const FRESHNESS_PARTITIONS: i32 = 6;
/// The slowest processor in live traffic, where hardly any batch holds two events of a claim: what catches up is faster.
pub const FRESHNESS_STAGE: &str = "current-state-live";
/// Enough for several batches, and for a rate that says nothing.
const TINY_EVENTS: u64 = 6_000;

/// What is measured, and what came of it so far.
pub struct Session<'a> {
    args: &'a Args,
    root: &'a Path,
    folder: PathBuf,
    inputs: Inputs,
    /// Rounds begun; makes names their own.
    number: u32,
    lines: Vec<Line>,
    /// What it runs on, and how busy that was at the beginning.
    machine: String,
}

impl<'a> Session<'a> {
    /// A run in a checkout.
    pub fn new(args: &'a Args, root: &'a Path) -> Result<Self> {
        let (folder, machine) = (root.join(alone::FOLDER), room::machine()?);
        Ok(Self { args, root, folder, inputs: Inputs::default(), number: 0, lines: Vec::new(), machine })
    }

    /// Measures stages one after the other. After each of them the results so far are written.
    pub async fn measure(&mut self, chosen: &[&'static Stage]) -> Result<()> {
        for (done, &stage) in chosen.iter().enumerate() {
            let (has_floor, peers) = self.opponents(stage);
            if !has_floor && peers.is_empty() {
                continue;
            }
            if has_floor {
                self.against_floor(stage).await?;
            }
            for peer in peers {
                self.against_peer(stage, peer).await?;
            }
            if self.args.profile {
                self.profile(stage).await.with_context(|| format!("{}, profiled", stage.name))?;
            }
            if !self.args.tiny {
                report::write_json(&self.results(), &self.lines)?;
            }
            let later: Vec<Key> =
                chosen.iter().skip(done + 1).flat_map(|stage| self.inputs_of(stage)).collect();
            self.inputs.keep(&later).await?;
        }
        Ok(())
    }

    /// Where the results of this run are written.
    pub fn results(&self) -> PathBuf {
        let is_of_peers_alone = !self.args.against.contains(&Against::Floors);
        self.root.join(if is_of_peers_alone { PEER_RESULTS } else { RESULTS })
    }

    /// An error where a run would run out of disk or memory half-way.
    pub fn check_room(&self, chosen: &[&'static Stage]) -> Result<()> {
        let mut read: Vec<Vec<Key>> = chosen.iter().map(|stage| self.inputs_of(stage)).collect();
        if self.args.has_freshness() {
            read.push(vec![freshness_input(self.freshness_load())]);
        }
        room::check(&self.folder, most_needed(&read))
    }

    /// What a stage and its peers read.
    fn inputs_of(&self, stage: &Stage) -> Vec<Key> {
        let (has_floor, peers) = self.opponents(stage);
        let key = |events| (stage.content, events, stage.partitions);
        let (events, mut keys) = (self.events(stage.events), Vec::new());
        if has_floor {
            keys.push(key(events));
            keys.extend(
                smaller(stage, events).map(|(events, partitions)| (stage.content, events, partitions)),
            );
        }
        keys.extend(peers.iter().map(|peer| key(self.events(peer.events))));
        keys
    }

    /// What was measured so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Says how long it will take, by the pace of the last run where there is one.
    pub fn tell_estimate(&self, chosen: &[&'static Stage]) {
        if self.args.tiny {
            return;
        }
        let read = |path| compare::read(&self.root.join(path)).unwrap_or_default();
        let earlier = [read(RESULTS), read(PEER_RESULTS)].concat();
        let mut made = HashSet::new();
        let plans: Vec<Plan> = chosen.iter().flat_map(|&stage| self.plans(stage, &mut made)).collect();
        let mut time: Duration = plans.iter().map(|&plan| estimate::of(plan, &earlier)).sum();
        if self.args.has_freshness() {
            time += FRESHNESS_AROUND + FRESHNESS_LOAD.warm_up + FRESHNESS_LOAD.span;
        }
        println!("this will take about {} on two cores", estimate::minutes(time));
    }

    /// The rounds of a stage, against its floor and its peers. `made` are inputs that will be there.
    fn plans(&self, stage: &'static Stage, made: &mut HashSet<(Content, u64)>) -> Vec<Plan> {
        let (has_floor, peers) = self.opponents(stage);
        let ours = self.events(stage.events);
        let theirs = smaller(stage, ours).map_or(ours, |(events, _)| events);
        let floor = has_floor.then_some((stage.name, stage.rounds, ours, theirs));
        let of_peer = |peer: &&Peer| {
            let events = self.events(peer.events);
            (peer.name, peer.rounds, events, events)
        };
        let plan = |(name, rounds, ours, theirs)| {
            let rounds = self.rounds(rounds);
            let made = if made.insert((stage.content, ours)) { ours } else { 0 };
            Plan { stage: stage.name, name, rounds: rounds.0 + rounds.1, ours, theirs, made }
        };
        floor.into_iter().chain(peers.iter().map(of_peer)).map(plan).collect()
    }

    /// Rounds that warm up, and rounds that count.
    fn rounds(&self, usual: u32) -> (u32, u32) {
        if self.args.tiny { (0, 1) } else { (1, self.args.rounds.unwrap_or(usual)) }
    }

    fn events(&self, usual: u64) -> u64 {
        if self.args.tiny { TINY_EVENTS } else { self.args.events.unwrap_or(usual) }
    }

    /// Whether a stage is held against its floor, and against which peers.
    fn opponents(&self, stage: &Stage) -> (bool, Vec<&'static Peer>) {
        let peers = PEERS.iter().filter(|peer| peer.stage == stage.name && self.args.has_peer(peer.name));
        (self.args.against.contains(&Against::Floors), peers.collect())
    }

    async fn make_input(&mut self, stage: &Stage, events: u64, partitions: i32) -> Result<()> {
        let made = self.inputs.make(stage.content, events, partitions, &self.folder).await;
        made.with_context(|| stage.name.to_owned())
    }

    async fn against_floor(&mut self, stage: &'static Stage) -> Result<()> {
        let events = self.events(stage.events);
        self.make_input(stage, events, stage.partitions).await?;
        let smaller = smaller(stage, events);
        if let Some((events, partitions)) = smaller {
            self.make_input(stage, events, partitions).await?;
        }
        let get = |(events, partitions)| self.inputs.get(stage.content, events, partitions);
        let smaller = smaller.map(get).transpose()?;
        let input = self.inputs.get(stage.content, events, stage.partitions)?;
        ensure!(
            self.args.tiny || input.content != Content::Live || input.is_kept_apart(),
            "{}: of {} events several of a claim would be in one batch; give more --events",
            stage.name,
            input.distinct
        );
        let round = async |number| measure::round(stage, input, smaller, number).await;
        let rounds = rounds(stage.name, self.rounds(stage.rounds), &mut self.number, round).await?;
        self.lines.extend(line(self.args, stage.name, || Line::of(stage, input.records, rounds))?);
        Ok(())
    }

    async fn against_peer(&mut self, stage: &'static Stage, peer: &'static Peer) -> Result<()> {
        let events = self.events(peer.events);
        self.make_input(stage, events, stage.partitions).await?;
        let input = self.inputs.get(stage.content, events, stage.partitions)?;
        peer.build(&self.folder).with_context(|| format!("build {}", peer.name))?;
        let round = async |number| peer.round(input, number).await;
        let rounds = rounds(peer.name, self.rounds(peer.rounds), &mut self.number, round).await?;
        self.lines.extend(line(self.args, peer.name, || Line::of_peer(stage, peer, input.records, rounds))?);
        Ok(())
    }

    /// One round more of ours alone.
    async fn profile(&mut self, stage: &'static Stage) -> Result<()> {
        self.number += 1;
        let events = self.events(stage.events);
        self.make_input(stage, events, stage.partitions).await?;
        let input = self.inputs.get(stage.content, events, stage.partitions)?;
        let profiler = Profiler::new(stage.name, &self.root.join(PROFILES), &self.folder.join("profiles"))?;
        measure::of_ours(&Job::of(stage, input, self.number, "profile").with(&profiler)).await?;
        profiler.finish()?.iter().for_each(Profile::print);
        Ok(())
    }

    /// Half of what the slowest processor can do in live traffic, as far as that was measured.
    fn freshness_load(&self) -> Load {
        let slowest = self.lines.iter().find(|line| line.stage == FRESHNESS_STAGE);
        let rate_per_s = slowest.map_or(FRESHNESS_LOAD.rate_per_s, |line| (line.ours_per_s / 2.0) as u64);
        if self.args.tiny { TINY_FRESHNESS_LOAD } else { Load { rate_per_s, ..FRESHNESS_LOAD } }
    }

    /// How old events are when they can be read.
    pub async fn measure_freshness(&self) -> Result<Freshness> {
        let load = self.freshness_load();
        let (content, events, partitions) = freshness_input(load);
        let mut inputs = Inputs::default();
        inputs.make(content, events, partitions, &self.folder).await?;
        let input = inputs.get(content, events, partitions)?;
        let freshness = freshness::measure(input, load).await.context(FRESHNESS)?;
        inputs.keep(&[]).await?;
        if self.args.tiny {
            println!("{FRESHNESS:<26} works");
        } else {
            println!("{}", report::freshness_table(&freshness));
            report::write_json(&self.root.join(FRESHNESS_RESULTS), &freshness)?;
        }
        Ok(freshness)
    }

    /// The tables and the pictures that are kept, of what was measured.
    pub fn write_down(&self, freshness: Option<&Freshness>) -> Result<()> {
        let (file, heading) = (self.root.join(TABLE), self.heading());
        let (peers, stages): (Vec<&Line>, Vec<&Line>) = self.lines.iter().partition(|line| line.is_of_peer());
        if !stages.is_empty() {
            report::write_json(&self.root.join(KEPT_RESULTS), &stages)?;
        }
        for (table, lines) in [(report::STAGES, stages), (report::PEERS, peers)] {
            if !lines.is_empty() {
                report::write_table(&file, table, &heading, &report::stages_table(&lines)?)?;
            }
        }
        if let Some(freshness) = freshness {
            report::write_table(&file, report::FRESHNESS, &heading, &report::freshness_table(freshness))?;
        }
        for line in &self.lines {
            let picture = format!("{}-{}.svg", line.stage, line.against);
            plot::write(&self.root.join(PLOTS).join(picture), line)?;
        }
        Ok(())
    }

    /// How a table was made, when and on what.
    fn heading(&self) -> String {
        let (today, machine) = (report::today(), &self.machine);
        let against = self.args.against.iter().filter_map(clap::ValueEnum::to_possible_value);
        let against: Vec<String> = against.map(|name| name.get_name().to_owned()).collect();
        let command = format!("cargo xtask bench --against {}", against.join(","));
        format!("`{command}`, {today}; medians of the rounds, memory the most of any. {machine}")
    }
}

fn freshness_input(load: Load) -> Key {
    (Content::AsHappened, load.events(), FRESHNESS_PARTITIONS)
}

/// Events and partitions of a floor that is the stage itself with less.
fn smaller(stage: &Stage, events: u64) -> Option<(u64, i32)> {
    match stage.floor {
        Floor::Smaller { divisor, partitions } => Some((events / divisor, partitions)),
        Floor::Client(_) | Floor::Stage(_) => None,
    }
}

/// Those that count; one before them warms up.
async fn rounds(
    name: &'static str,
    (warm_up, wanted): (u32, u32),
    number: &mut u32,
    round: impl AsyncFn(u32) -> Result<Round>,
) -> Result<Vec<Round>> {
    let bar = ProgressBar::new(u64::from(warm_up + wanted)).with_prefix(name);
    bar.set_style(ProgressStyle::with_template("{prefix:22} {bar:20} {pos}/{len} {elapsed}")?);
    let mut rounds = Vec::new();
    for _ in 0..warm_up + wanted {
        *number += 1;
        rounds.push(round(*number).await.context(name)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rounds.split_off(warm_up as usize))
}

/// The line of some rounds; none of a tiny run, whose figures say nothing.
fn line(args: &Args, name: &str, of_rounds: impl FnOnce() -> Result<Line>) -> Result<Option<Line>> {
    if args.tiny {
        println!("{name:<26} works");
        return Ok(None);
    }
    let line = of_rounds().with_context(|| name.to_owned())?;
    line.print();
    Ok(Some(line))
}
