//! How long the list views take to read, and what their partitions hold, in a keyspace that was filled before:
//!
//! `cargo run -p claims-current-state --example list_view_times -- KEYSPACE [TENANT]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use claims_current_state::{
    cql,
    places::ListView,
    read::{ClaimReader, ListItem, ListQuery},
};
use claims_topology::{Config, config::CqlConfig};
use futures::TryStreamExt;
use scylla::{
    client::session::Session, observability::tracing::TracingInfo, statement::unprepared::Statement,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const PAGE: usize = 100;
const REPEATS: usize = 50;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let keyspace = args.next().expect("a keyspace");
    let tenant = args.next().unwrap_or_else(|| "default".into());
    let config = CqlConfig { keyspace, ..Config::default().current_state.cql };
    let reader = ClaimReader::connect(&config).await.unwrap();
    let session = cql::connect(&config).await.unwrap();

    for view in ListView::ALL {
        let items: Vec<ListItem> = reader.scan_list(view).await.unwrap().try_collect().await.unwrap();
        let mut rows: HashMap<String, usize> = HashMap::new();
        let mut partitions: HashMap<(String, i32, i16), usize> = HashMap::new();
        for item in items.into_iter().filter(|item| item.tenant_id == tenant) {
            let key = match view {
                ListView::Status => item.status,
                ListView::Assignee => item.agent_id.unwrap_or_default(),
                ListView::Customer => item.customer_id.unwrap_or_default(),
                ListView::Created => String::new(),
            };
            *partitions.entry((key.clone(), item.bucket, item.shard)).or_default() += 1;
            *rows.entry(key).or_default() += 1;
        }
        let largest = partitions.values().max().copied().unwrap_or(0);
        println!(
            "{}: {} rows, {} keys, {} partitions with rows, the largest {largest}",
            view.table(),
            rows.values().sum::<usize>(),
            rows.len(),
            partitions.len()
        );
        let mut keys: Vec<_> = rows.into_iter().collect();
        keys.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        keys.truncate(6);
        for (key, n) in keys {
            let (first, median, worst, found) = times(&reader, &tenant, view, &key).await;
            println!(
                "  {key:?} ({n} rows): page of {found}: first {first:?}, median {median:?}, worst {worst:?}"
            );
        }
    }
    tombstones(&session, &config.keyspace, &tenant).await;
}

async fn times(
    reader: &ClaimReader,
    tenant: &str,
    view: ListView,
    key: &str,
) -> (Duration, Duration, Duration, usize) {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..REPEATS {
        let begun = Instant::now();
        let page = reader.list(&ListQuery::newest(tenant, view, key, PAGE)).await.unwrap();
        times.push(begun.elapsed());
        found = page.items.len();
    }
    let first = times[0];
    times.sort();
    (first, times[REPEATS / 2], times[REPEATS - 1], found)
}

/// Reads whole partitions of the draining statuses with tracing on, and adds up what the server says it went through.
async fn tombstones(session: &Session, keyspace: &str, tenant: &str) {
    for status in ["CREATED", "ASSIGNED", "PROCESSING"] {
        let text = format!(
            "SELECT bucket, shard FROM {keyspace}.claim_list_partitions \
             WHERE tenant_id = ? AND view_name = 'claims_by_status' AND key = ?"
        );
        let result = session.query_unpaged(text, (tenant, status)).await.unwrap().into_rows_result().unwrap();
        let partitions: Vec<(i32, i16)> = result.rows().unwrap().map(Result::unwrap).collect();
        let mut most = (0_u64, 0_u64);
        let mut total = (0, 0);
        for (bucket, shard) in partitions.iter().step_by(partitions.len().div_ceil(60).max(1)) {
            let mut statement = Statement::new(format!(
                "SELECT claim_id FROM {keyspace}.claims_by_status \
                 WHERE tenant_id = ? AND status = ? AND bucket = ? AND shard = ?"
            ));
            statement.set_tracing(true);
            let result = session.query_unpaged(statement, (tenant, status, bucket, shard)).await.unwrap();
            let id = result.tracing_id().unwrap();
            // The server writes its traces a little later.
            let mut trace = session.get_tracing_info(&id).await;
            for _ in 0..40 {
                let complete = |t: &TracingInfo| {
                    t.events.iter().any(|e| e.activity.as_deref().is_some_and(|a| live_and_dead(a).is_some()))
                };
                if trace.as_ref().is_ok_and(complete) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                trace = session.get_tracing_info(&id).await;
            }
            let events = trace.unwrap().events;
            let read = events.iter().filter_map(|e| live_and_dead(e.activity.as_deref()?)).next_back();
            let (live, dead) = read.unwrap_or_default();
            total = (total.0 + live, total.1 + dead);
            if dead > most.1 {
                most = (live, dead);
            }
        }
        println!(
            "{status}: {} partitions noted; of those sampled: {} live rows, {} tombstones; the worst {} and {}",
            partitions.len(),
            total.0,
            total.1,
            most.0,
            most.1
        );
    }
}

/// "Read 12 live rows and 340 tombstone cells"
fn live_and_dead(activity: &str) -> Option<(u64, u64)> {
    let rest = activity.strip_prefix("Read ")?;
    let mut numbers = rest.split_whitespace().filter_map(|word| word.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}
