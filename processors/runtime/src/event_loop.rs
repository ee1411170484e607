//! The one loop that owns all consumer state: consumer, processor, open batch and ledger. It runs on a thread of its
//! own; whatever waits (the sink, dead letters, the registry, blocking requests to Kafka) happens elsewhere and answers
//! with a [`Letter`].

use crate::{
    OwnedRecord, Processor, Record, ResolveError, SchemaResolver, Sink, SinkError, StageConfig, StageError,
    dead_letter::DeadLetterProducer,
    delivery::{Delivered, DeliveryError},
    dispatch::InFlight,
    health::StageHealth,
    kafka::{self, KafkaConsumer, LookupClient, RebalanceEvent, Severity},
    ledger::Committable,
    mailbox::Mailbox,
    membership::{self, Membership},
    monitor::{Load, Monitor},
    parking::Parking,
    pauses::{Pauses, Standstill},
    pipeline::{ClosedBatch, Offered, Pipeline, PipelineLimits},
    ranges::RangeChecker,
    rebalance::Rebalancing,
    record::Origin,
    retry::{RetryLetter, Retrying},
    throttle::Throttle,
    worker::{LookedUp, Watermarks, Worker},
};
use rdkafka::{
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// Records taken between two looks at the clock and the mailbox.
const BURST_RECORDS: usize = 1_000;
/// The loop looks around at least this often. Only timers need it: everything else wakes the loop.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// A stop is over after about this long, by its default `drain_timeout_ms` …
const STOP_LIMIT: Duration = Duration::from_millis(9_300);
/// … and leaving the group may take so long of it, at least and at most.
const LEAVE_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// A topic that was made a moment ago may not be known to every broker yet.
const MISSING_TOPIC_GRACE: Duration = Duration::from_secs(15);

pub(crate) const ABOUT_SINK: &str = "sink";
pub(crate) const ABOUT_KAFKA: &str = "kafka";
pub(crate) const ABOUT_COMMIT: &str = "commit";
const ABOUT_REGISTRY: &str = "schema registry";

/// What reaches the loop from elsewhere.
#[derive(Debug)]
pub(crate) enum Letter {
    Stop,
    Rebalance(RebalanceEvent),
    LookedUp(KafkaResult<LookedUp>),
    SinkReady(Result<(), SinkError>),
    SinkReleased,
    Committed { commits: Vec<Committable>, sent: Instant, result: KafkaResult<()> },
    Confirm(membership::Reply),
    Confirmed { sent: Instant, result: KafkaResult<()> },
    Watermarks(KafkaResult<Watermarks>),
    Delivered { batch_id: u64, result: Result<Delivered, DeliveryError> },
    Waiting { batch_id: u64, what: String },
    SchemaAnswer { schema_id: u32, answer: Result<(), ResolveError> },
    RegistryAway(String),
    Retry(Box<RetryLetter>),
}

/// The state of one stage.
pub(crate) struct StageLoop<P: Processor, S> {
    pub(crate) config: StageConfig,
    pub(crate) pipeline: Pipeline<P>,
    pub(crate) sink: Arc<S>,
    resolver: Arc<dyn SchemaResolver>,
    pub(crate) dead_letters: Arc<DeadLetterProducer>,
    pub(crate) consumer: Arc<KafkaConsumer>,
    pub(crate) worker: Worker,
    pub(crate) mailbox: Arc<Mailbox<Letter>>,
    pub(crate) runtime: Handle,
    pub(crate) closed: VecDeque<ClosedBatch<P::Row>>,
    pub(crate) in_flight: BTreeMap<u64, InFlight>,
    pub(crate) queued_bytes: usize,
    pub(crate) rebalancing: Rebalancing,
    pub(crate) pauses: Pauses,
    pub(crate) parking: Parking,
    pub(crate) retrying: Option<Retrying>,
    pub(crate) ranges: RangeChecker,
    pub(crate) monitor: Monitor,
    pub(crate) stopping: bool,
    pub(crate) stop_begun: Option<Instant>,
    pub(crate) is_commit_outstanding: bool,
    pub(crate) membership: Membership,
    /// Who waits for the group's word that this is a member.
    pub(crate) confirming: Vec<membership::Reply>,
    pub(crate) last_commit: Instant,
    pub(crate) is_watermark_outstanding: bool,
    pub(crate) last_watermarks: Instant,
    /// The id of the topic that is read, once it is known.
    pub(crate) topic_id: Option<String>,
    pub(crate) throttle: Throttle,
    pub(crate) holding_since: Option<Instant>,
    pub(crate) topic_missing_since: Option<Instant>,
    started: Instant,
}

impl<P, S> StageLoop<P, S>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    pub fn new(
        config: StageConfig,
        processor: P,
        sink: Arc<S>,
        resolver: Arc<dyn SchemaResolver>,
        mailbox: Arc<Mailbox<Letter>>,
        health: Arc<StageHealth>,
    ) -> Result<Self, StageError> {
        let name = processor.name();
        let consumer = kafka::consumer(&config, &mailbox).map_err(|e| kafka_error("no consumer", &e))?;
        let lookups = LookupClient::new(&config.client_properties)
            .map_err(|e| kafka_error("no client for look-ups", &e))?;
        let worker =
            Worker::start(Arc::clone(&consumer), lookups, config.topic.clone(), Arc::clone(&mailbox))
                .map_err(|e| StageError::Kafka(format!("no thread for requests: {e}")))?;
        let settings = &config.settings;
        let dead_letters = DeadLetterProducer::new(
            &config.client_properties,
            &config.dead_letter_topic,
            &config.topic,
            name,
            settings.max_dead_letter_payload_bytes,
        );
        let now = Instant::now();
        Ok(Self {
            pipeline: Pipeline::new(processor, config.topic.clone(), PipelineLimits::from(settings)),
            monitor: Monitor::new(name, health, Duration::from_millis(settings.stall_timeout_ms)),
            membership: Membership::new(config.session_timeout(), Arc::clone(&mailbox)),
            config,
            sink,
            resolver,
            dead_letters: Arc::new(dead_letters),
            consumer,
            worker,
            mailbox,
            runtime: Handle::current(),
            closed: VecDeque::new(),
            in_flight: BTreeMap::new(),
            queued_bytes: 0,
            rebalancing: Rebalancing::default(),
            pauses: Pauses::default(),
            parking: Parking::default(),
            retrying: None,
            ranges: RangeChecker::default(),
            stopping: false,
            stop_begun: None,
            is_commit_outstanding: false,
            confirming: Vec::new(),
            last_commit: now,
            is_watermark_outstanding: false,
            last_watermarks: now,
            topic_id: None,
            throttle: Throttle::default(),
            holding_since: None,
            topic_missing_since: None,
            started: now,
        })
    }

    /// Runs until a stop is asked for and everything is drained, or until an error ends it.
    pub fn run(mut self) -> Result<(), StageError> {
        let outcome = self
            .consumer
            .subscribe(&[&self.config.topic])
            .map_err(|e| kafka_error("can't subscribe", &e))
            .and_then(|()| self.turn_until_released());
        self.close();
        outcome
    }

    fn turn_until_released(&mut self) -> Result<(), StageError> {
        loop {
            while let Some(letter) = self.mailbox.take() {
                self.receive(letter)?;
            }
            if self.advance_rebalance()? {
                return Ok(());
            }
            let now_ms = self.now_ms();
            self.keep_rates(now_ms)?;
            let is_busy = self.take_burst()?;
            // While the sink is busy the open batch goes on growing: bigger batches when it is slow.
            let is_idle_sink = self.closed.is_empty() && self.in_flight.len() < self.max_in_flight();
            let is_due = self.holding_since.is_some() || self.pipeline.batcher(now_ms).is_due(now_ms);
            if is_idle_sink && is_due {
                self.close_batch()?;
            }
            self.dispatch();
            self.apply_back_pressure()?;
            self.commit_if_due();
            self.look_at_watermarks_if_due();
            self.check_topic_exists()?;
            let load = Load {
                is_holding: self.pipeline.ledger().open_records() > 0
                    || self.pipeline.ledger().unacknowledged_batches() > 0,
                bytes: self.held_bytes(),
            };
            self.monitor.report(self.pipeline.ledger(), &self.pauses, load)?;
            if !is_busy {
                let timeout = self.wait_timeout(is_idle_sink);
                self.mailbox.wait(timeout);
            }
        }
    }

    fn receive(&mut self, letter: Letter) -> Result<(), StageError> {
        match letter {
            Letter::Stop => self.begin_stop(),
            Letter::Rebalance(event) => self.rebalancing.push(event),
            Letter::LookedUp(found) => self.looked_up(found)?,
            Letter::SinkReady(result) => self.sink_ready(result)?,
            Letter::SinkReleased => self.rebalancing.sink_released(),
            Letter::Committed { commits, sent, result } => self.committed(&commits, sent, result)?,
            Letter::Confirm(reply) => self.confirm_membership(reply),
            Letter::Confirmed { sent, result } => self.membership_confirmed(sent, result),
            Letter::Watermarks(watermarks) => self.watermarks(watermarks)?,
            Letter::Delivered { batch_id, result } => self.delivered(batch_id, result)?,
            Letter::Waiting { batch_id, what } => {
                if self.in_flight.contains_key(&batch_id) {
                    // Known, and bounded by a deadline of its own: not a stall.
                    self.monitor.progress();
                    self.monitor.complain(ABOUT_SINK, what);
                }
            }
            Letter::SchemaAnswer { schema_id, answer } => self.schema_answer(schema_id, &answer)?,
            Letter::RegistryAway(detail) => {
                self.monitor.metrics.waiting_for_registry.set(1.0);
                self.monitor.complain(ABOUT_REGISTRY, detail);
            }
            Letter::Retry(letter) => self.receive_retry(*letter)?,
        }
        Ok(())
    }

    /// Takes records until there are none, or there is something else to do. Answers whether there may be more.
    fn take_burst(&mut self) -> Result<bool, StageError> {
        if self.holding_since.is_some() && !self.pauses.back_pressure() {
            return Ok(false);
        }
        let consumer = Arc::clone(&self.consumer);
        // An event that isn't a record looks like an empty queue: only two in a row count.
        let mut empty_polls = 0;
        for _ in 0..BURST_RECORDS {
            if self.is_held_to_rate() {
                return Ok(false);
            }
            match consumer.poll(Duration::ZERO) {
                None => {
                    empty_polls += 1;
                    if empty_polls == 2 {
                        return Ok(false);
                    }
                }
                Some(Err(error)) => self.consumer_error(&error)?,
                Some(Ok(message)) => {
                    empty_polls = 0;
                    self.take(&message)?;
                    if self.pipeline.is_full() {
                        self.close_batch()?;
                        return Ok(true);
                    }
                }
            }
        }
        Ok(true)
    }

    #[inline]
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<(), StageError> {
        let record = Record::of_message(message);
        // Given up partitions: whoever gets them next reads this again.
        if self.stopping || self.rebalancing.is_leaving(record.origin.partition) {
            return Ok(());
        }
        if self.pauses.any_standing() {
            match self.pauses.standstill(record.origin.partition) {
                Some(Standstill::Schema { .. }) => {
                    self.parking.hold(OwnedRecord::copy_of(&record));
                    return Ok(());
                }
                Some(Standstill::Upgrade { .. }) => return Ok(()),
                None => {}
            }
        }
        if !self.throttle.is_idle() {
            self.count_replayed(record.origin)?;
        }
        self.offer(&record).map(|_| ())
    }

    /// Gives a record to the processor; false if its partition stands still now.
    #[inline]
    fn offer(&mut self, record: &Record<'_>) -> Result<bool, StageError> {
        match self.pipeline.offer(record).map_err(|e| self.processor_error(&e))? {
            Offered::Taken | Offered::Refused => {
                self.monitor.inconsistent(self.ranges.read(record.origin));
                Ok(true)
            }
            Offered::Skipped => Ok(true),
            Offered::SchemaMissing(schema_id) => self.schema_missing(record, schema_id),
            Offered::UpgradeNeeded(what) => {
                let Origin { partition, offset } = record.origin;
                tracing::error!(
                    processor = self.pipeline.name(),
                    partition,
                    offset,
                    "upgrade needed: {what}; the partition waits, others go on"
                );
                self.pauses.stand(partition, Standstill::Upgrade { offset, what });
                self.apply_pauses()?;
                Ok(false)
            }
        }
    }

    fn schema_missing(&mut self, record: &Record<'_>, schema_id: u32) -> Result<bool, StageError> {
        if let Some(verdict) = self.parking.verdict(schema_id) {
            if self.pipeline.refuse_unknown_schema(record, verdict.to_string()) {
                self.monitor.inconsistent(self.ranges.read(record.origin));
            }
            return Ok(true);
        }
        self.parking
            .ask(schema_id, &self.resolver, &self.mailbox, &self.runtime)
            .map_err(|detail| StageError::Processor { processor: self.pipeline.name(), detail })?;
        self.parking.put_back(OwnedRecord::copy_of(record));
        self.pauses.stand(record.origin.partition, Standstill::Schema { schema_id });
        self.apply_pauses()?;
        Ok(false)
    }

    fn schema_answer(&mut self, schema_id: u32, answer: &Result<(), ResolveError>) -> Result<(), StageError> {
        self.parking.answered(schema_id, answer);
        if !self.parking.is_asking() {
            self.monitor.metrics.waiting_for_registry.set(0.0);
            self.monitor.withdraw(ABOUT_REGISTRY);
        }
        let waiting: Vec<i32> = self
            .pauses
            .standing()
            .filter(|(_, why)| **why == Standstill::Schema { schema_id })
            .map(|(partition, _)| partition)
            .collect();
        for partition in waiting {
            self.pauses.go_on(partition);
            while let Some(held) = self.parking.take_first(partition) {
                if !self.offer(&held.as_record())? {
                    break;
                }
                self.parking.went_through(schema_id);
            }
        }
        self.monitor.progress();
        self.apply_pauses()
    }

    pub(crate) fn apply_pauses(&mut self) -> Result<(), StageError> {
        let (pause, resume) = self.pauses.changes();
        let topic = &self.config.topic;
        if !pause.is_empty() {
            let list = kafka::list(topic, pause);
            self.consumer.pause(&list).map_err(|e| kafka_error("can't pause partitions", &e))?;
        }
        if !resume.is_empty() {
            let list = kafka::list(topic, resume);
            self.consumer.resume(&list).map_err(|e| kafka_error("can't resume partitions", &e))?;
        }
        Ok(())
    }

    fn consumer_error(&mut self, error: &KafkaError) -> Result<(), StageError> {
        if kafka::is_missing_topic(error) {
            self.topic_missing_since.get_or_insert_with(Instant::now);
            self.monitor.complain(ABOUT_KAFKA, kafka::missing_topic_help(&self.config.topic));
            return Ok(());
        }
        match kafka::severity(error, &self.config, self.pipeline.name()) {
            Severity::Final(detail) => Err(StageError::Kafka(detail)),
            Severity::Passing => {
                self.monitor.complain(ABOUT_KAFKA, error.to_string());
                Ok(())
            }
        }
    }

    fn check_topic_exists(&self) -> Result<(), StageError> {
        match self.topic_missing_since {
            Some(since) if since.elapsed() >= MISSING_TOPIC_GRACE => {
                Err(StageError::Kafka(kafka::missing_topic_help(&self.config.topic)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn processor_error(&self, error: &crate::ProcessError) -> StageError {
        StageError::Processor { processor: self.pipeline.name(), detail: error.to_string() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn wait_timeout(&mut self, is_idle_sink: bool) -> Duration {
        let now_ms = self.now_ms();
        let due = self.pipeline.batcher(now_ms).due_in_ms(now_ms).filter(|_| is_idle_sink);
        due.map_or(MAX_WAIT, |ms| Duration::from_millis(ms).min(MAX_WAIT))
    }

    /// Answers a rebalance that the end of the stage has cut short. Nothing of new partitions is read any more.
    fn answer_what_is_open(&mut self) {
        while let Some(letter) = self.mailbox.take() {
            if let Letter::Rebalance(event) = letter {
                self.rebalancing.push(event);
            }
        }
        for event in self.rebalancing.take_unanswered() {
            let answered = match event {
                RebalanceEvent::Assign(partitions) => {
                    kafka::answer_assignment(&self.consumer, &kafka::list(&self.config.topic, partitions))
                }
                RebalanceEvent::Revoke { partitions, .. } => {
                    kafka::answer_revocation(&self.consumer, &kafka::list(&self.config.topic, partitions))
                }
            };
            if let Err(error) = answered {
                tracing::warn!(processor = self.pipeline.name(), %error, "the group got no answer to a rebalance");
            }
        }
    }

    /// Leaves the group and lets go of everything. What a stop has left of its time may be spent on that: a member that
    /// goes without a word keeps its partitions until its session is over.
    fn close(mut self) {
        self.abort_in_flight();
        self.rebalancing.abort();
        self.parking.abort();
        self.consumer.context().set_closing();
        self.answer_what_is_open();
        self.consumer.unsubscribe();
        let name = self.pipeline.name();
        let spent = self.stop_begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let until = Instant::now() + STOP_LIMIT.saturating_sub(spent).clamp(LEAVE_LIMITS.0, LEAVE_LIMITS.1);
        let left = || until.saturating_duration_since(Instant::now());
        // The worker holds the consumer, too: as long as a request of its is under way, the group isn't left.
        let is_free = self.worker.stop(left() / 2);
        let consumer = self.consumer;
        let (closing, closed) = std::sync::mpsc::channel::<()>();
        let spawned = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
            drop(consumer);
            drop(closing);
        });
        let timed_out = Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        let is_closed = spawned.is_ok() && closed.recv_timeout(left()) != timed_out;
        self.worker.wait_for_lookups(left());
        if !is_free || !is_closed {
            tracing::warn!(processor = name, "Kafka didn't answer; the group notices by its session timeout");
        }
    }
}

pub(crate) fn kafka_error(what: &str, error: &KafkaError) -> StageError {
    StageError::Kafka(format!("{what}: {error}"))
}
