//! Our side of a stage: the product's own programs, started as users start them, and whether they did it right.

use super::{
    child::Program,
    floor::{DONE, parquet},
    input::Input,
    interrupt, offsets,
    stage::{ClientFloor, Ours, Settings},
};
use anyhow::{Result, ensure};
use claims_verifier::{
    compare::compare,
    namespace::Namespace,
    pipeline::Pipeline,
    views::{audit, clickhouse, cql, topics},
};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// Offsets are committed so often, instead of once a second: the commits are what is looked at.
pub const COMMIT_INTERVAL_MS: u64 = 100;
/// A batch waits for more so long at most, as the floors' do: the last one of a run is never full.
pub const MAX_BATCH_AGE_MS: u64 = 200;
/// What is committed is also said within this time.
const DONE_LIMIT: Duration = Duration::from_secs(10);
/// Differences told of a view.
const MOST_DIFFERENCES: usize = 3;

/// `claims` beside this program.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("claims");
    ensure!(path.is_file(), "{} is missing; `cargo xtask bench` builds it", path.display());
    Ok(path)
}

/// `claims ARGS` in a namespace, as users run it.
pub fn claims(namespace: &Namespace, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(args).current_dir(&namespace.dir).envs(namespace.environment());
    Ok(command)
}

/// Starts a processor whose pace is measured: with the settings that the look from outside needs, and its stage's own.
pub fn start(namespace: &Namespace, processor: &str, settings: Settings) -> Result<Program> {
    let mut command = claims(namespace, &["run", processor])?;
    let variable = |name| format!("CLAIMS_{}__RUNTIME__{name}", processor.to_uppercase().replace('-', "_"));
    command
        .env(variable("COMMIT_INTERVAL_MS"), COMMIT_INTERVAL_MS.to_string())
        .env(variable("MAX_BATCH_AGE_MS"), MAX_BATCH_AGE_MS.to_string())
        .envs(settings.iter().copied());
    Program::start(processor, command, &namespace.dir)
}

/// An error unless everything came out as it must, once each. `inserted`: rows that ClickHouse was given meanwhile.
pub async fn verify(ours: Ours, namespace: &Namespace, input: &Input, inserted: u64) -> Result<()> {
    match ours {
        Ours::Ingest | Ours::Http => {
            let records = offsets::records_in(namespace, &namespace.events_topic)?;
            same("records acknowledged", records, input.records)?;
            let keys = offsets::keys_of(namespace, &namespace.events_topic)?;
            ensure!(keys == input.keys, "other events are in the topic: nothing was measured");
            no_dead_letters(namespace, 0)
        }
        Ours::Fold => no_dead_letters(namespace, input.superseded),
        Ours::Run(processors) => {
            for processor in processors {
                verify_view(processor, namespace, input).await?;
            }
            let analysed = if processors.contains(&"analytics") { input.records } else { 0 };
            same("rows given to ClickHouse", inserted, analysed)?;
            let superseded = if processors.contains(&"current-state") { input.superseded } else { 0 };
            no_dead_letters(namespace, superseded)
        }
    }
}

async fn verify_view(processor: &str, namespace: &Namespace, input: &Input) -> Result<()> {
    match processor {
        "analytics" => verify_clickhouse(namespace, input).await,
        "audit" => {
            let check = audit::check(&Pipeline::new(namespace.clone())?, input.records)?;
            ensure!(check.problems.is_empty(), "audit: {}", check.problems.join("; "));
            Ok(())
        }
        _ => {
            verify_cql(namespace, input).await?;
            let mut living = input.model.claims()?;
            living.retain(|_, claim| claim.status != "ERASED");
            let states = topics::claims(namespace).await?;
            let differences = compare("state topic", &states, &living, MOST_DIFFERENCES).differences;
            ensure!(differences.is_empty(), "current-state: {}", differences.join("; "));
            no_folding_together(namespace, input)
        }
    }
}

/// A row for every event. Copies of a row are not seen here: ClickHouse keeps one of them.
pub async fn verify_clickhouse(namespace: &Namespace, input: &Input) -> Result<()> {
    let (rows, _) = clickhouse::events(namespace).await?;
    same("rows in events", rows, input.distinct)
}

/// Claims, lists and timelines as the model has them.
pub async fn verify_cql(namespace: &Namespace, input: &Input) -> Result<()> {
    let claims = input.model.claims()?;
    let session = namespace.cql_session().await?;
    let by_id = cql::claims(&session, &namespace.name).await?;
    let mut differences = compare("claim_by_id", &by_id, &claims, MOST_DIFFERENCES).differences;
    for place in cql::PLACES {
        let places = cql::places(&session, &namespace.name, place).await?;
        differences.extend(place.check(&places, &claims).problems);
    }
    let timelines = cql::timelines(&session, &namespace.name).await?;
    differences.extend(timelines.check("claim_timeline", &input.model.timelines()).problems);
    ensure!(differences.is_empty(), "CQL: {}", differences.join("; "));
    Ok(())
}

/// In live order every event must have been a change of its own.
fn no_folding_together(namespace: &Namespace, input: &Input) -> Result<()> {
    let states = offsets::records_in(namespace, &namespace.state_topic())?;
    let (least, wanted) = (input.distinct * 99 / 100, input.distinct);
    ensure!(
        !input.is_kept_apart() || states >= least,
        "{states} states of {wanted} events: several of a claim were in one batch"
    );
    Ok(())
}

/// The floor's claims and timelines are those of the model, and each claim stands where it belongs; the floor takes it
/// nowhere out.
async fn verify_cql_floor(namespace: &Namespace, input: &Input) -> Result<()> {
    let session = namespace.cql_session().await?;
    let (wanted, keyspace) = (input.model.claims()?, &namespace.name);
    let claims = cql::claims(&session, keyspace).await?;
    let differences = compare("claim_by_id", &claims, &wanted, MOST_DIFFERENCES).differences;
    ensure!(differences.is_empty(), "CQL: {}", differences.join("; "));
    for view in cql::PLACES {
        let places = cql::places(&session, keyspace, view).await?;
        let missing = view.missing(&places, &wanted);
        ensure!(missing == 0, "{missing} claims are missing in {view:?}: nothing was measured");
    }
    let timelines = cql::timelines(&session, keyspace).await?;
    same("claims with too short a timeline", timelines.shorter(&input.model.timelines()) as u64, 0)
}

/// What a floor has written is there, each once. `inserted`: rows that ClickHouse was given meanwhile.
pub async fn verify_floor(
    kind: ClientFloor,
    namespace: &Namespace,
    input: &Input,
    inserted: u64,
) -> Result<()> {
    match kind {
        ClientFloor::Decode => Ok(()),
        ClientFloor::Produce => {
            let topic = namespace.topic("claims.events.v1");
            same("records of the floor", offsets::records_in(namespace, &topic)?, input.records)?;
            let keys = offsets::keys_of(namespace, &topic)?;
            ensure!(keys == input.keys, "the floor produced other events: nothing was measured");
            Ok(())
        }
        ClientFloor::Clickhouse => {
            same("rows that the floor gave to ClickHouse", inserted, input.records)?;
            verify_clickhouse(namespace, input).await
        }
        ClientFloor::Parquet => {
            same("rows of the floor in files", parquet::rows_in(namespace)?, input.records)
        }
        ClientFloor::Cql => verify_cql_floor(namespace, input).await,
    }
}

/// Events that hold a version twice are expected, as the model tells; nothing else.
pub fn no_dead_letters(namespace: &Namespace, superseded: u64) -> Result<()> {
    same("dead letters", offsets::records_in(namespace, &namespace.dead_letters_topic())?, superseded)
}

/// Waits until a floor or a fold says that it has done what it had to do; it may not do more.
pub fn wait_until_done(program: &mut Program, wanted: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let said = program.said()?;
        let done = said.lines().rev().find_map(|line| line.strip_prefix(DONE)?.trim().parse().ok());
        if done >= Some(wanted) || begun.elapsed() > DONE_LIMIT {
            return same("rows done", done.unwrap_or(0), wanted);
        }
        interrupt::check()?;
        program.check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An error unless a number is what it must be.
pub fn same(what: &str, found: u64, wanted: u64) -> Result<()> {
    ensure!(found == wanted, "{found} {what}, should be {wanted}: nothing was measured");
    Ok(())
}
