//! Consume, decode, fold in memory; of each batch the changed claims, one statement per row.

use super::consume::{Work, consume};
use anyhow::{Context, Result};
use claims_current_state::{
    ClaimWrite,
    claim::Claim,
    cql::{
        rows::{ClaimRow, ListRow, Op, TimelineRow},
        sink::CqlSink,
        statements::Statements,
    },
    places::{Place, places},
    words::TimelineEntry,
};
use claims_schemas::{Event, EventType, SchemaCache, Status, fold::Applied};
use claims_topology::config::CqlConfig;
use claims_verifier::namespace::{Namespace, REQUEST_TIMEOUT};
use futures::{StreamExt, stream::FuturesUnordered};
use rdkafka::{Message, message::BorrowedMessage};
use scylla::client::session::Session;
use std::collections::HashMap;

/// Statements under way; more gain nothing.
const IN_FLIGHT: usize = 256;

/// What a batch changes of a claim.
#[derive(Default)]
struct Change {
    before: Vec<Place>,
    timeline: Vec<TimelineEntry>,
}

/// Every claim that was ever seen, and those that the batch has changed.
struct Fold {
    schemas: SchemaCache,
    claims: HashMap<String, Claim>,
    changed: HashMap<String, Change>,
}

impl Fold {
    fn new(schemas: SchemaCache) -> Self {
        Self { schemas, claims: HashMap::new(), changed: HashMap::new() }
    }

    fn apply(&mut self, event: &Event) {
        let key = event.partition_key();
        let claim = self.claims.entry(key.clone());
        let claim = claim.or_insert_with(|| Claim::empty(&event.tenant_id, &event.claim_id));
        let change = self.changed.entry(key).or_insert_with(|| {
            let is_new = claim.state.revision() == 0;
            Change { before: if is_new { Vec::new() } else { places(&claim.state) }, timeline: Vec::new() }
        });
        if let Applied::Changed { .. } = claim.apply(&event.into()) {
            change.timeline.push(TimelineEntry::of(&event.into()));
        }
    }
}

impl Work for Fold {
    type Row = ClaimWrite;

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let event = self.schemas.decode(message.payload().context("a tombstone")?)?;
        self.apply(&event);
        Ok(())
    }

    fn batch(&mut self) -> Vec<ClaimWrite> {
        let Self { claims, changed, .. } = self;
        let write = |(key, change): (String, Change)| {
            let Change { before: mut left, mut timeline } = change;
            let claim = claims.get(&key)?.clone();
            let now = places(&claim.state);
            left.retain(|place| !now.contains(place));
            if claim.state.status() == Status::Erased {
                timeline.retain(|entry| entry.event_type == EventType::ClaimErased);
            }
            Some(ClaimWrite { partition: 0, claim, left, timeline, origins: Vec::new() })
        };
        changed.drain().filter_map(write).collect()
    }
}

/// Into the product's own tables.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let config = CqlConfig {
        nodes: vec![namespace.cql()],
        keyspace: namespace.name.clone(),
        request_timeout_ms: REQUEST_TIMEOUT.as_millis() as u64,
        ..CqlConfig::default()
    };
    drop(CqlSink::open(&config).await?);
    let session = namespace.cql_session().await?;
    let statements = Statements::prepare(&session, &namespace.name).await?;
    let work = Fold::new(super::schemas(namespace).await?);
    consume(namespace, work, async |writes: Vec<ClaimWrite>| write(&session, &statements, &writes).await)
        .await
}

async fn write(session: &Session, statements: &Statements, writes: &[ClaimWrite]) -> Result<()> {
    let now: Vec<Vec<Place>> = writes.iter().map(|write| places(&write.claim.state)).collect();
    let mut under_way = FuturesUnordered::new();
    for op in writes.iter().zip(&now).flat_map(|(write, now)| ops(write, now)) {
        if under_way.len() >= IN_FLIGHT {
            under_way.next().await.transpose()?;
        }
        under_way.push(execute(session, statements, op));
    }
    while let Some(written) = under_way.next().await {
        written?;
    }
    Ok(())
}

/// The claim, its new timeline entries, the lists that it is in now, and those that it has left.
fn ops<'a>(write: &'a ClaimWrite, now: &'a [Place]) -> Vec<Op<'a>> {
    let mut ops = vec![Op::Claim(Box::new(ClaimRow::of(write)))];
    if write.timeline.iter().any(|entry| entry.event_type == EventType::ClaimErased) {
        ops.push(Op::erase_timeline(write));
    }
    ops.extend(write.timeline.iter().map(|entry| Op::Timeline(TimelineRow::of(write, entry))));
    ops.extend(now.iter().map(|place| Op::List(place.view, Box::new(ListRow::of(write, place)))));
    ops.extend(write.left.iter().map(|place| Op::delete(write, place)));
    ops
}

async fn execute(session: &Session, statements: &Statements, op: Op<'_>) -> Result<()> {
    session.execute_unpaged(statements.of(&op), &op).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_benches::life;
    use claims_current_state::places::ListView;

    #[test]
    fn a_batch_writes_a_claim_once_and_deletes_the_places_it_has_left() {
        let mut fold = Fold::new(SchemaCache::default());
        let events = life(42);
        let (first, later) = events.split_at(2);
        first.iter().for_each(|event| fold.apply(event));
        let writes = fold.batch();
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].timeline.len(), writes[0].left.len()), (2, 0));
        // Claim, two entries; the lists by status, agent, customer and time of creation.
        assert_eq!(ops(&writes[0], &places(&writes[0].claim.state)).len(), 1 + 2 + 4);
        later.iter().chain(first).for_each(|event| fold.apply(event));
        let writes = fold.batch();
        assert_eq!(writes[0].claim.state.status(), Status::Closed);
        // Copies have no entries.
        assert_eq!(writes[0].timeline.len(), later.len());
        let left: Vec<_> = writes[0].left.iter().map(|place| (place.view, place.key.as_str())).collect();
        assert_eq!(left, [(ListView::Status, "ASSIGNED")]);
        assert!(fold.batch().is_empty());
    }
}
