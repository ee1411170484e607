//! Consume, and insert ready rows with the `clickhouse` crate.

use super::{pump, records};
use crate::ready_row::ReadyRow;
use anyhow::{Context, Result};
use claims_analytics::{AnalyticsProcessor, row::Columns, schema};
use claims_runtime::OwnedRecord;
use claims_schemas::SchemaCache;
use claims_topology::config::ClickHouseConfig;
use claims_verifier::namespace::Namespace;
use std::{ops::Range, sync::Arc};

/// As many as the product's sink has.
const BATCHES_IN_FLIGHT: usize = 2;

/// Into the product's own table.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let schemas = records::schemas(namespace, &all).await?;
    let mut processor = AnalyticsProcessor::new(schemas.clone());
    let limits = claims_topology::config::AnalyticsConfig::default().runtime;
    // As many rows in a batch as the product has there.
    let (_, batch_records) = records::rows(&mut processor, &all, &limits)?;
    let rows: Result<Vec<Option<ReadyRow>>> = all.iter().map(|record| ready_row(&schemas, record)).collect();
    let rows = Arc::new(rows?.into_iter().flatten().collect());
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

/// `None` for a tombstone.
fn ready_row(schemas: &SchemaCache, record: &OwnedRecord) -> Result<Option<ReadyRow>> {
    let Some(value) = &record.payload else { return Ok(None) };
    let place = || format!("{:?}", record.origin);
    let event = schemas.decode(value).with_context(place)?;
    Ok(Some(ReadyRow::new(event, record.origin, record.appended_at_ms).with_context(place)?))
}

async fn insert(client: clickhouse::Client, rows: Arc<Vec<ReadyRow>>, range: Range<usize>) -> Result<()> {
    let mut insert = client.insert::<Columns<'static>>(schema::EVENT_LOG).await?;
    for row in rows.get(range).context("more records than rows")? {
        insert.write(&row.columns()).await?;
    }
    Ok(insert.end().await?)
}
