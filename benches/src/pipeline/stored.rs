//! What a run leaves in the services and in files, in bytes.

use anyhow::Result;
use claims_verifier::namespace::Namespace;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use xtask::services::layout::Layout;

/// The events topic, without copies on other brokers.
pub const EVENTS_TOPIC: &str = "events-topic";
/// The topic of current states.
pub const STATE_TOPIC: &str = "state-topic";
/// Active parts.
pub const CLICKHOUSE: &str = "clickhouse";
/// Data files.
pub const CQL: &str = "cql";
/// Segments of the trail.
pub const AUDIT: &str = "audit";

/// What the CQL server keeps in memory is on disk within this time after it was asked for.
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
/// … and all of it once nothing has changed for so long.
const QUIET: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Of a namespace that processors have run in. Of native services alone; with Docker only what they tell themselves.
pub async fn bytes(namespace: &Namespace, processors: &[&str]) -> Result<BTreeMap<&'static str, u64>> {
    let layout = Layout::discover()?;
    let topics = layout.data("kafka").join("log");
    let mut stored = BTreeMap::from([(EVENTS_TOPIC, of_topic(&topics, &namespace.events_topic))]);
    for processor in processors {
        match *processor {
            "analytics" => {
                let sql = format!(
                    "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{}'",
                    namespace.name
                );
                stored.insert(CLICKHOUSE, namespace.clickhouse_sql(&sql).await?.trim().parse()?);
            }
            "audit" => {
                stored.insert(AUDIT, below(&namespace.audit_dir(), &|_| true));
            }
            _ => {
                stored.insert(STATE_TOPIC, of_topic(&topics, &namespace.state_topic()));
                let keyspace = layout.data("cassandra").join("data").join(&namespace.name);
                stored.insert(CQL, of_keyspace(namespace, &keyspace).await?);
            }
        }
    }
    stored.retain(|_, bytes| *bytes > 0);
    Ok(stored)
}

/// The segments of every partition of a topic, below the native broker's folder.
fn of_topic(folder: &Path, topic: &str) -> u64 {
    let Ok(partitions) = fs::read_dir(folder) else { return 0 };
    let is_of_topic = |name: &str| {
        name.rsplit_once('-').is_some_and(|(of, number)| of == topic && number.parse::<u32>().is_ok())
    };
    let partitions = partitions.flatten().filter(|entry| is_of_topic(&entry.file_name().to_string_lossy()));
    partitions.map(|partition| below(&partition.path(), &|name| name.ends_with(".log"))).sum()
}

/// Data files of a keyspace, with what is only in the server's memory so far.
async fn of_keyspace(namespace: &Namespace, folder: &Path) -> Result<u64> {
    if !folder.is_dir() {
        return Ok(0);
    }
    let session = namespace.cql_session().await?;
    let tables = session
        .query_unpaged(
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?",
            (&namespace.name,),
        )
        .await?
        .into_rows_result()?;
    for row in tables.rows::<(String,)>()? {
        let (table,) = row?;
        // From now on its rows are written out every second.
        let alter = format!("ALTER TABLE {}.{table} WITH memtable_flush_period_in_ms = 1000", namespace.name);
        session.query_unpaged(alter, ()).await?;
    }
    let size = || below(folder, &|name| name.ends_with("-Data.db"));
    let (begun, mut before, mut since) = (Instant::now(), size(), Instant::now());
    while begun.elapsed() < FLUSH_LIMIT && since.elapsed() < QUIET {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = size();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
    Ok(before)
}

/// All files of such names below a folder.
fn below(folder: &Path, is_wanted: &dyn Fn(&str) -> bool) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => below(&entry.path(), is_wanted),
        Ok(metadata) if is_wanted(&entry.file_name().to_string_lossy()) => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(of_entry).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_segments_of_its_partitions() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("t-0/0.log", 3),
            ("t-0/0.index", 50),
            ("t-11/0.log", 4),
            ("t-0-1/0.log", 60),
            ("ut-0/0.log", 70),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        }
        assert_eq!(of_topic(folder.path(), "t"), 7);
        assert_eq!(of_topic(folder.path(), "missing"), 0);
    }
}
