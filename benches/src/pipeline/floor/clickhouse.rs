//! Consume, and insert ready rows with the `clickhouse` crate.

use super::{pump, records};
use anyhow::{Context, Result};
use claims_analytics::{AnalyticsProcessor, row::EventRow, schema};
use claims_topology::config::ClickHouseConfig;
use claims_verifier::namespace::Namespace;
use std::{ops::Range, sync::Arc};

/// As many as the product's sink has.
const BATCHES_IN_FLIGHT: usize = 2;

/// How much is sent at a time, as the product's sink.
const CHUNK_BYTES: usize = 256 * 1024;

/// Into the product's own table, in the format in which the product sends them.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let mut processor = AnalyticsProcessor::new(records::schemas(namespace, &all).await?);
    let limits = claims_topology::config::AnalyticsConfig::default().runtime;
    // As many rows in a batch as the product has there.
    let (rows, batch_records) = records::rows(&mut processor, &all, &limits)?;
    let rows = Arc::new(rows);
    drop(all);
    let config = ClickHouseConfig {
        url: namespace.clickhouse(),
        database: namespace.name.clone(),
        ..ClickHouseConfig::default()
    };
    schema::apply(&config).await?;
    let client = schema::database_client(&config)
        .with_setting("async_insert", "0")
        .with_setting("optimize_on_insert", "0");
    let insert = |range: Range<usize>| insert(client.clone(), Arc::clone(&rows), range);
    pump::pump(namespace, batch_records, BATCHES_IN_FLIGHT, insert).await
}

async fn insert(client: clickhouse::Client, rows: Arc<Vec<EventRow>>, range: Range<usize>) -> Result<()> {
    let statement = schema::insert_statement();
    let mut insert = client.insert_formatted_with(statement).buffered_with_capacity(CHUNK_BYTES);
    for row in rows.get(range).context("more records than rows")? {
        if insert.buf_len() + row.encoded().len() > CHUNK_BYTES {
            insert.flush().await?;
        }
        insert.write_buffered(row.encoded());
    }
    Ok(insert.end().await?)
}
