//! How old an event is when it can be read: from its append in Kafka to the views, at a steady rate.

use super::{
    appended,
    child::Program,
    floor::records::{read_all, schemas},
    input::Input,
    interrupt,
    offsets::records_in,
    ours,
};
use anyhow::{Context, Error, Result, bail, ensure};
use claims_runtime::OwnedRecord;
use claims_schemas::SchemaCache;
use claims_verifier::{
    namespace::{Namespace, clickhouse_client},
    pipeline::Pipeline,
    ports,
    views::clickhouse,
};
use rdkafka::{
    ClientContext, Message,
    message::{DeliveryResult, Timestamp},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use scylla::{client::session::Session, statement::prepared::PreparedStatement};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const PROCESSORS: [&str; 3] = ["current-state", "analytics", "audit"];
/// So many events a second are looked for in the views.
const PROBES_PER_S: u64 = 10;
/// Between two looks for one of them in CQL …
const CQL_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// … and for all that are missing in ClickHouse, where each look costs more.
const CLICKHOUSE_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// An event must be readable within this time.
const LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks whether everything still runs.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// So much of the rate must have been appended.
const LEAST_RATE: f64 = 0.95;

/// How fast events are appended, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events per second.
    pub rate_per_s: u64,
    /// The first events meet processes that have just started: nothing is looked for meanwhile …
    pub warm_up: Duration,
    /// … and then for so long.
    pub span: Duration,
}

impl Load {
    /// Events appended in all.
    pub fn events(&self) -> u64 {
        self.rate_per_s * (self.warm_up + self.span).as_secs()
    }
}

/// How old events were when they could be read, in milliseconds.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Ages {
    /// Half of them were younger.
    pub p50_ms: f64,
    /// 95 of 100 were.
    pub p95_ms: f64,
    /// 99 of 100 were.
    pub p99_ms: f64,
    /// How many were looked for.
    pub probes: usize,
}

/// What is seen of one rate.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Freshness {
    /// Events that were appended per second.
    pub rate_per_s: u64,
    /// In `claim_by_id`.
    pub cql: Ages,
    /// In ClickHouse's `event_log`.
    pub clickhouse: Ages,
}

/// An event to look for.
#[derive(Debug, Clone)]
struct Probe {
    tenant_id: String,
    claim_id: String,
    version: u64,
    appended_at_ms: i64,
}

/// The producer's reports: the broker's time of append of those records that carry a probe.
struct Reports {
    probes: mpsc::UnboundedSender<Probe>,
    refused: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Option<Probe>>;

    fn delivery(&self, result: &DeliveryResult<'_>, probe: Self::DeliveryOpaque) {
        let Ok(message) = result else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(mut probe) = *probe
            && let Timestamp::LogAppendTime(at) | Timestamp::CreateTime(at) = message.timestamp()
        {
            probe.appended_at_ms = at;
            let _ = self.probes.send(probe);
        }
    }
}

/// Ends the appending, which may have a minute to go, with whoever waits for it.
struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Appends an input's events at a rate, and watches for some of them.
pub async fn measure(input: &Input, load: Load) -> Result<Freshness> {
    let namespace = input.apart("bench_freshness")?;
    namespace.reset().await?;
    Pipeline::new(namespace.clone())?.prepare()?;
    let records = read_all(&input.namespace)?;
    let cache = schemas(&input.namespace, &records).await?;
    let wanted = load.events();
    ensure!(records.len() as u64 == wanted, "{} events, {wanted} are needed", records.len());
    let inserted = clickhouse::rows_inserted(&namespace).await?;
    let mut programs = Vec::new();
    for processor in PROCESSORS {
        programs.push(start(&namespace, processor).await?);
    }
    let watch = Watch(Arc::default());
    let (sender, probes) = mpsc::unbounded_channel();
    let (to_cql, for_cql) = mpsc::unbounded_channel();
    let (to_clickhouse, for_clickhouse) = mpsc::unbounded_channel();
    let (topic, client, is_over) =
        (namespace.events_topic.clone(), namespace.kafka_client(), Arc::clone(&watch.0));
    let appending =
        tokio::task::spawn_blocking(move || append(client, &topic, &records, &cache, load, sender, &is_over));
    let sharing = tokio::spawn(share(probes, to_cql, to_clickhouse));
    let watching = async {
        tokio::try_join!(watch_cql(&namespace, for_cql), watch_clickhouse(&namespace, for_clickhouse))
    };
    let (cql, clickhouse) = tokio::select! {
        watched = watching => watched?,
        error = broken_off(&mut programs) => return Err(error),
    };
    let seconds = appending.await??.as_secs_f64();
    sharing.await?;
    programs.into_iter().try_for_each(Program::stop)?;
    let found = records_in(&namespace, &namespace.events_topic)?;
    ensure!(found == wanted, "{found} events in the topic, {wanted} were sent");
    let inserted = clickhouse::events_inserted(&namespace, inserted).await?;
    appended::verify(&namespace, inserted).await?;
    namespace.reset().await?;
    std::fs::remove_dir_all(&namespace.dir)?;
    let rate_per_s = wanted as f64 / seconds;
    ensure!(
        rate_per_s >= load.rate_per_s as f64 * LEAST_RATE,
        "{rate_per_s:.0} events per second were appended, {} should have been: nothing was measured",
        load.rate_per_s
    );
    Ok(Freshness { rate_per_s: rate_per_s.round() as u64, cql: ages(cql)?, clickhouse: ages(clickhouse)? })
}

/// Returns once a processor has ended or somebody wants an end.
async fn broken_off(programs: &mut [Program]) -> Error {
    loop {
        let check = interrupt::check().and_then(|()| programs.iter_mut().try_for_each(Program::check));
        if let Err(error) = check {
            return error;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn start(namespace: &Namespace, processor: &str) -> Result<Program> {
    let address = format!("127.0.0.1:{}", ports::free_port()?);
    let mut command = ours::claims(namespace, &["run", processor])?;
    command.env(format!("CLAIMS_{}__LISTEN", processor.to_uppercase().replace('-', "_")), &address);
    let mut program = Program::start(processor, command, &namespace.dir)?;
    let begun = Instant::now();
    let url = format!("http://{address}/health/ready");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
        interrupt::check()?;
        program.check()?;
        ensure!(begun.elapsed() < READY_LIMIT, "{processor} isn't ready after {} s", READY_LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(program)
}

/// Appends records at a steady rate, some of them with a probe. Answers with how long it took.
fn append(
    mut client: rdkafka::ClientConfig,
    topic: &str,
    records: &[OwnedRecord],
    schemas: &SchemaCache,
    load: Load,
    probes: mpsc::UnboundedSender<Probe>,
    is_over: &AtomicBool,
) -> Result<Duration> {
    let Load { rate_per_s, warm_up, .. } = load;
    client.set("linger.ms", "5").set("enable.idempotence", "true").set("compression.type", "lz4");
    let refused = Arc::new(AtomicU64::new(0));
    let context = Reports { probes, refused: Arc::clone(&refused) };
    let producer: ThreadedProducer<Reports> = client.create_with_context(context)?;
    let mut newest: HashMap<(String, String), u64> = HashMap::new();
    let (begun, every) = (Instant::now(), (rate_per_s / PROBES_PER_S).max(1));
    for (number, record) in (0..).zip(records) {
        ensure!(!is_over.load(Ordering::Relaxed), "nobody watches any more");
        let due = Duration::from_secs_f64(number as f64 / rate_per_s as f64);
        if let Some(wait) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(wait);
        }
        let event = probe_of(record, schemas)?;
        // A copy, or an event that comes late, would be found before it was processed.
        let known = newest.entry((event.tenant_id.clone(), event.claim_id.clone())).or_default();
        let is_newest = event.version > *known;
        *known = event.version.max(*known);
        let probe = (is_newest && due >= warm_up && number % every == 0).then_some(event);
        let mut message =
            BaseRecord::with_opaque_to(topic, Box::new(probe)).partition(record.origin.partition);
        message.key = record.key.as_ref();
        message.payload = record.payload.as_ref();
        if let Err((error, _)) = producer.send(message) {
            bail!("Kafka does not take {rate_per_s} events per second: {error}");
        }
    }
    producer.flush(LIMIT)?;
    let refused = refused.load(Ordering::Relaxed);
    ensure!(refused == 0, "Kafka did not acknowledge {refused} events");
    Ok(begun.elapsed())
}

fn probe_of(record: &OwnedRecord, schemas: &SchemaCache) -> Result<Probe> {
    let event = schemas.decode(record.payload.as_deref().context("a tombstone")?)?;
    let (tenant_id, claim_id, version) = (event.tenant_id.clone(), event.claim_id.clone(), event.version);
    Ok(Probe { tenant_id, claim_id, version, appended_at_ms: 0 })
}

async fn share(
    mut from: mpsc::UnboundedReceiver<Probe>,
    cql: mpsc::UnboundedSender<Probe>,
    clickhouse: mpsc::UnboundedSender<Probe>,
) {
    while let Some(probe) = from.recv().await {
        let _ = cql.send(probe.clone());
        let _ = clickhouse.send(probe);
    }
}

fn age_ms(probe: &Probe) -> f64 {
    (chrono::Utc::now().timestamp_millis() - probe.appended_at_ms) as f64
}

async fn watch_cql(namespace: &Namespace, mut probes: mpsc::UnboundedReceiver<Probe>) -> Result<Vec<f64>> {
    let session = Arc::new(namespace.cql_session().await?);
    let text =
        format!("SELECT version FROM {}.claim_by_id WHERE tenant_id = ? AND claim_id = ?", namespace.name);
    let statement = session.prepare(text).await?;
    let mut looking = tokio::task::JoinSet::new();
    while let Some(probe) = probes.recv().await {
        looking.spawn(look_in_cql(Arc::clone(&session), statement.clone(), probe));
    }
    looking.join_all().await.into_iter().collect()
}

async fn look_in_cql(session: Arc<Session>, statement: PreparedStatement, probe: Probe) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let rows = session.execute_unpaged(&statement, (&probe.tenant_id, &probe.claim_id)).await?;
        let found = rows.into_rows_result()?.maybe_first_row::<(i64,)>()?;
        if found.is_some_and(|(version,)| version.cast_unsigned() >= probe.version) {
            return Ok(age_ms(&probe));
        }
        ensure!(begun.elapsed() < LIMIT, "{probe:?} is not in CQL after {} s", LIMIT.as_secs());
        tokio::time::sleep(CQL_LOOK_INTERVAL).await;
    }
}

async fn watch_clickhouse(
    namespace: &Namespace,
    mut probes: mpsc::UnboundedReceiver<Probe>,
) -> Result<Vec<f64>> {
    let client = clickhouse_client()?;
    let (mut missing, mut ages, mut is_over) = (Vec::<(Instant, Probe)>::new(), Vec::new(), false);
    while !(is_over && missing.is_empty()) {
        loop {
            match probes.try_recv() {
                Ok(probe) => missing.push((Instant::now(), probe)),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    is_over = true;
                    break;
                }
            }
        }
        if !missing.is_empty() {
            let found = in_clickhouse(namespace, &client, &missing).await?;
            missing.retain(|(_, probe)| {
                let is_there = found.contains(&key(probe));
                if is_there {
                    ages.push(age_ms(probe));
                }
                !is_there
            });
        }
        if let Some((since, probe)) = missing.first() {
            ensure!(since.elapsed() < LIMIT, "{probe:?} is not in ClickHouse after {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(CLICKHOUSE_LOOK_INTERVAL).await;
    }
    Ok(ages)
}

fn key(probe: &Probe) -> String {
    format!("{}\t{}\t{}", probe.tenant_id, probe.claim_id, probe.version)
}

async fn in_clickhouse(
    namespace: &Namespace,
    client: &reqwest::Client,
    missing: &[(Instant, Probe)],
) -> Result<HashSet<String>> {
    let keys: Vec<String> = missing
        .iter()
        .map(|(_, probe)| format!("('{}','{}',{})", probe.tenant_id, probe.claim_id, probe.version))
        .collect();
    let sql = format!(
        "SELECT tenant_id, claim_id, version FROM {}.event_log WHERE (tenant_id, claim_id, version) IN ({}) FORMAT TSV",
        namespace.name,
        keys.join(",")
    );
    Ok(namespace.clickhouse_sql_by(client, &sql).await?.lines().map(str::to_owned).collect())
}

fn ages(mut ages_ms: Vec<f64>) -> Result<Ages> {
    ages_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        ages_ms.get(((ages_ms.len() as f64 * share) as usize).min(ages_ms.len().saturating_sub(1)))
    };
    let at = |share| at(share).copied().context("no event was looked for");
    Ok(Ages { p50_ms: at(0.5)?, p95_ms: at(0.95)?, p99_ms: at(0.99)?, probes: ages_ms.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_ages() {
        let of = ages((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!((of.p50_ms, of.p95_ms, of.p99_ms, of.probes), (101.0, 191.0, 199.0, 200));
        assert!(ages(Vec::new()).is_err());
    }
}
