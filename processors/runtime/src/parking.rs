//! Records that wait for their writer's schema, and the asking for it.

use crate::{ResolveError, SchemaResolver, event_loop::Letter, mailbox::Mailbox, record::OwnedRecord};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A verdict that an id is unknown holds this long; after that the registry is asked again.
const VERDICT_TTL: Duration = Duration::from_secs(30);
/// Verdicts remembered at most.
const MAX_VERDICTS: usize = 1_024;
/// Times that one id may be asked for again although it was fetched.
const MAX_USELESS_FETCHES: u32 = 3;

/// Parked partitions, and the schemas asked for.
#[derive(Default)]
pub(crate) struct Parking {
    /// Per partition, the records held back in order: the one that misses its schema first. More than one is there
    /// only if the client gave out a record after it was told to pause.
    held: BTreeMap<i32, VecDeque<OwnedRecord>>,
    asking: BTreeMap<u32, AbortHandle>,
    verdicts: BTreeMap<u32, (ResolveError, Instant)>,
    fetched: BTreeMap<u32, u32>,
}

impl Parking {
    /// Holds a record back.
    pub fn hold(&mut self, record: OwnedRecord) {
        self.held.entry(record.origin.partition).or_default().push_back(record);
    }

    /// The first record held of a partition, to be tried again.
    pub fn take_first(&mut self, partition: i32) -> Option<OwnedRecord> {
        self.held.get_mut(&partition)?.pop_front()
    }

    /// Puts back what still can't be processed.
    pub fn put_back(&mut self, record: OwnedRecord) {
        self.held.entry(record.origin.partition).or_default().push_front(record);
    }

    /// Forgets a partition: whoever gets it reads the records again.
    pub fn forget(&mut self, partition: i32) {
        self.held.remove(&partition);
    }

    /// Why no schema of this id will be had, if that was found out lately.
    pub fn verdict(&mut self, schema_id: u32) -> Option<ResolveError> {
        let (verdict, at) = self.verdicts.get(&schema_id)?;
        if at.elapsed() < VERDICT_TTL {
            return Some(verdict.clone());
        }
        self.verdicts.remove(&schema_id);
        None
    }

    /// Asks for a schema, unless that is under way. An error if the schema was fetched several times already and the
    /// processor still misses it.
    pub fn ask(
        &mut self,
        schema_id: u32,
        resolver: &Arc<dyn SchemaResolver>,
        mailbox: &Arc<Mailbox<Letter>>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<(), String> {
        if self.fetched.get(&schema_id).is_some_and(|&times| times >= MAX_USELESS_FETCHES) {
            return Err(format!("schema {schema_id} was fetched, and the processor still misses it"));
        }
        self.asking.entry(schema_id).or_insert_with(|| {
            runtime.spawn(ask(schema_id, Arc::clone(resolver), Arc::clone(mailbox))).abort_handle()
        });
        Ok(())
    }

    /// The registry's answer.
    pub fn answered(&mut self, schema_id: u32, answer: &Result<(), ResolveError>) {
        self.asking.remove(&schema_id);
        match answer {
            Ok(()) => *self.fetched.entry(schema_id).or_default() += 1,
            Err(verdict) => {
                if self.verdicts.len() >= MAX_VERDICTS {
                    self.verdicts.pop_first();
                }
                self.verdicts.insert(schema_id, (verdict.clone(), Instant::now()));
            }
        }
    }

    /// A record with this schema went through.
    pub fn went_through(&mut self, schema_id: u32) {
        self.fetched.remove(&schema_id);
    }

    /// Whether any schema is being asked for.
    pub fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Stops asking.
    pub fn abort(&mut self) {
        std::mem::take(&mut self.asking).into_values().for_each(|task| task.abort());
    }
}

/// Asks until there is an answer, however long the registry is away.
async fn ask(schema_id: u32, resolver: Arc<dyn SchemaResolver>, mailbox: Arc<Mailbox<Letter>>) {
    let mut backoff = ExponentialBuilder::new()
        .with_min_delay(MIN_BACKOFF)
        .with_max_delay(MAX_BACKOFF)
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        match resolver.resolve(schema_id).await {
            Err(ResolveError::Unavailable(detail)) => mailbox.post(Letter::RegistryAway(detail)),
            answer => return mailbox.post(Letter::SchemaAnswer { schema_id, answer }),
        }
        tokio::time::sleep(backoff.next().unwrap_or(MAX_BACKOFF)).await;
    }
}
