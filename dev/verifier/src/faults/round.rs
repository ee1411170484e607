//! One round: events in, a fault, recovery without hands, and every view compared with what was acknowledged.

use super::{
    bench::Bench,
    clock::Clock,
    crew::{Crew, Role},
    disk_space::Disk,
    families::services,
    links::Links,
    load::{self, Events, Progress, Sent},
    order,
    random::Random,
    report::Outcome,
    scenario::{Fault, Scenario},
    watch::Watch,
};
use anyhow::{Context, Result, ensure};
use claims_verifier::{
    checks::{self, Check},
    model::Model,
    namespace::Namespace,
    pipeline::Pipeline,
    ports,
    views::{cql, topics},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use xtask::services::native::cluster::Cluster;

/// A processor that is not heard of for so long loses its partitions.
pub const SESSION_TIMEOUT_MS: u64 = 4_000;
/// Partitions of the events topic.
const PARTITIONS: i32 = 6;
/// Every process must be ready this long after its start, and every processor must have committed something this long
/// after the first event.
const WARM_LIMIT: Duration = Duration::from_secs(120);
/// The load ends after this many events, 45 s of it; usually long before, with the fault.
const MAX_EVENTS: u64 = 45 * load::RATE_PER_S;
/// Events come for so long at least.
const MIN_LOAD: Duration = Duration::from_secs(9);
/// The load goes on for so long after the fault.
const LOAD_AFTER_FAULT: Duration = Duration::from_millis(1_500);
/// After fault and load, every group must come nearer to the end of the log within each span of this length …
const RECOVERY_STANDSTILL_LIMIT: Duration = Duration::from_secs(45);
/// … and be there after this long. How long that takes is the machine's matter: an outage of a minute leaves a backlog
/// that a busy machine works on for minutes.
const RECOVERY_LIMIT: Duration = Duration::from_secs(600);
/// A processor that the fault doesn't concern commits something at least this often.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(8);
/// No process may hold more resident memory.
const MEMORY_LIMIT_MIB: u64 = 512;

/// What all rounds of a run share.
pub struct Suite {
    /// The services.
    pub cluster: Arc<Cluster>,
    /// The ways to them.
    pub links: Arc<Links>,
    /// The shift of every port.
    pub offset: u16,
    /// Another build of `claims` than the one beside this program.
    pub claims: Option<PathBuf>,
    /// Further environment of every process.
    pub settings: Vec<(String, String)>,
}

/// Runs a round; the seed chooses the role that is hit, unless one is given. An error is a problem of the round like any other; everything it made stays behind then.
pub async fn run(
    suite: &Suite,
    scenario: &Scenario,
    victim: Option<Role>,
    number: u64,
    seed: u64,
) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::new(scenario, number, seed);
    let mut random = Random::new(seed);
    let victim = victim.or(random.pick(scenario.victims));
    outcome.victim = victim.map(Role::name);
    if let Err(error) = play(suite, scenario, random, victim, &mut outcome).await {
        outcome.problems.push(format!("{error:#}"));
    }
    suite.links.pass();
    if scenario.fault == Fault::PeriodicCommitLog && !outcome.passed() {
        // It may have failed before the server was a reliable one again.
        let restored = services::make_cql_reliable(Arc::clone(&suite.cluster)).await;
        outcome.problems.extend(restored.err().map(|error| format!("{error:#}")));
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

async fn play(
    suite: &Suite,
    scenario: &Scenario,
    random: Random,
    victim: Option<Role>,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut begun = Instant::now();
    let cluster = Arc::clone(&suite.cluster);
    tokio::task::spawn_blocking(move || cluster.start_missing()).await??;
    let name = format!("faults_{}_{:x}", outcome.round, outcome.seed);
    let dir = suite.cluster.layout().home.join("rounds").join(&name);
    let pipeline = pipeline(suite, &name, &dir)?;
    outcome.folder = pipeline.namespace.dir.display().to_string();
    let disk = match scenario.fault {
        Fault::DiskFull => Some(Disk::mount(&pipeline.namespace.state_dir())?),
        _ => None,
    };
    let clock = match scenario.fault {
        Fault::ClockJump => Some(Clock::make(&pipeline.namespace.dir)?),
        _ => None,
    };
    if scenario.fault == Fault::PeriodicCommitLog {
        services::make_cql_forgetful(Arc::clone(&suite.cluster)).await?;
    }
    // They begin to be made while the processes start.
    let events = Events::generate(&pipeline, MAX_EVENTS, outcome.seed)?;
    prepare(&pipeline).await?;
    outcome.end_part("prepare", &mut begun);
    let ingress_port = ports::free_port()?;
    let pipeline = pipeline.with("CLAIMS_INGRESS__LISTEN", &format!("127.0.0.1:{ingress_port}"));
    let crew = Arc::new(Crew::new(pipeline.clone(), Arc::clone(&suite.links)));
    let listening = start_all(&crew, scenario, victim, clock.as_ref())?;
    let mut bench = Bench {
        cluster: Arc::clone(&suite.cluster),
        links: Arc::clone(&suite.links),
        crew: Arc::clone(&crew),
        namespace: pipeline.namespace.clone(),
        random,
        victim,
        disk,
        clock,
        service_kills: 0,
    };
    let ingress = format!("http://127.0.0.1:{ingress_port}/v1/events");
    let played = supervised(scenario, &pipeline, &mut bench, ingress, &listening, events, outcome).await;
    let acknowledged = played?;
    begun = Instant::now();
    if scenario.fault == Fault::PeriodicCommitLog {
        let control = listening.iter().find(|(role, _)| *role == Role::CurrentState);
        let (_, control) = control.context("current-state listens nowhere")?;
        reset_offsets(&pipeline, control, &acknowledged, outcome).await?;
        outcome.end_part("replay", &mut begun);
    }
    stop_all(&crew, outcome).await?;
    outcome.end_part("stop", &mut begun);
    verify(&pipeline, &acknowledged, outcome).await?;
    outcome.end_part("verify", &mut begun);
    if outcome.problems.is_empty() {
        drop(bench);
        pipeline.namespace.reset().await?;
        std::fs::remove_dir_all(&pipeline.namespace.dir)?;
        outcome.end_part("reset", &mut begun);
    }
    Ok(())
}

/// Starts a process of each role; where the processors listen.
fn start_all(
    crew: &Crew,
    scenario: &Scenario,
    victim: Option<Role>,
    clock: Option<&Clock>,
) -> Result<Vec<(Role, String)>> {
    let mut listening = Vec::new();
    for role in Role::ALL {
        let mut settings =
            victim.filter(|&v| v == role).map_or_else(Vec::new, |role| scenario.victim_settings(role));
        if let Some(clock) = clock.filter(|_| victim == Some(role)) {
            settings.extend(clock.settings());
        }
        if role != Role::Ingress {
            let port = ports::free_port()?;
            settings.push((role.variable("LISTEN"), format!("127.0.0.1:{port}")));
            listening.push((role, format!("http://127.0.0.1:{port}")));
        }
        crew.start((role, 0), settings)?;
    }
    Ok(listening)
}

/// Load and fault, while what ends is started again. The acknowledged events.
async fn supervised(
    scenario: &Scenario,
    pipeline: &Pipeline,
    bench: &mut Bench,
    ingress: String,
    listening: &[(Role, String)],
    events: Events,
    outcome: &mut Outcome,
) -> Result<Vec<String>> {
    let mut begun = Instant::now();
    let crew = Arc::clone(&bench.crew);
    let supervisor = {
        let crew = Arc::clone(&crew);
        tokio::spawn(async move { crew.supervise().await })
    };
    let health: Vec<_> = listening.iter().map(|(_, url)| format!("{url}/health/ready")).collect();
    let ready = ready(&ingress, &health).await;
    outcome.end_part("start", &mut begun);
    let played = match ready {
        Ok(()) => under_load(scenario, pipeline, bench, ingress, events, outcome).await,
        Err(error) => Err(error),
    };
    supervisor.abort();
    // Only once it is gone may the processes be stopped: it would start them again.
    let supervised = supervisor.await;
    outcome.kills = crew.kills() + bench.service_kills;
    outcome.peaks_mib = crew.peaks_mib();
    note_exits(scenario, &crew, outcome);
    let acknowledged = played?;
    if let Ok(supervised) = supervised {
        supervised?;
    }
    Ok(acknowledged)
}

async fn stop_all(crew: &Crew, outcome: &mut Outcome) -> Result<()> {
    crew.stop_all().await?;
    outcome.peaks_mib = crew.peaks_mib();
    for (role, mib) in &outcome.peaks_mib {
        if *mib > MEMORY_LIMIT_MIB {
            outcome.problems.push(format!("{role} held {mib} MiB, more than {MEMORY_LIMIT_MIB}"));
        }
    }
    Ok(())
}

fn pipeline(suite: &Suite, name: &str, dir: &Path) -> Result<Pipeline> {
    let mut namespace = Namespace::new(name, dir, PARTITIONS)?.shifted(suite.offset);
    let nodes = (0..xtask::services::native::cluster::BROKERS).map(|number| suite.cluster.node(number));
    let nodes: Vec<String> =
        nodes.map(|node| Ok(format!("127.0.0.1:{}", node?.port))).collect::<Result<_>>()?;
    namespace.bootstrap_servers = nodes.join(",");
    let mut pipeline = Pipeline::new(namespace)?;
    if let Some(claims) = &suite.claims {
        pipeline = pipeline.with_binary(claims);
    }
    pipeline.settings.extend(suite.settings.iter().cloned());
    let session = SESSION_TIMEOUT_MS.to_string();
    let common = [
        ("CLAIMS_TOPICS__REPLICATION_FACTOR", "3"),
        ("CLAIMS_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", session.as_str()),
        ("CLAIMS_KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "500"),
        ("CLAIMS_KAFKA__PROPERTIES__RECONNECT_BACKOFF_MAX_MS", "500"),
        // An answer that doesn't come is missed within seconds, not after a minute.
        ("CLAIMS_CURRENT_STATE__CQL__REQUEST_TIMEOUT_MS", "5000"),
        ("CLAIMS_ANALYTICS__CLICKHOUSE__SEND_TIMEOUT_MS", "2000"),
        ("CLAIMS_ANALYTICS__CLICKHOUSE__END_TIMEOUT_MS", "2000"),
    ];
    for (name, value) in common {
        pipeline = pipeline.with(name, value);
    }
    // Small batches and frequent commits: whatever happens, it happens between many of them.
    let runtime = [
        ("MAX_BATCH_RECORDS", "1500"),
        ("MAX_BATCH_AGE_MS", "200"),
        ("COMMIT_INTERVAL_MS", "300"),
        ("SINK_RETRY_MAX_BACKOFF_MS", "500"),
    ];
    for role in Role::PROCESSORS {
        for (name, value) in runtime {
            pipeline = pipeline.with(&role.runtime_variable(name), value);
        }
    }
    Ok(pipeline)
}

/// Topics and schemas, which don't wait for each other.
async fn prepare(pipeline: &Pipeline) -> Result<()> {
    let run = |args: &'static [&'static str]| {
        let pipeline = pipeline.clone();
        tokio::task::spawn_blocking(move || pipeline.run(args))
    };
    let (topics, schemas) = tokio::join!(run(&["topics", "apply"]), run(&["schemas", "register"]));
    topics??;
    schemas??;
    Ok(())
}

/// The load, and the fault at a chance moment of it; returns the acknowledged events when everything is committed.
async fn under_load(
    scenario: &Scenario,
    pipeline: &Pipeline,
    bench: &mut Bench,
    url: String,
    events: Events,
    outcome: &mut Outcome,
) -> Result<Vec<String>> {
    let progress: Arc<Progress> = Arc::default();
    let watch = Watch::start(&pipeline.namespace)?;
    // A set, since what is in it ends with it: a round that fails leaves no load behind.
    let mut sending = JoinSet::new();
    sending.spawn(load::send_all(url, events, Arc::clone(&progress), MIN_LOAD));
    let load_begun = Instant::now();
    wait_until_warm(scenario, bench, &watch).await?;
    bench.pause(200, 2_500).await;

    let (met, fault_begun, after_events) =
        (bench.links.interventions(), Instant::now(), progress.acknowledged());
    outcome.fault_after_events = after_events;
    let broken = scenario.run(bench).await;
    let fault_over = Instant::now();
    bench.links.pass();
    broken.context("the fault could not be made")?;
    outcome.fault_ms = fault_over.duration_since(fault_begun).as_millis() as u64;
    outcome.interventions = bench.links.interventions() - met;
    if let Some(clock) = &bench.clock {
        outcome.interventions += clock.shifted_answers()?;
    }
    ensure!(
        !scenario.must_meet_something() || outcome.interventions > 0,
        "the fault met no traffic: nothing was tested"
    );

    ensure!(
        after_events < MAX_EVENTS,
        "the load was over before the fault: the processors were too slow to begin"
    );
    tokio::time::sleep(LOAD_AFTER_FAULT).await;
    progress.set_enough();
    let sent = sending.join_next().await.context("the load is gone")??;
    outcome.repeated_requests = progress.repeated_requests();
    outcome.events = progress.acknowledged();
    let Sent { events, took } = sent?;
    outcome.events_per_s = (outcome.events as f64 / took.as_secs_f64()) as u64;
    let load_over = load_begun + took;
    for role in Role::PROCESSORS {
        if bench.victim == Some(role) || scenario.affects.contains(&role) || fault_begun >= load_over {
            continue;
        }
        let still = watch.longest_standstill(role, fault_begun, load_over);
        outcome.standstill_ms = outcome.standstill_ms.max(still.as_millis() as u64);
        if still > STANDSTILL_LIMIT {
            outcome.problems.push(format!(
                "{} stood still for {} ms although the fault does not concern it",
                role.name(),
                still.as_millis()
            ));
        }
    }
    let since = fault_over.max(load_over);
    outcome.parts_ms.insert("load", load_begun.elapsed().as_millis() as u64);
    wait_until_caught_up(pipeline, since).await?;
    outcome.recovery_ms = since.elapsed().as_millis() as u64;
    Ok(events)
}

/// Waits until ingress takes events and every processor has its partitions: nobody is late for the load.
async fn ready(ingress: &str, health: &[String]) -> Result<()> {
    let begun = Instant::now();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    // An empty body is a request without events: it is taken once the way to Kafka is open.
    let mut requests = vec![client.post(ingress).header("content-type", "application/x-ndjson").body("")];
    requests.extend(health.iter().map(|url| client.get(url)));
    for request in requests {
        loop {
            let request = request.try_clone().context("a request that can be sent again")?;
            match request.send().await {
                Ok(answer) if answer.status().is_success() => break,
                other => {
                    let limit = WARM_LIMIT.as_secs();
                    ensure!(begun.elapsed() < WARM_LIMIT, "not ready within {limit} s: {other:?}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

async fn wait_until_warm(scenario: &Scenario, bench: &Bench, watch: &Watch) -> Result<()> {
    let begun = Instant::now();
    loop {
        let cold: Vec<&str> = Role::PROCESSORS
            .into_iter()
            .filter(|&role| scenario.victim_commits() || bench.victim != Some(role))
            .filter(|&role| watch.committed(role) == 0)
            .map(Role::name)
            .collect();
        if cold.is_empty() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < WARM_LIMIT,
            "{cold:?} committed nothing within {} s of load",
            WARM_LIMIT.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_until_caught_up(pipeline: &Pipeline, since: Instant) -> Result<()> {
    let mut left: Vec<(Role, u64, Instant)> =
        Role::PROCESSORS.into_iter().map(|role| (role, u64::MAX, Instant::now())).collect();
    while !left.is_empty() {
        let mut stuck = Vec::new();
        left.retain_mut(|(role, least, at)| {
            let lag = tokio::task::block_in_place(|| pipeline.lag(role.name()));
            if let Ok((lag, _)) = lag
                && lag < *least
            {
                (*least, *at) = (lag, Instant::now());
            }
            if at.elapsed() > RECOVERY_STANDSTILL_LIMIT || since.elapsed() > RECOVERY_LIMIT {
                stuck.push(match lag {
                    Ok((lag, _)) => format!("{} is {lag} records behind", role.name()),
                    Err(error) => format!("{}: {error:#}", role.name()),
                });
            }
            *least > 0
        });
        ensure!(
            stuck.is_empty(),
            "no recovery {} s after fault and load: {}",
            since.elapsed().as_secs(),
            stuck.join(", ")
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn note_exits(scenario: &Scenario, crew: &Crew, outcome: &mut Outcome) {
    let exits = crew.exits();
    outcome.ended = exits.len() as u64;
    for exit in exits.iter().filter(|exit| !scenario.may_end.contains(&exit.role)) {
        outcome.problems.push(format!("{} ended by itself: {}", exit.role.name(), exit.detail));
    }
}

/// What an operator does whose database has lost writes: notes what is missing, and resets the offsets.
async fn reset_offsets(
    pipeline: &Pipeline,
    control: &str,
    events: &[String],
    outcome: &mut Outcome,
) -> Result<()> {
    let session = pipeline.namespace.cql_session().await?;
    // A later event writes the rest of a claim's rows again, but not the timeline entries before it.
    let held = cql::timelines(&session, &pipeline.namespace.name).await?;
    outcome.forgotten_claims = held.differing(&model_of(events)?.timelines());
    ensure!(outcome.forgotten_claims > 0, "the CQL server had forgotten nothing: nothing was tested");
    let running = pipeline.clone();
    let control = control.to_owned();
    let replay = move || {
        running.run(&["replay", "current-state", "--to-beginning", "--restart", "--control", &control])
    };
    tokio::task::spawn_blocking(replay).await??;
    wait_until_caught_up(pipeline, Instant::now()).await
}

fn model_of(events: &[String]) -> Result<Model> {
    let mut model = Model::default();
    for event in events {
        model.add(&serde_json::from_str(event)?)?;
    }
    Ok(model)
}

/// Every view against the acknowledged events.
async fn verify(pipeline: &Pipeline, events: &[String], outcome: &mut Outcome) -> Result<()> {
    let (log, records) = tokio::task::block_in_place(|| order::check(&pipeline.namespace, events))?;
    outcome.records = records;
    let model = model_of(events)?;
    let mut all = checks::all(pipeline, &model, records).await?;
    all.push(log);
    let stale = tokio::task::block_in_place(|| topics::stale_last_states(&pipeline.namespace))?;
    outcome.stale_last_states = stale.len() as u64;
    all.push(Check {
        name: "topic claims.state.v1 after compaction".to_owned(),
        rows: 0,
        checksum: String::new(),
        problems: stale.into_iter().take(5).collect(),
    });
    for check in all {
        outcome.problems.extend(check.problems.iter().map(|problem| format!("{}: {problem}", check.name)));
    }
    outcome.is_verified = true;
    Ok(())
}
