//! What the loop does with closed batches: hands them to the sink, waits for its answer, and holds back records while
//! too much is on its way.

use crate::{
    Processor, Sink, StageError,
    delivery::{Delivered, Delivery, DeliveryError, Gone},
    event_loop::{ABOUT_SINK, Letter, StageLoop},
    ledger::Committable,
    mailbox::Mailbox,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

/// Above the watermark the loop first only stops taking records; pausing makes librdkafka drop what it has fetched and
/// fetch it again, so that comes when the sink takes longer than this.
const HOLD_BEFORE_PAUSE: Duration = Duration::from_millis(250);

/// A batch handed to the sink.
pub(crate) struct InFlight {
    records: u64,
    held_bytes: usize,
    oldest_append_ms: i64,
    dispatched: Instant,
    task: AbortHandle,
    gone: Gone,
}

impl<P, S> StageLoop<P, S>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    /// Closes the open batch and queues it for the sink.
    pub(crate) fn close_batch(&mut self) -> Result<(), StageError> {
        if let Some(closed) = self.pipeline.close().map_err(|e| self.processor_error(&e))? {
            let batch = &closed.batch;
            self.monitor.inconsistent(self.ranges.sent(batch.id, &batch.ranges, &batch.origins));
            self.queued_bytes += closed.held_bytes;
            #[cfg(feature = "sabotage")]
            let batch_id = closed.batch.id;
            self.closed.push_back(closed);
            self.dispatch();
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is_asked_for(crate::sabotage::COMMIT_BEFORE_FLUSH) {
                self.pipeline.complete(batch_id).map_err(|e| self.processor_error(&e))?;
            }
        }
        Ok(())
    }

    pub(crate) fn max_in_flight(&self) -> usize {
        self.sink.max_batches_in_flight().max(1)
    }

    pub(crate) fn dispatch(&mut self) {
        while self.in_flight.len() < self.max_in_flight() {
            let Some(mut closed) = self.closed.pop_front() else { return };
            let batch_id = closed.batch.id;
            let (records, held_bytes, oldest_append_ms) =
                (closed.records, closed.held_bytes, closed.oldest_append_ms);
            let (sink, dead_letters) = (Arc::clone(&self.sink), Arc::clone(&self.dead_letters));
            let settings = self.config.settings.clone();
            let gone = Gone::default();
            let gone_meanwhile = gone.clone();
            closed.batch.membership = self.membership.of_batch(gone.clone());
            let mut answer = Answer { mailbox: Arc::clone(&self.mailbox), batch_id, is_given: false };
            let task = self.runtime.spawn(async move {
                let mailbox = Arc::clone(&answer.mailbox);
                let waiting = move |what| mailbox.post(Letter::Waiting { batch_id, what });
                let delivery = Delivery {
                    sink: &*sink,
                    dead_letters: &dead_letters,
                    settings: &settings,
                    waiting: &waiting,
                    gone: &gone_meanwhile,
                };
                let result = delivery.deliver(closed).await;
                answer.give(result);
            });
            let in_flight = InFlight {
                records,
                held_bytes,
                oldest_append_ms,
                dispatched: Instant::now(),
                task: task.abort_handle(),
                gone,
            };
            self.in_flight.insert(batch_id, in_flight);
        }
    }

    pub(crate) fn delivered(
        &mut self,
        batch_id: u64,
        result: Result<Delivered, DeliveryError>,
    ) -> Result<(), StageError> {
        let Some(batch) = self.in_flight.remove(&batch_id) else { return Ok(()) };
        self.queued_bytes -= batch.held_bytes;
        let delivered = result.map_err(|error| match error {
            DeliveryError::DeadLetter(error) => StageError::Kafka(error.to_string()),
            error => StageError::Sink { processor: self.pipeline.name(), detail: error.to_string() },
        })?;
        self.monitor.withdraw(ABOUT_SINK);
        self.monitor.completed(batch.records, batch.oldest_append_ms, batch.dispatched, &delivered);
        self.ranges.acknowledged(batch_id);
        self.pipeline.give_back(delivered.spent);
        self.pipeline.complete(batch_id).map_err(|e| self.processor_error(&e))?;
        self.retry_delivered(batch_id, delivered.refused_again);
        self.dispatch();
        Ok(())
    }

    /// Kafka has taken these commits.
    pub(crate) fn note_commits(&mut self, commits: &[Committable]) {
        for commit in commits {
            // One of an older assignment counts for nothing.
            if self.pipeline.ledger().epoch(commit.partition) == Some(commit.epoch) {
                self.monitor.inconsistent(self.ranges.committed(commit.partition, commit.next_offset));
            }
        }
        self.pipeline.committed(commits);
    }

    /// Drops what stems from partitions that are gone: from batches not yet written, and from those under way before
    /// they are tried again.
    pub(crate) fn forget_undelivered(&mut self, partitions: &[i32]) {
        self.in_flight.values().for_each(|batch| batch.gone.add(partitions));
        self.closed.iter_mut().for_each(|closed| closed.forget(partitions));
        self.forget_retry(partitions);
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.queued_bytes + self.pipeline.open_bytes()
    }

    pub(crate) fn apply_back_pressure(&mut self) -> Result<(), StageError> {
        let held = self.held_bytes();
        let settings = &self.config.settings;
        let resume_below = settings.resume_below_bytes.min(settings.pause_above_bytes / 2);
        if self.holding_since.is_some() && held <= resume_below {
            self.holding_since = None;
        } else if self.holding_since.is_none() && held >= settings.pause_above_bytes {
            self.holding_since = Some(Instant::now());
        }
        let must_pause = self.holding_since.is_some_and(|since| since.elapsed() >= HOLD_BEFORE_PAUSE);
        if must_pause || self.holding_since.is_none() {
            self.pauses.set_back_pressure(must_pause);
        }
        self.apply_pauses()
    }

    /// Gives up what the sink has in hand; nothing of it is acknowledged.
    pub(crate) fn abort_in_flight(&mut self) {
        std::mem::take(&mut self.in_flight).into_values().for_each(|batch| batch.task.abort());
    }
}

/// Answers for a batch even if the sink's task panics.
struct Answer {
    mailbox: Arc<Mailbox<Letter>>,
    batch_id: u64,
    is_given: bool,
}

impl Answer {
    fn give(&mut self, result: Result<Delivered, DeliveryError>) {
        self.is_given = true;
        self.mailbox.post(Letter::Delivered { batch_id: self.batch_id, result });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_given {
            self.give(Err(DeliveryError::Fatal("the write panicked or was given up".into())));
        }
    }
}
