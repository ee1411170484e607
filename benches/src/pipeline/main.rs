//! The pipeline's stages against what can't be avoided. `cargo xtask bench` builds what this needs and runs it.

mod appended;
mod bulk;
mod child;
mod compare;
mod estimate;
mod floor;
mod fold;
mod freshness;
mod http;
mod input;
mod inputs;
mod interrupt;
mod measure;
mod naive;
mod offsets;
mod ours;
mod peer;
mod plot;
mod profile;
mod ready_row;
mod recipe;
mod report;
mod room;
mod scaling;
mod session;
mod soak;
mod stage;
mod stored;

use anyhow::Result;
use clap::{Parser, Subcommand};
use peer::PEERS;
use session::Session;
use stage::{STAGES, Stage};
use std::{path::PathBuf, process::ExitCode, time::Instant};
use xtask::{
    alone::{self, Alone},
    services::layout::Layout,
};

/// That of `claims`: floors and naive pipelines shall not be slower for want of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A stage of another kind: it has ages instead of rates.
const FRESHNESS: &str = "freshness";

/// Measures stages of the pipeline against their floors, interleaved in one run.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    after_help = "\
A floor is the same client libraries doing only what can't be avoided, with rows prepared beforehand, on the same cores. \
Rounds go floor, ours, floor, ours, …, each from nothing; a run that lost, doubled or dead-lettered anything ends the \
benchmark. Results are written to target/bench/results.json, those of peers alone to target/bench/peers.json; a whole run \
(every stage, its usual number of events) also puts its tables into benches/RESULTS.md, its pictures into benches/plots \
and its stages into benches/results.json. A CQL server that runs for the tests (with the first of Java's compilers alone) is started anew.

Examples:
  cargo xtask bench
  cargo xtask bench --against peers
  cargo xtask bench --against floors,peers
  cargo xtask bench analytics audit --events 200000 --rounds 3
  cargo xtask bench analytics --against peers --peer naive-clickhouse
  cargo xtask bench fold --rounds 1 --profile
  cargo xtask bench --compare benches/results.json
  cargo xtask bench scaling --write
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
    /// Of the peers only these, instead of all that stand beside the chosen stages
    #[arg(long = "peer", value_name = "PEER", value_parser = peer_parser())]
    peers: Vec<String>,
    /// Whether everything still works, and no figures: few events, one round
    #[arg(long, conflicts_with_all = ["events", "rounds"])]
    tiny: bool,
    /// Also a flame graph of every stage's own processes, of a further round, into target/bench/profiles
    #[arg(long)]
    profile: bool,
    /// Compare the ratios with those of an earlier run's results.json, and fail where one is more than 15 % off
    #[arg(long, value_name = "FILE", conflicts_with = "tiny")]
    compare: Option<PathBuf>,
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

/// What this program starts of itself, and what else it does.
#[derive(Debug, Subcommand)]
enum Contestant {
    /// A floor.
    #[command(hide = true, name = "run-floor")]
    Floor(floor::FloorArgs),
    /// A pipeline without guarantees.
    #[command(hide = true, name = "run-naive")]
    Naive(naive::NaiveArgs),
    /// The fold without a sink.
    #[command(hide = true, name = "run-fold")]
    Fold(floor::PlaceArgs),
    /// All processors at a steady rate for a long time.
    #[command(hide = true, name = "soak", bin_name = "cargo xtask soak")]
    Soak(soak::SoakArgs),
    /// What many events per second need, computed from the last results.
    #[command(name = "scaling", bin_name = "cargo xtask bench scaling")]
    Scaling(scaling::ScalingArgs),
}

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(STAGES.iter().map(|stage| stage.name).chain([FRESHNESS]))
}

fn peer_parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(PEERS.iter().map(|peer| peer.name))
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
        Some(Contestant::Naive(args)) => return naive::run(args).await,
        Some(Contestant::Fold(args)) => return fold::run(args).await,
        Some(Contestant::Soak(args)) => {
            let folder = Layout::discover()?.root.join(alone::FOLDER);
            let _alone = Alone::claim(&folder)?;
            return soak::run(args, &folder).await;
        }
        Some(Contestant::Scaling(args)) => return scaling::run(args, &Layout::discover()?.root),
        None => {}
    }
    if args.list {
        for stage in STAGES {
            println!("{:<22} {}", stage.name, stage.what);
        }
        println!(
            "{FRESHNESS:<22} from an event's append in Kafka until it can be read, at half the load of current-state-live"
        );
        return Ok(());
    }
    let root = Layout::discover()?.root;
    let chosen: Vec<&Stage> = STAGES.iter().filter(|stage| args.names(stage.name)).collect();
    if args.profile {
        profile::check()?;
    }
    let _alone = Alone::claim(&root.join(alone::FOLDER))?;
    // Now: the file may be the one that this run writes.
    let earlier = args.compare.as_deref().map(compare::read).transpose()?;
    let begun = Instant::now();
    let mut session = Session::new(args, &root)?;
    session.check_room(&chosen)?;
    session.tell_estimate(&chosen);
    session.measure(&chosen).await?;
    let freshness = if args.has_freshness() { Some(session.measure_freshness().await?) } else { None };
    if args.tiny {
        return Ok(());
    }
    println!("{}", session.results().display());
    let has_usual_size = args.stages.is_empty() && args.events.is_none() && args.rounds.is_none();
    if has_usual_size && args.peers.is_empty() {
        session.write_down(freshness.as_ref())?;
    }
    println!("took {}", estimate::minutes(begun.elapsed()));
    if let Some(earlier) = earlier {
        println!("{}", compare::compare(&earlier, session.lines())?);
    }
    Ok(())
}

impl Args {
    /// Whether a stage is to be measured.
    fn names(&self, stage: &str) -> bool {
        self.stages.is_empty() || self.stages.iter().any(|name| name == stage)
    }

    /// Whether freshness is to be measured.
    fn has_freshness(&self) -> bool {
        self.names(FRESHNESS) && self.against.contains(&Against::Floors)
    }

    /// Whether a peer is one of those that stages are held against.
    fn has_peer(&self, peer: &str) -> bool {
        let is_chosen = self.peers.is_empty() || self.peers.iter().any(|name| name == peer);
        is_chosen && self.against.contains(&Against::Peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn stages_have_names_of_their_own() {
        let command = Args::command();
        command.clone().debug_assert();
        for stage in STAGES {
            assert!(command.find_subcommand(stage.name).is_none(), "{}", stage.name);
        }
    }

    #[test]
    fn freshness_goes_by_a_stage_that_is_there() {
        assert!(Stage::named(session::FRESHNESS_STAGE).is_some());
    }
}
