//! Giving a refused record to its processor once more.
//!
//! The record is read again at its own coordinates, by a short-lived consumer beside the stage's, and goes through the
//! same processor and sink as a batch of its own. No offset is moved. What is written to the dead-letter topic: before the
//! processor gets the record that a retry has started (a member whose local store has gone past the record learns of it
//! there), and after it what came of it. Neither holds up the stage: a trace that can't be written in time ends the retry,
//! before anything has happened or after everything has, and it can be made again.
//!
//! The payload that a dead letter carries is never used: a record that has left the log was erased, or a later copy of it
//! went through on its own.

use crate::{
    Effect, Origin, OwnedRecord, Processor, Record, ResolveError, SchemaResolver, Sink, StageConfig,
    StageError,
    control::Refusal,
    dead_letter::{
        OUTCOME_ALREADY_THERE, OUTCOME_APPLIED, OUTCOME_REFUSED, REASON_SINK_REFUSED, REASON_UNKNOWN_SCHEMA,
        Trace,
    },
    event_loop::{Letter, StageLoop},
    mailbox::Mailbox,
    metrics::{DEAD_LETTER_RETRIES, LABEL_OUTCOME, LABEL_PROCESSOR},
    pipeline::RetryOffered,
};
use axum::{Json, extract::Path, http::StatusCode};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// A retry is given up after this long; what the stage has begun by then goes on.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Reading the record may take this long.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Writing a trace to the dead-letter topic may take this long.
const TRACE_TIMEOUT: Duration = Duration::from_secs(10);
/// A record is given again after its schema was fetched, so many times at most.
const MAX_SCHEMA_ROUNDS: usize = 3;

/// Which record is to be given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The topic that the record stands in.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was appended, milliseconds since the Unix epoch, as its dead letter says: another record may stand there
    /// since the topic was made anew.
    #[serde(default)]
    pub appended_at_ms: Option<i64>,
}

/// What came of a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Retried {
    /// Its effect is durable in the view.
    Applied,
    /// The view held it before; nothing has changed.
    AlreadyThere,
    /// It was refused once more.
    Refused {
        /// A stable word.
        reason: String,
        /// What was wrong.
        detail: String,
    },
}

/// Why a retry was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// No stage of this process is of that processor and reads that topic.
    #[error("this process runs no {processor} over topic {topic}")]
    NoStage {
        /// The processor.
        processor: String,
        /// The topic.
        topic: String,
    },
    /// Another member of the group has the partition, or nobody.
    #[error("partition {partition} isn't assigned to this process; ask the one that has it")]
    NotOwned {
        /// The partition.
        partition: i32,
    },
    /// The stage hasn't come to it: it will process it by itself.
    #[error("offset {offset} of partition {partition} is still to be processed")]
    NotReached {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// The record is no longer there.
    #[error(
        "offset {offset} of partition {partition} has left the log: a later copy of the record went through on its own, or \
         it was erased; discard the dead letter"
    )]
    Gone {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// Another record stands there now.
    #[error(
        "another record stands at offset {offset} of partition {partition} now: the topic was made anew since this one was \
         refused; import it again, then discard the dead letter"
    )]
    Another {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// Something needed doesn't answer, or the stage is busy: later.
    #[error("{0}; try again later")]
    NotNow(String),
    /// Nobody knows yet whether it was applied.
    #[error("no answer within {} s; the stage may still be at it: ask again", RETRY_TIMEOUT.as_secs())]
    TimedOut,
}

impl From<RetryError> for Refusal {
    fn from(error: RetryError) -> Self {
        let code = match &error {
            RetryError::NoStage { .. } => StatusCode::NOT_FOUND,
            RetryError::NotOwned { .. } | RetryError::NotReached { .. } => StatusCode::CONFLICT,
            RetryError::Gone { .. } | RetryError::Another { .. } => StatusCode::GONE,
            RetryError::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
            RetryError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        };
        Refusal::new(code, error.to_string())
    }
}

/// `POST /control/stages/{processor}/retry`.
pub(crate) async fn handle(
    Path(processor): Path<String>,
    Json(request): Json<RetryRequest>,
) -> Result<Json<Retried>, Refusal> {
    Ok(Json(retry(&processor, &request).await?))
}

/// Gives a record once more to the stage of this process that refused it.
pub async fn retry(processor: &str, request: &RetryRequest) -> Result<Retried, RetryError> {
    let stage = {
        let stages = lock();
        let found = stages.iter().find(|s| s.processor == processor && s.config.topic == request.topic);
        found.cloned().ok_or_else(|| RetryError::NoStage {
            processor: processor.to_owned(),
            topic: request.topic.clone(),
        })?
    };
    let result =
        tokio::time::timeout(RETRY_TIMEOUT, stage.retry(request)).await.unwrap_or(Err(RetryError::TimedOut));
    if let Ok(retried) = &result {
        let outcome = retried.outcome();
        metrics::counter!(DEAD_LETTER_RETRIES, LABEL_PROCESSOR => stage.processor, LABEL_OUTCOME => outcome)
            .increment(1);
        let (partition, offset) = (request.partition, request.offset);
        tracing::info!(
            processor = stage.processor,
            partition,
            offset,
            outcome,
            "a refused record was given again"
        );
    }
    result
}

impl Retried {
    fn outcome(&self) -> &'static str {
        match self {
            Retried::Applied => OUTCOME_APPLIED,
            Retried::AlreadyThere => OUTCOME_ALREADY_THERE,
            Retried::Refused { .. } => OUTCOME_REFUSED,
        }
    }
}

static RETRIERS: Mutex<Vec<Arc<Retrier>>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Arc<Retrier>>> {
    RETRIERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a running stage offers for retries.
pub(crate) struct Retrier {
    processor: &'static str,
    config: StageConfig,
    resolver: Arc<dyn SchemaResolver>,
    mailbox: Arc<Mailbox<Letter>>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Takes the stage off the list when it ends.
pub(crate) struct Registered(Arc<Retrier>);

impl Drop for Registered {
    fn drop(&mut self) {
        lock().retain(|retrier| !Arc::ptr_eq(retrier, &self.0));
    }
}

impl Retrier {
    pub fn register(
        processor: &'static str,
        config: StageConfig,
        resolver: Arc<dyn SchemaResolver>,
        mailbox: Arc<Mailbox<Letter>>,
    ) -> Registered {
        let retrier =
            Arc::new(Self { processor, config, resolver, mailbox, turn: tokio::sync::Mutex::default() });
        lock().push(Arc::clone(&retrier));
        Registered(retrier)
    }

    async fn retry(&self, request: &RetryRequest) -> Result<Retried, RetryError> {
        let _turn = self.turn.lock().await;
        let origin = Origin { partition: request.partition, offset: request.offset };
        // Asked first, without the record: who doesn't have the partition need not read it.
        self.ask(origin, None).await?;
        let (config, topic) = (self.config.client_properties.clone(), self.config.topic.clone());
        let read = tokio::task::spawn_blocking(move || read_record(&config, &topic, origin)).await;
        let record = read.unwrap_or_else(|error| Err(RetryError::NotNow(error.to_string())))?;
        if request.appended_at_ms.is_some_and(|at_ms| at_ms != record.as_record().appended_at_ms) {
            return Err(RetryError::Another { partition: request.partition, offset: request.offset });
        }
        // Before the processor has it: were the trace to fail later, the record would be in the fold and not in the view.
        self.order(origin, RetryOrder::Begin(Trace::retry_started(&record.as_record()))).await?;
        for _ in 0..MAX_SCHEMA_ROUNDS {
            let schema_id = match self.ask(origin, Some(record.clone())).await? {
                RetryAnswer::Ended(retried) => return Ok(retried),
                RetryAnswer::SchemaMissing(schema_id) => schema_id,
                RetryAnswer::Ready => return Err(RetryError::NotNow("the stage gave no answer".into())),
            };
            match self.resolver.resolve(schema_id).await {
                Ok(()) => {}
                Err(ResolveError::Unavailable(detail)) => {
                    return Err(RetryError::NotNow(format!("the schema registry: {detail}")));
                }
                Err(error) => {
                    let refusal = (REASON_UNKNOWN_SCHEMA.to_owned(), error.to_string());
                    return self.note_refusal(&record.as_record(), refusal).await;
                }
            }
        }
        Err(RetryError::NotNow("the record's schema was fetched, and the processor still misses it".into()))
    }

    async fn ask(&self, origin: Origin, record: Option<OwnedRecord>) -> Result<RetryAnswer, RetryError> {
        self.order(origin, record.map_or(RetryOrder::Look, RetryOrder::Give)).await
    }

    async fn note_refusal(
        &self,
        record: &Record<'_>,
        refusal: (String, String),
    ) -> Result<Retried, RetryError> {
        let trace = Trace::retry_started(record);
        match self.order(record.origin, RetryOrder::Note(trace, refusal)).await? {
            RetryAnswer::Ended(retried) => Ok(retried),
            _ => Err(RetryError::NotNow("the stage gave no answer".into())),
        }
    }

    async fn order(&self, origin: Origin, order: RetryOrder) -> Result<RetryAnswer, RetryError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.post(Letter::Retry(Box::new(RetryLetter { origin, order, reply })));
        answer.await.unwrap_or_else(|_| Err(RetryError::NotNow("the stage has ended".into())))
    }
}

/// What the loop is asked to do.
#[derive(Debug)]
enum RetryOrder {
    /// To say whether the record can be given again at all.
    Look,
    /// To note that it is about to be given.
    Begin(Trace),
    /// To give it to the processor.
    Give(OwnedRecord),
    /// To note that it is refused, for this reason.
    Note(Trace, (String, String)),
}

#[derive(Debug)]
enum RetryAnswer {
    Ready,
    SchemaMissing(u32),
    Ended(Retried),
}

type Reply = oneshot::Sender<Result<RetryAnswer, RetryError>>;

/// A retry on its way to the loop.
#[derive(Debug)]
pub(crate) struct RetryLetter {
    origin: Origin,
    order: RetryOrder,
    reply: Reply,
}

/// A retry whose batch is on its way.
#[derive(Debug)]
pub(crate) struct Retrying {
    batch_id: u64,
    trace: Trace,
    effect: Effect,
    reply: Reply,
}

impl<P, S> StageLoop<P, S>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    pub(crate) fn receive_retry(&mut self, letter: RetryLetter) -> Result<(), StageError> {
        let RetryLetter { origin, order, reply } = letter;
        if let Err(error) = self.can_retry(origin) {
            let _ = reply.send(Err(error));
            return Ok(());
        }
        // Said before its trace is written: nothing is begun that can't be gone on with.
        let is_beginning = matches!(order, RetryOrder::Look | RetryOrder::Begin(_));
        if is_beginning && self.pipeline.is_restoring(origin.partition) {
            let _ = reply.send(Err(is_being_restored(origin.partition)));
            return Ok(());
        }
        match order {
            RetryOrder::Look => drop(reply.send(Ok(RetryAnswer::Ready))),
            RetryOrder::Begin(trace) => self.note(trace, RetryAnswer::Ready, "nothing was done", reply),
            RetryOrder::Note(trace, refusal) => self.end_retry(trace, Err(refusal), reply),
            RetryOrder::Give(record) => self.give_again(&record.as_record(), reply)?,
        }
        Ok(())
    }

    fn can_retry(&self, origin: Origin) -> Result<(), RetryError> {
        let Origin { partition, offset } = origin;
        let held = self.pipeline.ledger().durable_offset(partition);
        if self.stopping || held.is_none() || self.rebalancing.is_leaving(partition) {
            return Err(RetryError::NotOwned { partition });
        }
        // Its dead letter may still be on its way, too.
        if held.is_some_and(|durable| offset >= durable) {
            return Err(RetryError::NotReached { partition, offset });
        }
        match self.retrying {
            Some(_) => Err(RetryError::NotNow("another retry is on its way".into())),
            None => Ok(()),
        }
    }

    fn give_again(&mut self, record: &Record<'_>, reply: Reply) -> Result<(), StageError> {
        self.close_batch()?;
        let Origin { partition, offset } = record.origin;
        let answer = match self.pipeline.retry(record).map_err(|e| self.processor_error(&e))? {
            RetryOffered::Taken { closed, effect } => {
                let Some(trace) = closed.retry.clone() else { return Ok(()) };
                self.retrying = Some(Retrying { batch_id: closed.batch.id, trace, effect, reply });
                self.queued_bytes += closed.held_bytes;
                self.closed.push_back(*closed);
                self.dispatch();
                return Ok(());
            }
            RetryOffered::Refused { reason, detail } => {
                self.end_retry(Trace::retry_started(record), Err((reason.to_owned(), detail)), reply);
                return Ok(());
            }
            RetryOffered::SchemaMissing(schema_id) => Ok(RetryAnswer::SchemaMissing(schema_id)),
            RetryOffered::NotAssigned => Err(RetryError::NotOwned { partition }),
            RetryOffered::NotReached => Err(RetryError::NotReached { partition, offset }),
            RetryOffered::Restoring => Err(is_being_restored(partition)),
        };
        let _ = reply.send(answer);
        Ok(())
    }

    /// A batch was acknowledged to the processor; if it was a retry, that has come to its end.
    pub(crate) fn retry_delivered(&mut self, batch_id: u64, refused: Option<String>) {
        if let Some(Retrying { trace, effect, reply, .. }) = self.retrying.take_if(|r| r.batch_id == batch_id)
        {
            let result = match refused {
                Some(detail) => Err((REASON_SINK_REFUSED.to_owned(), detail)),
                None => Ok(effect),
            };
            self.end_retry(trace, result, reply);
        }
    }

    /// Partitions are gone: what a retry wrote of them is in nobody's state.
    pub(crate) fn forget_retry(&mut self, partitions: &[i32]) {
        let gone = self.retrying.take_if(|retrying| partitions.contains(&retrying.trace.origin.partition));
        if let Some(Retrying { trace, reply, .. }) = gone {
            let _ = reply.send(Err(RetryError::NotOwned { partition: trace.origin.partition }));
        }
    }

    /// Writes what came of it, then answers.
    fn end_retry(&self, trace: Trace, result: Result<Effect, (String, String)>, reply: Reply) {
        let retried = match result {
            Ok(Effect::Applied) => Retried::Applied,
            Ok(Effect::AlreadyThere) => Retried::AlreadyThere,
            Err((reason, detail)) => Retried::Refused { reason, detail },
        };
        let refusal = match &retried {
            Retried::Refused { reason, detail } => Some((reason.clone(), detail.clone())),
            _ => None,
        };
        let trace = trace.ended(retried.outcome(), refusal);
        let state = match &retried {
            Retried::Refused { .. } => "it was refused again",
            Retried::Applied | Retried::AlreadyThere => "it went through",
        };
        self.note(trace, RetryAnswer::Ended(retried), state, reply);
    }

    /// Writes a trace beside the loop, then answers; `state` says how things stand if it can't be written.
    fn note(&self, trace: Trace, answer: RetryAnswer, state: &'static str, reply: Reply) {
        let (dead_letters, name) = (Arc::clone(&self.dead_letters), self.pipeline.name());
        self.runtime.spawn(async move {
            let waiting = |what| tracing::warn!(processor = name, "the trace of a retry waits: {what}");
            let written =
                tokio::time::timeout(TRACE_TIMEOUT, dead_letters.write_trace(&trace, &waiting)).await;
            let why = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!(
                    "topic {} took no record within {} s",
                    dead_letters.topic(),
                    TRACE_TIMEOUT.as_secs()
                )),
            };
            let _ = reply.send(match why {
                None => Ok(answer),
                Some(why) => Err(RetryError::NotNow(format!("{state}, and that could not be noted: {why}"))),
            });
        });
    }
}

fn is_being_restored(partition: i32) -> RetryError {
    RetryError::NotNow(format!("the state of partition {partition} is being restored"))
}

/// Reads one record; blocks.
fn read_record(
    client_properties: &[(String, String)],
    topic: &str,
    origin: Origin,
) -> Result<OwnedRecord, RetryError> {
    let Origin { partition, offset } = origin;
    let gone = || RetryError::Gone { partition, offset };
    let failed = |error: KafkaError| RetryError::NotNow(format!("the record could not be read: {error}"));
    let mut config: ClientConfig = client_properties.iter().cloned().collect();
    config
        .set("group.id", "claims.retry")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", "1024");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    let (low, high) = consumer.fetch_watermarks(topic, partition, READ_TIMEOUT).map_err(failed)?;
    if !(low..high).contains(&offset) {
        return Err(gone());
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
    consumer.assign(&list).map_err(failed)?;
    let deadline = Instant::now() + READ_TIMEOUT;
    while Instant::now() < deadline {
        match consumer.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                let record = Record::of_message(&message);
                return if record.origin == origin { Ok(OwnedRecord::copy_of(&record)) } else { Err(gone()) };
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Err(gone()),
            // The client connects again by itself.
            Some(Err(_)) | None => {}
        }
    }
    Err(RetryError::NotNow(format!("the record could not be read within {} s", READ_TIMEOUT.as_secs())))
}
