//! The half that does I/O: one `INSERT` per batch.
//!
//! Writing a batch again changes nothing that a view shows, whatever became of the first try and wherever its rows were
//! cut: the table keeps one row per version. The deduplication token only spares the table the second copy when a batch
//! that was written, but not acknowledged, is sent again.

use crate::{
    classify::{self, Class},
    metrics as names,
    row::EventRow,
    schema,
};
use claims_runtime::{Batch, Sink, SinkError};
use claims_topology::config::ClickHouseConfig;
use clickhouse::{Client, error::Error};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Batches written at the same time. They commute; two keep the server at work while the next batch is sent.
const MAX_BATCHES_IN_FLIGHT: usize = 2;

/// How much is compressed and sent at a time: as much as the `clickhouse` crate does by itself.
const CHUNK_BYTES: usize = 256 * 1024;

/// Writes batches of events into `event_log`.
pub struct ClickHouseSink {
    config: ClickHouseConfig,
    client: Client,
    statement: String,
    epoch: Uuid,
    send_timeout: Duration,
    end_timeout: Duration,
}

impl std::fmt::Debug for ClickHouseSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseSink").field("config", &self.config).field("epoch", &self.epoch).finish()
    }
}

impl ClickHouseSink {
    /// A sink for the configured database, whose schema must have been applied. Each sink is a replay epoch of its own.
    pub fn new(config: &ClickHouseConfig) -> Self {
        let client = schema::database_client(config)
            // A batch is kept until it is in the table: no queue on the server's side may answer for it.
            .with_setting("async_insert", "0")
            // The views finalise in any case: looking for copies within each batch would be work for nothing.
            .with_setting("optimize_on_insert", "0");
        Self {
            client,
            statement: schema::insert_statement(),
            epoch: Uuid::new_v4(),
            send_timeout: Duration::from_millis(config.send_timeout_ms),
            end_timeout: Duration::from_millis(config.end_timeout_ms),
            config: config.clone(),
        }
    }

    async fn insert(&self, batch: &Batch<EventRow>) -> Result<(), Error> {
        // Its buffer, not `InsertFormatted::send`: when the server answers before it has everything, that one takes the
        // answer for success and drops the rest.
        let mut insert = self
            .client
            .insert_formatted_with(self.statement.as_str())
            .with_setting("insert_deduplication_token", deduplication_token(self.epoch, batch))
            .with_timeouts(Some(self.send_timeout), Some(self.end_timeout))
            .buffered_with_capacity(CHUNK_BYTES);
        for row in &batch.rows {
            if insert.buf_len() + row.encoded().len() > CHUNK_BYTES {
                insert.flush().await?;
            }
            insert.write_buffered(row.encoded());
        }
        insert.end().await
    }

    /// Turns a refusal into what the runtime shall do. Before rows are called bad, the table is looked at: if somebody
    /// altered it, every row would look bad.
    async fn refusal(&self, error: &Error) -> (Class, SinkError) {
        let class = classify::classify(error);
        if class == Class::Poison
            && let Err(error) = schema::verify(&self.config, &self.client).await
        {
            let class = if error.is_transient() { Class::Transient } else { Class::Fatal };
            return (class, class.with_detail(error.to_string()));
        }
        let detail = classify::describe(error);
        match class {
            Class::Fatal => (
                class,
                SinkError::Fatal(format!(
                    "{detail}; the tables of database {} are made at start: start again, and replay the topic if they \
                     were dropped",
                    self.config.database
                )),
            ),
            _ => (class, class.with_detail(detail)),
        }
    }
}

impl Sink for ClickHouseSink {
    type Row = EventRow;

    async fn write(&self, batch: &Batch<EventRow>) -> Result<(), SinkError> {
        let started = Instant::now();
        let result = self.insert(batch).await;
        let status = if result.is_ok() { names::STATUS_OK } else { names::STATUS_ERROR };
        metrics::histogram!(names::INSERT_DURATION_SECONDS, names::LABEL_STATUS => status)
            .record(started.elapsed().as_secs_f64());
        metrics::counter!(
            names::PROJECTION_UPDATES_TOTAL,
            names::LABEL_SERVICE => crate::NAME,
            names::LABEL_PROJECTION_TYPE => schema::EVENT_LOG,
            names::LABEL_STATUS => status
        )
        .increment(batch.rows.len() as u64);
        let Err(error) = result else { return Ok(()) };
        let (class, refusal) = self.refusal(&error).await;
        let code = classify::error_code(&error).unwrap_or(0).to_string();
        metrics::counter!(
            names::INSERT_ERRORS_TOTAL,
            names::LABEL_CLASS => class.as_str(),
            names::LABEL_CODE => code
        )
        .increment(1);
        Err(refusal)
    }

    fn max_batches_in_flight(&self) -> usize {
        MAX_BATCHES_IN_FLIGHT
    }
}

/// A name for a batch: the same for every try of it, another for any other batch.
///
/// It holds the replay epoch (one run of the process): after rows were deleted from the table, a replay with the same
/// boundaries must not be taken for a second try. And it holds a digest of every row's coordinates and event: parts of a
/// bisected batch, or a topic that was made anew under the same name, are other batches.
pub fn deduplication_token(epoch: Uuid, batch: &Batch<EventRow>) -> String {
    let mut digest = Sha256::new();
    for (row, origin) in batch.rows.iter().zip(&batch.origins) {
        let mut name = [0; 28];
        name[..4].copy_from_slice(&origin.partition.to_be_bytes());
        name[4..12].copy_from_slice(&origin.offset.to_be_bytes());
        name[12..].copy_from_slice(row.event_id().as_bytes());
        digest.update(name);
    }
    let mut token = format!("{epoch}:{}", batch.topic);
    for range in &batch.ranges {
        let _ = write!(token, ":{}/{}-{}", range.partition, range.first_offset, range.last_offset);
    }
    token.push(':');
    for byte in digest.finalize().iter().take(16) {
        let _ = write!(token, "{byte:02x}");
    }
    token
}

#[cfg(test)]
mod wire_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use claims_runtime::{Origin, testing};
    use claims_schemas::{
        Timestamp,
        view::{DataView, EventView},
    };
    use proptest::prelude::*;

    fn row(origin: Origin, event_id: u128) -> (Origin, EventRow) {
        let event = EventView {
            tenant_id: "t",
            event_id: Uuid::from_u128(event_id),
            claim_id: "c",
            version: 1,
            occurred_at: Timestamp(0),
            recorded_at: Timestamp(0),
            correlation_id: "",
            causation_id: None,
            user_id: None,
            source: None,
            data: DataView::ClaimClosed { closed_by: None, reason: None },
        };
        (origin, EventRow::new(&event, origin, 0, &mut vec![]).expect("storable"))
    }

    /// Rows of several partitions, offsets rising with gaps, in the order in which a consumer got them.
    fn rows() -> impl Strategy<Value = Vec<(Origin, u128)>> {
        proptest::collection::vec((0..4_i32, 1..5_i64, any::<u128>()), 1..40).prop_map(|steps| {
            let mut next = [0_i64; 4];
            steps
                .into_iter()
                .map(|(partition, step, id)| {
                    let offset = &mut next[partition as usize];
                    *offset += step;
                    (Origin { partition, offset: *offset }, id)
                })
                .collect()
        })
    }

    fn batch(id: u64, rows: &[(Origin, u128)]) -> Batch<EventRow> {
        testing::batch(id, rows.iter().map(|&(origin, id)| row(origin, id)))
    }

    proptest! {
        #[test]
        fn every_try_of_a_batch_has_one_token(rows in rows(), epoch: u128, id: u64, attempt: u32) {
            let epoch = Uuid::from_u128(epoch);
            let mut again = batch(id, &rows);
            again.attempt = attempt;
            prop_assert_eq!(deduplication_token(epoch, &batch(1, &rows)), deduplication_token(epoch, &again));
        }

        #[test]
        fn other_batches_have_other_tokens(rows in rows(), cut: prop::sample::Index, epoch: u128) {
            let epoch = Uuid::from_u128(epoch);
            let whole = deduplication_token(epoch, &batch(1, &rows));
            let mut others = vec![];
            // Every cut of it, as when a batch is bisected or a replay has other boundaries.
            let cut = cut.index(rows.len());
            for part in [&rows[..cut], &rows[cut..]] {
                if !part.is_empty() && part.len() < rows.len() {
                    others.push(deduplication_token(epoch, &batch(1, part)));
                }
            }
            // The same coordinates in a topic that was made anew.
            let mut anew = rows.clone();
            anew[cut].1 = anew[cut].1.wrapping_add(1);
            others.push(deduplication_token(epoch, &batch(1, &anew)));
            // The same records in another run of the process.
            others.push(deduplication_token(Uuid::from_u128(epoch.as_u128() ^ 1), &batch(1, &rows)));
            for (i, token) in others.iter().enumerate() {
                prop_assert_ne!(token, &whole);
                prop_assert!(!others[..i].contains(token));
            }
        }
    }
}
