//! Consume, decode, a row per record, one INSERT per batch.

use super::consume::{Work, consume};
use crate::ready_row::ReadyRow;
use anyhow::{Context, Result};
use claims_analytics::{row::Columns, schema};
use claims_runtime::Origin;
use claims_schemas::SchemaCache;
use claims_topology::config::ClickHouseConfig;
use claims_verifier::namespace::Namespace;
use rdkafka::{Message, message::BorrowedMessage};

struct Rows {
    schemas: SchemaCache,
    rows: Vec<ReadyRow>,
}

impl Work for Rows {
    type Row = ReadyRow;

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let event = self.schemas.decode(message.payload().context("a tombstone")?)?;
        let origin = Origin { partition: message.partition(), offset: message.offset() };
        self.rows.push(ReadyRow::new(event, origin, message.timestamp().to_millis().unwrap_or(0))?);
        Ok(())
    }

    fn batch(&mut self) -> Vec<ReadyRow> {
        std::mem::take(&mut self.rows)
    }
}

/// Into the product's own table.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let config = ClickHouseConfig {
        url: namespace.clickhouse(),
        database: namespace.name.clone(),
        ..ClickHouseConfig::default()
    };
    schema::apply(&config).await?;
    let client = schema::database_client(&config).with_setting("async_insert", "0");
    let work = Rows { schemas: super::schemas(namespace).await?, rows: Vec::new() };
    consume(namespace, work, async |rows: Vec<ReadyRow>| {
        let mut insert = client.insert::<Columns<'static>>(schema::EVENT_LOG).await?;
        for row in &rows {
            insert.write(&row.columns()).await?;
        }
        Ok(insert.end().await?)
    })
    .await
}
