//! The fault suite: the product's processes, the services and the network are broken under load, and every view is
//! compared with what was acknowledged. `cargo xtask faults` builds what it needs and runs it.

mod bench;
mod clock;
mod crew;
mod disk_space;
mod families;
mod http;
mod links;
mod load;
mod order;
mod proxy;
mod random;
mod report;
mod round;
mod sabotage;
mod scenario;
mod watch;

use anyhow::{Context, Result, bail};
use clap::Parser;
use disk_space::Disk;
use links::Links;
use random::Random;
use report::Report;
use round::Suite;
use scenario::{Fault, SCENARIOS, SHORT, Scenario};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};
use xtask::services::{layout::port_offset, native::cluster::Cluster};

/// The suite's services, beside the usual ones.
const NAME: &str = "faults";
const PORT_OFFSET: u16 = 3_000;
const RESULTS: &str = "target/faults/results.jsonl";

/// Breaks processes, services and the network under load, and checks that nothing is lost, doubled or out of order.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask faults",
    after_help = "\
The suite starts services of its own, with every port shifted by 3000 and their files below .claims/faults, wiped at \
the start. A round takes about 20 s. Its results are added to target/faults/results.jsonl; logs and files of a round \
that failed stay below .claims/faults/rounds until the next run.

Examples:
  cargo xtask faults --list
  cargo xtask faults --rounds 100 --seed 1
  cargo xtask faults --scenario zombie --rounds 1 --seed 20481"
)]
struct Args {
    /// How many rounds; without it every scenario has one
    #[arg(long)]
    rounds: Option<u64>,
    /// The same seed makes the same choices; that of a single round repeats it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parser())]
    scenario: Vec<String>,
    /// Tell what there is, and do nothing
    #[arg(long)]
    list: bool,
    /// Five rounds in three minutes
    #[arg(long, conflicts_with_all = ["rounds", "scenario"])]
    short: bool,
    /// Break the product on purpose: exit code 0 if the suite notices every time
    #[arg(long, conflicts_with_all = ["rounds", "scenario", "short"])]
    sabotage: bool,
    /// The build of `claims` that breaks itself
    #[arg(long, hide = true, requires = "sabotage")]
    sabotaged_claims: Option<PathBuf>,
}

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(SCENARIOS.iter().map(|scenario| scenario.name))
}

fn list() {
    for scenario in SCENARIOS {
        println!("{:<26} {}", scenario.name, scenario.what);
    }
}

/// The scenarios of this run, in the order of their rounds.
fn chosen(args: &Args) -> Vec<&'static Scenario> {
    let names: Vec<&str> =
        if args.short { SHORT.to_vec() } else { args.scenario.iter().map(String::as_str).collect() };
    let pool: Vec<&'static Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| names.is_empty() || names.contains(&scenario.name))
        .filter(|scenario| {
            let can = scenario.fault != Fault::DiskFull || Disk::can_mount();
            if !can {
                println!("not made here: {}: only root may mount a file system", scenario.name);
            }
            can
        })
        .collect();
    let rounds = usize::try_from(args.rounds.unwrap_or(pool.len() as u64)).unwrap_or(usize::MAX);
    let mut random = Random::new(args.seed);
    let mut order = Vec::new();
    // Cycles through all of them, each time in another order; what takes minutes is in every other one.
    let mut cycles = 0;
    while order.len() < rounds && !pool.is_empty() {
        let mut cycle = pool.clone();
        cycle.retain(|scenario| {
            cycles % 2 == 0 || pool.len() == 1 || scenario.fault != Fault::PeriodicCommitLog
        });
        cycles += 1;
        random.shuffle(&mut cycle);
        order.extend(cycle);
    }
    order.truncate(rounds);
    order
}

async fn run(args: &Args) -> Result<bool> {
    if args.list {
        list();
        return Ok(true);
    }
    let begun = Instant::now();
    let offset = port_offset()?.checked_add(PORT_OFFSET).context("the ports are shifted past 65535")?;
    let cluster = tokio::task::spawn_blocking(move || -> Result<Cluster> {
        let cluster = Cluster::prepare(NAME, offset)?;
        cluster.start_all()?;
        Ok(cluster)
    })
    .await??;
    let links = Links::start(&cluster).await?;
    println!("services ready in {:.0} s; seed {}", begun.elapsed().as_secs_f64(), args.seed);
    let root = cluster.layout().root.clone();
    let mut suite = Suite {
        cluster: Arc::new(cluster),
        links: Arc::new(links),
        offset,
        claims: args.sabotaged_claims.clone(),
        settings: Vec::new(),
    };
    let mut report = Report::new(&root.join(RESULTS))?;
    if args.sabotage {
        if args.sabotaged_claims.is_none() {
            bail!("run `cargo xtask faults --sabotage`, which builds what this needs");
        }
        return sabotage::run(&mut suite, args.seed, &mut report).await;
    }
    for (number, scenario) in (0..).zip(chosen(args)) {
        let seed = Random::round_seed(args.seed, number);
        report.add(round::run(&suite, scenario, None, number, seed).await)?;
    }
    report.print(args.seed);
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
    Ok(report.passed())
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // An interrupt drops everything, which ends the services and processes that were started.
    let outcome = tokio::select! {
        outcome = run(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
