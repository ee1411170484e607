//! One closed batch on its way: its dead letters, then its rows, with retries and bisection.

use crate::{
    Batch, Origin, PartitionRange, RuntimeSettings, Sink, SinkError,
    arena::Arena,
    dead_letter::{DeadLetter, DeadLetterError, DeadLetterProducer, REASON_SINK_REFUSED},
    pipeline::ClosedBatch,
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a finished delivery reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Reasons of the dead letters written, with their numbers.
    pub dead_letters: Vec<(&'static str, u64)>,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Why the sink refused a record given once more.
    pub refused_again: Option<String>,
    /// The memory that held the batch's records.
    pub spent: Arena,
}

/// Why a batch could not be delivered. Ends the stage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("{0}")]
    Fatal(String),
    #[error("gave up after {after_ms} ms (`sink_retry_deadline_ms`) and {attempts} attempts: {last}")]
    Deadline { after_ms: u64, attempts: u32, last: String },
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
}

/// Partitions taken away while a batch is under way. Their next owner reads the same records: what the batch still
/// holds of them must not be written again, behind what that owner has written since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone(Arc<Mutex<Vec<i32>>>);

impl Gone {
    /// They are somebody else's from now on.
    pub fn add(&self, partitions: &[i32]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(partitions);
    }

    /// Whether this one is somebody else's.
    pub fn contains(&self, partition: i32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }

    fn forget_in<R>(&self, batch: &mut Batch<R>) {
        let partitions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !partitions.is_empty() {
            batch.forget(&partitions);
        }
    }
}

/// What deliveries of one stage share.
pub(crate) struct Delivery<'a, S> {
    pub sink: &'a S,
    pub dead_letters: &'a DeadLetterProducer,
    pub settings: &'a RuntimeSettings,
    /// Hears of every failed attempt that will be repeated.
    pub waiting: &'a (dyn Fn(String) + Sync),
    /// What the batch has no business with any more.
    pub gone: &'a Gone,
}

impl<S: Sink> Delivery<'_, S> {
    /// Returns when everything of the batch is durable, in the sink or as dead letters.
    pub async fn deliver(&self, closed: ClosedBatch<S::Row>) -> Result<Delivered, DeliveryError> {
        let ClosedBatch { batch, arena, dead_letters, retry, .. } = closed;
        let mut delivered = Delivered::default();
        self.bury(&dead_letters, &mut delivered).await?;
        drop(dead_letters);
        if batch.rows.is_empty() {
            delivered.spent = arena;
            return Ok(delivered);
        }
        let mut refused = Vec::new();
        // Parts still to be written, the first one on top: rows stay in their order.
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let Some(detail) = self.write(&mut part, &mut delivered).await? else { continue };
            (self.waiting)(format!("{} rows were refused; looking for the bad ones", part.rows.len()));
            match split(part) {
                Ok((left, right)) => {
                    parts.push(right);
                    parts.push(left);
                }
                Err(part) => {
                    let origins = refused_records(self.sink, &part);
                    refused.extend(origins.into_iter().map(|origin| (origin, detail.clone())));
                }
            }
        }
        if retry.is_some() {
            delivered.refused_again = refused.pop().map(|(_, detail)| detail);
        } else if !refused.is_empty() {
            let max_bytes = self.settings.max_dead_letter_payload_bytes;
            let kept = arena.by_origin();
            let letters: Vec<_> = refused
                .into_iter()
                .filter_map(|(origin, detail)| {
                    Some(DeadLetter::of_kept(kept.get(&origin)?, REASON_SINK_REFUSED, detail, max_bytes))
                })
                .collect();
            self.bury(&letters, &mut delivered).await?;
        }
        delivered.spent = arena;
        Ok(delivered)
    }

    async fn bury(&self, letters: &[DeadLetter], delivered: &mut Delivered) -> Result<(), DeliveryError> {
        self.dead_letters.write_all(letters, self.waiting).await?;
        for letter in letters {
            match delivered.dead_letters.iter_mut().find(|(reason, _)| *reason == letter.reason) {
                Some((_, count)) => *count += 1,
                None => delivered.dead_letters.push((letter.reason, 1)),
            }
        }
        Ok(())
    }

    /// Writes a batch, repeating it while the sink says that it may go through later. `Some` is the reason of a
    /// refusal for its content.
    async fn write(
        &self,
        batch: &mut Batch<S::Row>,
        delivered: &mut Delivered,
    ) -> Result<Option<String>, DeliveryError> {
        let mut backoff = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.settings.sink_retry_min_backoff_ms))
            .with_max_delay(Duration::from_millis(self.settings.sink_retry_max_backoff_ms))
            .without_max_times()
            .with_jitter()
            .build();
        let begun = Instant::now();
        let deadline = Duration::from_millis(self.settings.sink_retry_deadline_ms);
        loop {
            // Before every try: the last one may have taken until long after the partitions went.
            self.gone.forget_in(batch);
            if batch.rows.is_empty() {
                return Ok(None);
            }
            let error = match self.sink.write(batch).await {
                Ok(()) => return Ok(None),
                Err(SinkError::Poison(detail)) => return Ok(Some(detail)),
                Err(SinkError::Fatal(detail)) => return Err(DeliveryError::Fatal(detail)),
                Err(SinkError::Transient(detail)) => detail,
            };
            let pause = backoff.next().unwrap_or_default();
            if begun.elapsed() + pause > deadline {
                return Err(DeliveryError::Deadline {
                    after_ms: begun.elapsed().as_millis() as u64,
                    attempts: batch.attempt,
                    last: error,
                });
            }
            (self.waiting)(error);
            tokio::time::sleep(pause).await;
            batch.attempt += 1;
            delivered.retries += 1;
        }
    }
}

/// Splits a refused batch near its middle, between two records where rows of one stand together. A batch whose rows
/// all stem from one record can't be split, and is given back: what they stand for is bad.
fn split<R>(mut batch: Batch<R>) -> Result<(Batch<R>, Batch<R>), Batch<R>> {
    let origins = &batch.origins;
    let half = origins.len() / 2;
    let is_border = |i: &usize| origins[*i] != origins[*i - 1];
    let border = (half.max(1)..origins.len()).find(is_border).or_else(|| (1..half).rev().find(is_border));
    let Some(border) = border else {
        return Err(batch);
    };
    let right_rows = batch.rows.split_off(border);
    let right_origins = batch.origins.split_off(border);
    let part = |rows, origins: Vec<Origin>, topic: String| Batch {
        id: batch.id,
        topic,
        rows,
        ranges: ranges_of(&origins),
        origins,
        attempt: 1,
        is_retry: batch.is_retry,
        membership: batch.membership.clone(),
    };
    let left = part(batch.rows, batch.origins, batch.topic.clone());
    Ok((left, part(right_rows, right_origins, batch.topic)))
}

/// Every record that the rows of a part stand for, in order.
fn refused_records<S: Sink>(sink: &S, part: &Batch<S::Row>) -> Vec<Origin> {
    let folded = part.rows.iter().flat_map(|row| sink.folded(row));
    let mut origins: Vec<Origin> = part.origins.iter().chain(folded).copied().collect();
    origins.sort_unstable();
    origins.dedup();
    origins
}

/// What these origins cover.
pub(crate) fn ranges_of(origins: &[Origin]) -> Vec<PartitionRange> {
    let mut sorted = origins.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
        .chunk_by(|a, b| a.partition == b.partition)
        .map(|chunk| PartitionRange {
            partition: chunk[0].partition,
            first_offset: chunk[0].offset,
            last_offset: chunk[chunk.len() - 1].offset,
            records: chunk.len() as u64,
        })
        .collect()
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
