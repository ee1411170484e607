//! The pipeline's stages against what can't be avoided. `cargo xtask bench` builds what this needs and runs it.

mod bulk;
mod child;
mod floor;
mod fold;
mod freshness;
mod http;
mod input;
mod interrupt;
mod measure;
mod offsets;
mod ours;
mod peer;
mod plot;
mod report;
mod room;
mod soak;
mod stage;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use freshness::Freshness;
use indicatif::{ProgressBar, ProgressStyle};
use input::Input;
use measure::Round;
use peer::PEERS;
use report::Line;
use stage::{Content, Floor, STAGES, Stage};
use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use xtask::services::layout::Layout;

/// Inputs, logs and what processes leave.
const FOLDER: &str = ".claims/bench";
const RESULTS: &str = "target/bench/results.json";
const TABLE: &str = "benches/RESULTS.md";
const PLOTS: &str = "benches/plots";
/// A stage of another kind: it has ages instead of rates.
const FRESHNESS: &str = "freshness";
/// Events per second, where `all-processors` wasn't measured in the same run.
const FRESHNESS_RATE_PER_S: u64 = 1_000;
const FRESHNESS_SPAN: Duration = Duration::from_secs(60);
const FRESHNESS_PARTITIONS: i32 = 6;
const TINY_FRESHNESS_RATE_PER_S: u64 = 100;
const TINY_FRESHNESS_SPAN: Duration = Duration::from_secs(5);
const FRESHNESS_RESULTS: &str = "target/bench/freshness.json";
/// Enough for several batches, and for a rate that says nothing.
const TINY_EVENTS: u64 = 6_000;

/// Measures stages of the pipeline against their floors, interleaved in one run.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    after_help = "\
A floor is the same client libraries doing only what can't be avoided, with rows prepared beforehand, on the same cores. \
Rounds go floor, ours, floor, ours, …, each from nothing; a run that lost, doubled or dead-lettered anything ends the \
benchmark. Results are written to target/bench/results.json; a whole run (every stage, its usual number of events) also \
puts its table into benches/RESULTS.md and its pictures into benches/plots.

Examples:
  cargo xtask bench
  cargo xtask bench --against floors,peers
  cargo xtask bench analytics audit --events 200000 --rounds 3
  cargo xtask bench --list"
)]
struct Args {
    /// Only these stages
    #[arg(value_name = "STAGE", value_parser = parser())]
    stages: Vec<String>,
    /// Events of every stage, instead of each one's own number
    #[arg(long)]
    events: Option<u64>,
    /// Rounds of every stage, instead of each one's own number; one more, before them, warms up and doesn't count
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// What ours is held against: the client libraries alone, or other systems
    #[arg(long, value_delimiter = ',', default_values = ["floors"])]
    against: Vec<Against>,
    /// Whether everything still works, and no figures: few events, one round
    #[arg(long, conflicts_with_all = ["events", "rounds"])]
    tiny: bool,
    /// Tell which stages there are, and do nothing
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    contestant: Option<Contestant>,
}

/// Whom a stage is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    /// The client libraries alone, doing what can't be avoided.
    Floors,
    /// Other systems that do the same work.
    Peers,
}

/// What this program starts of itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Contestant {
    /// A floor.
    #[command(hide = true, name = "run-floor")]
    Floor(floor::FloorArgs),
    /// The fold without a sink.
    #[command(hide = true, name = "run-fold")]
    Fold(floor::PlaceArgs),
    /// All processors at a steady rate for a long time.
    #[command(hide = true, name = "soak", bin_name = "cargo xtask soak")]
    Soak(soak::SoakArgs),
}

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(STAGES.iter().map(|stage| stage.name).chain([FRESHNESS]))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // On a thread of its own: it watches others for minutes without giving way.
    let runtime = tokio::runtime::Handle::current();
    let measuring = tokio::task::spawn_blocking(move || runtime.block_on(run(&args)));
    tokio::spawn(async {
        while tokio::signal::ctrl_c().await.is_ok() {
            interrupt::ask();
        }
    });
    let outcome = measuring.await.unwrap_or_else(|error| Err(error.into()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    match &args.contestant {
        Some(Contestant::Floor(args)) => return floor::run(args).await,
        Some(Contestant::Fold(args)) => return fold::run(args).await,
        Some(Contestant::Soak(args)) => return soak::run(args, &Layout::discover()?.root.join(FOLDER)).await,
        None => {}
    }
    if args.list {
        for stage in STAGES {
            println!("{:<22} {}", stage.name, stage.what);
        }
        println!(
            "{FRESHNESS:<22} from an event's append in Kafka until it can be read, at half the load of all-processors"
        );
        return Ok(());
    }
    let root = Layout::discover()?.root;
    let folder = root.join(FOLDER);
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| args.stages.is_empty() || args.stages.iter().any(|name| name == stage.name))
        .collect();
    let mut lines = Vec::new();
    measure_all(args, &chosen, &folder, &mut lines, &root.join(RESULTS)).await?;
    let is_asked_for = args.stages.is_empty() || args.stages.iter().any(|name| name == FRESHNESS);
    let is_asked_for = is_asked_for && args.against.contains(&Against::Floors);
    let freshness = if is_asked_for { Some(measure_freshness(args, &lines, &folder).await?) } else { None };
    if args.tiny {
        return Ok(());
    }
    if let Some(freshness) = &freshness {
        println!("{}", report::freshness_table(freshness));
        report::write_json(&root.join(FRESHNESS_RESULTS), freshness)?;
    }
    println!("{}", root.join(RESULTS).display());
    let has_usual_size = args.stages.is_empty() && args.events.is_none() && args.rounds.is_none();
    if has_usual_size && is_asked_for {
        write_down(&root, &lines, freshness.as_ref())?;
    }
    Ok(())
}

fn events(args: &Args, stage: &Stage) -> u64 {
    if args.tiny { TINY_EVENTS } else { args.events.unwrap_or(stage.events) }
}

/// Inputs made so far.
#[derive(Default)]
struct Inputs(HashMap<(Content, u64, i32), Input>);

impl Inputs {
    async fn make(&mut self, content: Content, events: u64, partitions: i32, folder: &Path) -> Result<()> {
        room::check(folder, events, content.room())?;
        if let Entry::Vacant(place) = self.0.entry((content, events, partitions)) {
            place.insert(Input::make(content, events, partitions, folder).await?);
        }
        Ok(())
    }

    fn get(&self, content: Content, events: u64, partitions: i32) -> Result<&Input> {
        self.0.get(&(content, events, partitions)).context("an input that was not made")
    }

    /// Removes the inputs of this content.
    async fn forget(&mut self, content: Content) -> Result<()> {
        let (gone, kept) = std::mem::take(&mut self.0).into_iter().partition(|((of, ..), _)| *of == content);
        self.0 = kept;
        let gone: HashMap<_, Input> = gone;
        for input in gone.into_values() {
            input.namespace.reset().await?;
            std::fs::remove_dir_all(&input.namespace.dir)?;
        }
        Ok(())
    }
}

/// Measures stages one after the other. After each of them the results so far are written.
async fn measure_all(
    args: &Args,
    chosen: &[&Stage],
    folder: &Path,
    lines: &mut Vec<Line>,
    results: &Path,
) -> Result<()> {
    let (mut inputs, mut number) = (Inputs::default(), 0);
    for (done, &stage) in chosen.iter().enumerate() {
        let peers: Vec<_> = PEERS.iter().filter(|peer| peer.stage == stage.name).collect();
        let has_floor = args.against.contains(&Against::Floors);
        let has_peers = args.against.contains(&Against::Peers) && !peers.is_empty();
        if !has_floor && !has_peers {
            continue;
        }
        let (content, events) = (stage.content, events(args, stage));
        inputs
            .make(content, events, stage.partitions, folder)
            .await
            .with_context(|| stage.name.to_owned())?;
        let smaller = match stage.floor {
            Floor::Smaller { divisor, partitions } => {
                let fewer = events / divisor;
                inputs
                    .make(content, fewer, partitions, folder)
                    .await
                    .with_context(|| stage.name.to_owned())?;
                Some(inputs.get(content, fewer, partitions)?)
            }
            _ => None,
        };
        let input = inputs.get(content, events, stage.partitions)?;
        if has_floor {
            let round = async |number| measure::round(stage, input, smaller, number).await;
            let rounds = rounds(args, stage.name, stage.rounds, &mut number, round).await?;
            lines.extend(line(args, stage.name, || Line::of(stage, input.records, rounds))?);
        }
        for peer in peers.into_iter().filter(|_| has_peers) {
            peer.build(folder).with_context(|| format!("build {}", peer.name))?;
            let round = async |number| peer.round(input, number).await;
            let rounds = rounds(args, peer.name, stage.rounds, &mut number, round).await?;
            lines.extend(line(args, peer.name, || Line::of_peer(stage, peer, input.records, rounds))?);
        }
        if !args.tiny {
            report::write_json(results, lines)?;
        }
        let is_read_again = chosen.iter().skip(done + 1).any(|later| later.content == content);
        if !is_read_again {
            inputs.forget(content).await?;
        }
    }
    Ok(())
}

/// Those that count; one before them warms up.
async fn rounds(
    args: &Args,
    name: &'static str,
    usual: u32,
    number: &mut u32,
    round: impl AsyncFn(u32) -> Result<Round>,
) -> Result<Vec<Round>> {
    let (warm_up, wanted) = if args.tiny { (0, 1) } else { (1, args.rounds.unwrap_or(usual)) };
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

/// At half of what all processors together can do.
async fn measure_freshness(args: &Args, lines: &[Line], folder: &Path) -> Result<Freshness> {
    let all = lines.iter().find(|line| line.stage == "all-processors");
    let (rate, span, events) = if args.tiny {
        (TINY_FRESHNESS_RATE_PER_S, TINY_FRESHNESS_SPAN, TINY_EVENTS)
    } else {
        let half = all.map_or(FRESHNESS_RATE_PER_S, |line| (line.ours_per_s / 2.0) as u64);
        (half, FRESHNESS_SPAN, half * (FRESHNESS_SPAN + freshness::WARM_UP).as_secs() + 1)
    };
    let mut inputs = Inputs::default();
    inputs.make(Content::AsHappened, events, FRESHNESS_PARTITIONS, folder).await?;
    let input = inputs.get(Content::AsHappened, events, FRESHNESS_PARTITIONS)?;
    let freshness = freshness::measure(input, rate, span).await.context(FRESHNESS)?;
    inputs.forget(Content::AsHappened).await?;
    if args.tiny {
        println!("{FRESHNESS:<26} works");
    }
    Ok(freshness)
}

/// The table and the pictures that are kept.
fn write_down(root: &Path, lines: &[Line], freshness: Option<&Freshness>) -> Result<()> {
    let heading = format!("`cargo xtask bench`, {}; medians of the rounds. {}", today(), room::machine()?);
    let table = report::stages_table(lines)?;
    report::write_table(&root.join(TABLE), report::STAGES, &heading, &table)?;
    if let Some(freshness) = freshness {
        let table = report::freshness_table(freshness);
        report::write_table(&root.join(TABLE), report::FRESHNESS, &heading, &table)?;
    }
    for line in lines {
        let path: PathBuf = root.join(PLOTS).join(format!("{}-{}.svg", line.stage, line.against));
        plot::write(&path, line)?;
    }
    Ok(())
}

fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_stage_is_taken_for_a_command() {
        let command = Args::command();
        command.clone().debug_assert();
        for stage in STAGES {
            assert!(command.find_subcommand(stage.name).is_none(), "{}", stage.name);
        }
    }
}
