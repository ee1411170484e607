//! Batches of claims into the tables.
//!
//! Rows of one partition go together, and so do small groups of rows for one coordinator ([`packing`](super::packing)).
//! Nothing is read before it is written.

use super::{
    errors,
    packing::{self, Fingerprint, MAX_STATEMENTS, Request},
    rows::{ClaimRow, ListRow, Op, TimelineRow},
    schema,
    statements::Statements,
};
use crate::{
    metrics as names,
    places::{ListView, Place, places, shard},
    processor::{ClaimWrite, NAME},
};
use claims_runtime::SinkError;
use claims_schemas::EventType;
use claims_topology::{config::CqlConfig, source::SourceTopic};
use futures::{StreamExt, stream::FuturesUnordered};
use scylla::{
    client::session::Session,
    statement::batch::{Batch, BatchType},
};
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

/// Claims whose statements are held in memory at once.
const MAX_CLAIMS_AT_ONCE: usize = 4_096;
/// Partitions of list views remembered as noted, at most; beyond that they are noted again.
const MAX_KNOWN_PARTITIONS: usize = 200_000;
/// The longest value that a partition key may hold, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// Writes claims into the CQL tables.
pub struct CqlSink {
    session: Session,
    statements: Statements,
    keyspace: String,
    max_in_flight: usize,
    known_partitions: Mutex<HashSet<Fingerprint>>,
}

/// A partition of a list view: view, tenant, key, bucket, shard.
type PartitionKey<'a> = (ListView, &'a str, &'a str, i32, i16);

/// Partitions to note under one view, tenant and key, by bucket and shard.
type Notes<'a> = HashMap<(i32, i16), Op<'a>>;

impl CqlSink {
    /// Connects, makes what is missing, and prepares the statements.
    pub async fn open(config: &CqlConfig) -> Result<Self, SinkError> {
        let session = super::connect(config).await?;
        schema::ensure(&session, config).await?;
        let statements = Statements::prepare(&session, &config.keyspace).await?;
        Ok(Self {
            session,
            statements,
            keyspace: config.keyspace.clone(),
            max_in_flight: config.max_in_flight_statements.max(1),
            known_partitions: Mutex::new(HashSet::new()),
        })
    }

    /// Notes the topic that the claims come from; refused if the rows are of a former one of that name.
    pub async fn note_topic(&self, topic: &str, source: &SourceTopic) -> Result<(), SinkError> {
        super::source::note(&self.session, &self.keyspace, topic, source).await
    }

    /// Writes claims, each with its last state; `Ok` means durable. Writing them again changes nothing.
    pub async fn write(&self, writes: &[Arc<ClaimWrite>]) -> Result<(), SinkError> {
        writes.iter().try_for_each(|write| check_keys(write))?;
        for writes in writes.chunks(MAX_CLAIMS_AT_ONCE) {
            self.write_some(writes).await?;
        }
        Ok(())
    }

    async fn write_some(&self, writes: &[Arc<ClaimWrite>]) -> Result<(), SinkError> {
        let now: Vec<Vec<Place>> = writes.iter().map(|write| places(&write.claim.state)).collect();
        let requests = self.packed(self.requests(writes, &now));
        let statements: usize = requests.iter().map(|r| r.ops.len()).sum();
        let written = self.execute_all(requests).await;
        let status = if written.is_ok() { "ok" } else { "error" };
        metrics::counter!(
            names::PROJECTIONS_UPDATED_TOTAL, "service" => NAME, "projection_type" => "cql", "status" => status
        )
        .increment(statements as u64);
        match written {
            Err(SinkError::Poison(detail)) => Err(self.blame(detail).await),
            written => written,
        }
    }

    fn requests<'a>(&self, writes: &'a [Arc<ClaimWrite>], now: &'a [Vec<Place>]) -> Vec<Request<Op<'a>>> {
        let mut requests = Vec::with_capacity(writes.len() * 3);
        let mut lists: HashMap<PartitionKey<'_>, Vec<Op<'a>>> = HashMap::new();
        let mut notes: HashMap<(ListView, &str, &str), Notes<'a>> = HashMap::new();
        let known = self.known_partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for (write, now) in writes.iter().zip(now) {
            packing::push_partition(&mut requests, claim_ops(write), Op::approximate_bytes);
            let state = &write.claim.state;
            let tenant = state.tenant_id.as_str();
            let shard = shard(&state.claim_id);
            for place in now {
                let bucket = place.bucket().0;
                let key = place.key.as_str();
                let row = Box::new(ListRow::of(write, place));
                lists
                    .entry((place.view, tenant, key, bucket, shard))
                    .or_default()
                    .push(Op::List(place.view, row));
                if !known.contains(&fingerprint((place.view, tenant, key, bucket, shard))) {
                    let partitions = notes.entry((place.view, tenant, key)).or_default();
                    partitions.entry((bucket, shard)).or_insert_with(|| Op::partition(write, place));
                }
            }
            for place in &write.left {
                #[cfg(feature = "sabotage")]
                if claims_runtime::sabotage::is_asked_for(claims_runtime::sabotage::DROP_PLACE_DELETES) {
                    continue;
                }
                let partition = (place.view, tenant, place.key.as_str(), place.bucket().0, shard);
                lists.entry(partition).or_default().push(Op::delete(write, place));
            }
        }
        drop(known);
        for ops in lists.into_values() {
            packing::push_partition(&mut requests, ops, Op::approximate_bytes);
        }
        for ((view, tenant, key), partitions) in notes {
            let (places, ops): (Vec<_>, Vec<_>) = partitions.into_iter().unzip();
            let before = requests.len();
            packing::push_partition(&mut requests, ops, Op::approximate_bytes);
            for (request, places) in requests[before..].iter_mut().zip(places.chunks(MAX_STATEMENTS)) {
                request.notes = places
                    .iter()
                    .map(|&(bucket, shard)| fingerprint((view, tenant, key, bucket, shard)))
                    .collect();
            }
        }
        requests
    }

    /// Requests for one coordinator (node and shard) together.
    fn packed<'a>(&self, requests: Vec<Request<Op<'a>>>) -> Vec<Request<Op<'a>>> {
        let cluster = self.session.get_cluster_state();
        packing::pack(requests, |request| {
            let op = request.ops.first()?;
            let statement = self.statements.of(op);
            // Where it can't be told, they go together all the same: any node forwards what isn't its own.
            let token = statement.calculate_token(op).ok().flatten()?;
            let table = statement.get_table_spec()?;
            let replicas = cluster.get_token_endpoints(&self.keyspace, table.table_name(), token);
            replicas.first().map(|(node, shard)| (node.host_id, *shard))
        })
    }

    async fn execute_all(&self, requests: Vec<Request<Op<'_>>>) -> Result<(), SinkError> {
        let mut requests = requests.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.max_in_flight {
                let Some(request) = requests.next() else { break };
                running.push(self.execute(request));
            }
            match running.next().await {
                Some(done) => done?,
                None => return Ok(()),
            }
        }
    }

    async fn execute(&self, request: Request<Op<'_>>) -> Result<(), SinkError> {
        let Request { ops, notes, .. } = request;
        let done = match ops.as_slice() {
            [op] => self.session.execute_unpaged(self.statements.of(op), op).await.map(drop),
            ops => {
                let mut batch = Batch::new(BatchType::Unlogged);
                batch.set_is_idempotent(true);
                ops.iter().for_each(|op| batch.append_statement(self.statements.of(op).clone()));
                self.session.batch(&batch, ops).await.map(drop)
            }
        };
        done.map_err(|e| errors::classify(&e))?;
        if !notes.is_empty() {
            let mut known = self.known_partitions.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() + notes.len() > MAX_KNOWN_PARTITIONS {
                known.clear();
            }
            known.extend(notes);
        }
        Ok(())
    }

    /// An "invalid" answer may be the row's fault, or that of a table dropped or altered under us: the second would
    /// refuse every row, and must not send them all to the dead letters.
    async fn blame(&self, detail: String) -> SinkError {
        match Statements::prepare(&self.session, &self.keyspace).await {
            Ok(_) => SinkError::Poison(detail),
            Err(SinkError::Transient(away)) => SinkError::Transient(away),
            Err(SinkError::Poison(why) | SinkError::Fatal(why)) => SinkError::Fatal(why),
        }
    }
}

/// The claim's row and its timeline: one partition key.
fn claim_ops(write: &ClaimWrite) -> Vec<Op<'_>> {
    let mut ops = Vec::with_capacity(2 + write.timeline.len());
    ops.push(Op::Claim(Box::new(ClaimRow::of(write))));
    if write.timeline.iter().any(|entry| entry.event_type == EventType::ClaimErased) {
        ops.push(Op::erase_timeline(write));
    }
    ops.extend(write.timeline.iter().map(|entry| Op::Timeline(TimelineRow::of(write, entry))));
    ops
}

/// Two keys with one fingerprint are not to be expected, and a set of them stays small.
fn fingerprint(partition: PartitionKey<'_>) -> Fingerprint {
    // The hasher's keys are fixed, and two salts make two independent halves.
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, partition).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Validation has seen to this; a key that no partition can have must never become an endless retry.
fn check_keys(write: &ClaimWrite) -> Result<(), SinkError> {
    let state = &write.claim.state;
    let keys = [
        Some(&state.tenant_id),
        Some(&state.claim_id),
        state.agent_id.value.as_ref(),
        state.customer_id.value.as_ref(),
    ];
    for key in keys.into_iter().flatten() {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(SinkError::Poison(format!(
                "an id of {} bytes can't be a key; 1 to {MAX_KEY_BYTES} can",
                key.len()
            )));
        }
    }
    Ok(())
}
