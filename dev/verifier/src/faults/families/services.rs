//! Services that are killed and started again.

use crate::{bench::Bench, proxy::Mode};
use anyhow::{Context as _, Result, ensure};
use claims_verifier::namespace::REQUEST_TIMEOUT;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use xtask::services::{
    Service,
    native::cluster::{BROKERS, Cluster, Member},
};

/// A broker that was started again has every record again within this time.
const IN_SYNC_LIMIT: Duration = Duration::from_secs(60);
/// A forgetful CQL server is killed when its log, synced every 10 s, was last synced this long ago …
const UNSYNCED_LEAST: Duration = Duration::from_secs(3);
/// … which comes about within this time.
const UNSYNCED_LIMIT: Duration = Duration::from_secs(30);

/// Killed, away for a while, started again.
pub async fn restart(bench: &mut Bench, service: Service) -> Result<()> {
    bench.kill_service(Member::Other(service)).await?;
    bench.pause(200, 2_000).await;
    bench.start_service(Member::Other(service)).await
}

/// From here on the CQL server acknowledges what isn't on disk. What it holds already is on disk.
pub async fn make_cql_forgetful(cluster: Arc<Cluster>) -> Result<()> {
    set_commit_log(cluster, true).await
}

/// From here on it doesn't any more.
pub async fn make_cql_reliable(cluster: Arc<Cluster>) -> Result<()> {
    set_commit_log(cluster, false).await
}

async fn set_commit_log(cluster: Arc<Cluster>, periodic: bool) -> Result<()> {
    cluster.set_periodic_commit_log(periodic);
    let cql = Member::Other(Service::Cassandra);
    tokio::task::spawn_blocking(move || {
        // It may be gone already.
        let _ = cluster.kill(cql);
        cluster.start(cql)
    })
    .await?
}

/// It forgets, and comes back as one that doesn't. Not right after its log was synced: then it has nothing to forget but
/// what isn't committed either.
pub async fn forgetful_cql(bench: &mut Bench) -> Result<()> {
    let log = bench.cluster.layout().data(Service::Cassandra.name()).join("commitlog");
    wait_until_unsynced(&log, UNSYNCED_LEAST).await?;
    bench.cluster.set_periodic_commit_log(false);
    restart(bench, Service::Cassandra).await
}

/// Waits until no file of a commit log has changed for so long. A compressed one is written to when it is synced.
async fn wait_until_unsynced(log: &Path, least: Duration) -> Result<()> {
    let begun = Instant::now();
    let (mut files, mut unchanged_since) = (lengths(log)?, Instant::now());
    while unchanged_since.elapsed() < least {
        ensure!(begun.elapsed() < UNSYNCED_LIMIT, "{} is synced all the time", log.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = lengths(log)?;
        if now != files {
            (files, unchanged_since) = (now, Instant::now());
        }
    }
    Ok(())
}

fn lengths(folder: &Path) -> Result<BTreeMap<OsString, u64>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut lengths = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        // A segment may be gone meanwhile.
        if let Ok(metadata) = entry.metadata() {
            lengths.insert(entry.file_name(), metadata.len());
        }
    }
    Ok(lengths)
}

/// With the registry a processor goes too, so that somebody needs it: schemas that are known are not asked for again.
pub async fn registry(bench: &mut Bench) -> Result<()> {
    let victim = bench.victim()?;
    bench.kill_service(Member::Other(Service::Registry)).await?;
    bench.crew.kill((victim, 0))?;
    bench.pause(500, 3_000).await;
    bench.start_service(Member::Other(Service::Registry)).await
}

/// The way to it is slow first, so that an insert is under way at the kill.
pub async fn clickhouse_mid_insert(bench: &mut Bench) -> Result<()> {
    let delay = bench.random.millis(100, 400);
    bench.first_ways()?.clickhouse.set(Mode::Delay(delay));
    bench.pause(200, 1_200).await;
    bench.kill_service(Member::Other(Service::Clickhouse)).await?;
    bench.links.pass();
    bench.pause(200, 2_500).await;
    bench.start_service(Member::Other(Service::Clickhouse)).await
}

/// One broker, whichever; over when all copies of all partitions are in step again, so that the next round may kill
/// another.
pub async fn broker(bench: &mut Bench) -> Result<()> {
    let number = u8::try_from(bench.random.between(0, u64::from(BROKERS)))?;
    bench.kill_service(Member::Broker(number)).await?;
    bench.pause(500, 4_000).await;
    bench.start_service(Member::Broker(number)).await?;
    let probe: BaseConsumer = bench.namespace.kafka_client().create()?;
    let begun = Instant::now();
    loop {
        let behind = tokio::task::block_in_place(|| behind(&probe))?;
        if behind == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < IN_SYNC_LIMIT, "{behind} partitions have not all their copies in step");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Partitions of which a copy is out of step.
fn behind(probe: &BaseConsumer) -> Result<usize> {
    let metadata = probe.fetch_metadata(None, REQUEST_TIMEOUT)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    Ok(partitions.filter(|partition| partition.isr().len() < partition.replicas().len()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_unsynced_once_nothing_was_written_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let segment = folder.path().join("CommitLog-1.log");
        std::fs::write(&segment, "a").unwrap();
        let writing = std::thread::spawn(move || {
            for size in 2..8 {
                std::thread::sleep(Duration::from_millis(150));
                std::fs::write(&segment, "a".repeat(size)).unwrap();
            }
        });
        let begun = Instant::now();
        wait_until_unsynced(folder.path(), Duration::from_millis(600)).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(1_300), "{:?}", begun.elapsed());
        writing.join().unwrap();
    }
}
