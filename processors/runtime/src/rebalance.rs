//! What the loop does when the group gives it partitions or takes them away.
//!
//! Taken away: drain → commit → release (processor, sink) → answer the group. Given: look up committed offsets → open
//! (processor, sink) → answer the group. One after the other; librdkafka waits for each answer, and goes on sending
//! heartbeats meanwhile. A stop is a revocation of everything, without an answer. Every step has its deadline.

use crate::{
    Processor, Sink, SinkError, StageError,
    event_loop::{ABOUT_KAFKA, Letter, StageLoop, kafka_error},
    kafka::{self, RebalanceEvent, Severity},
    pipeline::{AssignError, LogStart},
    worker::{Found, LookedUp},
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use rdkafka::{consumer::Consumer as _, error::KafkaResult};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

/// Committing and releasing may take this long after a drain …
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// … and this long when the process stops.
const STOP_RELEASE_TIMEOUT: Duration = Duration::from_millis(400);
/// A refused commit is repeated after this long.
const COMMIT_RETRY: Duration = Duration::from_millis(50);
/// Committed offsets are asked for this long before the stage gives up …
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// … with this long between two tries.
const LOOK_UP_RETRY: Duration = Duration::from_millis(500);

/// Where the answer to the group stands.
#[derive(Debug, Default)]
pub(crate) struct Rebalancing {
    queue: VecDeque<RebalanceEvent>,
    step: Option<Step>,
    /// What the group waits for an answer to, oldest first.
    unanswered: VecDeque<RebalanceEvent>,
    /// Makes the sink ready for its partitions.
    assigning: Option<AbortHandle>,
    /// Per partition, the start of its log where older records are done without.
    begins_at: BTreeMap<i32, i64>,
}

#[derive(Debug)]
enum Step {
    Draining { leaving: Leaving, deadline: Instant },
    Committing { leaving: Leaving, deadline: Instant, retry_at: Instant },
    Releasing { leaving: Leaving, deadline: Instant, is_released: bool },
    LookingUp { partitions: Vec<i32>, asked: bool, since: Instant, retry_at: Instant },
    Opening { found: Vec<Found>, is_ready: bool },
}

/// Partitions on their way out.
#[derive(Debug)]
struct Leaving {
    partitions: Vec<i32>,
    /// The group has given them to others already: nothing of them counts any more.
    lost: bool,
    is_stop: bool,
}

impl Rebalancing {
    pub fn push(&mut self, event: RebalanceEvent) {
        self.unanswered.push_back(event.clone());
        self.queue.push_back(event);
    }

    /// What the group still waits for an answer to. A member that never gives it can't leave the group: it would keep
    /// its partitions, and nobody would read them.
    pub fn take_unanswered(&mut self) -> VecDeque<RebalanceEvent> {
        std::mem::take(&mut self.unanswered)
    }

    /// A stop begins: partitions on their way out go with all others, in one drain under one deadline. What the group
    /// waits for is answered at the end.
    fn join_stop(&mut self) {
        match self.step.take() {
            Some(Step::Draining { leaving, .. } | Step::Committing { leaving, .. }) if !leaving.lost => {}
            Some(Step::Releasing { leaving, deadline, is_released }) => {
                let deadline = deadline.min(Instant::now() + STOP_RELEASE_TIMEOUT);
                self.step = Some(Step::Releasing { leaving, deadline, is_released });
            }
            step => self.step = step,
        }
    }

    /// Where the log of a partition begins, if older records are done without.
    pub fn begins_at(&self, partition: i32) -> Option<i64> {
        self.begins_at.get(&partition).copied()
    }

    /// The stage ends: the sink needs no partitions any more, and whoever comes next may want what it holds.
    pub fn abort(&mut self) {
        if let Some(assigning) = self.assigning.take() {
            assigning.abort();
        }
    }

    pub fn sink_released(&mut self) {
        if let Some(Step::Releasing { is_released, .. }) = &mut self.step {
            *is_released = true;
        }
    }

    /// Whether a partition is on its way out: no more records of it are taken.
    #[inline]
    pub fn is_leaving(&self, partition: i32) -> bool {
        match &self.step {
            None => false,
            Some(
                Step::Draining { leaving, .. }
                | Step::Committing { leaving, .. }
                | Step::Releasing { leaving, .. },
            ) => leaving.partitions.contains(&partition),
            Some(_) => false,
        }
    }
}

impl<P, S> StageLoop<P, S>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    /// A stop was asked for: no more records are taken.
    pub(crate) fn begin_stop(&mut self) {
        if !self.stopping {
            self.rebalancing.join_stop();
        }
        self.stopping = true;
        self.stop_begun.get_or_insert_with(Instant::now);
        self.monitor.stopping = true;
    }

    /// Goes on with the current rebalance, if there is one. True when a stop has drained and released everything.
    pub(crate) fn advance_rebalance(&mut self) -> Result<bool, StageError> {
        loop {
            match self.rebalancing.step.take() {
                Some(step) => match self.advance(step)? {
                    Progress::Stopped => return Ok(true),
                    Progress::Waiting(step) => {
                        self.rebalancing.step = Some(step);
                        return Ok(false);
                    }
                    Progress::Next(step) => self.rebalancing.step = Some(step),
                    Progress::Done => {}
                },
                None if self.stopping => {
                    let partitions = self.pipeline.ledger().partitions();
                    let step = self.drain(Leaving { partitions, lost: false, is_stop: true })?;
                    self.rebalancing.step = Some(step);
                }
                None => match self.rebalancing.queue.pop_front() {
                    None => return Ok(false),
                    Some(event) => self.rebalancing.step = Some(self.begin(event)?),
                },
            }
        }
    }

    fn begin(&mut self, event: RebalanceEvent) -> Result<Step, StageError> {
        let name = self.pipeline.name();
        match event {
            RebalanceEvent::Revoke { partitions, lost } => {
                tracing::info!(processor = name, ?partitions, lost, "partitions are taken away");
                self.monitor.metrics.rebalance(if lost { "lost" } else { "revoke" });
                self.drain(Leaving { partitions, lost, is_stop: false })
            }
            RebalanceEvent::Assign(partitions) => {
                tracing::info!(processor = name, ?partitions, "partitions are assigned");
                self.monitor.metrics.rebalance("assign");
                let now = Instant::now();
                Ok(Step::LookingUp { partitions, asked: false, since: now, retry_at: now })
            }
        }
    }

    fn drain(&mut self, leaving: Leaving) -> Result<Step, StageError> {
        let touches_open_batch =
            leaving.partitions.iter().any(|&partition| self.pipeline.ledger().is_outstanding(partition));
        if !leaving.lost && touches_open_batch {
            self.close_batch()?;
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::is_asked_for(crate::sabotage::SKIP_DRAIN) {
            let batches: Vec<u64> =
                self.in_flight.keys().copied().chain(self.closed.iter().map(|c| c.batch.id)).collect();
            for batch_id in batches {
                self.pipeline.complete(batch_id).map_err(|e| self.processor_error(&e))?;
            }
        }
        let timeout = Duration::from_millis(self.config.settings.drain_timeout_ms);
        Ok(Step::Draining { leaving, deadline: Instant::now() + timeout })
    }

    fn advance(&mut self, step: Step) -> Result<Progress, StageError> {
        let now = Instant::now();
        match step {
            Step::Draining { mut leaving, deadline } => {
                leaving.lost |= self.consumer.assignment_lost();
                let is_outstanding = |p: &i32| self.pipeline.ledger().is_outstanding(*p);
                let is_drained = !leaving.partitions.iter().any(is_outstanding);
                if leaving.lost {
                    return self.release(leaving);
                }
                if !is_drained && now < deadline {
                    return Ok(Progress::Waiting(Step::Draining { leaving, deadline }));
                }
                if !is_drained {
                    tracing::warn!(
                        processor = self.pipeline.name(),
                        "batches weren't written within the drain timeout; their records will be read again"
                    );
                }
                let timeout = if leaving.is_stop { STOP_RELEASE_TIMEOUT } else { RELEASE_TIMEOUT };
                Ok(Progress::Next(Step::Committing { leaving, deadline: now + timeout, retry_at: now }))
            }
            Step::Committing { leaving, deadline, retry_at } => {
                self.commit_leaving(leaving, deadline, retry_at)
            }
            Step::Releasing { leaving, deadline, is_released } => {
                if !is_released && now < deadline {
                    return Ok(Progress::Waiting(Step::Releasing { leaving, deadline, is_released }));
                }
                if leaving.is_stop {
                    return Ok(Progress::Stopped);
                }
                self.answer_leaving(&leaving)?;
                Ok(Progress::Done)
            }
            Step::LookingUp { .. } | Step::Opening { .. } if self.stopping => Ok(Progress::Done),
            Step::LookingUp { partitions, asked, since, retry_at } => {
                if partitions.is_empty() {
                    return self.open(Vec::new());
                }
                if !asked && now >= retry_at {
                    self.worker.look_up(partitions.clone());
                    return Ok(Progress::Waiting(Step::LookingUp {
                        partitions,
                        asked: true,
                        since,
                        retry_at,
                    }));
                }
                Ok(Progress::Waiting(Step::LookingUp { partitions, asked, since, retry_at }))
            }
            Step::Opening { found, is_ready: false } => {
                Ok(Progress::Waiting(Step::Opening { found, is_ready: false }))
            }
            Step::Opening { found, is_ready: true } => {
                let starts = self.take_partitions(&found)?;
                self.answer_assigned(&starts)?;
                Ok(Progress::Done)
            }
        }
    }

    fn commit_leaving(
        &mut self,
        leaving: Leaving,
        deadline: Instant,
        retry_at: Instant,
    ) -> Result<Progress, StageError> {
        let now = Instant::now();
        let is_over = now >= deadline || self.consumer.assignment_lost();
        if is_over {
            return self.release(leaving);
        }
        let mut next_try = retry_at;
        // Whoever has the partition next commits further: nothing of ours may come behind that.
        if !self.is_commit_outstanding && self.confirming.is_empty() && now >= retry_at {
            if !self.commit(|partition| leaving.partitions.contains(&partition)) {
                return self.release(leaving);
            }
            // If Kafka refuses this one, it is still committable then.
            next_try = now + COMMIT_RETRY;
        }
        Ok(Progress::Waiting(Step::Committing { leaving, deadline, retry_at: next_try }))
    }

    fn release(&mut self, leaving: Leaving) -> Result<Progress, StageError> {
        let partitions = &leaving.partitions;
        self.pipeline.revoke(partitions).map_err(|e| self.processor_error(&e))?;
        self.forget_undelivered(partitions);
        for &partition in partitions {
            self.parking.forget(partition);
            self.throttle.revoked(partition);
            self.ranges.revoked(partition);
            self.monitor.revoked(partition);
        }
        let (sink, mailbox, gone) = (Arc::clone(&self.sink), Arc::clone(&self.mailbox), partitions.clone());
        self.runtime.spawn(async move {
            sink.revoked(&gone).await;
            mailbox.post(Letter::SinkReleased);
        });
        let timeout = if self.stopping { STOP_RELEASE_TIMEOUT } else { RELEASE_TIMEOUT };
        Ok(Progress::Next(Step::Releasing {
            leaving,
            deadline: Instant::now() + timeout,
            is_released: false,
        }))
    }

    fn answer_leaving(&mut self, leaving: &Leaving) -> Result<(), StageError> {
        let topic = &self.config.topic;
        let resume: Vec<i32> =
            leaving.partitions.iter().copied().filter(|&p| self.pauses.revoked(p)).collect();
        if !resume.is_empty() {
            let _ = self.consumer.resume(&kafka::list(topic, resume));
        }
        let list = kafka::list(topic, leaving.partitions.iter().copied());
        self.rebalancing.unanswered.pop_front();
        kafka::answer_revocation(&self.consumer, &list)
            .map_err(|e| kafka_error("can't give up partitions", &e))
    }

    /// Kafka has told where the group stands.
    pub(crate) fn looked_up(&mut self, answer: KafkaResult<LookedUp>) -> Result<(), StageError> {
        // A stop may have come in between.
        let (partitions, since) = match self.rebalancing.step.take() {
            Some(Step::LookingUp { partitions, since, .. }) => (partitions, since),
            other => {
                self.rebalancing.step = other;
                return Ok(());
            }
        };
        match answer {
            Ok(LookedUp { topic_id, found }) => {
                self.refuse_another_topic(self.topic_id.as_deref(), topic_id.as_deref())?;
                for Found { note, .. } in &found {
                    self.refuse_another_topic(note.topic_id.as_deref(), topic_id.as_deref())?;
                }
                self.topic_id = topic_id;
                if let Progress::Next(step) = self.open(found)? {
                    self.rebalancing.step = Some(step);
                }
                Ok(())
            }
            Err(error) => {
                if let Severity::Final(detail) = kafka::severity(&error, &self.config, self.pipeline.name()) {
                    return Err(StageError::Kafka(detail));
                }
                if since.elapsed() >= LOOK_UP_TIMEOUT {
                    return Err(kafka_error("can't read the group's committed offsets", &error));
                }
                self.monitor.complain(ABOUT_KAFKA, format!("committed offsets: {error}"));
                let retry_at = Instant::now() + LOOK_UP_RETRY;
                self.rebalancing.step = Some(Step::LookingUp { partitions, asked: false, since, retry_at });
                Ok(())
            }
        }
    }

    /// The sink hears of the partitions first, so that a processor may know from it where it stands.
    fn open(&mut self, found: Vec<Found>) -> Result<Progress, StageError> {
        for &Found { partition, committed, low, high, .. } in &found {
            if committed.is_some_and(|offset| offset < low || offset > high) {
                let (topic, group) = (&self.config.topic, &self.config.group_id);
                let help = kafka::out_of_range_help(topic, group, self.pipeline.name());
                let at = committed.unwrap_or_default();
                return Err(StageError::Kafka(format!(
                    "partition {partition} is committed at {at}, but its log reaches from {low} to {high}. {help}"
                )));
            }
        }
        if found.is_empty() {
            return Ok(Progress::Next(Step::Opening { found, is_ready: true }));
        }
        let assigning = self.runtime.spawn(assign_sink(
            Arc::clone(&self.sink),
            found.iter().map(|found| found.partition).collect(),
            self.config.settings.clone(),
            Arc::clone(&self.mailbox),
        ));
        self.rebalancing.assigning = Some(assigning.abort_handle());
        Ok(Progress::Next(Step::Opening { found, is_ready: false }))
    }

    /// Opens the partitions and answers where reading begins in each.
    fn take_partitions(&mut self, found: &[Found]) -> Result<Vec<(i32, i64)>, StageError> {
        let mut starts = Vec::with_capacity(found.len());
        for &Found { partition, committed, ref note, low, high } in found {
            let log = LogStart { offset: low, is_accepted: note.begins_at == Some(low) };
            let start = self.pipeline.assign(partition, committed, log).map_err(|error| match error {
                AssignError::Processor(error) => self.processor_error(&error),
                AssignError::Removed { needed } => {
                    let (topic, name) = (&self.config.topic, self.pipeline.name());
                    StageError::Kafka(kafka::removed_help(topic, name, partition, needed, low))
                }
            })?;
            match log.is_accepted {
                true => self.rebalancing.begins_at.insert(partition, low),
                false => self.rebalancing.begins_at.remove(&partition),
            };
            if start < committed.unwrap_or(start) {
                tracing::info!(
                    processor = self.pipeline.name(),
                    partition,
                    from = start,
                    to = committed,
                    "restoring state; rows of these records are not written again"
                );
            }
            if let Some(replay) = note.replay.as_ref().filter(|replay| start < replay.until) {
                tracing::info!(
                    processor = self.pipeline.name(),
                    partition,
                    replay = replay.id,
                    from = start,
                    until = replay.until,
                    max_records_per_s = replay.max_records_per_s,
                    "replaying"
                );
            }
            self.throttle.assigned(partition, note.replay.clone(), start, self.now_ms());
            self.ranges.assigned(partition, start, committed);
            self.monitor.high(partition, high);
            starts.push((partition, start));
        }
        Ok(starts)
    }

    /// The sink is ready for the assigned partitions, or can't be.
    pub(crate) fn sink_ready(&mut self, result: Result<(), SinkError>) -> Result<(), StageError> {
        if let Err(error) = result {
            let detail = format!("not ready for its partitions: {error}");
            return Err(StageError::Sink { processor: self.pipeline.name(), detail });
        }
        if let Some(Step::Opening { is_ready, .. }) = &mut self.rebalancing.step {
            *is_ready = true;
        }
        Ok(())
    }

    fn answer_assigned(&mut self, starts: &[(i32, i64)]) -> Result<(), StageError> {
        let refused = |e| kafka_error("can't take partitions", &e);
        let list = kafka::list_at(&self.config.topic, starts.iter().copied()).map_err(refused)?;
        self.rebalancing.unanswered.pop_front();
        kafka::answer_assignment(&self.consumer, &list).map_err(refused)?;
        self.monitor.assigned_once = true;
        self.monitor.withdraw(ABOUT_KAFKA);
        self.monitor.progress();
        if !starts.is_empty() {
            self.topic_missing_since = None;
        }
        for &(partition, _) in starts {
            self.pauses.assigned(partition);
        }
        self.apply_pauses()
    }
}

enum Progress {
    Waiting(Step),
    Next(Step),
    Done,
    Stopped,
}

/// Tells the sink of its partitions, repeating it while that fails for passing reasons, under the sink's deadline.
async fn assign_sink<S: Sink>(
    sink: Arc<S>,
    partitions: Vec<i32>,
    settings: crate::RuntimeSettings,
    mailbox: Arc<crate::mailbox::Mailbox<Letter>>,
) {
    let mut backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(settings.sink_retry_min_backoff_ms))
        .with_max_delay(Duration::from_millis(settings.sink_retry_max_backoff_ms))
        .without_max_times()
        .with_jitter()
        .build();
    let tries = async {
        loop {
            match sink.assigned(&partitions).await {
                Err(SinkError::Transient(_)) => {
                    tokio::time::sleep(backoff.next().unwrap_or_default()).await;
                }
                result => return result,
            }
        }
    };
    let deadline = Duration::from_millis(settings.sink_retry_deadline_ms);
    let result = tokio::time::timeout(deadline, tries).await.unwrap_or_else(|_| {
        Err(SinkError::Transient(format!("no answer within {} ms", deadline.as_millis())))
    });
    mailbox.post(Letter::SinkReady(result));
}
