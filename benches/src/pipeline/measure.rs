//! Rounds: the floor, ours, the floor, ours, …, each from nothing, each verified.

use super::{
    child::Program,
    floor::{self, FloorArgs, READY},
    fold, http,
    input::Input,
    interrupt,
    offsets::{Group, Run, Topic, follow},
    ours,
    profile::Profiler,
    stage::{ClientFloor, Floor, Ours, Settings, Stage},
    stored,
};
use anyhow::{Context, Result, ensure};
use claims_verifier::{namespace::Namespace, pipeline::Pipeline, views::clickhouse};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A floor has its rows ready within this time.
const PREPARE_LIMIT: Duration = Duration::from_secs(600);
/// A program whose work is done ends within this time.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A pair of runs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Round {
    /// What it is held against.
    pub floor: Run,
    /// Ours.
    pub ours: Run,
}

/// Measures one round. `smaller` is the input of a floor that has one of its own; `number` makes names its own.
pub async fn round(stage: &Stage, input: &Input, smaller: Option<&Input>, number: u32) -> Result<Round> {
    let floor = match stage.floor {
        Floor::Smaller { .. } => {
            let smaller = smaller.context("the smaller input is missing")?;
            of_ours(&Job::of(stage, smaller, number, "floor")).await.context("with less")?
        }
        Floor::Client(kind) => against_client(kind, input, number).await.context("floor")?,
        Floor::Stage(name) => {
            let other = Stage::named(name).with_context(|| format!("no stage {name}"))?;
            let run = of_ours(&Job::of(other, input, number, "floor")).await;
            run.with_context(|| format!("{name}, as floor"))?
        }
    };
    let ours = of_ours(&Job::of(stage, input, number, "ours").weighed()).await.context("ours")?;
    Ok(Round { floor, ours })
}

async fn against_client(kind: ClientFloor, input: &Input, number: u32) -> Result<Run> {
    let name = format!("bench_floor_{number}");
    let namespace = input.round(&name)?;
    remove(&namespace).await?;
    if kind == ClientFloor::Produce {
        Pipeline::new(input.apart(&name)?)?.prepare()?;
    }
    let inserted = clickhouse::rows_inserted(&namespace).await?;
    let mut program = this(&FloorArgs::command_line(kind, &namespace), "floor", &namespace)?;
    wait_until_ready(&mut program)?;
    let begun = Instant::now();
    let run = if kind == ClientFloor::Produce {
        let topic = Topic::of(&namespace, &namespace.topic("claims.events.v1"))?;
        follow(std::slice::from_mut(&mut program), begun, input.records, None, || topic.records())?
    } else {
        let group = Group::of(&namespace, &floor::group(&namespace))?;
        follow(std::slice::from_mut(&mut program), begun, input.records, None, || Ok(group.committed()))?
    };
    ours::wait_until_done(&mut program, input.records)?;
    drop(program);
    let inserted = clickhouse::events_inserted(&namespace, inserted).await?;
    ours::verify_floor(kind, &namespace, input, inserted).await?;
    remove(&namespace).await?;
    Ok(run)
}

/// A run of ours.
pub struct Job<'a> {
    ours: Ours,
    settings: Settings,
    input: &'a Input,
    name: String,
    profiler: Option<&'a Profiler>,
    is_weighed: bool,
}

impl<'a> Job<'a> {
    /// A stage on an input; `role` and `number` make its names its own.
    pub fn of(stage: &Stage, input: &'a Input, number: u32, role: &str) -> Self {
        let name = format!("bench_{role}_{number}");
        Self { ours: stage.ours, settings: stage.settings, input, name, profiler: None, is_weighed: false }
    }

    /// The same, and what it leaves on disk is looked at, which takes some seconds.
    fn weighed(mut self) -> Self {
        self.is_weighed = true;
        self
    }

    /// The same, profiled.
    pub fn with(mut self, profiler: &'a Profiler) -> Self {
        self.profiler = Some(profiler);
        self
    }
}

/// A run of ours, verified.
pub async fn of_ours(job: &Job<'_>) -> Result<Run> {
    let Job { ours, input, name, profiler, is_weighed, .. } = job;
    let namespace = match ours {
        Ours::Ingest | Ours::Http => input.apart(name)?,
        Ours::Fold | Ours::Run(_) => input.round(name)?,
    };
    remove(&namespace).await?;
    Pipeline::new(namespace.clone())?.prepare()?;
    let inserted = clickhouse::rows_inserted(&namespace).await?;
    let mut run = match ours {
        Ours::Ingest => ingest(&namespace, job)?,
        Ours::Http => http::run(&namespace, input, *profiler).await?,
        Ours::Fold => fold_alone(&namespace, job)?,
        Ours::Run(processors) => processors_together(&namespace, job, processors)?,
    };
    let inserted = clickhouse::events_inserted(&namespace, inserted).await?;
    ours::verify(*ours, &namespace, input, inserted).await?;
    if *is_weighed {
        let processors: &[&str] = if let Ours::Run(processors) = ours { processors } else { &[] };
        let per_record = |bytes: u64| bytes as f64 / input.records.max(1) as f64;
        let stored = stored::bytes(&namespace, processors).await?;
        run.stored_bytes_per_record = stored.into_iter().map(|(at, bytes)| (at, per_record(bytes))).collect();
    }
    remove(&namespace).await?;
    Ok(run)
}

fn ingest(namespace: &Namespace, job: &Job<'_>) -> Result<Run> {
    let Job { input, profiler, .. } = *job;
    let arguments = input.ingest_arguments()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (begun, topic) = (Instant::now(), Topic::of(namespace, &namespace.events_topic)?);
    let program = Program::start("ingest", ours::claims(namespace, &arguments)?, &namespace.dir)?;
    let mut program = program.finishing();
    let run = follow(std::slice::from_mut(&mut program), begun, input.records, profiler, || topic.records())?;
    program.wait(END_LIMIT)?;
    Ok(run)
}

fn fold_alone(namespace: &Namespace, job: &Job<'_>) -> Result<Run> {
    let Job { input, profiler, .. } = *job;
    let begun = Instant::now();
    let mut program = this(&fold::command_line(namespace), "fold", namespace)?;
    let group = Group::of(namespace, &namespace.group("current-state"))?;
    let run =
        follow(std::slice::from_mut(&mut program), begun, input.records, profiler, || Ok(group.committed()))?;
    ours::wait_until_done(&mut program, input.distinct)?;
    Ok(run)
}

/// The pace of the slowest, and what all of them cost.
fn processors_together(namespace: &Namespace, job: &Job<'_>, processors: &[&str]) -> Result<Run> {
    let Job { input, profiler, settings, .. } = *job;
    let begun = Instant::now();
    let (mut programs, mut groups) = (Vec::new(), Vec::new());
    for processor in processors {
        programs.push(ours::start(namespace, processor, settings)?);
        groups.push(Group::of(namespace, &namespace.group(processor))?);
    }
    let look = || Ok(groups.iter().map(Group::committed).min().unwrap_or(0));
    let run = follow(&mut programs, begun, input.records, profiler, look)?;
    programs.into_iter().try_for_each(Program::stop)?;
    Ok(run)
}

/// This program, as a contestant.
pub fn this(arguments: &[String], name: &str, namespace: &Namespace) -> Result<Program> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Program::start(name, command, &namespace.dir)
}

fn wait_until_ready(program: &mut Program) -> Result<()> {
    let begun = Instant::now();
    while !program.has_said(READY)? {
        interrupt::check()?;
        program.check()?;
        ensure!(begun.elapsed() < PREPARE_LIMIT, "nothing ready after {} s", PREPARE_LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Takes away what a run has made, this one's or one's that broke off.
pub async fn remove(namespace: &Namespace) -> Result<()> {
    namespace.reset().await?;
    std::fs::remove_dir_all(&namespace.dir).with_context(|| format!("remove {}", namespace.dir.display()))?;
    Ok(std::fs::create_dir_all(&namespace.dir)?)
}
